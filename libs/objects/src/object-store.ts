import { CairnError } from '@cairn/base';

/**
 * ObjectStore: large immutable objects by key. Tenants: S3 (MinIO and the clouds), local disk, memory with faults. Keys are relative to the
 * configured root, have no leading slash, and never repeat. One contract suite holds for all.
 */

export interface ObjectInfo {
  readonly key: string;
  readonly size: number;
  /** Tag the store gave this content; recorded at write and compared at copy. Empty in listings of stores that keep no tags (disk): ask `head`. */
  readonly etag: string;
  /** CRC-32C of the whole object, where the store knows it without reading: at put, and at head on stores that keep it. */
  readonly crc32c?: number;
  readonly modifiedMs: number;
}

export interface PutOptions {
  /** Fails with ObjectExistsError when the key exists; the object there is untouched. Of many at once, one wins. */
  readonly ifAbsent?: boolean;
}

export interface CopyOptions {
  /** The copy fails with ObjectDamaged, naming the source, when its tag is another. */
  readonly ifMatch?: string;
  /** Size of the source when known; above the store's single-copy limit (5 GiB on S3, lower in tests) the copy goes in parts. */
  readonly size?: number;
  readonly signal?: AbortSignal;
}

export interface ListPage {
  readonly objects: readonly ObjectInfo[];
  /** Pass as `after` for the next page; absent at the end. */
  readonly next?: string;
}

/** Room for so many bytes, of exactly that length. */
export type Place = (bytes: number) => Uint8Array;

export interface ObjectStore {
  /** Root as a URI without credentials: `s3://bucket/root` or `file:///dir`. */
  readonly uri: string;
  put(key: string, body: Uint8Array | readonly Uint8Array[], options?: PutOptions): Promise<ObjectInfo>;
  /** Whole object. Missing → ObjectNotFound naming the key. With `place` the bytes are read into room of the caller's, asked for once a try. */
  get(key: string, signal?: AbortSignal, place?: Place): Promise<Uint8Array>;
  /** Bytes [offset, offset+length); shorter at the end of the object. */
  getRange(key: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array>;
  /** Absent → undefined. */
  head(key: string): Promise<ObjectInfo | undefined>;
  /** Copy inside the store, on its side; never through this process. Not put-if-absent on any store. */
  copy(from: string, to: string, options?: CopyOptions): Promise<ObjectInfo>;
  /** In key order, at most `limit` (default 1000) a page. */
  list(prefix: string, options?: { readonly after?: string; readonly limit?: number }): Promise<ListPage>;
  /** Missing keys are fine. */
  delete(keys: readonly string[]): Promise<void>;
  /** Path of the object on this machine's disk, when the store is the disk: lets readers map files in place. */
  localPath?(key: string): string;
  ping(): Promise<void>;
  close(): Promise<void>;
}

/** The key of a put-if-absent is taken. Never retriable: someone else decided. */
export class ObjectExistsError extends CairnError {
  readonly key: string;

  constructor(uri: string, key: string) {
    super('Internal', `object exists already: ${key} in ${uri}`);
    this.key = key;
  }
}

/** Keys a page of `list` holds when the caller names no limit, and the most it may ask for (S3's own page). */
export const LIST_PAGE_KEYS = 1000;
/** Bytes of the longest key with the root before it (S3's own limit). */
const KEY_MAX_BYTES = 1024;

/** Refuses keys that some tenant could not hold or would order in another way: printable ASCII, no empty, `.` or `..` parts. */
export function checkKey(key: string): void {
  const plain = /^[!-~]+$/.test(key) && key.length <= KEY_MAX_BYTES;
  if (!plain || key.split('/').some((part) => part === '' || part === '.' || part === '..')) {
    throw new CairnError('Internal', `not an object key: ${JSON.stringify(key.slice(0, KEY_MAX_BYTES))}`);
  }
}

export function objectNotFound(uri: string, key: string, cause?: unknown): CairnError {
  return new CairnError('ObjectNotFound', `object not found: ${key} in ${uri}`, { cause });
}

/** The source of a copy is not what the caller recorded. */
export function sourceChanged(uri: string, key: string, expected: string, found: string): CairnError {
  return new CairnError('ObjectDamaged', `object damaged: ${key} in ${uri} has tag ${found || 'of another content'}, expected ${expected}`);
}

/** Tag of the stores that have none of their own: length and CRC-32C. */
export function contentTag(size: number, crc32c: number): string {
  return `${size.toString(16)}-${crc32c.toString(16).padStart(8, '0')}`;
}
