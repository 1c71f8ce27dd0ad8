import { createHash } from 'node:crypto';
import { CairnError, checksum, mapLimit, type Runtime, retry } from '@cairn/base';
import {
  type CopyOptions,
  checkKey,
  LIST_PAGE_KEYS,
  type ListPage,
  ObjectExistsError,
  type ObjectInfo,
  type ObjectStore,
  objectNotFound,
  type Place,
  type PutOptions,
  sourceChanged,
} from './object-store.ts';
import { S3Connection, type S3Request } from './s3-connection.ts';
import { isBehindEnd, isConflict, isMissing, isNoBucket, isPrecondition, S3Error, s3Failure } from './s3-errors.ts';
import { encodePath, type S3Credentials } from './s3-signer.ts';
import { elementsOf, escapeXml, textOf } from './s3-xml.ts';

export interface S3Options {
  /** Empty: AWS by region. */
  readonly endpoint?: string;
  readonly region: string;
  readonly bucket: string;
  /** Keys lie under it, without slashes at the ends; may be empty. */
  readonly root: string;
  /** Without keys AWS's default chain finds them (environment, files, roles). */
  readonly accessKeyId?: string;
  readonly secretAccessKey?: string;
  readonly pathStyle: boolean;
  /** Objects above it are copied in parts. S3 itself refuses single copies above 5 GiB. */
  readonly multipartCopyBytes?: number;
  /** Bytes of a part of such a copy, at least 5 MiB. */
  readonly copyPartBytes?: number;
  /** Tries of a call in all. */
  readonly attempts?: number;
  /** A call without progress guarantees ends after this, plus a second for each 4 MiB that it moves. */
  readonly timeoutMs?: number;
  readonly maxSockets?: number;
}

const SINGLE_COPY_BYTES = 5 * 1024 ** 3;
const COPY_PART_BYTES = 256 << 20;
const COPY_PARTS_LIMIT = 10_000;
const COPY_PART_CONCURRENCY = 8;
const ATTEMPTS = 5;
const TIMEOUT_MS = 15_000;
const SLOWEST_BYTES_PER_MS = 4096;
const MAX_SOCKETS = 128;
const FIRST_DELAY_MS = 50;
const MAX_DELAY_MS = 2000;
const CONTENT_TYPE = 'application/octet-stream';
const NAMESPACE = 'http://s3.amazonaws.com/doc/2006-03-01/';
/** Bytes checksummed at once, about two milliseconds. */
const SLICE_BYTES = 8 << 20;

/** Objects in an S3 bucket (MinIO, the clouds). Uploads carry their CRC-32C, which the server checks before it answers and keeps. */
export class S3ObjectStore implements ObjectStore {
  readonly uri: string;
  readonly #options: S3Options;
  readonly #runtime: Runtime;
  readonly #connection: S3Connection;
  readonly #prefix: string;
  /** Calls under way. */
  readonly #calls = new Set<AbortController>();
  #closed = false;

  constructor(options: S3Options, runtime: Runtime) {
    this.#options = options;
    this.#runtime = runtime;
    const root = options.root.replace(/^\/+|\/+$/g, '');
    this.#prefix = root === '' ? '' : `${root}/`;
    this.uri = `s3://${options.bucket}${root === '' ? '' : `/${root}`}`;
    const { accessKeyId, secretAccessKey = '', region, maxSockets = MAX_SOCKETS } = options;
    const credentials = accessKeyId ? () => ({ accessKeyId, secretAccessKey }) : defaultCredentials(region);
    this.#connection = new S3Connection({ ...options, credentials, maxSockets }, runtime);
  }

  async put(key: string, body: Uint8Array | readonly Uint8Array[], options: PutOptions = {}): Promise<ObjectInfo> {
    checkKey(key);
    const parts = body instanceof Uint8Array ? [body] : body;
    const size = parts.reduce((sum, part) => sum + part.length, 0);
    const crc32c = await this.#checksumOf(parts);
    let unknown = false;
    return this.#call(`write object ${key}`, size, async (signal) => {
      try {
        const answer = await this.#connection.send({
          method: 'PUT',
          key: this.#prefix + key,
          headers: {
            'content-type': CONTENT_TYPE,
            'x-amz-checksum-crc32c': encodeChecksum(crc32c),
            ...(options.ifAbsent ? { 'if-none-match': '*' } : {}),
          },
          body: parts,
          signal,
        });
        return { key, size, etag: plainTag(answer.header('etag')), crc32c, modifiedMs: this.#runtime.now() };
      } catch (error) {
        if (!options.ifAbsent || !isPrecondition(error)) {
          unknown = true;
          throw error;
        }
        // A try whose answer was lost may have been the one that made it: then the object has our content.
        const there = unknown ? await this.head(key) : undefined;
        if (there && there.size === size && there.crc32c === crc32c) return there;
        throw new ObjectExistsError(this.uri, key);
      }
    });
  }

  async get(key: string, signal?: AbortSignal, place?: Place): Promise<Uint8Array> {
    return this.#read(key, undefined, 0, signal, place);
  }

  async getRange(key: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    if (length <= 0) {
      const info = await this.head(key);
      if (!info) throw objectNotFound(this.uri, key);
      return new Uint8Array(0);
    }
    return this.#read(key, `bytes=${offset}-${offset + length - 1}`, length, signal);
  }

  async head(key: string): Promise<ObjectInfo | undefined> {
    checkKey(key);
    return this.#call(`read object ${key}`, 0, async (signal) => {
      try {
        const headers = { 'x-amz-checksum-mode': 'ENABLED' };
        const found = await this.#connection.send({ method: 'HEAD', key: this.#prefix + key, headers, signal });
        const crc32c = decodeChecksum(found.header('x-amz-checksum-crc32c'));
        return {
          key,
          size: Number(found.header('content-length') ?? 0),
          etag: plainTag(found.header('etag')),
          modifiedMs: timeOf(found.header('last-modified')),
          ...(crc32c === undefined ? {} : { crc32c }),
        };
      } catch (error) {
        if (isMissing(error)) return undefined;
        throw error;
      }
    });
  }

  async copy(from: string, to: string, options: CopyOptions = {}): Promise<ObjectInfo> {
    checkKey(from);
    checkKey(to);
    const single = this.#options.multipartCopyBytes ?? SINGLE_COPY_BYTES;
    const size = options.size ?? (await this.head(from))?.size;
    if (size === undefined) throw objectNotFound(this.uri, from);
    if (size > single) return this.#copyInParts(from, to, size, options);
    return this.#call(
      `copy object ${from} to ${to}`,
      size,
      async (signal) => {
        try {
          const { text } = await this.#connection.send({
            method: 'PUT',
            key: this.#prefix + to,
            headers: this.#copyHeaders(from, options),
            signal,
          });
          return { key: to, size, etag: plainTag(needed(text, 'ETag')), modifiedMs: timeOf(textOf(text, 'LastModified')) };
        } catch (error) {
          throw this.#copyFailure(error, from, options);
        }
      },
      options.signal,
    );
  }

  async list(prefix: string, options: { readonly after?: string; readonly limit?: number } = {}): Promise<ListPage> {
    const limit = Math.min(options.limit ?? LIST_PAGE_KEYS, LIST_PAGE_KEYS);
    const query = {
      'list-type': '2',
      prefix: this.#prefix + prefix,
      'max-keys': limit.toString(),
      ...(options.after === undefined ? {} : { 'start-after': this.#prefix + options.after }),
    };
    return this.#call(`list objects ${prefix}`, 0, async (signal) => {
      const { text } = await this.#connection.send({ method: 'GET', query, signal });
      const objects = [...elementsOf(text, 'Contents')].map((found) => ({
        key: (textOf(found, 'Key') ?? '').slice(this.#prefix.length),
        size: Number(textOf(found, 'Size') ?? 0),
        etag: plainTag(textOf(found, 'ETag')),
        modifiedMs: timeOf(textOf(found, 'LastModified')),
      }));
      const last = objects.at(-1);
      return textOf(text, 'IsTruncated') === 'true' && last ? { objects, next: last.key } : { objects };
    });
  }

  async delete(keys: readonly string[]): Promise<void> {
    for (const key of keys) checkKey(key);
    for (let at = 0; at < keys.length; at += LIST_PAGE_KEYS) {
      const batch = keys.slice(at, at + LIST_PAGE_KEYS);
      const entries = batch.map((key) => `<Object><Key>${escapeXml(this.#prefix + key)}</Key></Object>`).join('');
      const body = `<Delete xmlns="${NAMESPACE}"><Quiet>true</Quiet>${entries}</Delete>`;
      const headers = { 'content-type': 'application/xml', 'content-md5': createHash('md5').update(body).digest('base64') };
      await this.#call(`delete objects ${batch[0]} and ${batch.length - 1} more`, 0, async (signal) => {
        const { text } = await this.#connection.send({ method: 'POST', query: { delete: '' }, headers, body, signal });
        for (const failed of elementsOf(text, 'Error')) {
          const code = textOf(failed, 'Code');
          if (code === 'NoSuchKey') continue;
          const words = `cannot delete object ${textOf(failed, 'Key')} in ${this.uri}: ${code} ${textOf(failed, 'Message')}`;
          throw new CairnError('StoreUnavailable', words);
        }
      });
    }
  }

  /** Answers when the bucket is there; makes it when it is missing. One try: the caller decides how long to wait. */
  async ping(): Promise<void> {
    try {
      await this.#timed(0, undefined, async (signal) => {
        try {
          await this.#connection.send({ method: 'HEAD', signal });
        } catch (error) {
          if (!isMissing(error)) throw error;
          await this.#createBucket(signal);
        }
      });
    } catch (error) {
      throw s3Failure(error, `reach bucket ${this.#options.bucket}`, this.uri);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const call of this.#calls) call.abort();
    this.#connection.close();
  }

  async #createBucket(signal: AbortSignal): Promise<void> {
    const { region } = this.#options;
    // The region without a name of its own there.
    const home = region === 'us-east-1' ? '' : `<LocationConstraint>${escapeXml(region)}</LocationConstraint>`;
    const body = `<CreateBucketConfiguration xmlns="${NAMESPACE}">${home}</CreateBucketConfiguration>`;
    try {
      await this.#connection.send({ method: 'PUT', ...(home === '' ? {} : { body }), signal });
    } catch (error) {
      // Two processes start at once.
      if (!isConflict(error)) throw error;
    }
  }

  async #read(
    key: string,
    range: string | undefined,
    length: number,
    signal: AbortSignal | undefined,
    place: Place = (bytes) => new Uint8Array(bytes),
  ): Promise<Uint8Array> {
    checkKey(key);
    return this.#call(
      `read object ${key}`,
      length,
      async (abort, extend) => {
        let bytes: Uint8Array = new Uint8Array(0);
        let filled = 0;
        const request: S3Request = {
          method: 'GET',
          key: this.#prefix + key,
          headers: range === undefined ? {} : { range },
          sink: (answer) => {
            bytes = place(Number(answer.headers['content-length'] ?? 0));
            extend(bytes.length);
            return (chunk) => {
              // Not `set`: that is slow into shared memory.
              if (filled + chunk.length <= bytes.length) chunk.copy(bytes, filled);
              filled += chunk.length;
            };
          },
          signal: abort,
        };
        try {
          await this.#connection.send(request);
        } catch (error) {
          if (isMissing(error) && !isNoBucket(error)) throw objectNotFound(this.uri, key, error);
          if (isBehindEnd(error)) return new Uint8Array(0);
          throw error;
        }
        if (filled === bytes.length) return bytes;
        throw new CairnError('StoreUnavailable', `read of object ${key} in ${this.uri} ended after ${filled} of ${bytes.length} bytes`);
      },
      signal,
    );
  }

  /** Copy of what is too large for one call: parts of the source in parallel, each under the same if-match. */
  async #copyInParts(from: string, to: string, size: number, options: CopyOptions): Promise<ObjectInfo> {
    const what = `copy object ${from} to ${to}`;
    const at = { key: this.#prefix + to };
    const begun = await this.#call(
      what,
      0,
      (signal) =>
        this.#connection.send({ ...at, method: 'POST', query: { uploads: '' }, headers: { 'content-type': CONTENT_TYPE }, signal }),
      options.signal,
    );
    const uploadId = needed(begun.text, 'UploadId');
    try {
      const partBytes = Math.max(this.#options.copyPartBytes ?? COPY_PART_BYTES, Math.ceil(size / COPY_PARTS_LIMIT));
      const starts = Array.from({ length: Math.ceil(size / partBytes) }, (_, index) => index * partBytes);
      const parts = await mapLimit(starts, COPY_PART_CONCURRENCY, async (start, index) => {
        const range = `bytes=${start}-${Math.min(size, start + partBytes) - 1}`;
        const partNumber = index + 1;
        const copied = await this.#call(
          what,
          partBytes,
          async (signal) => {
            const headers = { ...this.#copyHeaders(from, options), 'x-amz-copy-source-range': range };
            const query = { partNumber: partNumber.toString(), uploadId };
            try {
              return await this.#connection.send({ ...at, method: 'PUT', query, headers, signal });
            } catch (error) {
              throw this.#copyFailure(error, from, options);
            }
          },
          options.signal,
        );
        const etag = needed(copied.text, 'ETag');
        return `<Part><PartNumber>${partNumber}</PartNumber><ETag>${escapeXml(etag)}</ETag></Part>`;
      });
      const body = `<CompleteMultipartUpload xmlns="${NAMESPACE}">${parts.join('')}</CompleteMultipartUpload>`;
      const { text } = await this.#call(
        what,
        size,
        (signal) =>
          this.#connection.send({
            ...at,
            method: 'POST',
            query: { uploadId },
            headers: { 'content-type': 'application/xml' },
            body,
            signal,
          }),
        options.signal,
      );
      return { key: to, size, etag: plainTag(needed(text, 'ETag')), modifiedMs: this.#runtime.now() };
    } catch (error) {
      // Parts of an upload that is not aborted cost room for ever. The first error is the one to tell.
      await this.#call(what, 0, (signal) => this.#connection.send({ ...at, method: 'DELETE', query: { uploadId }, signal })).catch(
        () => undefined,
      );
      throw error;
    }
  }

  #copyFailure(error: unknown, from: string, options: CopyOptions): unknown {
    if (isPrecondition(error)) return sourceChanged(this.uri, from, options.ifMatch ?? '', '');
    return isMissing(error) && !isNoBucket(error) ? objectNotFound(this.uri, from, error) : error;
  }

  #copyHeaders(from: string, { ifMatch }: CopyOptions): Record<string, string> {
    const source = encodePath(`${this.#options.bucket}/${this.#prefix}${from}`);
    return { 'x-amz-copy-source': source, ...(ifMatch === undefined ? {} : { 'x-amz-copy-source-if-match': ifMatch }) };
  }

  /** One call with deadline, retries of what is worth it, and the bucket made when it is missing. */
  #call<T>(what: string, bytes: number, work: Work<T>, signal?: AbortSignal): Promise<T> {
    const policy = { attempts: this.#options.attempts ?? ATTEMPTS, firstDelayMs: FIRST_DELAY_MS, maxDelayMs: MAX_DELAY_MS };
    return retry(
      this.#runtime,
      policy,
      async () => {
        try {
          return await this.#timed(bytes, signal, work);
        } catch (error) {
          if (!isNoBucket(error)) throw s3Failure(error, what, this.uri);
        }
        await this.ping();
        try {
          return await this.#timed(bytes, signal, work);
        } catch (error) {
          throw s3Failure(error, what, this.uri);
        }
      },
      signal,
    );
  }

  async #timed<T>(bytes: number, signal: AbortSignal | undefined, work: Work<T>): Promise<T> {
    const call = new AbortController();
    const limitMs = this.#options.timeoutMs ?? TIMEOUT_MS;
    let late = false;
    const expire = () => {
      late = true;
      call.abort();
    };
    const arm = (moved: number) => this.#runtime.after(limitMs + moved / SLOWEST_BYTES_PER_MS, expire);
    let timer = arm(bytes);
    const stop = () => call.abort();
    this.#calls.add(call);
    signal?.addEventListener('abort', stop, { once: true });
    if (this.#closed || signal?.aborted) stop();
    try {
      return await work(call.signal, (moved) => {
        timer.cancel();
        timer = arm(moved);
      });
    } catch (error) {
      if (signal?.aborted || this.#closed) throw new CairnError('Cancelled', `call to ${this.uri} was cancelled`, { cause: error });
      if (late) throw new CairnError('StoreUnavailable', `${this.uri} did not answer within ${limitMs} ms`, { cause: error });
      throw error;
    } finally {
      timer.cancel();
      this.#calls.delete(call);
      signal?.removeEventListener('abort', stop);
    }
  }

  async #checksumOf(parts: readonly Uint8Array[]): Promise<number> {
    let crc32c = 0;
    let since = 0;
    for (const part of parts) {
      for (let at = 0; at < part.length; at += SLICE_BYTES) {
        const slice = part.subarray(at, at + SLICE_BYTES);
        crc32c = checksum(slice, crc32c);
        since += slice.length;
        if (since < SLICE_BYTES) continue;
        since = 0;
        await this.#runtime.sleep(0);
      }
    }
    return crc32c;
  }
}

/** `extend` arms the deadline anew for so many bytes, once they are known. */
type Work<T> = (signal: AbortSignal, extend: (bytes: number) => void) => Promise<T>;

function plainTag(etag: string | undefined): string {
  return (etag ?? '').replaceAll('"', '');
}

function encodeChecksum(crc32c: number): string {
  const bytes = Buffer.allocUnsafe(4);
  bytes.writeUInt32BE(crc32c);
  return bytes.toString('base64');
}

/** Undefined as well for checksums of checksums, which uploads in parts may have (`…-3`). */
function decodeChecksum(text: string | undefined): number | undefined {
  const bytes = text === undefined || text.includes('-') ? undefined : Buffer.from(text, 'base64');
  return bytes?.length === 4 ? bytes.readUInt32BE() : undefined;
}

/** An answer that tells success and not its result is the server's trouble. */
function needed(xml: string, name: string): string {
  const text = textOf(xml, name);
  if (text === undefined) throw new S3Error(500, 'NoResult', `an answer without ${name}`);
  return text;
}

/** Of a header or an element; 0 without one. */
function timeOf(text: string | undefined): number {
  return text === undefined ? 0 : Date.parse(text) || 0;
}

/** AWS's chain: environment, files, roles of the pod or the machine. Loaded only where no keys are given; it keeps what it found until that ends. */
function defaultCredentials(region: string): () => Promise<S3Credentials> {
  let chain: Promise<() => Promise<S3Credentials>> | undefined;
  return async () => {
    chain ??= import('@aws-sdk/credential-provider-node').then(({ defaultProvider }) => defaultProvider({ clientConfig: { region } }));
    return (await chain)();
  };
}
