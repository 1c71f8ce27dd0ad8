import http, { type IncomingMessage } from 'node:http';
import https from 'node:https';
import type { Runtime } from '@cairn/base';
import { isSkewed, S3Error } from './s3-errors.ts';
import { EMPTY_HASH, encodePath, encodeQuery, type S3Credentials, S3Signer, sha256, UNSIGNED_BODY } from './s3-signer.ts';
import { textOf } from './s3-xml.ts';

export interface S3ConnectionOptions {
  /** Empty: AWS by region. */
  readonly endpoint?: string;
  readonly region: string;
  readonly bucket: string;
  readonly pathStyle: boolean;
  /** Asked before every request: keys of a role change. */
  readonly credentials: () => Promise<S3Credentials> | S3Credentials;
  readonly maxSockets: number;
}

export interface S3Request {
  readonly method: 'GET' | 'HEAD' | 'PUT' | 'POST' | 'DELETE';
  /** Whole key; empty for calls to the bucket. */
  readonly key?: string;
  readonly query?: Readonly<Record<string, string>>;
  /** Names in lower case. */
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: readonly Uint8Array[] | string;
  /** Takes the body of a good answer chunk by chunk; without it the answer comes as text. */
  readonly sink?: (answer: IncomingMessage) => (chunk: Buffer) => void;
  readonly signal: AbortSignal;
}

export interface S3Answer {
  readonly status: number;
  header(name: string): string | undefined;
  /** Empty where a sink took it. */
  readonly text: string;
}

const CONNECT_TIMEOUT_MS = 3000;
/** Bodies up to it are signed with their content; larger ones would be hashed a second time on this thread, and their checksum guards them. */
const SIGNED_BYTES = 64 << 10;
/** Written to a connection at once. */
const WRITE_BYTES = 1 << 20;
/** An answer that is read as text: a page of 1,000 keys, or an error. */
const TEXT_MAX_BYTES = 16 << 20;

/**
 * Requests to one bucket over connections that are kept: signed, sent, errors told apart. Of its own, because of the two milliseconds that a copy
 * takes a server the general client spent one more on this side; see docs/decisions/019. No retries here, and no deadline: the signal is the caller's.
 */
export class S3Connection {
  readonly #options: S3ConnectionOptions;
  readonly #runtime: Runtime;
  readonly #signer: S3Signer;
  readonly #agent: http.Agent;
  readonly #base: URL;
  /** Before every key. */
  readonly #path: string;
  /** Of the server's clock to ours, learned when it refused a signature. */
  #skewMs = 0;

  constructor(options: S3ConnectionOptions, runtime: Runtime) {
    this.#options = options;
    this.#runtime = runtime;
    this.#signer = new S3Signer(options.region);
    const base = new URL(options.endpoint || awsEndpoint(options.region));
    const root = base.pathname.replace(/\/+$/, '');
    if (!options.pathStyle) base.hostname = `${options.bucket}.${base.hostname}`;
    this.#path = options.pathStyle ? `${root}/${options.bucket}` : root;
    this.#base = base;
    const keep = { keepAlive: true, maxSockets: options.maxSockets };
    this.#agent = base.protocol === 'https:' ? new https.Agent(keep) : new http.Agent(keep);
  }

  /** Rejects with S3Error when there is no answer, or one that is not 2xx, or an error inside a 200 (copies that failed half-way). */
  async send(request: S3Request): Promise<S3Answer> {
    const { method, key = '', query = {}, headers = {}, body } = request;
    // Awaited only where it must be: this is the path of every call.
    const given = this.#options.credentials();
    const credentials = given instanceof Promise ? await given : given;
    const parts = typeof body === 'string' ? [Buffer.from(body)] : body;
    const length = parts?.reduce((sum, part) => sum + part.length, 0);
    const path = `${this.#path}/${encodePath(key)}`;
    const signed = this.#signer.sign(
      {
        method,
        path,
        query,
        headers: { host: this.#base.host, ...headers, ...(length === undefined ? {} : { 'content-length': String(length) }) },
        bodyHash: parts === undefined ? EMPTY_HASH : (length ?? 0) <= SIGNED_BYTES ? sha256(Buffer.concat(parts)) : UNSIGNED_BODY,
      },
      credentials,
      this.#runtime.now() + this.#skewMs,
    );
    // A PUT without a body has a length all the same.
    if (length === undefined && method !== 'GET' && method !== 'HEAD') signed['content-length'] = '0';
    const asked = encodeQuery(query);
    const answer = await this.#exchange(method, asked === '' ? path : `${path}?${asked}`, signed, parts, request);
    const failure = failureOf(answer);
    if (!failure) return answer;
    if (isSkewed(failure)) this.#skewMs = (Date.parse(answer.header('date') ?? '') || this.#runtime.now()) - this.#runtime.now();
    throw failure;
  }

  close(): void {
    this.#agent.destroy();
  }

  #exchange(
    method: string,
    path: string,
    headers: Record<string, string>,
    body: readonly Uint8Array[] | undefined,
    { sink, signal }: S3Request,
  ): Promise<S3Answer> {
    const { protocol, hostname, port } = this.#base;
    const { promise, resolve, reject } = Promise.withResolvers<S3Answer>();
    const options = { agent: this.#agent, hostname: hostname.replace(/^\[|\]$/g, ''), port, method, path, headers };
    const request = protocol === 'https:' ? https.request(options) : http.request(options);
    const fail = (error: unknown) => reject(asS3Error(error));
    const stop = () => request.destroy(new S3Error(0, 'Aborted', 'the call was given up'));
    signal.addEventListener('abort', stop, { once: true });
    request.on('close', () => {
      signal.removeEventListener('abort', stop);
      // After an answer or an error this changes nothing.
      reject(new S3Error(0, 'ECONNRESET', 'the connection was closed before the answer'));
    });
    request.on('error', fail);
    request.on('socket', (socket) => {
      if (!socket.connecting) return;
      const timer = this.#runtime.after(CONNECT_TIMEOUT_MS, () =>
        request.destroy(new S3Error(0, 'ETIMEDOUT', `no connection within ${CONNECT_TIMEOUT_MS} ms`)),
      );
      const connected = () => timer.cancel();
      socket.once('connect', connected).once('close', connected);
    });
    request.on('response', (answer) => {
      const good = answer.statusCode !== undefined && answer.statusCode < 300;
      const chunks: Buffer[] = [];
      let held = 0;
      const hold = (chunk: Buffer): void => {
        held += chunk.length;
        if (held > TEXT_MAX_BYTES) request.destroy(new S3Error(0, 'TooLong', `an answer of more than ${TEXT_MAX_BYTES} bytes`));
        else chunks.push(chunk);
      };
      try {
        answer.on('data', good && sink ? sink(answer) : hold);
      } catch (error) {
        request.destroy(error instanceof Error ? error : new Error(String(error)));
      }
      answer.on('error', fail);
      answer.on('aborted', () => fail(new S3Error(0, 'ECONNRESET', 'the answer was cut off')));
      answer.on('end', () =>
        resolve({
          status: answer.statusCode ?? 0,
          header: (name) => answer.headers[name]?.toString(),
          text: chunks.length === 0 ? '' : Buffer.concat(chunks).toString('utf8'),
        }),
      );
    });
    if (signal.aborted) stop();
    else if (body) void writeBody(request, body).then(() => request.end(), fail);
    else request.end();
    return promise;
  }
}

/** In slices, each when the one before is under way: an upload neither piles up in the connection nor holds the thread (TLS). */
async function writeBody(request: http.ClientRequest, body: readonly Uint8Array[]): Promise<void> {
  for (const part of body) {
    for (let at = 0; at < part.length && !request.destroyed; at += WRITE_BYTES) {
      if (request.write(part.subarray(at, at + WRITE_BYTES))) continue;
      const { promise, resolve } = Promise.withResolvers<void>();
      request.once('drain', resolve).once('close', resolve);
      await promise;
      request.off('drain', resolve).off('close', resolve);
    }
  }
}

/** What an answer says went wrong. Copies and completions answer 200 before they know, and tell the error in the body. */
function failureOf({ status, text, header }: S3Answer): S3Error | undefined {
  const good = status >= 200 && status < 300;
  if (good && !/^\s*(<\?xml[^>]*>)?\s*<Error>/.test(text)) return undefined;
  const code = textOf(text, 'Code') ?? header('x-minio-error-code') ?? '';
  const message = textOf(text, 'Message') ?? header('x-minio-error-desc') ?? '';
  return new S3Error(good ? statusOfCode(code) : status, code, message);
}

/** Of an error inside a 200: those that another try cannot mend keep their meaning, all else is the server's trouble. */
function statusOfCode(code: string): number {
  if (code === 'PreconditionFailed') return 412;
  if (code === 'NoSuchKey') return 404;
  return code === 'AccessDenied' ? 403 : 500;
}

function asS3Error(error: unknown): S3Error {
  if (error instanceof S3Error) return error;
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  return new S3Error(0, code, error instanceof Error ? error.message || error.name : String(error), error);
}

function awsEndpoint(region: string): string {
  return `https://s3.${region}.amazonaws.com${region.startsWith('cn-') ? '.cn' : ''}`;
}
