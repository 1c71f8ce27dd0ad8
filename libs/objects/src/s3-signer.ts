import { createHash, createHmac } from 'node:crypto';

/** Keys that requests are signed with; those of a role carry a session token and end at some time. */
export interface S3Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
}

export interface Signable {
  readonly method: string;
  /** As it is sent: encoded once, with a leading slash, without the query. */
  readonly path: string;
  /** Names and values as they are, not encoded. */
  readonly query: Readonly<Record<string, string>>;
  /** Names in lower case; `host` among them. */
  readonly headers: Readonly<Record<string, string>>;
  /** SHA-256 of the body in hex, or UNSIGNED_BODY. */
  readonly bodyHash: string;
}

/** The body is not part of the signature; a checksum header that is signed guards it. */
export const UNSIGNED_BODY = 'UNSIGNED-PAYLOAD';
export const EMPTY_HASH = sha256('');

const ALGORITHM = 'AWS4-HMAC-SHA256';
const PLAIN = /^[A-Za-z0-9_.~/-]*$/;

/**
 * AWS Signature Version 4 in headers, as S3 has it (paths are encoded once and not normalized). The signing key of a day is kept, so that a
 * request costs two hashes and one HMAC.
 * Source of the rules: "Authenticating Requests: Using the Authorization Header" of the S3 API reference; its examples are the test.
 */
export class S3Signer {
  readonly #region: string;
  #day = '';
  #secret = '';
  #key: Buffer = Buffer.alloc(0);

  constructor(region: string) {
    this.#region = region;
  }

  /** The headers given, and those that sign them. */
  sign(request: Signable, credentials: S3Credentials, nowMs: number): Record<string, string> {
    const time = new Date(nowMs).toISOString().replace(/[-:]|\.\d{3}/g, '');
    const headers: Record<string, string> = {
      ...request.headers,
      'x-amz-content-sha256': request.bodyHash,
      'x-amz-date': time,
      ...(credentials.sessionToken === undefined ? {} : { 'x-amz-security-token': credentials.sessionToken }),
    };
    const names = Object.keys(headers).sort();
    const signed = names.join(';');
    let canonical = `${request.method}\n${request.path}\n${encodeQuery(request.query)}\n`;
    for (const name of names) canonical += `${name}:${headers[name].trim()}\n`;
    canonical += `\n${signed}\n${request.bodyHash}`;
    const scope = `${time.slice(0, 8)}/${this.#region}/s3/aws4_request`;
    const text = `${ALGORITHM}\n${time}\n${scope}\n${sha256(canonical)}`;
    const signature = createHmac('sha256', this.#keyOf(time.slice(0, 8), credentials.secretAccessKey))
      .update(text)
      .digest('hex');
    headers.authorization = `${ALGORITHM} Credential=${credentials.accessKeyId}/${scope}, SignedHeaders=${signed}, Signature=${signature}`;
    return headers;
  }

  #keyOf(day: string, secret: string): Buffer {
    if (this.#day === day && this.#secret === secret) return this.#key;
    let key: Buffer = Buffer.from(`AWS4${secret}`);
    for (const part of [day, this.#region, 's3', 'aws4_request']) key = createHmac('sha256', key).update(part).digest();
    this.#day = day;
    this.#secret = secret;
    this.#key = key;
    return key;
  }
}

export function sha256(body: string | Uint8Array): string {
  return createHash('sha256').update(body).digest('hex');
}

/** Percent-encoded but for letters, digits, `-._~` and slashes. */
export function encodePath(path: string): string {
  return PLAIN.test(path) ? path : path.split('/').map(encode).join('/');
}

/** In the order and the encoding that is signed, so that what is sent is what was signed; empty without parameters. */
export function encodeQuery(query: Readonly<Record<string, string>>): string {
  const pairs = Object.entries(query).map(([name, value]) => [encode(name), encode(value)] as const);
  pairs.sort(([a], [b]) => (a < b ? -1 : 1));
  return pairs.map(([name, value]) => `${name}=${value}`).join('&');
}

function encode(text: string): string {
  return encodeURIComponent(text).replace(/[!'()*]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`);
}
