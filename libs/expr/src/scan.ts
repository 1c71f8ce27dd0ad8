import type { Bitmap } from '@cairn/base';

/** Loops that turn a test of one row into a bitmap. Rows outside `within` are not tested. */
export type RowTest = (row: number) => boolean;

export function scanRows(within: Bitmap, test: RowTest): Bitmap {
  const out = new Uint8Array(within.length);
  for (let b = 0; b < within.length; b++) {
    let wanted = within[b];
    let bits = 0;
    while (wanted !== 0) {
      const lowest = wanted & -wanted;
      if (test((b << 3) + 31 - Math.clz32(lowest))) bits |= lowest;
      wanted ^= lowest;
    }
    out[b] = bits;
  }
  return out;
}

type NumberArray = Int8Array | Int16Array | Int32Array | Float32Array | Float64Array;

/** low <= value <= high (or not so, when `outside`), for numbers. NaN is in no range. */
export function scanRange(within: Bitmap, values: NumberArray, low: number, high: number, outside: boolean): Bitmap {
  const out = new Uint8Array(within.length);
  const rows = values.length;
  const flip = outside ? 255 : 0;
  for (let b = 0, row = 0; b < within.length; b++, row += 8) {
    const wanted = within[b];
    if (wanted === 0) continue;
    let bits = 0;
    const end = row + 8 < rows ? 8 : rows - row;
    for (let i = 0; i < end; i++) {
      const value = values[row + i];
      bits |= (value >= low && value <= high ? 1 : 0) << i;
    }
    out[b] = (bits ^ flip) & wanted;
  }
  return out;
}

/** The same for int64, on its two halves: reading a BigInt64Array would make an object of every value. */
export function scanRange64(within: Bitmap, values: BigInt64Array, low: bigint, high: bigint, outside: boolean): Bitmap {
  const out = new Uint8Array(within.length);
  const halves = new Int32Array(values.buffer, values.byteOffset, values.length * 2);
  const lowTop = Number(low >> 32n);
  const lowRest = Number(low & 0xffffffffn);
  const highTop = Number(high >> 32n);
  const highRest = Number(high & 0xffffffffn);
  const rows = values.length;
  const flip = outside ? 255 : 0;
  for (let b = 0, row = 0; b < within.length; b++, row += 8) {
    const wanted = within[b];
    if (wanted === 0) continue;
    let bits = 0;
    const end = row + 8 < rows ? 8 : rows - row;
    for (let i = 0; i < end; i++) {
      const top = halves[2 * (row + i) + 1];
      const rest = halves[2 * (row + i)] >>> 0;
      const inside = (top > lowTop || (top === lowTop && rest >= lowRest)) && (top < highTop || (top === highTop && rest <= highRest));
      bits |= (inside ? 1 : 0) << i;
    }
    out[b] = (bits ^ flip) & wanted;
  }
  return out;
}
