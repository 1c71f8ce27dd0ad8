import type { Bitmap } from './readable-segment.ts';

/** Above rows / this, a number per row is smaller than a map of the deleted ones. */
const SPARSE_SHARE = 16;

/** When each row of one segment was deleted: the smallest timestamp of a delete that hits it. */
export class RowDeletes {
  readonly #sparse = new Map<number, number>();
  #dense: Float64Array | undefined;
  #earliest = Number.POSITIVE_INFINITY;
  #latest = 0;
  #version = 0;

  /** Smallest timestamp of any delete here; infinity when there is none. */
  get earliest(): number {
    return this.#earliest;
  }

  /** Largest timestamp of any delete here; 0 when there is none. */
  get latest(): number {
    return this.#latest;
  }

  /** Grows with every change. */
  get version(): number {
    return this.#version;
  }

  /** `rows`: of the segment now. True when the row was alive at `ts` before. */
  mark(row: number, ts: number, rows: number): boolean {
    if (ts >= this.#at(row)) return false;
    if (this.#dense === undefined && this.#sparse.size * SPARSE_SHARE > rows + 1024) this.#densify(rows);
    if (this.#dense === undefined) this.#sparse.set(row, ts);
    else {
      if (row >= this.#dense.length) this.#densify(Math.max(rows, row + 1));
      this.#dense[row] = ts;
    }
    this.#earliest = Math.min(this.#earliest, ts);
    this.#latest = Math.max(this.#latest, ts);
    this.#version++;
    return true;
  }

  /** Clears the bits of rows that are deleted at readTs. */
  clear(bits: Bitmap, rows: number, readTs: number): void {
    if (readTs < this.#earliest) return;
    const dense = this.#dense;
    if (dense === undefined) {
      for (const [row, ts] of this.#sparse) if (ts <= readTs && row < rows) bits[row >> 3] &= ~(1 << (row & 7));
    } else for (let row = Math.min(rows, dense.length) - 1; row >= 0; row--) if (dense[row] <= readTs) bits[row >> 3] &= ~(1 << (row & 7));
  }

  /** Timestamp from which the row is deleted; infinity when it is not. */
  deletedAt(row: number): number {
    return this.#at(row);
  }

  #at(row: number): number {
    return this.#dense === undefined ? (this.#sparse.get(row) ?? Number.POSITIVE_INFINITY) : (this.#dense[row] ?? Number.POSITIVE_INFINITY);
  }

  #densify(rows: number): void {
    const dense = new Float64Array(Math.ceil(rows * 1.5)).fill(Number.POSITIVE_INFINITY);
    if (this.#dense !== undefined) dense.set(this.#dense);
    for (const [row, ts] of this.#sparse) dense[row] = ts;
    this.#sparse.clear();
    this.#dense = dense;
  }
}

/** Bitmap with the first `rows` bits set and none past them. */
export function allRows(rows: number): Bitmap {
  const bits = new Uint8Array((rows + 7) >> 3).fill(0xff);
  if (rows & 7) bits[bits.length - 1] = (1 << (rows & 7)) - 1;
  return bits;
}

/** Clears the bits of rows with a timestamp above the limit. */
export function clearLater(bits: Bitmap, timestamps: Float64Array, rows: number, limit: number): void {
  for (let row = 0; row < rows; row++) if (timestamps[row] > limit) bits[row >> 3] &= ~(1 << (row & 7));
}
