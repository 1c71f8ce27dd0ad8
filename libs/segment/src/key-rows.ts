import { type Column, hashKeys, keyRowOrder } from '@cairn/schema';
import { GrowingNumbers } from './growing-numbers.ts';

/** Rows of a growing segment by key: chains of rows with the same hash, newest first. No key is copied. */
export class KeyRows {
  readonly #newest = new Map<number, number>();
  readonly #older = new GrowingNumbers((length) => new Int32Array(length), 1024);

  /** Keys of the rows that follow. */
  append(keys: Column): void {
    const hashes = hashKeys(keys);
    const start = this.#older.extend(keys.length);
    const older = this.#older.values;
    for (let i = 0; i < hashes.length; i++) {
      older[start + i] = this.#newest.get(hashes[i]) ?? -1;
      this.#newest.set(hashes[i], start + i);
    }
  }

  /** Calls back with each row below `rows` that has the key at `probe[i]`, for all i. `stored`: the keys of the segment. */
  find(stored: Column, probe: Column, rows: number, found: (row: number, i: number) => void): void {
    const hashes = hashKeys(probe);
    const compare = keyRowOrder([stored, probe]);
    const older = this.#older.values;
    for (let i = 0; i < hashes.length; i++)
      for (let row = this.#newest.get(hashes[i]) ?? -1; row >= 0; row = older[row])
        if (row < rows && compare(0, row, 1, i) === 0) found(row, i);
  }
}
