import type { Bitmap } from '@cairn/base';
import { CairnError, emptyBitmap } from '@cairn/base';
import { type BytesColumn, type Column, type ColumnBatch, DataType, decodeFrame, type FixedColumn } from '@cairn/schema';

/** What the entries of a scalar index are: a field's values, elements of its arrays, values or list elements at a JSON path, or byte groups of texts. */
export type ScalarContent = 'values' | 'elements' | 'grams';

export interface ScalarHeader {
  readonly content: ScalarContent;
  /** Of a JSON field: what was read there. */
  readonly path?: readonly (string | number)[] | undefined;
  /** Bytes of a group, for `grams`. */
  readonly gram: number;
  /** False when numbers were rounded on the way in (integers of JSON beyond 2^53): then comparisons by number must not use it. */
  readonly exact: boolean;
  /** Bytes of the first frame, and of the second. */
  readonly dictionaryBytes: number;
  readonly rowsBytes: number;
}

/** Fields of the two frames in a file. */
export const DICTIONARY_FIELD = 1;
export const COUNTS_FIELD = 2;
export const ROWS_FIELD = 3;

/** Entries from..to-1 of the dictionary. */
export interface EntryRange {
  readonly from: number;
  readonly to: number;
}

/**
 * One scalar index of one segment, in memory: different values in order, and for each the rows that have it, ascending, all back to back. So a value,
 * a range of values and a range of prefixes are each one stretch of rows; every type of scalar index is this (docs/indexes.md).
 */
export class ScalarIndex {
  readonly indexType: string;
  readonly header: ScalarHeader;
  /** Rows of the segment. */
  readonly rows: number;
  /** Different values, ascending, NaN last, no nulls. */
  readonly dictionary: FixedColumn | BytesColumn;
  /** Where the rows of each entry begin in `postings`; one more at the end. */
  readonly starts: Int32Array;
  readonly postings: Int32Array;

  constructor(parts: Pick<ScalarIndex, 'indexType' | 'header' | 'rows' | 'dictionary' | 'postings'> & { readonly counts: Int32Array }) {
    this.indexType = parts.indexType;
    this.header = parts.header;
    this.rows = parts.rows;
    this.dictionary = parts.dictionary;
    this.postings = parts.postings;
    this.starts = new Int32Array(parts.counts.length + 1);
    for (let i = 0; i < parts.counts.length; i++) this.starts[i + 1] = this.starts[i] + parts.counts[i];
  }

  get entries(): number {
    return this.dictionary.length;
  }

  /** How many (value, row) pairs lie in a range. */
  count({ from, to }: EntryRange): number {
    return this.starts[to] - this.starts[from];
  }

  /** Sets the bits of the rows of a range. */
  addRows({ from, to }: EntryRange, bits: Bitmap): void {
    const { postings } = this;
    for (let i = this.starts[from], end = this.starts[to]; i < end; i++) {
      const row = postings[i];
      bits[row >> 3] |= 1 << (row & 7);
    }
  }

  /** Rows of all these entries. */
  rowsOf(ranges: Iterable<EntryRange>): Bitmap {
    const bits = emptyBitmap(this.rows);
    for (const range of ranges) this.addRows(range, bits);
    return bits;
  }

  /** First entry whose text is not below `bytes`; with `after`, the first that neither equals nor starts with them. */
  firstText(bytes: Uint8Array, after: boolean): number {
    const { data, offsets } = this.dictionary as BytesColumn;
    return firstWhere(this.entries, (entry) => {
      const start = offsets[entry];
      const length = offsets[entry + 1] - start;
      const common = Math.min(length, bytes.length);
      for (let i = 0; i < common; i++) if (data[start + i] !== bytes[i]) return data[start + i] > bytes[i];
      return length >= bytes.length && !after;
    });
  }

  /** The entry of a text; empty when there is none. */
  text(bytes: Uint8Array): EntryRange {
    const { offsets } = this.dictionary as BytesColumn;
    const from = this.firstText(bytes, false);
    const length = from < this.entries ? offsets[from + 1] - offsets[from] : -1;
    const found = length === bytes.length && this.firstText(bytes, true) > from;
    return { from, to: found ? from + 1 : from };
  }

  /** Entries whose number lies in low..high; NaN is in no range. */
  numbers(low: number | bigint, high: number | bigint): EntryRange {
    const { values } = this.dictionary as FixedColumn;
    const from = firstWhere(this.entries, (entry) => !(values[entry] < low));
    const to = firstWhere(this.entries, (entry) => !(values[entry] <= high));
    return { from, to: Math.max(from, to) };
  }
}

/** The first of 0..count-1 for which `holds` is true, where it stays true from there on; count when for none. */
function firstWhere(count: number, holds: (i: number) => boolean): number {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (holds(middle)) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** Reads the frames of an index file (its trailer is read already). ObjectDamaged when they do not go together. */
export function decodeScalarIndex(
  bytes: Uint8Array,
  trailer: { readonly indexType: string; readonly rows: number; readonly entries: number; readonly scalar?: ScalarHeader | undefined },
): ScalarIndex {
  const { scalar: header, rows, entries, indexType } = trailer;
  if (!header) throw new CairnError('ObjectDamaged', `index ${indexType} of ${rows} rows is no scalar index`);
  const first = frame(bytes, 0, header.dictionaryBytes);
  const second = frame(bytes, header.dictionaryBytes, header.rowsBytes);
  const dictionary = first.columns.get(DICTIONARY_FIELD);
  const counts = int32s(first.columns.get(COUNTS_FIELD));
  const postings = int32s(second.columns.get(ROWS_FIELD));
  const plain = dictionary?.kind === 'fixed' || dictionary?.kind === 'bytes';
  if (!plain || !counts || !postings || dictionary.length !== entries || counts.reduce((sum, count) => sum + count, 0) !== postings.length)
    throw new CairnError('ObjectDamaged', `scalar index of ${rows} rows and ${entries} values has parts that do not go together`);
  let highest = -1;
  for (let i = 0; i < postings.length; i++) if (postings[i] >>> 0 > highest) highest = postings[i] >>> 0;
  if (highest >= rows) throw new CairnError('ObjectDamaged', `scalar index of ${rows} rows names row ${highest}`);
  return new ScalarIndex({ indexType, header, rows, dictionary, counts, postings });
}

function frame(bytes: Uint8Array, from: number, length: number): ColumnBatch {
  try {
    return decodeFrame(bytes.subarray(from, from + length));
  } catch (error) {
    throw new CairnError('ObjectDamaged', `scalar index has no whole frame at byte ${from}`, { cause: error });
  }
}

const int32s = (column: Column | undefined): Int32Array | undefined =>
  column?.kind === 'fixed' && column.values instanceof Int32Array ? column.values : undefined;

export const int32Column = (values: Int32Array): FixedColumn => ({
  kind: 'fixed',
  type: DataType.Int32,
  length: values.length,
  values,
  validity: null,
});
