import { CairnError, type Runtime, Stretch } from '@cairn/base';
import type { Column, ColumnBatch, Validity } from './column.ts';
import { bytesOf } from './column-ops.ts';
import { type Family, familyOf, fixedArray, toDataType, typeName, vectorBytes, visitColumn } from './field-types.ts';
import type { DataType } from './types.ts';

/**
 * Frames carry batches between processes and in the WAL. All numbers little-endian u32:
 *
 *     magic "CRNF" · version · bytes of the frame · rows · columns            20 bytes, then 4 of padding
 *     per column, depth first (a list is followed by its child):              40 bytes
 *       field id · type · length · dim · validity offset, bytes · offsets offset, bytes · data offset, bytes
 *     buffers, each 8-byte aligned
 *
 * Decoding makes views on the bytes. They are aligned when the frame starts at a multiple of 8; otherwise it is copied once.
 */
const MAGIC = 0x464e5243;
const VERSION = 1;
const HEADER_BYTES = 24;
const DESCRIPTOR_BYTES = 40;
/** Offset that says: no such buffer. */
const ABSENT = 0;
const MAX_DEPTH = 2;
/** Field id of a list's child. */
const CHILD = 0xffffffff;

interface Buffers {
  readonly validity: Uint8Array | null;
  readonly offsets: Uint8Array | null;
  readonly data: Uint8Array | null;
  readonly dim: number;
  readonly child: Column | null;
}

function buffersOf(column: Column): Buffers {
  return visitColumn<Buffers>(column, {
    fixed: (from) => ({ validity: from.validity, offsets: null, data: bytesOf(from.values), dim: 0, child: null }),
    bytes: (from) => ({ validity: from.validity, offsets: bytesOf(from.offsets), data: from.data, dim: 0, child: null }),
    vector: (from) => ({ validity: from.validity, offsets: null, data: from.data, dim: from.dim, child: null }),
    list: (from) => ({ validity: from.validity, offsets: bytesOf(from.offsets), data: null, dim: 0, child: from.child }),
  });
}

const align = (position: number): number => (position + 7) & ~7;

/** Bytes copied between two looks at the clock. */
const COPY_BYTES = 1 << 20;

/** Batch to bytes; one copy of each buffer. */
export function encodeFrame(batch: ColumnBatch): Uint8Array {
  const { out, parts } = layOut(batch);
  for (const { bytes, position } of parts) out.set(bytes, position);
  return out;
}

/** The same; a large batch gives way to the event loop while it is copied. It must not change meanwhile. */
export async function encodeFrameInTurns(batch: ColumnBatch, runtime: Runtime): Promise<Uint8Array> {
  const { out, parts } = layOut(batch);
  const stretch = new Stretch(runtime);
  for (const { bytes, position } of parts) {
    for (let at = 0; at < bytes.byteLength; at += COPY_BYTES) {
      const pause = at > 0 ? stretch.pause() : undefined;
      if (pause) await pause;
      out.set(bytes.subarray(at, at + COPY_BYTES), position + at);
    }
  }
  return out;
}

/** A frame with all but its buffers, and where these go. */
function layOut(batch: ColumnBatch): {
  readonly out: Uint8Array;
  readonly parts: { readonly bytes: Uint8Array; readonly position: number }[];
} {
  const flat: { id: number; column: Column; buffers: Buffers }[] = [];
  const visit = (id: number, column: Column): void => {
    const buffers = buffersOf(column);
    flat.push({ id, column, buffers });
    if (buffers.child !== null) visit(CHILD, buffers.child);
  };
  for (const [id, column] of batch.columns) visit(id, column);
  let size = HEADER_BYTES + flat.length * DESCRIPTOR_BYTES;
  for (const { buffers } of flat)
    for (const part of [buffers.validity, buffers.offsets, buffers.data]) size += part === null ? 0 : align(part.byteLength);
  if (size > 0x7fffffff)
    throw new CairnError('ParameterTooLarge', `a batch of ${batch.length} rows makes a frame of ${size} bytes, more than 2 GiB`);
  const out = new Uint8Array(size);
  const view = new DataView(out.buffer);
  const header = [MAGIC, VERSION, size, batch.length, batch.columns.size];
  for (const [i, value] of header.entries()) view.setUint32(i * 4, value, true);
  let at = HEADER_BYTES;
  let position = HEADER_BYTES + flat.length * DESCRIPTOR_BYTES;
  const parts: { readonly bytes: Uint8Array; readonly position: number }[] = [];
  for (const { id, column, buffers } of flat) {
    for (const [i, value] of [id, column.type, column.length, buffers.dim].entries()) view.setUint32(at + i * 4, value, true);
    for (const [i, part] of [buffers.validity, buffers.offsets, buffers.data].entries()) {
      if (part === null) continue;
      view.setUint32(at + 16 + i * 8, position, true);
      view.setUint32(at + 20 + i * 8, part.byteLength, true);
      parts.push({ bytes: part, position });
      position += align(part.byteLength);
    }
    at += DESCRIPTOR_BYTES;
  }
  return { out, parts };
}

function damaged(reason: string): CairnError {
  return new CairnError('InvalidParameter', `not a valid frame of columns: ${reason}`);
}

/** Bytes to batch, as views on them. InvalidParameter for anything that is not a whole and consistent frame. */
export function decodeFrame(bytes: Uint8Array): ColumnBatch {
  if (bytes.byteLength < HEADER_BYTES) throw damaged(`${bytes.byteLength} bytes`);
  const aligned = bytes.byteOffset % 8 === 0 ? bytes : new Uint8Array(bytes);
  return new FrameReader(aligned).read();
}

class FrameReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #at = HEADER_BYTES;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  read(): ColumnBatch {
    const [magic, version, size, rows, count] = [0, 4, 8, 12, 16].map((at) => this.#view.getUint32(at, true));
    if (magic !== MAGIC) throw damaged('it does not start with the magic number');
    if (version !== VERSION) throw damaged(`version ${version}, this program reads ${VERSION}`);
    if (size !== this.#bytes.byteLength) throw damaged(`${this.#bytes.byteLength} bytes of ${size}`);
    const columns = new Map<number, Column>();
    for (let i = 0; i < count; i++) {
      const { id, column } = this.#column(0);
      if (column.length !== rows) throw damaged(`field ${id} has ${column.length} rows of ${rows}`);
      if (columns.has(id)) throw damaged(`field ${id} comes twice`);
      columns.set(id, column);
    }
    return { length: rows, columns };
  }

  #column(depth: number): { id: number; column: Column } {
    if (this.#at + DESCRIPTOR_BYTES > this.#bytes.byteLength || depth > MAX_DEPTH) throw damaged('too many columns');
    const at = this.#at;
    this.#at += DESCRIPTOR_BYTES;
    const [id, typeNumber, length, dim] = [0, 4, 8, 12].map((offset) => this.#view.getUint32(at + offset, true));
    const type = toDataType(typeNumber);
    const family = type === undefined ? undefined : familyOf(type);
    if (type === undefined || family === undefined) throw damaged(`field ${id} has the type ${typeName(typeNumber)}`);
    const bits = this.#buffer(at + 16);
    if (bits !== null && bits.byteLength !== (length + 7) >>> 3)
      throw damaged(`field ${id} has a bitmap of ${bits.byteLength} bytes for ${length} rows`);
    return { id, column: this.#build[family](at, id, type, length, dim, bits, depth) };
  }

  readonly #build: Record<
    Family,
    (at: number, id: number, type: DataType, length: number, dim: number, validity: Validity, depth: number) => Column
  > = {
    fixed: (at, id, type, length, _dim, validity) => {
      const make = fixedArray(type);
      const data = this.#data(at, id, length * make.BYTES_PER_ELEMENT);
      return { kind: 'fixed', type, length, validity, values: new make(data.buffer, data.byteOffset, length) };
    },
    bytes: (at, id, type, length, _dim, validity) => {
      const offsets = this.#offsets(at, id, length);
      return { kind: 'bytes', type, length, validity, offsets, data: this.#data(at, id, offsets[length]) };
    },
    vector: (at, id, type, length, dim, validity) => {
      const bytesPerRow = vectorBytes(type, dim);
      return { kind: 'vector', type, length, validity, dim, bytesPerRow, data: this.#data(at, id, length * bytesPerRow) };
    },
    list: (at, id, type, length, _dim, validity, depth) => {
      const offsets = this.#offsets(at, id, length);
      const { column: child } = this.#column(depth + 1);
      if (child.length !== offsets[length]) throw damaged(`field ${id} has ${child.length} elements, its offsets say ${offsets[length]}`);
      return { kind: 'list', type, length, validity, offsets, child };
    },
  };

  #buffer(at: number): Uint8Array | null {
    const start = this.#view.getUint32(at, true);
    const length = this.#view.getUint32(at + 4, true);
    if (start === ABSENT) return null;
    if (start % 8 !== 0 || start < HEADER_BYTES || start + length > this.#bytes.byteLength)
      throw damaged(`a buffer at ${start} of ${length} bytes`);
    return this.#bytes.subarray(start, start + length);
  }

  #data(at: number, id: number, expected: number): Uint8Array {
    const data = this.#buffer(at + 32) ?? new Uint8Array(0);
    if (data.byteLength !== expected) throw damaged(`field ${id} has ${data.byteLength} bytes of data, not ${expected}`);
    return data;
  }

  #offsets(at: number, id: number, length: number): Int32Array {
    const bytes = this.#buffer(at + 24);
    if (bytes === null || bytes.byteLength !== (length + 1) * 4) throw damaged(`field ${id} has no offsets for ${length} rows`);
    const offsets = new Int32Array(bytes.buffer, bytes.byteOffset, length + 1);
    if (offsets[0] !== 0) throw damaged(`field ${id}: offsets start at ${offsets[0]}`);
    for (let i = 1; i <= length; i++) if (offsets[i] < offsets[i - 1]) throw damaged(`field ${id}: offsets fall at row ${i}`);
    return offsets;
  }
}
