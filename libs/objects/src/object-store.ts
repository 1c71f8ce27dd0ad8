/**
 * ObjectStore: large immutable objects by key. Tenants: S3 (MinIO and the clouds), local disk, memory with faults. Keys are relative to the
 * configured root, have no leading slash, and never repeat. One contract suite holds for all.
 */

export interface ObjectInfo {
  readonly key: string;
  readonly size: number;
  /** Tag the store gave this content; recorded at write and compared at copy. */
  readonly etag: string;
  readonly modifiedMs: number;
}

export interface PutOptions {
  /** Fails with ObjectExists (see `ObjectExistsError`) when the key exists; the object there is untouched. */
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

export interface ObjectStore {
  /** Root as a URI without credentials: `s3://bucket/root` or `file:///dir`. */
  readonly uri: string;
  put(key: string, body: Uint8Array | readonly Uint8Array[], options?: PutOptions): Promise<ObjectInfo>;
  /** Whole object. Missing → ObjectNotFound naming the key. */
  get(key: string, signal?: AbortSignal): Promise<Uint8Array>;
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
