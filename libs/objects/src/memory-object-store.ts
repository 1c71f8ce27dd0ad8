import { CairnError, checksum, type Runtime } from '@cairn/base';
import {
  type CopyOptions,
  checkKey,
  contentTag,
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

interface StoredObject {
  readonly bytes: Uint8Array;
  readonly info: ObjectInfo;
}

/** Objects in memory, for tests and simulation. Outlives a simulated crash: what was put stays. */
export class MemoryObjectStore implements ObjectStore {
  readonly uri: string;
  readonly #runtime: Runtime;
  readonly #objects = new Map<string, StoredObject>();

  constructor(runtime: Runtime, name = 'objects') {
    this.#runtime = runtime;
    this.uri = `memory://${name}`;
  }

  async put(key: string, body: Uint8Array | readonly Uint8Array[], options: PutOptions = {}): Promise<ObjectInfo> {
    checkKey(key);
    if (options.ifAbsent && this.#objects.has(key)) throw new ObjectExistsError(this.uri, key);
    const parts = body instanceof Uint8Array ? [body] : body;
    return this.#store(key, new Uint8Array(Buffer.concat(parts)));
  }

  async get(key: string, signal?: AbortSignal, place: Place = (bytes) => new Uint8Array(bytes)): Promise<Uint8Array> {
    const { bytes } = this.#of(key, signal);
    const room = place(bytes.length);
    room.set(bytes);
    return room;
  }

  async getRange(key: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    return this.#of(key, signal).bytes.slice(offset, offset + length);
  }

  async head(key: string): Promise<ObjectInfo | undefined> {
    checkKey(key);
    return this.#objects.get(key)?.info;
  }

  async copy(from: string, to: string, options: CopyOptions = {}): Promise<ObjectInfo> {
    checkKey(to);
    const source = this.#of(from, options.signal);
    // The tag is of the bytes as they are now: a test that damages them in place is found out, as it is on disk.
    const tag = contentTag(source.bytes.length, checksum(source.bytes));
    if (options.ifMatch !== undefined && options.ifMatch !== tag) throw sourceChanged(this.uri, from, options.ifMatch, tag);
    return this.#store(to, source.bytes);
  }

  async list(prefix: string, options: { readonly after?: string; readonly limit?: number } = {}): Promise<ListPage> {
    const limit = Math.min(options.limit ?? LIST_PAGE_KEYS, LIST_PAGE_KEYS);
    const after = options.after ?? '';
    const found: ObjectInfo[] = [];
    for (const [key, { info }] of this.#objects) if (key.startsWith(prefix) && key > after) found.push(info);
    found.sort((a, b) => (a.key < b.key ? -1 : 1));
    const objects = found.slice(0, limit);
    const last = objects.at(-1);
    return found.length > limit && last ? { objects, next: last.key } : { objects };
  }

  async delete(keys: readonly string[]): Promise<void> {
    for (const key of keys) this.#objects.delete(key);
  }

  async ping(): Promise<void> {}

  async close(): Promise<void> {}

  #store(key: string, bytes: Uint8Array): ObjectInfo {
    const crc32c = checksum(bytes);
    const info = { key, size: bytes.length, etag: contentTag(bytes.length, crc32c), crc32c, modifiedMs: this.#runtime.now() };
    this.#objects.set(key, { bytes, info });
    return info;
  }

  #of(key: string, signal?: AbortSignal): StoredObject {
    checkKey(key);
    if (signal?.aborted) throw new CairnError('Cancelled', `read of ${key} was cancelled`);
    const found = this.#objects.get(key);
    if (!found) throw objectNotFound(this.uri, key);
    return found;
  }
}
