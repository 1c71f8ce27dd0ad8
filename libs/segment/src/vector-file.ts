import { type FileHandle, mkdir, open, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { assert, CairnError, mapLimit, type Runtime, randomId } from '@cairn/base';
import type { ObjectStore } from '@cairn/objects';
import type { ObjectRef } from '@cairn/proto/cairn/meta';
import {
  isValid,
  readArrowFile,
  readVectorLayout,
  type StoredVectors,
  takeColumn,
  type Validity,
  type VectorColumn,
  type VectorLayout,
} from '@cairn/schema';
import { getObject, readingObject, verifyBytes, verifyFile } from './object-bytes.ts';
import type { VectorMemory } from './vector-memory.ts';

/** Reads of one gather that are under way at once. */
const PARALLEL_READS = 16;
/** Wanted rows with at most this much between them are one read. */
const READ_GAP_BYTES = 16 * 1024;
/** A gather that wants more than this share of the rows loads them all. */
const WHOLE_SHARE = 0.25;

interface LocalFile {
  readonly handle: FileHandle;
  readonly layout: VectorLayout;
  readonly validity: Validity;
}

/**
 * The vectors of one field of a sealed segment. Single rows are read by position from the local file (the store's own, or a verified copy in the
 * cache directory); the whole column is loaded into shared memory on demand. Without a local file it is loaded at the first use.
 */
export class VectorFile {
  readonly #objects: ObjectStore;
  readonly #runtime: Runtime;
  readonly #ref: ObjectRef;
  readonly #cacheDir: string | undefined;
  #local: Promise<LocalFile | undefined> | undefined;
  #cached: string | undefined;
  #loaded: VectorColumn | undefined;
  #loading: Promise<VectorColumn> | undefined;
  #verified: Promise<void> | undefined;
  readonly #memory: VectorMemory | undefined;
  /** Bytes that count in #memory. */
  #counted = 0;

  constructor(options: {
    objects: ObjectStore;
    runtime: Runtime;
    ref: ObjectRef;
    cacheDir: string | undefined;
    memory?: VectorMemory | undefined;
  }) {
    this.#memory = options.memory;
    this.#objects = options.objects;
    this.#runtime = options.runtime;
    this.#ref = options.ref;
    this.#cacheDir = options.cacheDir;
  }

  /** Whole column in a SharedArrayBuffer, verified. */
  load(): Promise<VectorColumn> {
    if (this.#loading) return this.#loading;
    this.#memory?.add(this.#ref.size);
    this.#counted = this.#ref.size;
    return this.#start();
  }

  /** The whole column where it is in memory already or may be, else where it lies in the local file, verified. Not to be used after `close`. */
  async inPlace(): Promise<VectorColumn | StoredVectors> {
    if (this.#loading) return this.#loading;
    // Without a local file it is read into memory in any case.
    const local = this.#memory && (await this.#openLocal());
    if (this.#memory === undefined || local === undefined || this.#loading) return this.load();
    if (!this.#memory.take(this.#ref.size)) return this.#stored(local);
    this.#counted = this.#ref.size;
    return this.#start();
  }

  async #stored({ handle, layout, validity }: LocalFile): Promise<StoredVectors> {
    // A copy of our own was verified when it was written.
    if (this.#cached === undefined) {
      this.#verified ??= verifyFile(this.#ref, (into, offset) => readFully(handle, into, offset, this.#ref.key));
      await this.#verified.catch((error: unknown) => {
        this.#verified = undefined;
        throw error;
      });
    }
    const { type, dim, bytesPerRow, rows, dataOffset } = layout;
    return { kind: 'stored', type, length: rows, dim, bytesPerRow, validity, fd: handle.fd, offset: dataOffset, key: this.#ref.key };
  }

  #start(): Promise<VectorColumn> {
    this.#loading = this.#load().catch((error: unknown) => {
      this.#loading = undefined;
      this.#uncount();
      throw error;
    });
    return this.#loading;
  }

  #uncount(): void {
    this.#memory?.give(this.#counted);
    this.#counted = 0;
  }

  /** Forgets the loaded column; who has it keeps it. */
  unload(): void {
    this.#loaded = undefined;
    this.#loading = undefined;
    this.#uncount();
  }

  async gather(rows: Int32Array): Promise<VectorColumn> {
    const whole = this.#loaded ?? (await this.#wholeIfBetter(rows.length));
    if (whole !== undefined) return takeColumn(whole, rows) as VectorColumn;
    const local = await this.#openLocal();
    return local === undefined ? (takeColumn(await this.load(), rows) as VectorColumn) : this.#readRows(local, rows);
  }

  async close(): Promise<void> {
    const local = await this.#local?.catch(() => undefined);
    await local?.handle.close();
    this.#uncount();
    this.#local = undefined;
    if (this.#cached !== undefined) await rm(this.#cached, { force: true });
  }

  async #wholeIfBetter(wanted: number): Promise<VectorColumn | undefined> {
    const local = await this.#openLocal();
    return local !== undefined && wanted > local.layout.rows * WHOLE_SHARE && wanted > 64 ? this.load() : undefined;
  }

  async #load(): Promise<VectorColumn> {
    const ref = this.#ref;
    const shared = new Uint8Array(new SharedArrayBuffer(ref.size));
    const local = await this.#openLocal();
    if (local === undefined) {
      const bytes = await this.#objects.get(ref.key);
      if (bytes.byteLength !== ref.size) await verifyBytes(ref, bytes);
      shared.set(bytes);
    } else await readFully(local.handle, shared, 0, ref.key);
    // The copy is what will be searched, so the copy is what is verified.
    await verifyBytes(ref, shared, this.#runtime);
    const column = readingObject(ref.key, () => readArrowFile(shared)).columns.get(ref.fieldId);
    if (column?.kind !== 'vector') throw new CairnError('ObjectDamaged', `object ${ref.key} has no vectors of field ${ref.fieldId}`);
    this.#loaded = column;
    return column;
  }

  #openLocal(): Promise<LocalFile | undefined> {
    this.#local ??= this.#open().catch((error: unknown) => {
      this.#local = undefined;
      throw error;
    });
    return this.#local;
  }

  async #open(): Promise<LocalFile | undefined> {
    const { key, size } = this.#ref;
    const path = this.#objects.localPath?.(key) ?? (await this.#download());
    if (path === undefined) return undefined;
    const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
      throw new CairnError(error.code === 'ENOENT' ? 'ObjectNotFound' : 'StoreUnavailable', `object ${key}: ${error.message}`, {
        cause: error,
      });
    });
    if (found.size !== size) throw new CairnError('ObjectDamaged', `object ${key}: ${found.size} bytes, expected ${size}`);
    const handle = await open(path, 'r');
    try {
      const readAt = (offset: number, length: number): Promise<Uint8Array> => readFully(handle, new Uint8Array(length), offset, key);
      const layout = await readVectorLayout(readAt, size);
      const validity = layout.validity === undefined ? null : await readAt(layout.validity.offset, layout.validity.length);
      return { handle, layout, validity };
    } catch (error) {
      await handle.close();
      return readingObject(key, () => {
        throw error;
      });
    }
  }

  /** Verified copy of the object in the cache directory; undefined without one. */
  async #download(): Promise<string | undefined> {
    if (this.#cacheDir === undefined) return undefined;
    await mkdir(this.#cacheDir, { recursive: true });
    // Unique, so that two openings of one segment never share, and one closing never removes the other's file.
    const path = join(this.#cacheDir, `${this.#ref.key.replaceAll('/', '_')}.${randomId(this.#runtime)}`);
    await writeFile(`${path}.part`, await getObject(this.#objects, this.#ref, this.#runtime));
    await rename(`${path}.part`, path);
    this.#cached = path;
    return path;
  }

  /** Rows that lie close together are read at once. */
  async #readRows(local: LocalFile, rows: Int32Array): Promise<VectorColumn> {
    const { layout, handle } = local;
    const width = layout.bytesPerRow;
    const data = new Uint8Array(rows.length * width);
    const sorted = Int32Array.from(rows.keys()).sort((a, b) => rows[a] - rows[b]);
    const runs: { start: number; end: number }[] = [];
    for (let at = 0; at < sorted.length; at++) {
      const run = runs[runs.length - 1];
      const gap = run === undefined ? 0 : (rows[sorted[at]] - rows[sorted[at - 1]]) * width;
      if (run === undefined || gap > READ_GAP_BYTES + width) runs.push({ start: at, end: at + 1 });
      else run.end = at + 1;
    }
    await mapLimit(runs, PARALLEL_READS, async ({ start, end }) => {
      const first = rows[sorted[start]];
      const last = rows[sorted[end - 1]];
      assert(first >= 0 && last < layout.rows, `rows ${first} to ${last} of ${layout.rows} in object ${this.#ref.key}`);
      const bytes = await readFully(handle, new Uint8Array((last - first + 1) * width), layout.dataOffset + first * width, this.#ref.key);
      for (let at = start; at < end; at++) {
        const from = (rows[sorted[at]] - first) * width;
        data.set(bytes.subarray(from, from + width), sorted[at] * width);
      }
    });
    const validity = local.validity === null ? null : takeBits(local.validity, rows);
    return { kind: 'vector', type: layout.type, length: rows.length, dim: layout.dim, bytesPerRow: width, data, validity };
  }
}

function takeBits(bits: Uint8Array, rows: Int32Array): Uint8Array {
  const out = new Uint8Array((rows.length + 7) >> 3);
  for (let i = 0; i < rows.length; i++) if (isValid(bits, rows[i])) out[i >> 3] |= 1 << (i & 7);
  return out;
}

async function readFully(handle: FileHandle, into: Uint8Array, offset: number, key: string): Promise<Uint8Array> {
  for (let at = 0; at < into.byteLength; ) {
    const { bytesRead } = await handle.read(into, at, into.byteLength - at, offset + at);
    if (bytesRead === 0)
      throw new CairnError('ObjectDamaged', `object ${key} ends at ${offset + at}, ${into.byteLength - at} bytes too early`);
    at += bytesRead;
  }
  return into;
}
