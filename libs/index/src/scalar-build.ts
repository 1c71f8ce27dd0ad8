import { appendFileSync, writeFileSync } from 'node:fs';
import { bitAt } from '@cairn/base';
import { type BytesColumn, type Column, DataType, encodeFrame, type FixedColumn, makeBatch, sliceColumn, takeColumn } from '@cairn/schema';
import { appendTrailer, type IndexTrailer } from './index-file.ts';
import { COUNTS_FIELD, DICTIONARY_FIELD, int32Column, ROWS_FIELD, type ScalarHeader } from './scalar-index.ts';
import type { IndexSpec } from './search-types.ts';

/** Pairs of value and row that an index is made of: entry i has value i of `values` (nulls are left out) and stands in row `rowOf[i]`, or in row i. */
export interface ScalarEntries {
  readonly values: FixedColumn | BytesColumn;
  readonly rowOf: Int32Array | undefined;
}

export interface ScalarBuildTask extends IndexSpec {
  readonly entries: ScalarEntries;
  readonly rows: number;
  readonly path: string;
  readonly header: Omit<ScalarHeader, 'dictionaryBytes' | 'rowsBytes'>;
}

/** Sorts the entries and writes the file. Blocks its thread. */
export function buildScalarFile(task: ScalarBuildTask): IndexTrailer {
  const { indexType, metric, params, rows, path } = task;
  const entries = task.header.content === 'grams' ? gramsOf(task.entries, task.header.gram) : task.entries;
  const { dictionary, counts, postings } = sorted(entries);
  const first = encodeFrame(
    makeBatch([
      [DICTIONARY_FIELD, dictionary],
      [COUNTS_FIELD, int32Column(counts)],
    ]),
  );
  const second = encodeFrame(makeBatch([[ROWS_FIELD, int32Column(postings)]]));
  writeFileSync(path, first);
  appendFileSync(path, second);
  const scalar: ScalarHeader = { ...task.header, dictionaryBytes: first.length, rowsBytes: second.length };
  const trailer: IndexTrailer = {
    ...{ indexType, metric, params, rows, scalar },
    dataType: dictionary.type,
    dim: 0,
    entries: dictionary.length,
  };
  appendTrailer(path, trailer);
  return trailer;
}

interface Sorted {
  readonly dictionary: FixedColumn | BytesColumn;
  readonly counts: Int32Array;
  readonly postings: Int32Array;
}

/** Entries in the order of value, then row; a pair that comes twice counts once. */
function sorted({ values, rowOf }: ScalarEntries): Sorted {
  const { validity } = values;
  const order: number[] | Int32Array = validity
    ? Int32Array.from({ length: values.length }, (_, i) => i).filter((i) => bitAt(validity, i))
    : Int32Array.from({ length: values.length }, (_, i) => i);
  const compare = orderOf(values);
  // Entries come in the order of their rows, so their numbers order equal values.
  order.sort((a, b) => compare(a, b) || a - b);
  const firsts: number[] = [];
  const counts: number[] = [];
  const postings = new Int32Array(order.length);
  let kept = 0;
  for (let i = 0; i < order.length; i++) {
    const row = rowOf ? rowOf[order[i]] : order[i];
    if (i === 0 || compare(order[i - 1], order[i]) !== 0) {
      firsts.push(order[i]);
      counts.push(0);
    } else if (postings[kept - 1] === row) continue;
    postings[kept++] = row;
    counts[counts.length - 1]++;
  }
  const dictionary = { ...takeColumn(values, Int32Array.from(firsts)), validity: null } as FixedColumn | BytesColumn;
  return { dictionary, counts: Int32Array.from(counts), postings: postings.slice(0, kept) };
}

/** Numbers by value with NaN last, texts by their bytes. */
function orderOf(column: FixedColumn | BytesColumn): (a: number, b: number) => number {
  if (column.kind === 'bytes') {
    const { data, offsets } = column;
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.length);
    return (a, b) => bytes.compare(bytes, offsets[b], offsets[b + 1], offsets[a], offsets[a + 1]);
  }
  const { values } = column;
  return (a, b) => {
    const [x, y] = [values[a], values[b]];
    if (x < y) return -1;
    if (x > y) return 1;
    if (x === y) return 0;
    return Number(Number.isNaN(x)) - Number(Number.isNaN(y));
  };
}

/** Every group of `gram` bytes of every text, as a number of 32 bits; a group that a text repeats side by side counts once already here. */
function gramsOf({ values, rowOf }: ScalarEntries, gram: number): ScalarEntries {
  const { data, offsets, length, validity } = values as BytesColumn;
  let total = 0;
  for (let i = 0; i < length; i++) total += Math.max(0, offsets[i + 1] - offsets[i] - gram + 1);
  const keys = new Int32Array(total);
  const rows = new Int32Array(total);
  let n = 0;
  for (let i = 0; i < length; i++) {
    if (validity && !bitAt(validity, i)) continue;
    for (let at = offsets[i]; at + gram <= offsets[i + 1]; at++) {
      keys[n] = gramKey(data, at, gram);
      rows[n++] = rowOf ? rowOf[i] : i;
    }
  }
  const column: FixedColumn = { kind: 'fixed', type: DataType.Int32, length: n, values: keys.subarray(0, n), validity: null };
  return { values: column, rowOf: rows };
}

/** The group of bytes at `at` as a number; `gram` is at most 4. */
export function gramKey(data: ArrayLike<number>, at: number, gram: number): number {
  let key = 0;
  for (let i = 0; i < gram; i++) key = (key << 8) | data[at + i];
  return key | 0;
}

/** Entries of a whole column as they travel to a worker: only what they need of larger buffers. */
export function ownEntries({ values, rowOf }: ScalarEntries): ScalarEntries {
  const validity = values.validity?.slice() ?? null;
  if (values.kind === 'fixed') return { values: { ...values, values: values.values.slice(0, values.length), validity }, rowOf };
  const offsets = values.offsets.slice(0, values.length + 1);
  const start = offsets[0];
  const data = values.data.slice(start, offsets[values.length]);
  if (start > 0) for (let i = 0; i < offsets.length; i++) offsets[i] -= start;
  return { values: { ...values, offsets, data, validity }, rowOf };
}

/** Entries of a column of scalars, or of the elements of a column of arrays; undefined for other columns. */
export function columnEntries(column: Column): ScalarEntries | undefined {
  if (column.kind === 'fixed' || column.kind === 'bytes') return { values: column, rowOf: undefined };
  if (column.kind !== 'list' || (column.child.kind !== 'fixed' && column.child.kind !== 'bytes')) return undefined;
  const { offsets, length, child } = column;
  const start = offsets[0];
  const rowOf = new Int32Array(offsets[length] - start);
  for (let row = 0; row < length; row++) rowOf.fill(row, offsets[row] - start, offsets[row + 1] - start);
  return { values: sliceColumn(child, start, offsets[length]) as FixedColumn | BytesColumn, rowOf };
}
