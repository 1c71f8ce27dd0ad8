import { CairnError } from '@cairn/base';
import { DataType, type VectorColumn } from '@cairn/schema';

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
export function gatherFloats(column: VectorColumn, rows: Int32Array, out: Float32Array): void {
  const { bytesPerRow, dim, data, type } = column;
  for (let i = 0; i < rows.length; ) {
    let run = 1;
    while (i + run < rows.length && rows[i + run] === rows[i] + run) run++;
    const from = rows[i] * bytesPerRow;
    writeFloats(type, data.subarray(from, from + run * bytesPerRow), out, i * dim);
    i += run;
  }
}
