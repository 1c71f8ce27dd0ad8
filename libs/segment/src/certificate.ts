import { createPrivateKey, createPublicKey, type KeyObject, sign, verify } from 'node:crypto';
import { CairnError } from '@cairn/base';

/** Certificates of drills: JSON with an Ed25519 signature over itself; docs/format.md describes them. */
const FORMAT = 'cairn.certificate';
const FORMAT_VERSION = 1;
/** DER before a raw Ed25519 key: private (PKCS #8) and public (SPKI). */
const PRIVATE_HEAD = Buffer.from('302e020100300506032b657004220420', 'hex');
const PUBLIC_HEAD = Buffer.from('302a300506032b6570032100', 'hex');
export const CERTIFICATE_SEED_BYTES = 32;

/** What a drill did and found. */
export interface CertificateBody {
  readonly cluster_id: string;
  readonly cairn_version: string;
  readonly drill_id: number;
  readonly snapshot: {
    readonly id: number;
    readonly name: string;
    readonly database: string;
    readonly collection: string;
    readonly collection_id: number;
    readonly timestamp: number;
    readonly created_ms: number;
    readonly metadata_key: string;
    readonly metadata_crc32c: string;
    readonly format_version: number;
  };
  readonly started_ms: number;
  readonly ended_ms: number;
  readonly restored: { readonly segments: number; readonly objects: number; readonly bytes: number };
  /** Absent where the collection has no index on some vector field and cannot be loaded. */
  readonly counted_rows: number | null;
  readonly searched: {
    readonly field: string;
    readonly metric: string;
    readonly queries: number;
    readonly hits: number;
    readonly found_themselves: number;
  } | null;
  readonly content: { readonly visible_rows: number; readonly snapshot_hash: string; readonly restored_hash: string };
}

export interface Certificate {
  readonly body: CertificateBody;
  /** Raw, base64: as in `cairn status`. */
  readonly publicKey: string;
}

function privateKey(seed: Uint8Array): KeyObject {
  return createPrivateKey({ key: Buffer.concat([PRIVATE_HEAD, seed]), format: 'der', type: 'pkcs8' });
}

/** Raw public key of a 32-byte seed, base64. */
export function certificateKey(seed: Uint8Array): string {
  const der = createPublicKey(privateKey(seed)).export({ format: 'der', type: 'spki' });
  return der.subarray(PUBLIC_HEAD.byteLength).toString('base64');
}

/** Text of a certificate. The signature is over the compact JSON of everything before it, keys in the order of the file. */
export function signCertificate(body: CertificateBody, seed: Uint8Array): string {
  const signed = { format: FORMAT, format_version: FORMAT_VERSION, ...body, public_key: certificateKey(seed) };
  const signature = sign(null, Buffer.from(JSON.stringify(signed)), privateKey(seed)).toString('base64');
  return `${JSON.stringify({ ...signed, signature }, null, 1)}\n`;
}

/** InvalidParameter says why a text is no certificate, or is not as it was signed. With `publicKey`: nor signed by that key. */
export function verifyCertificate(text: string, publicKey?: string): Certificate {
  const bad = (reason: string) => new CairnError('InvalidParameter', `not a valid certificate: ${reason}`);
  let parsed: Record<string, unknown>;
  try {
    parsed = JSON.parse(text) as Record<string, unknown>;
  } catch {
    throw bad('it is no JSON');
  }
  const { signature, ...signed } = parsed;
  const { format, format_version: version, public_key: key, ...body } = signed;
  if (format !== FORMAT) throw bad(`it is no ${FORMAT}`);
  if (typeof version !== 'number' || version > FORMAT_VERSION)
    throw bad(`it was written by a newer version of Cairn: format ${String(version)}, this one reads up to ${FORMAT_VERSION}`);
  if (typeof signature !== 'string' || typeof key !== 'string') throw bad('it is not signed');
  if (publicKey !== undefined && publicKey !== key) throw bad(`it is signed by ${key}, not by ${publicKey}`);
  if (!isSignature(JSON.stringify(signed), signature, key)) throw bad('its signature does not fit what it says');
  return { body: body as unknown as CertificateBody, publicKey: key };
}

function isSignature(text: string, signature: string, key: string): boolean {
  try {
    const spki = Buffer.concat([PUBLIC_HEAD, Buffer.from(key, 'base64')]);
    return verify(null, Buffer.from(text), createPublicKey({ key: spki, format: 'der', type: 'spki' }), Buffer.from(signature, 'base64'));
  } catch {
    return false;
  }
}

/** What a certificate says, unproven; undefined when it is none at all. */
export function readCertificate(text: string): CertificateBody | undefined {
  try {
    const parsed = JSON.parse(text) as CertificateBody & { readonly format?: string; readonly format_version?: number };
    return parsed.format === FORMAT && parsed.format_version === FORMAT_VERSION ? parsed : undefined;
  } catch {
    return undefined;
  }
}
