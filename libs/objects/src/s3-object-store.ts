import { Readable } from 'node:stream';
import {
  AbortMultipartUploadCommand,
  CompleteMultipartUploadCommand,
  CopyObjectCommand,
  CreateBucketCommand,
  CreateMultipartUploadCommand,
  DeleteObjectsCommand,
  GetObjectCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
  UploadPartCopyCommand,
} from '@aws-sdk/client-s3';
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
  type PutOptions,
  sourceChanged,
} from './object-store.ts';
import { isConflict, isMissing, isNoBucket, isPrecondition, s3Failure } from './s3-errors.ts';

export interface S3Options {
  /** Empty: AWS by region. */
  readonly endpoint?: string;
  readonly region: string;
  readonly bucket: string;
  /** Keys lie under it, without slashes at the ends; may be empty. */
  readonly root: string;
  /** Without keys the client's default chain finds them (environment, instance role). */
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
const CONNECT_TIMEOUT_MS = 3000;
const MAX_SOCKETS = 128;
const FIRST_DELAY_MS = 50;
const MAX_DELAY_MS = 2000;
/** Bodies up to it are signed with their content. */
const SIGNED_BYTES = 64 << 10;
/** Bytes checksummed at once, about two milliseconds. */
const SLICE_BYTES = 8 << 20;

/** Objects in an S3 bucket (MinIO, the clouds). Uploads carry their CRC-32C, which the server checks before it answers and keeps. */
export class S3ObjectStore implements ObjectStore {
  readonly uri: string;
  readonly #options: S3Options;
  readonly #runtime: Runtime;
  readonly #client: S3Client;
  readonly #prefix: string;
  readonly #closed = new AbortController();

  constructor(options: S3Options, runtime: Runtime) {
    this.#options = options;
    this.#runtime = runtime;
    const root = options.root.replace(/^\/+|\/+$/g, '');
    this.#prefix = root === '' ? '' : `${root}/`;
    this.uri = `s3://${options.bucket}${root === '' ? '' : `/${root}`}`;
    const agent = { keepAlive: true, maxSockets: options.maxSockets ?? MAX_SOCKETS };
    this.#client = new S3Client({
      region: options.region,
      forcePathStyle: options.pathStyle,
      ...(options.endpoint ? { endpoint: options.endpoint } : {}),
      ...(options.accessKeyId ? { credentials: { accessKeyId: options.accessKeyId, secretAccessKey: options.secretAccessKey ?? '' } } : {}),
      // Retries are ours (the runtime's clock, one limit); so are checksums.
      maxAttempts: 1,
      requestChecksumCalculation: 'WHEN_REQUIRED',
      responseChecksumValidation: 'WHEN_REQUIRED',
      expectContinueHeader: false,
      logger: silent,
      requestHandler: { connectionTimeout: CONNECT_TIMEOUT_MS, httpAgent: agent, httpsAgent: agent },
    });
  }

  async put(key: string, body: Uint8Array | readonly Uint8Array[], options: PutOptions = {}): Promise<ObjectInfo> {
    checkKey(key);
    const parts = body instanceof Uint8Array ? [body] : body;
    const size = parts.reduce((sum, part) => sum + part.length, 0);
    const crc32c = await this.#checksumOf(parts);
    let unknown = false;
    return this.#call(`write object ${key}`, size, async (abortSignal) => {
      try {
        const { ETag } = await this.#client.send(
          new PutObjectCommand({
            ...this.#at(key),
            // A stream is sent unsigned, so that large bodies are not hashed a second time on this thread; the checksum guards them.
            Body: size <= SIGNED_BYTES ? Buffer.concat(parts) : Readable.from(parts, { objectMode: false }),
            ContentLength: size,
            ChecksumCRC32C: encodeChecksum(crc32c),
            ...(options.ifAbsent ? { IfNoneMatch: '*' } : {}),
          }),
          { abortSignal },
        );
        return { key, size, etag: plainTag(ETag), crc32c, modifiedMs: this.#runtime.now() };
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

  async get(key: string, signal?: AbortSignal): Promise<Uint8Array> {
    return this.#read(key, undefined, 0, signal);
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
    return this.#call(`read object ${key}`, 0, async (abortSignal) => {
      try {
        const found = await this.#client.send(new HeadObjectCommand({ ...this.#at(key), ChecksumMode: 'ENABLED' }), { abortSignal });
        const crc32c = decodeChecksum(found.ChecksumCRC32C);
        return {
          key,
          size: found.ContentLength ?? 0,
          etag: plainTag(found.ETag),
          modifiedMs: found.LastModified?.getTime() ?? 0,
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
      async (abortSignal) => {
        try {
          const { CopyObjectResult } = await this.#client.send(
            new CopyObjectCommand({
              ...this.#at(to),
              CopySource: this.#source(from),
              ...(options.ifMatch === undefined ? {} : { CopySourceIfMatch: options.ifMatch }),
            }),
            { abortSignal },
          );
          const modifiedMs = CopyObjectResult?.LastModified?.getTime() ?? this.#runtime.now();
          return { key: to, size, etag: plainTag(CopyObjectResult?.ETag), modifiedMs };
        } catch (error) {
          throw this.#copyFailure(error, from, options);
        }
      },
      options.signal,
    );
  }

  async list(prefix: string, options: { readonly after?: string; readonly limit?: number } = {}): Promise<ListPage> {
    const limit = Math.min(options.limit ?? LIST_PAGE_KEYS, LIST_PAGE_KEYS);
    return this.#call(`list objects ${prefix}`, 0, async (abortSignal) => {
      const page = await this.#client.send(
        new ListObjectsV2Command({
          Bucket: this.#options.bucket,
          Prefix: this.#prefix + prefix,
          MaxKeys: limit,
          ...(options.after === undefined ? {} : { StartAfter: this.#prefix + options.after }),
        }),
        { abortSignal },
      );
      const objects = (page.Contents ?? []).map((found) => ({
        key: (found.Key ?? '').slice(this.#prefix.length),
        size: found.Size ?? 0,
        etag: plainTag(found.ETag),
        modifiedMs: found.LastModified?.getTime() ?? 0,
      }));
      const last = objects.at(-1);
      return page.IsTruncated && last ? { objects, next: last.key } : { objects };
    });
  }

  async delete(keys: readonly string[]): Promise<void> {
    for (const key of keys) checkKey(key);
    for (let at = 0; at < keys.length; at += LIST_PAGE_KEYS) {
      const batch = keys.slice(at, at + LIST_PAGE_KEYS);
      await this.#call(`delete objects ${batch[0]} and ${batch.length - 1} more`, 0, async (abortSignal) => {
        const { Errors } = await this.#client.send(
          new DeleteObjectsCommand({
            Bucket: this.#options.bucket,
            Delete: { Quiet: true, Objects: batch.map((key) => ({ Key: this.#prefix + key })) },
          }),
          { abortSignal },
        );
        const failed = Errors?.find((entry) => entry.Code !== 'NoSuchKey');
        if (failed)
          throw new CairnError('StoreUnavailable', `cannot delete object ${failed.Key} in ${this.uri}: ${failed.Code} ${failed.Message}`);
      });
    }
  }

  /** Answers when the bucket is there; makes it when it is missing. One try: the caller decides how long to wait. */
  async ping(): Promise<void> {
    const Bucket = this.#options.bucket;
    try {
      await this.#timed(0, undefined, async (abortSignal) => {
        try {
          await this.#client.send(new HeadBucketCommand({ Bucket }), { abortSignal });
        } catch (error) {
          if (!isMissing(error)) throw error;
          await this.#createBucket(abortSignal);
        }
      });
    } catch (error) {
      throw s3Failure(error, `reach bucket ${Bucket}`, this.uri);
    }
  }

  async close(): Promise<void> {
    this.#closed.abort();
    this.#client.destroy();
  }

  async #createBucket(abortSignal: AbortSignal): Promise<void> {
    try {
      await this.#client.send(new CreateBucketCommand({ Bucket: this.#options.bucket }), { abortSignal });
    } catch (error) {
      // Two processes start at once.
      if (!isConflict(error)) throw error;
    }
  }

  async #read(key: string, Range: string | undefined, length: number, signal: AbortSignal | undefined): Promise<Uint8Array> {
    checkKey(key);
    return this.#call(
      `read object ${key}`,
      length,
      async (abortSignal, extend) => {
        try {
          const found = await this.#client.send(new GetObjectCommand({ ...this.#at(key), ...(Range ? { Range } : {}) }), { abortSignal });
          const size = found.ContentLength ?? 0;
          extend(size);
          const bytes = new Uint8Array(Buffer.allocUnsafeSlow(size).buffer);
          let filled = 0;
          for await (const chunk of found.Body as Readable) {
            if (filled + chunk.length <= size) bytes.set(chunk, filled);
            filled += chunk.length;
          }
          if (filled === size) return bytes;
          throw new CairnError('StoreUnavailable', `read of object ${key} in ${this.uri} ended after ${filled} of ${size} bytes`);
        } catch (error) {
          if (isMissing(error) && !isNoBucket(error)) throw objectNotFound(this.uri, key, error);
          // A range that starts behind the end.
          if (error instanceof Error && error.name === 'InvalidRange') return new Uint8Array(0);
          throw error;
        }
      },
      signal,
    );
  }

  /** Copy of what is too large for one call: parts of the source in parallel, each under the same if-match. */
  async #copyInParts(from: string, to: string, size: number, options: CopyOptions): Promise<ObjectInfo> {
    const what = `copy object ${from} to ${to}`;
    const ifMatch = options.ifMatch === undefined ? {} : { CopySourceIfMatch: options.ifMatch };
    const { UploadId } = await this.#call(
      what,
      0,
      (abortSignal) => this.#client.send(new CreateMultipartUploadCommand(this.#at(to)), { abortSignal }),
      options.signal,
    );
    const upload = { ...this.#at(to), UploadId };
    try {
      const partBytes = Math.max(this.#options.copyPartBytes ?? COPY_PART_BYTES, Math.ceil(size / COPY_PARTS_LIMIT));
      const starts = Array.from({ length: Math.ceil(size / partBytes) }, (_, index) => index * partBytes);
      const parts = await mapLimit(starts, COPY_PART_CONCURRENCY, async (start, index) => {
        const CopySourceRange = `bytes=${start}-${Math.min(size, start + partBytes) - 1}`;
        const PartNumber = index + 1;
        const copied = await this.#call(
          what,
          partBytes,
          async (abortSignal) => {
            try {
              const command = new UploadPartCopyCommand({
                ...upload,
                CopySource: this.#source(from),
                CopySourceRange,
                PartNumber,
                ...ifMatch,
              });
              return await this.#client.send(command, { abortSignal });
            } catch (error) {
              throw this.#copyFailure(error, from, options);
            }
          },
          options.signal,
        );
        return { PartNumber, ETag: copied.CopyPartResult?.ETag };
      });
      const complete = new CompleteMultipartUploadCommand({ ...upload, MultipartUpload: { Parts: parts } });
      const { ETag } = await this.#call(what, size, (abortSignal) => this.#client.send(complete, { abortSignal }), options.signal);
      return { key: to, size, etag: plainTag(ETag), modifiedMs: this.#runtime.now() };
    } catch (error) {
      // Parts of an upload that is not aborted cost room for ever. The first error is the one to tell.
      await this.#call(what, 0, (abortSignal) => this.#client.send(new AbortMultipartUploadCommand(upload), { abortSignal })).catch(
        () => undefined,
      );
      throw error;
    }
  }

  #copyFailure(error: unknown, from: string, options: CopyOptions): unknown {
    if (isPrecondition(error)) return sourceChanged(this.uri, from, options.ifMatch ?? '', '');
    return isMissing(error) && !isNoBucket(error) ? objectNotFound(this.uri, from, error) : error;
  }

  #at(key: string): { Bucket: string; Key: string } {
    return { Bucket: this.#options.bucket, Key: this.#prefix + key };
  }

  #source(key: string): string {
    return encodeURI(`${this.#options.bucket}/${this.#prefix}${key}`).replace(/[?#+]/g, (char) => encodeURIComponent(char));
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
    const deadline = new AbortController();
    const limitMs = this.#options.timeoutMs ?? TIMEOUT_MS;
    const arm = (moved: number) => this.#runtime.after(limitMs + moved / SLOWEST_BYTES_PER_MS, () => deadline.abort());
    let timer = arm(bytes);
    const signals = [deadline.signal, this.#closed.signal, ...(signal ? [signal] : [])];
    try {
      return await work(AbortSignal.any(signals), (moved) => {
        timer.cancel();
        timer = arm(moved);
      });
    } catch (error) {
      if (signal?.aborted || this.#closed.signal.aborted)
        throw new CairnError('Cancelled', `call to ${this.uri} was cancelled`, { cause: error });
      if (deadline.signal.aborted)
        throw new CairnError('StoreUnavailable', `${this.uri} did not answer within ${limitMs} ms`, { cause: error });
      throw error;
    } finally {
      timer.cancel();
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

const nothing = (): void => {};
/** The client would write to the console what we retry or tell our caller anyway. */
const silent = { trace: nothing, debug: nothing, info: nothing, warn: nothing, error: nothing };

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
