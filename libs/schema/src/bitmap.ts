import type { Validity } from './column.ts';

/** Bit of a row; no bitmap means every row has a value. */
export function isValid(validity: Validity, row: number): boolean {
  return validity === null || ((validity[row >> 3] >> (row & 7)) & 1) === 1;
}

/** Bitmap with bit i set where `test(i)`; null when that is every row. */
export function validityOf(rows: number, test: (row: number) => boolean): Validity {
  const bits = new Uint8Array((rows + 7) >> 3);
  let set = 0;
  for (let row = 0; row < rows; row++) {
    if (!test(row)) continue;
    bits[row >> 3] |= 1 << (row & 7);
    set++;
  }
  return set === rows ? null : bits;
}

/** Rows with a value. Bits past the end are not trusted. */
export function countValid(validity: Validity, rows: number): number {
  if (validity === null) return rows;
  let count = 0;
  for (let row = 0; row < rows; row++) count += (validity[row >> 3] >> (row & 7)) & 1;
  return count;
}

/** Bits [start, end) as a bitmap of their own. */
export function sliceValidity(validity: Validity, start: number, end: number): Validity {
  if (validity === null) return null;
  const length = (end - start + 7) >> 3;
  if ((start & 7) === 0) return validity.subarray(start >> 3, (start >> 3) + length);
  const bits = new Uint8Array(length);
  const shift = start & 7;
  for (let i = 0, from = start >> 3; i < length; i++, from++)
    bits[i] = (validity[from] >> shift) | ((validity[from + 1] ?? 0) << (8 - shift));
  return bits;
}

/** Rows in order that have a value. */
export function validRows(validity: Validity, rows: number): Int32Array {
  const out = new Int32Array(countValid(validity, rows));
  for (let row = 0, at = 0; row < rows; row++) if (isValid(validity, row)) out[at++] = row;
  return out;
}
