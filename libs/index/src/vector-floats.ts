import { readSync } from 'node:fs';
import { assert, CairnError } from '@cairn/base';
import { DataType, type StoredVectors } from '@cairn/schema';
import type { DenseVectors } from './search-types.ts';

/** Dense vectors of any scalar type as float32, which is what distances are computed in. */

/** Bytes of one component. */
function componentBytes(type: DataType): number {
  if (type === DataType.FloatVector) return 4;
  return type === DataType.Int8Vector ? 1 : 2;
}

/** A view where type and alignment allow it, else a copy. */
export function floatsOf(type: DataType, bytes: Uint8Array): Float32Array {
  if (type === DataType.FloatVector && bytes.byteOffset % 4 === 0)
    return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  const out = new Float32Array(bytes.length / componentBytes(type));
  writeFloats(type, bytes, out, 0);
  return out;
}

/** Converts components and writes them at `at` of `out`. */
export function writeFloats(type: DataType, bytes: Uint8Array, out: Float32Array, at: number): void {
  const aligned = bytes.byteOffset % componentBytes(type) === 0 ? bytes : Uint8Array.from(bytes);
  const count = bytes.length / componentBytes(type);
  switch (type) {
    case DataType.FloatVector:
      out.set(new Float32Array(aligned.buffer, aligned.byteOffset, count), at);
      break;
    case DataType.Float16Vector:
      out.set(new Float16Array(aligned.buffer, aligned.byteOffset, count), at);
      break;
    case DataType.BFloat16Vector: {
      const halves = new Uint16Array(aligned.buffer, aligned.byteOffset, count);
      const words = new Uint32Array(out.buffer, out.byteOffset + at * 4, count);
      // bfloat16 is the upper half of a float32.
      for (let i = 0; i < count; i++) words[i] = halves[i] << 16;
      break;
    }
    case DataType.Int8Vector:
      out.set(new Int8Array(aligned.buffer, aligned.byteOffset, count), at);
      break;
    default:
      throw new CairnError('NotSupported', `not supported: distances of vector type ${type}`);
  }
}

/** Copies chosen rows behind each other into `out`; neighbours in one step. */
export function gatherFloats(column: DenseVectors, rows: Int32Array, out: Float32Array): void {
  const { bytesPerRow, dim, type } = column;
  for (let i = 0; i < rows.length; ) {
    let run = 1;
    while (i + run < rows.length && rows[i + run] === rows[i] + run) run++;
    if (column.kind === 'stored') readFloats(column, rows[i], run, out, i * dim);
    else writeFloats(type, column.data.subarray(rows[i] * bytesPerRow, (rows[i] + run) * bytesPerRow), out, i * dim);
    i += run;
  }
}

/**
 * Reads `count` rows from `first` on out of their file, now: rows in the system's cache of files take 2 µs, less than giving way to others would. They
 * are written at `at` of `out`. StoreUnavailable when the file cannot be read, ObjectDamaged when it ends too early.
 */
export function readFloats(stored: StoredVectors, first: number, count: number, out: Float32Array, at: number): void {
  const { type, dim, bytesPerRow, offset, length } = stored;
  assert(first >= 0 && first + count <= length, `rows ${first} to ${first + count} of ${length} in object ${stored.key}`);
  const position = offset + first * bytesPerRow;
  if (type === DataType.FloatVector) {
    readExactly(stored, new Uint8Array(out.buffer, out.byteOffset + at * 4, count * dim * 4), position);
    return;
  }
  const bytes = new Uint8Array(count * bytesPerRow);
  readExactly(stored, bytes, position);
  writeFloats(type, bytes, out, at);
}

function readExactly({ fd, key }: StoredVectors, into: Uint8Array, position: number): void {
  for (let at = 0; at < into.length; ) {
    let read = 0;
    try {
      read = readSync(fd, into, at, into.length - at, position + at);
    } catch (error) {
      throw new CairnError('StoreUnavailable', `object ${key}: ${error instanceof Error ? error.message : error}`, { cause: error });
    }
    if (read === 0) throw new CairnError('ObjectDamaged', `object ${key} ends at ${position + at}, ${into.length - at} bytes too early`);
    at += read;
  }
}
