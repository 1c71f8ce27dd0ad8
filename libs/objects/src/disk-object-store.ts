import type { Dirent, Stats } from 'node:fs';
import { constants } from 'node:fs';
import { copyFile, type FileHandle, link, mkdir, open, readdir, rename, rmdir, stat, unlink } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { CairnError, checksum, mapLimit, type Runtime, randomId, Semaphore } from '@cairn/base';
import { DirectorySync } from './directory-sync.ts';
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

/** Written and read at once; a checksum over it takes about a millisecond. */
const SLICE_BYTES = 4 << 20;
/** Where objects are made before they get their name; not listed. */
const TEMP_DIR = '.partial';
/** A partial object older than this was left by a crash. */
const PARTIAL_MAX_AGE_MS = 3_600_000;
const DELETE_CONCURRENCY = 8;
/** Files synced at once: libuv has four threads, and the embedded log and metadata commit on them too. */
const SYNCS_AT_ONCE = 2;
/** Tags remembered, so that `head` of an unchanged file need not read it again. */
const TAGS_KEPT = 10_000;
/** Tries of naming a file while others remove its emptied directory. */
const PLACE_ATTEMPTS = 5;

/**
 * Objects as files under a directory. A put that resolved is durable: the file is synced, then named, then its directory is synced. Tags are
 * length and CRC-32C of the content; as the disk keeps none, `head` and `copy` read the file for it, so a copy with `ifMatch` proves the bytes.
 */
export class DiskObjectStore implements ObjectStore {
  readonly uri: string;
  readonly #root: string;
  readonly #runtime: Runtime;
  readonly #directories = new DirectorySync();
  readonly #syncs = new Semaphore('syncs of objects', SYNCS_AT_ONCE, Number.POSITIVE_INFINITY);
  readonly #tags = new Map<string, { readonly stamp: string; readonly crc32c: number }>();
  #opened: Promise<void> | undefined;

  constructor(root: string, runtime: Runtime) {
    this.#root = resolve(root);
    this.#runtime = runtime;
    this.uri = pathToFileURL(this.#root).href;
  }

  async put(key: string, body: Uint8Array | readonly Uint8Array[], options: PutOptions = {}): Promise<ObjectInfo> {
    checkKey(key);
    const parts = body instanceof Uint8Array ? [body] : body;
    const partial = await this.#partialPath();
    try {
      let crc32c = 0;
      const file = await open(partial, 'wx');
      let stats: Stats;
      try {
        for (const part of parts) {
          for (let at = 0; at < part.length; at += SLICE_BYTES) {
            const slice = part.subarray(at, at + SLICE_BYTES);
            crc32c = checksum(slice, crc32c);
            await writeAll(file, slice);
          }
        }
        await this.#syncs.run(() => file.sync());
        stats = await file.stat();
      } finally {
        await file.close();
      }
      await this.#place(partial, key, options.ifAbsent === true);
      return this.#remember(key, stats, crc32c);
    } catch (error) {
      await unlink(partial).catch(() => undefined);
      throw this.#failure(error, key, 'write');
    }
  }

  async get(key: string, signal?: AbortSignal, place?: Place): Promise<Uint8Array> {
    return this.#read(key, 0, Number.POSITIVE_INFINITY, signal, place);
  }

  async getRange(key: string, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
    return this.#read(key, offset, length, signal);
  }

  async head(key: string): Promise<ObjectInfo | undefined> {
    checkKey(key);
    try {
      return await this.#tagged(key);
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw this.#failure(error, key, 'read');
    }
  }

  async copy(from: string, to: string, options: CopyOptions = {}): Promise<ObjectInfo> {
    checkKey(from);
    checkKey(to);
    const partial = await this.#partialPath();
    try {
      // A reflink where the file system has them; else the kernel copies.
      await copyFile(this.localPath(from), partial, constants.COPYFILE_FICLONE);
      const file = await open(partial, 'r+');
      let crc32c: number;
      let stats: Stats;
      try {
        await this.#syncs.run(() => file.sync());
        stats = await file.stat();
        crc32c = await checksumOf(file, options.signal);
      } finally {
        await file.close();
      }
      const tag = contentTag(stats.size, crc32c);
      if (options.ifMatch !== undefined && options.ifMatch !== tag) throw sourceChanged(this.uri, from, options.ifMatch, tag);
      await this.#place(partial, to, false);
      return this.#remember(to, stats, crc32c);
    } catch (error) {
      await unlink(partial).catch(() => undefined);
      throw this.#failure(error, from, `copy to ${to}`);
    }
  }

  async list(prefix: string, options: { readonly after?: string; readonly limit?: number } = {}): Promise<ListPage> {
    const limit = Math.min(options.limit ?? LIST_PAGE_KEYS, LIST_PAGE_KEYS);
    const objects: ObjectInfo[] = [];
    const start = prefix.slice(0, prefix.lastIndexOf('/') + 1);
    for await (const key of this.#keys(start, prefix, options.after ?? '')) {
      if (objects.length === limit) return { objects, next: objects[limit - 1].key };
      const stats = await stat(this.localPath(key)).catch((error: unknown) => {
        if (isMissing(error)) return undefined;
        throw this.#failure(error, key, 'list');
      });
      if (stats) objects.push({ key, size: stats.size, etag: '', modifiedMs: stats.mtimeMs });
    }
    return { objects };
  }

  async delete(keys: readonly string[]): Promise<void> {
    for (const key of keys) checkKey(key);
    const touched = new Set<string>();
    await mapLimit(keys, DELETE_CONCURRENCY, async (key) => {
      const path = this.localPath(key);
      this.#tags.delete(key);
      try {
        await unlink(path);
        touched.add(dirname(path));
      } catch (error) {
        if (!isMissing(error)) throw this.#failure(error, key, 'delete');
      }
    });
    for (const directory of touched) await this.#prune(directory);
  }

  localPath(key: string): string {
    return join(this.#root, key);
  }

  async ping(): Promise<void> {
    await this.#open();
  }

  async close(): Promise<void> {}

  /** Gives a finished file its name, durably. `link` refuses a taken name, `rename` replaces it. */
  async #place(partial: string, key: string, ifAbsent: boolean): Promise<void> {
    const path = this.localPath(key);
    for (let attempt = 1; ; attempt++) {
      await this.#directories.ensure(dirname(path), this.#root);
      try {
        if (ifAbsent) {
          await link(partial, path);
          await unlink(partial);
        } else await rename(partial, path);
        await this.#directories.sync(dirname(path));
        return;
      } catch (error) {
        if (codeOf(error) === 'EEXIST') throw new ObjectExistsError(this.uri, key);
        // A delete of its last neighbour has just removed the directory.
        if (!isMissing(error) || attempt === PLACE_ATTEMPTS) throw error;
        this.#directories.forget(dirname(path));
      }
    }
  }

  /** Makes deletes durable and removes directories that they left empty. */
  async #prune(directory: string): Promise<void> {
    for (let at = directory; at !== this.#root; at = dirname(at)) {
      try {
        await rmdir(at);
        this.#directories.forget(at);
      } catch (error) {
        const code = codeOf(error);
        if (code === 'ENOENT') continue;
        if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw this.#failure(error, at, 'delete');
        await this.#directories.sync(at).catch((failed: unknown) => {
          if (!isMissing(failed)) throw failed;
        });
        return;
      }
    }
    await this.#directories.sync(this.#root);
  }

  async #read(
    key: string,
    offset: number,
    length: number,
    signal?: AbortSignal,
    place: Place = Buffer.allocUnsafeSlow,
  ): Promise<Uint8Array> {
    checkKey(key);
    if (signal?.aborted) throw new CairnError('Cancelled', `read of ${key} was cancelled`);
    try {
      const file = await open(this.localPath(key), 'r');
      try {
        const { size } = await file.stat();
        const bytes = place(Math.max(0, Math.min(length, size - offset)));
        let filled = 0;
        while (filled < bytes.length) {
          const { bytesRead } = await file.read(bytes, filled, bytes.length - filled, offset + filled);
          if (bytesRead === 0) break;
          filled += bytesRead;
        }
        return new Uint8Array(bytes.buffer, bytes.byteOffset, filled);
      } finally {
        await file.close();
      }
    } catch (error) {
      throw this.#failure(error, key, 'read');
    }
  }

  /** Info with tag; reads the file when it is not the one the tag was last taken of. */
  async #tagged(key: string): Promise<ObjectInfo> {
    const file = await open(this.localPath(key), 'r');
    try {
      const stats = await file.stat();
      const known = this.#tags.get(key);
      return this.#remember(key, stats, known?.stamp === stampOf(stats) ? known.crc32c : await checksumOf(file));
    } finally {
      await file.close();
    }
  }

  #remember(key: string, stats: Stats, crc32c: number): ObjectInfo {
    this.#tags.delete(key);
    this.#tags.set(key, { stamp: stampOf(stats), crc32c });
    const oldest = this.#tags.size > TAGS_KEPT ? this.#tags.keys().next() : undefined;
    if (oldest && !oldest.done) this.#tags.delete(oldest.value);
    return { key, size: stats.size, etag: contentTag(stats.size, crc32c), crc32c, modifiedMs: stats.mtimeMs };
  }

  /** Keys in order below a directory (`''` or ending in `/`) that have the prefix and come after `after`. */
  async *#keys(directory: string, prefix: string, after: string): AsyncGenerator<string> {
    let entries: Dirent[];
    try {
      entries = await readdir(join(this.#root, directory), { withFileTypes: true });
    } catch (error) {
      if (isMissing(error) || codeOf(error) === 'ENOTDIR') return;
      throw this.#failure(error, directory, 'list');
    }
    // A directory counts with its slash, since that is how its keys compare with its neighbours.
    const names = entries.map((entry) => (entry.isDirectory() ? `${entry.name}/` : entry.name)).sort();
    for (const name of names) {
      const key = directory + name;
      if (key === `${TEMP_DIR}/`) continue;
      if (name.endsWith('/')) {
        const within = key.startsWith(prefix) || prefix.startsWith(key);
        // All keys below sort before `after` unless after lies below or the directory comes later.
        if (within && (key > after || after.startsWith(key))) yield* this.#keys(key, prefix, after);
      } else if (key.startsWith(prefix) && key > after) yield key;
    }
  }

  async #partialPath(): Promise<string> {
    await this.#open();
    return join(this.#root, TEMP_DIR, randomId(this.#runtime));
  }

  /** Makes the directories and removes what a crash left half written, once. */
  #open(): Promise<void> {
    this.#opened ??= this.#prepare().catch((error: unknown) => {
      this.#opened = undefined;
      throw this.#failure(error, TEMP_DIR, 'open');
    });
    return this.#opened;
  }

  async #prepare(): Promise<void> {
    const partials = join(this.#root, TEMP_DIR);
    await mkdir(partials, { recursive: true });
    for (const name of await readdir(partials)) {
      const path = join(partials, name);
      const stats = await stat(path).catch(() => undefined);
      if (stats && this.#runtime.now() - stats.mtimeMs > PARTIAL_MAX_AGE_MS) await unlink(path).catch(() => undefined);
    }
  }

  #failure(error: unknown, key: string, what: string): unknown {
    if (error instanceof CairnError) return error;
    if (isMissing(error)) return objectNotFound(this.uri, key, error);
    const code = codeOf(error);
    const words = `cannot ${what} object ${key} in ${this.uri}: ${error instanceof Error ? error.message : String(error)}`;
    if (code === 'ENOSPC' || code === 'EDQUOT') return new CairnError('DiskLimit', words, { cause: error });
    return new CairnError('StoreUnavailable', words, { cause: error });
  }
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

function isMissing(error: unknown): boolean {
  return codeOf(error) === 'ENOENT';
}

/** Changes whenever the file is replaced or written. */
function stampOf(stats: Stats): string {
  return `${stats.ino}:${stats.size}:${stats.mtimeMs}`;
}

async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length; ) at += (await file.write(bytes, at, bytes.length - at)).bytesWritten;
}

async function checksumOf(file: FileHandle, signal?: AbortSignal): Promise<number> {
  const slice = Buffer.allocUnsafe(SLICE_BYTES);
  let crc32c = 0;
  for (let at = 0; ; ) {
    if (signal?.aborted) throw new CairnError('Cancelled', 'copy was cancelled');
    const { bytesRead } = await file.read(slice, 0, SLICE_BYTES, at);
    if (bytesRead === 0) return crc32c;
    crc32c = checksum(slice.subarray(0, bytesRead), crc32c);
    at += bytesRead;
  }
}
