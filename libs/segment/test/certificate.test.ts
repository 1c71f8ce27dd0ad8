import { describe, expect, it } from 'vitest';
import { type CertificateBody, certificateKey, signCertificate, verifyCertificate } from '../src/index.ts';

const seed = Buffer.from('9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60', 'hex');
const body: CertificateBody = {
  cluster_id: 'c',
  cairn_version: '1',
  drill_id: 7,
  snapshot: {
    id: 5,
    name: 's',
    database: 'default',
    collection: 'books',
    collection_id: 3,
    timestamp: 9,
    created_ms: 1,
    metadata_key: 'snapshots/3/metadata/5.json',
    metadata_crc32c: '00000001',
    format_version: 1,
  },
  started_ms: 1,
  ended_ms: 2,
  restored: { segments: 1, objects: 2, bytes: 3 },
  counted_rows: 10,
  searched: null,
  content: { visible_rows: 10, snapshot_hash: '0'.repeat(32), restored_hash: '0'.repeat(32) },
};

describe('a certificate', () => {
  it('uses Ed25519 as published (RFC 8032, test 1)', () => {
    expect(Buffer.from(certificateKey(seed), 'base64').toString('hex')).toBe(
      'd75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a',
    );
  });

  it('says what was signed, by whom', () => {
    const found = verifyCertificate(signCertificate(body, seed), certificateKey(seed));
    expect(found).toMatchObject({ body, publicKey: certificateKey(seed) });
  });

  it('is refused when any of it was changed, and when another signed it', () => {
    const text = signCertificate(body, seed);
    for (const [from, to] of [
      ['"counted_rows": 10', '"counted_rows": 11'],
      ['"name": "s"', '"name": "t"'],
      ['"segments": 1', '"segments": 2'],
    ] as const) {
      expect(text).toContain(from);
      expect(() => verifyCertificate(text.replace(from, to))).toThrow('its signature does not fit what it says');
    }
    const other = signCertificate(body, Buffer.alloc(32, 1));
    expect(() => verifyCertificate(other, certificateKey(seed))).toThrow('it is signed by');
    expect(() => verifyCertificate(text.replace('"format_version": 1', '"format_version": 2'))).toThrow('newer version of Cairn');
    expect(() => verifyCertificate('{}')).toThrow('not a valid certificate');
  });
});
