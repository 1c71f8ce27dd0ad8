import { CairnError } from '@cairn/base';
import type { BytesColumn, Column, FixedColumn } from './column.ts';
import { typeName } from './field-types.ts';

type KeyColumn = (FixedColumn & { readonly values: BigInt64Array }) | BytesColumn;

function asKeys(column: Column): KeyColumn {
  if (column.kind === 'bytes') return column;
  if (column.kind === 'fixed' && column.values instanceof BigInt64Array) return { ...column, values: column.values };
  throw new CairnError('Internal', `a column of ${typeName(column.type)} is no key column`);
}

/** Pairs of 32-bit words, low first: comparing and hashing them makes no bigint per row. */
function wordsOf(values: BigInt64Array): Int32Array {
  return new Int32Array(values.buffer, values.byteOffset, values.length * 2);
}

/**
 * MurmurHash3 x86 32-bit with seed 0 of each key: the 8 little-endian bytes of an int64 (two's complement, so negative keys need no special
 * case), the UTF-8 bytes of a VarChar. Unsigned. Stable for ever: shards and partition keys depend on it.
 */
export function hashKeys(column: Column): Uint32Array {
  const keys = asKeys(column);
  const hashes = new Uint32Array(keys.length);
  if (keys.kind === 'bytes')
    for (let row = 0; row < keys.length; row++) hashes[row] = murmurBytes(keys.data, keys.offsets[row], keys.offsets[row + 1]);
  else {
    const words = wordsOf(keys.values);
    for (let row = 0; row < keys.length; row++) hashes[row] = finish(mixWord(mixWord(0, words[row * 2]), words[row * 2 + 1]), 8);
  }
  return hashes;
}

function scramble(word: number): number {
  const product = Math.imul(word, 0xcc9e2d51);
  return Math.imul((product << 15) | (product >>> 17), 0x1b873593);
}

function mixWord(hash: number, word: number): number {
  const mixed = hash ^ scramble(word);
  return (Math.imul((mixed << 13) | (mixed >>> 19), 5) + 0xe6546b64) | 0;
}

function finish(hash: number, bytes: number): number {
  let h = hash ^ bytes;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

function murmurBytes(data: Uint8Array, start: number, end: number): number {
  let hash = 0;
  let at = start;
  for (; at + 4 <= end; at += 4) hash = mixWord(hash, data[at] | (data[at + 1] << 8) | (data[at + 2] << 16) | (data[at + 3] << 24));
  let tail = 0;
  for (let i = end - 1; i >= at; i--) tail = (tail << 8) | data[i];
  if (end > at) hash ^= scramble(tail);
  return finish(hash, end - start);
}

/** Shard (or partition of a partition key) of a hash: the unsigned hash modulo their number. */
export function shardOf(hash: number, shards: number): number {
  return (hash >>> 0) % shards;
}

/** Negative, 0, positive. Int64 by value, VarChar by its UTF-8 bytes (which is code point order). */
export function compareKeyRows(a: Column, i: number, b: Column, j: number): number {
  if (a.kind === 'bytes' && b.kind === 'bytes') return compareBytes(a, i, b, j);
  const left = asKeys(a);
  const right = asKeys(b);
  if (left.kind === 'bytes' || right.kind === 'bytes')
    throw new CairnError('Internal', `keys of ${typeName(a.type)} and ${typeName(b.type)} compared`);
  return compareWords(wordsOf(left.values), i, wordsOf(right.values), j);
}

/**
 * `compareKeyRows` over columns of one key field, by their places in the list: (column, row) with (column, row). Made once for many comparisons: each would
 * build its views anew.
 */
export function keyRowOrder(columns: readonly Column[]): (a: number, i: number, b: number, j: number) => number {
  const keys = columns.map(asKeys);
  const texts = keys.filter((column) => column.kind === 'bytes');
  if (texts.length === keys.length) return (a, i, b, j) => compareBytes(texts[a], i, texts[b], j);
  const words = keys.map((column) => {
    if (column.kind === 'bytes') throw new CairnError('Internal', 'keys of texts and numbers compared');
    return wordsOf(column.values);
  });
  return (a, i, b, j) => compareWords(words[a], i, words[b], j);
}

function compareWords(a: Int32Array, i: number, b: Int32Array, j: number): number {
  const high = a[i * 2 + 1] - b[j * 2 + 1];
  return high !== 0 ? high : (a[i * 2] >>> 0) - (b[j * 2] >>> 0);
}

function compareBytes(a: BytesColumn, i: number, b: BytesColumn, j: number): number {
  let left = a.offsets[i];
  let right = b.offsets[j];
  const leftEnd = a.offsets[i + 1];
  const rightEnd = b.offsets[j + 1];
  for (; left < leftEnd && right < rightEnd; left++, right++) {
    const difference = a.data[left] - b.data[right];
    if (difference !== 0) return difference;
  }
  return leftEnd - left - (rightEnd - right);
}

/** Rows between two yields of the sliced sort: a few ms of work. */
const SLICE_ROWS = 4_096;

/** Row numbers by key, then timestamp, then row. For large batches on a service's main thread use `sortOrderSliced`. */
export function sortOrder(keys: Column, ts: Float64Array): Int32Array {
  const steps = sortOrderSliced(keys, ts);
  for (;;) {
    const step = steps.next();
    if (step.done) return step.value;
  }
}

/** The same in slices: the caller gives way to the event loop at each yield (every few ms of work). */
export function* sortOrderSliced(keys: Column, ts: Float64Array): Generator<void, Int32Array> {
  const compare = rowComparator(keys, ts);
  const rows = keys.length;
  let order = new Int32Array(rows);
  for (let row = 0; row < rows; row++) order[row] = row;
  let sorted = true;
  for (let row = 1; row < rows && sorted; row++) sorted = compare(row - 1, row) <= 0;
  if (sorted) return order;
  yield;
  for (let start = 0; start < rows; start += SLICE_ROWS) {
    order.subarray(start, start + SLICE_ROWS).sort(compare);
    yield;
  }
  let spare = new Int32Array(rows);
  for (let width = SLICE_ROWS; width < rows; width *= 2) {
    for (let start = 0; start < rows; start += 2 * width)
      yield* mergeRuns(order, spare, start, Math.min(start + width, rows), Math.min(start + 2 * width, rows), compare);
    [order, spare] = [spare, order];
  }
  return order;
}

function* mergeRuns(
  from: Int32Array,
  to: Int32Array,
  start: number,
  middle: number,
  end: number,
  compare: (a: number, b: number) => number,
): Generator<void, void> {
  let left = start;
  let right = middle;
  for (let at = start; at < end; at++) {
    if (left < middle && (right >= end || compare(from[left], from[right]) <= 0)) to[at] = from[left++];
    else to[at] = from[right++];
    if ((at - start) % (4 * SLICE_ROWS) === 4 * SLICE_ROWS - 1) yield;
  }
}

function rowComparator(column: Column, ts: Float64Array): (a: number, b: number) => number {
  const keys = asKeys(column);
  if (keys.kind === 'bytes') {
    const prefixes = prefixesOf(keys);
    return (a, b) => prefixes[a] - prefixes[b] || compareBytes(keys, a, keys, b) || ts[a] - ts[b] || a - b;
  }
  const words = wordsOf(keys.values);
  return (a, b) => compareWords(words, a, words, b) || ts[a] - ts[b] || a - b;
}

/** The first six bytes of each key as a number: decides most comparisons without touching the bytes. */
function prefixesOf(keys: BytesColumn): Float64Array {
  const out = new Float64Array(keys.length);
  for (let row = 0; row < keys.length; row++) {
    let prefix = 0;
    for (let i = 0, at = keys.offsets[row], end = keys.offsets[row + 1]; i < 6; i++, at++)
      prefix = prefix * 256 + (at < end ? keys.data[at] : 0);
    out[row] = prefix;
  }
  return out;
}

/** Rows of a column in key order that hold one of `keys`, ascending and each once. */
export function findKeyRows(sorted: Column, keys: Column): Int32Array {
  const lookup = new KeyLookup(sorted, keys);
  const rows: number[] = [];
  for (let key = 0; key < keys.length; key++) for (let row = lookup.first(key); lookup.holds(row, key); row++) rows.push(row);
  const found = Int32Array.from(rows).sort();
  return found.filter((row, i) => i === 0 || row !== found[i - 1]);
}

/** Look-ups of `keys` in a column that is in key order. Made once for many: each by itself would build its views anew. */
export class KeyLookup {
  readonly #compare: (a: number, i: number, b: number, j: number) => number;
  readonly #rows: number;

  constructor(sorted: Column, keys: Column) {
    this.#compare = keyRowOrder([sorted, keys]);
    this.#rows = sorted.length;
  }

  /** First row of `sorted` whose key is not below keys[key]; their number when there is none. */
  first(key: number): number {
    let low = 0;
    let high = this.#rows;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#compare(0, middle, 1, key) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Whether there is such a row, and it has keys[key]. */
  holds(row: number, key: number): boolean {
    return row < this.#rows && this.#compare(0, row, 1, key) === 0;
  }
}
