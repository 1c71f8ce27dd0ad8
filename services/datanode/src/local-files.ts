import { join } from 'node:path';
import {
  CairnError,
  checksum,
  type FileCalls,
  fileCalls,
  KeyedMutex,
  type Logger,
  mapLimit,
  type Runtime,
  randomId,
  retry,
} from '@cairn/base';
import type { ObjectStore } from '@cairn/objects';
import type { ObjectRef } from '@cairn/proto/cairn/meta';

/** A file on this machine with the bytes of an object. */
export interface LocalFile {
  readonly path: string;
  readonly key: string;
}

export interface LocalFilesOptions {
  readonly objects: ObjectStore;
  readonly runtime: Runtime;
  readonly logger: Logger;
  /** Where downloads are kept. Not used when the store itself is the local disk. */
  readonly dir: string;
  /** Bytes of downloads to keep; files in use count and are never removed. */
  readonly limitBytes: number;
}

interface CachedFile {
  readonly file: LocalFile;
  readonly bytes: number;
  users: number;
}

const RANGE_BYTES = 8 << 20;
const RANGE_CONCURRENCY = 4;
/** Read and checksummed at once: a quarter of a millisecond. Many files are at once, and what each has in memory is garbage a moment later. */
const SLICE_BYTES = 1 << 20;
const RETRY = { attempts: 5, firstDelayMs: 100, maxDelayMs: 2000 };
const PARTIAL = '.partial';

/** Objects as verified local files, so that workers can map them: the store's own file where it has one, else a download in a bounded cache. */
export class LocalFiles {
  readonly #options: LocalFilesOptions;
  readonly #files: FileCalls;
  /** In order of last use. */
  readonly #cached = new Map<string, CachedFile>();
  readonly #mutex = new KeyedMutex();
  #bytes = 0;

  constructor(options: LocalFilesOptions) {
    this.#options = options;
    this.#files = fileCalls(options.runtime);
  }

  /** Takes what an earlier run left; its content is verified when it is used. */
  async start(): Promise<void> {
    if (this.#options.objects.localPath || this.#options.runtime.inline) return;
    const { dir } = this.#options;
    await this.#files.mkdir(dir);
    for (const name of await this.#files.readdir(dir)) {
      const path = join(dir, name);
      if (name.endsWith(PARTIAL)) await this.#files.unlink(path);
      else this.#keep(name, { file: { path, key: '' }, bytes: (await this.#files.stat(path)).size, users: 0 });
    }
    await this.#evict();
  }

  /** The object's file, verified by length and CRC-32C. Every `open` needs a `release`. ObjectNotFound, ObjectDamaged name the key. */
  async open(ref: ObjectRef): Promise<LocalFile> {
    const { objects } = this.#options;
    if (objects.localPath) {
      const file = { path: objects.localPath(ref.key), key: ref.key };
      await this.#verify(file.path, ref);
      return file;
    }
    const name = nameOf(ref);
    return this.#mutex.run(name, async () => {
      const cached = this.#cached.get(name);
      // While somebody uses it, it was verified when that one came.
      if (cached && cached.users > 0) return this.#use(name, cached);
      const path = join(this.#options.dir, name);
      if (
        !cached ||
        !(await this.#verify(path, ref).then(
          () => true,
          () => false,
        ))
      )
        await this.#download(ref, path);
      return this.#use(name, { file: { path, key: ref.key }, bytes: ref.size, users: 0 });
    });
  }

  async release(file: LocalFile): Promise<void> {
    for (const [name, cached] of this.#cached) {
      if (cached.file.path !== file.path) continue;
      cached.users--;
      this.#keep(name, cached);
      break;
    }
    await this.#evict();
  }

  #use(name: string, cached: CachedFile): LocalFile {
    cached.users++;
    this.#keep(name, cached);
    return cached.file;
  }

  /** Puts it last in the order of use. */
  #keep(name: string, cached: CachedFile): void {
    const before = this.#cached.get(name);
    if (before) this.#bytes -= before.bytes;
    this.#cached.delete(name);
    this.#cached.set(name, cached);
    this.#bytes += cached.bytes;
  }

  async #evict(): Promise<void> {
    for (const [name, cached] of [...this.#cached]) {
      if (this.#bytes <= this.#options.limitBytes) return;
      await this.#mutex.run(name, async () => {
        if (cached.users > 0 || this.#cached.get(name) !== cached) return;
        this.#cached.delete(name);
        this.#bytes -= cached.bytes;
        await this.#files
          .unlink(cached.file.path)
          .catch((error: unknown) => this.#options.logger.warn({ path: cached.file.path, error }, 'cached file not removed'));
      });
    }
  }

  async #download(ref: ObjectRef, path: string): Promise<void> {
    const { objects, runtime } = this.#options;
    await this.#files.mkdir(this.#options.dir);
    const partial = `${path}-${randomId(runtime)}${PARTIAL}`;
    const file = await this.#files.open(partial, 'wx');
    try {
      try {
        const starts = Array.from({ length: Math.ceil(ref.size / RANGE_BYTES) }, (_, index) => index * RANGE_BYTES);
        await mapLimit(starts, RANGE_CONCURRENCY, async (start) => {
          const bytes = await retry(runtime, RETRY, () => objects.getRange(ref.key, start, Math.min(RANGE_BYTES, ref.size - start)));
          for (let at = 0; at < bytes.length; ) at += (await file.write(bytes, at, bytes.length - at, start + at)).bytesWritten;
        });
      } finally {
        await file.close();
      }
      await this.#verify(partial, ref);
      await this.#files.rename(partial, path);
    } catch (error) {
      await this.#files.unlink(partial).catch(() => undefined);
      throw error;
    }
  }

  async #verify(path: string, ref: ObjectRef): Promise<void> {
    const { uri } = this.#options.objects;
    const file = await this.#files.open(path, 'r').catch((cause: unknown) => {
      throw new CairnError('ObjectNotFound', `object not found: ${ref.key} in ${uri}`, { cause });
    });
    try {
      const { size } = await file.stat();
      if (size !== ref.size)
        throw new CairnError('ObjectDamaged', `object damaged: ${ref.key} in ${uri} has ${size} bytes, expected ${ref.size}`);
      const slice = Buffer.allocUnsafe(Math.min(SLICE_BYTES, Math.max(1, size)));
      let crc32c = 0;
      for (let at = 0; at < size; ) {
        const { bytesRead } = await file.read(slice, 0, slice.length, at);
        if (bytesRead === 0) break;
        crc32c = checksum(slice.subarray(0, bytesRead), crc32c);
        at += bytesRead;
      }
      if (crc32c !== ref.crc32c)
        throw new CairnError('ObjectDamaged', `object damaged: ${ref.key} in ${uri} has CRC-32C ${crc32c}, expected ${ref.crc32c}`);
    } finally {
      await file.close();
    }
  }
}

/** Keys never repeat, so key and checksum name the content. */
function nameOf(ref: ObjectRef): string {
  return `${ref.key.replaceAll('/', '_')}-${ref.crc32c.toString(16)}`;
}
