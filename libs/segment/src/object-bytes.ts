import { assert, CairnError, checksum, type Runtime } from '@cairn/base';
import type { ObjectInfo, ObjectStore } from '@cairn/objects';
import type { ObjectRef } from '@cairn/proto/cairn/meta';

/** Bytes whose checksum is computed in one stretch: about 2 ms. */
const CHECKSUM_SLICE_BYTES = 8 * 1024 * 1024;

/** Of a file that is only looked at: many are at once, and what each has in memory is garbage a moment later. */
const FILE_SLICE_BYTES = 1024 * 1024;

/** Gives way to the event loop, and to other long work. */
export function pause(runtime: Runtime): Promise<void> {
  return runtime.turn();
}

/** ms of work after which the event loop gets its turn. */
const STRETCH_MS = 4;

/** Long work in short stretches: ask `due` now and then, and `pause` when it is. */
export class Stretches {
  readonly #runtime: Runtime;
  #since: number;

  constructor(runtime: Runtime) {
    this.#runtime = runtime;
    this.#since = runtime.monotonic();
  }

  get due(): boolean {
    return this.#runtime.monotonic() - this.#since >= STRETCH_MS;
  }

  async pause(): Promise<void> {
    await pause(this.#runtime);
    this.#since = this.#runtime.monotonic();
  }
}

/** CRC-32C of chunks back to back; with a runtime it gives way between slices. */
export async function checksumOf(chunks: readonly Uint8Array[], runtime?: Runtime): Promise<number> {
  let crc = 0;
  let since = 0;
  for (const chunk of chunks) {
    for (let at = 0; at < chunk.byteLength; at += CHECKSUM_SLICE_BYTES) {
      const slice = chunk.subarray(at, at + CHECKSUM_SLICE_BYTES);
      crc = checksum(slice, crc);
      since += slice.byteLength;
      if (runtime === undefined || since < CHECKSUM_SLICE_BYTES) continue;
      since = 0;
      await pause(runtime);
    }
  }
  return crc;
}

/** Writes an object and says how it must be found again: length, checksum, tag. */
export async function putObject(
  objects: ObjectStore,
  key: string,
  chunks: readonly Uint8Array[],
  more: { readonly role: string; readonly fieldId?: number; readonly runtime?: Runtime },
): Promise<ObjectRef> {
  const size = chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0);
  const info: ObjectInfo = await objects.put(key, chunks);
  assert(info.size === size, `object ${key}: ${size} bytes were put, the store says ${info.size}`);
  const crc32c = info.crc32c ?? (await checksumOf(chunks, more.runtime));
  return { key, size, crc32c, etag: info.etag, role: more.role, fieldId: more.fieldId ?? 0 };
}

/** Whole object, its length and checksum compared. ObjectNotFound, ObjectDamaged name the key. */
export async function getObject(objects: ObjectStore, ref: ObjectRef, runtime?: Runtime): Promise<Uint8Array> {
  const bytes = await objects.get(ref.key);
  await verifyBytes(ref, bytes, runtime);
  return bytes;
}

export async function verifyBytes(ref: ObjectRef, bytes: Uint8Array, runtime?: Runtime): Promise<void> {
  if (bytes.byteLength !== ref.size)
    throw new CairnError('ObjectDamaged', `object ${ref.key}: ${bytes.byteLength} bytes, expected ${ref.size}`);
  const crc = await checksumOf([bytes], runtime);
  if (crc !== ref.crc32c) throw damaged(ref, crc);
}

const damaged = (ref: ObjectRef, crc: number): CairnError =>
  new CairnError('ObjectDamaged', `object ${ref.key}: checksum ${hex(crc)}, expected ${hex(ref.crc32c)}`);

/** The checksum of an object in a local file, of which never more than a slice is in memory; its length is known to be right. */
export async function verifyFile(ref: ObjectRef, read: (into: Uint8Array, offset: number) => Promise<Uint8Array>): Promise<void> {
  const slice = new Uint8Array(Math.min(FILE_SLICE_BYTES, ref.size));
  let crc = 0;
  for (let at = 0; at < ref.size; at += slice.length) {
    crc = checksum(await read(slice.subarray(0, Math.min(slice.length, ref.size - at)), at), crc);
  }
  if (crc !== ref.crc32c) throw damaged(ref, crc);
}

/** Runs `work` on an object's bytes; its errors name the object. */
export function readingObject<T>(key: string, work: () => T): T {
  try {
    const result = work();
    return result instanceof Promise ? (result.catch((error: unknown) => Promise.reject(naming(key, error))) as T) : result;
  } catch (error) {
    throw naming(key, error);
  }
}

function naming(key: string, error: unknown): CairnError {
  if (error instanceof CairnError && error.message.includes(key)) return error;
  return new CairnError('ObjectDamaged', `object ${key}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
}

function hex(crc: number): string {
  return crc.toString(16).padStart(8, '0');
}
