/**
 * Bitmaps over rows, as Arrow keeps them: bit i stands for row i, least significant bit first, ceil(rows / 8) bytes, bits after the last row
 * are zero. Every function here keeps that last promise, so counts need no row number.
 */
export type Bitmap = Uint8Array;

const POPCOUNT = new Uint8Array(256);
for (let i = 1; i < 256; i++) POPCOUNT[i] = POPCOUNT[i >> 1] + (i & 1);

export const bitmapBytes = (rows: number): number => (rows + 7) >> 3;

export function emptyBitmap(rows: number): Bitmap {
  return new Uint8Array(bitmapBytes(rows));
}

export function fullBitmap(rows: number): Bitmap {
  const bitmap = new Uint8Array(bitmapBytes(rows)).fill(255);
  trimBitmap(bitmap, rows);
  return bitmap;
}

/** Clears the bits after the last row, in place. */
export function trimBitmap(bitmap: Bitmap, rows: number): void {
  if (rows & 7 && bitmap.length > rows >> 3) bitmap[rows >> 3] &= (1 << (rows & 7)) - 1;
}

export const bitAt = (bitmap: Bitmap, row: number): boolean => ((bitmap[row >> 3] >> (row & 7)) & 1) === 1;

/** How many bits are set. */
export function countBits(bitmap: Bitmap): number {
  let count = 0;
  for (let i = 0; i < bitmap.length; i++) count += POPCOUNT[bitmap[i]];
  return count;
}

export function anyBit(bitmap: Bitmap): boolean {
  for (let i = 0; i < bitmap.length; i++) if (bitmap[i] !== 0) return true;
  return false;
}

/** a AND b; the shorter length wins. */
export function andBits(a: Bitmap, b: Bitmap): Bitmap {
  const out = new Uint8Array(Math.min(a.length, b.length));
  for (let i = 0; i < out.length; i++) out[i] = a[i] & b[i];
  return out;
}

/** a OR b, both of one length. */
export function orBits(a: Bitmap, b: Bitmap): Bitmap {
  const out = new Uint8Array(a.length);
  for (let i = 0; i < out.length; i++) out[i] = a[i] | b[i];
  return out;
}

/** a AND NOT b, both of one length. */
export function andNotBits(a: Bitmap, b: Bitmap): Bitmap {
  const out = new Uint8Array(a.length);
  for (let i = 0; i < out.length; i++) out[i] = a[i] & ~b[i];
  return out;
}

/** Bits that are in one of the two. */
export function xorBits(a: Bitmap, b: Bitmap): Bitmap {
  const out = new Uint8Array(a.length);
  for (let i = 0; i < out.length; i++) out[i] = a[i] ^ b[i];
  return out;
}

/** The rows of the set bits, ascending; at most `limit` of them. */
export function rowsOfBits(bitmap: Bitmap, limit = Number.POSITIVE_INFINITY): Int32Array {
  const rows = new Int32Array(Math.min(countBits(bitmap), limit));
  let n = 0;
  for (let i = 0; i < bitmap.length && n < rows.length; i++) {
    let byte = bitmap[i];
    while (byte !== 0 && n < rows.length) {
      const bit = 31 - Math.clz32(byte & -byte);
      rows[n++] = (i << 3) + bit;
      byte &= byte - 1;
    }
  }
  return rows;
}
