import { assert } from '@cairn/base';
import { countValid, isValid, sliceValidity, validityOf } from './bitmap.ts';
import type { BytesColumn, Column, ColumnBatch, FixedColumn, FixedValues, ListColumn, Validity, VectorColumn } from './column.ts';
import { fixedArray, visitColumn } from './field-types.ts';
import { DataType } from './types.ts';

/** Column of row ids or row timestamps: numbers, under type Double so that nobody takes them for a BigInt64Array. */
export function numberColumn(values: Float64Array): FixedColumn {
  return { kind: 'fixed', type: DataType.Double, length: values.length, values, validity: null };
}

export function isNull(column: Column, row: number): boolean {
  return !isValid(column.validity, row);
}

/** Column without a bitmap when it has no nulls. */
function takeValidity(validity: Validity, rows: Int32Array): Validity {
  return validity === null ? null : validityOf(rows.length, (i) => isValid(validity, rows[i]));
}

/** The rows, in the order given; a row may come more than once. */
export function takeColumn(column: Column, rows: Int32Array): Column {
  const validity = takeValidity(column.validity, rows);
  return visitColumn<Column>(column, {
    fixed: (from) => ({ ...from, length: rows.length, validity, values: takeFixed(from, rows) }),
    bytes: (from) => ({ ...from, length: rows.length, validity, ...takeBytes(from, rows) }),
    vector: (from) => ({ ...from, length: rows.length, validity, data: takeVectors(from, rows) }),
    list: (from) => ({ ...from, length: rows.length, validity, ...takeLists(from, rows) }),
  });
}

function takeFixed(from: FixedColumn, rows: Int32Array): FixedValues {
  const values = new (fixedArray(from.type))(rows.length);
  // One loop per element representation: a bigint and a number cannot share one.
  if (values instanceof BigInt64Array && from.values instanceof BigInt64Array)
    for (let i = 0; i < rows.length; i++) values[i] = from.values[rows[i]];
  else if (!(values instanceof BigInt64Array) && !(from.values instanceof BigInt64Array))
    for (let i = 0; i < rows.length; i++) values[i] = from.values[rows[i]];
  return values;
}

/** Below it a loop beats the call to `set`. */
const SHORT_COPY_BYTES = 24;
const SHORT_VECTOR_BYTES = 64;

function takeBytes(from: BytesColumn, rows: Int32Array): { offsets: Int32Array; data: Uint8Array } {
  const offsets = new Int32Array(rows.length + 1);
  for (let i = 0; i < rows.length; i++) offsets[i + 1] = offsets[i] + from.offsets[rows[i] + 1] - from.offsets[rows[i]];
  const data = new Uint8Array(offsets[rows.length]);
  for (let i = 0; i < rows.length; i++) {
    const start = from.offsets[rows[i]];
    const end = from.offsets[rows[i] + 1];
    if (end - start > SHORT_COPY_BYTES) data.set(from.data.subarray(start, end), offsets[i]);
    else for (let at = start, to = offsets[i]; at < end; at++, to++) data[to] = from.data[at];
  }
  return { offsets, data };
}

function takeVectors(from: VectorColumn, rows: Int32Array): Uint8Array {
  const data = new Uint8Array(rows.length * from.bytesPerRow);
  copyVectors(from, rows, data, 0);
  return data;
}

/** Writes the vectors of these rows back to back into `target`, from byte `at`. */
export function copyVectors(from: VectorColumn, rows: Int32Array, target: Uint8Array, at: number): void {
  const width = from.bytesPerRow;
  const start = target.byteOffset + at;
  if (width % 4 === 0 && from.data.byteOffset % 4 === 0 && start % 4 === 0 && width <= SHORT_VECTOR_BYTES) {
    const source = new Int32Array(from.data.buffer, from.data.byteOffset, from.data.byteLength >> 2);
    const words = width >> 2;
    const out = new Int32Array(target.buffer, start, rows.length * words);
    for (let i = 0, to = 0; i < rows.length; i++)
      for (let word = rows[i] * words, end = word + words; word < end; word++, to++) out[to] = source[word];
  } else for (let i = 0; i < rows.length; i++) target.set(from.data.subarray(rows[i] * width, (rows[i] + 1) * width), at + i * width);
}

function takeLists(from: ListColumn, rows: Int32Array): { offsets: Int32Array; child: Column } {
  const offsets = new Int32Array(rows.length + 1);
  for (let i = 0; i < rows.length; i++) offsets[i + 1] = offsets[i] + from.offsets[rows[i] + 1] - from.offsets[rows[i]];
  const children = new Int32Array(offsets[rows.length]);
  for (let i = 0, to = 0; i < rows.length; i++)
    for (let at = from.offsets[rows[i]]; at < from.offsets[rows[i] + 1]; at++) children[to++] = at;
  return { offsets, child: takeColumn(from.child, children) };
}

/** Rows [start, end). Views of values and bytes, new offsets that start at 0. */
export function sliceColumn(column: Column, start: number, end: number): Column {
  assert(start >= 0 && start <= end && end <= column.length, `slice [${start}, ${end}) of a column of ${column.length} rows`);
  if (start === 0 && end === column.length) return column;
  const length = end - start;
  const validity = sliceValidity(column.validity, start, end);
  return visitColumn<Column>(column, {
    fixed: (from) => ({ ...from, length, validity, values: from.values.subarray(start, end) }),
    bytes: (from) => ({
      ...from,
      length,
      validity,
      offsets: rebase(from.offsets, start, end),
      data: from.data.subarray(from.offsets[start], from.offsets[end]),
    }),
    vector: (from) => ({ ...from, length, validity, data: from.data.subarray(start * from.bytesPerRow, end * from.bytesPerRow) }),
    list: (from) => ({
      ...from,
      length,
      validity,
      offsets: rebase(from.offsets, start, end),
      child: sliceColumn(from.child, from.offsets[start], from.offsets[end]),
    }),
  });
}

function rebase(offsets: Int32Array, start: number, end: number): Int32Array {
  const first = offsets[start];
  if (first === 0) return offsets.subarray(start, end + 1);
  const out = new Int32Array(end - start + 1);
  for (let i = 0; i < out.length; i++) out[i] = offsets[start + i] - first;
  return out;
}

/** Columns of one type, back to back. At least one; one alone is returned as it is. */
export function concatColumns(columns: readonly Column[]): Column {
  const first = columns[0];
  assert(first !== undefined, 'no columns to concatenate');
  if (columns.length === 1) return first;
  for (const column of columns)
    assert(column.type === first.type && column.kind === first.kind, `columns of types ${first.type} and ${column.type}`);
  const length = columns.reduce((sum, column) => sum + column.length, 0);
  const validity = concatValidity(columns, length);
  return visitColumn<Column>(first, {
    fixed: (head) => ({ ...head, length, validity, values: concatFixed(head, same(columns, head), length) }),
    bytes: (head) => {
      const parts = same(columns, head);
      return { ...head, length, validity, offsets: concatOffsets(parts, length), data: concatBytes(parts.map((part) => part.data)) };
    },
    vector: (head) => {
      const parts = same(columns, head);
      for (const part of parts) assert(part.bytesPerRow === head.bytesPerRow, `vectors of ${head.dim} and ${part.dim} dimensions`);
      return { ...head, length, validity, data: concatBytes(parts.map((part) => part.data)) };
    },
    list: (head) => {
      const parts = same(columns, head);
      return { ...head, length, validity, offsets: concatOffsets(parts, length), child: concatColumns(parts.map((part) => part.child)) };
    },
  });
}

/** All columns have the kind of `head`; checked before, told to the compiler here. */
function same<C extends Column>(columns: readonly Column[], head: C): readonly C[] {
  return columns.filter((column): column is C => column.kind === head.kind);
}

function concatFixed(head: FixedColumn, parts: readonly FixedColumn[], length: number): FixedValues {
  const values = new (fixedArray(head.type))(length);
  let at = 0;
  for (const part of parts) {
    if (values instanceof BigInt64Array && part.values instanceof BigInt64Array) values.set(part.values, at);
    else if (!(values instanceof BigInt64Array) && !(part.values instanceof BigInt64Array)) values.set(part.values, at);
    at += part.length;
  }
  return values;
}

function concatOffsets(parts: readonly (BytesColumn | ListColumn)[], length: number): Int32Array {
  const offsets = new Int32Array(length + 1);
  let row = 0;
  for (const part of parts) {
    const base = offsets[row];
    for (let i = 1; i <= part.length; i++) offsets[row + i] = base + part.offsets[i];
    row += part.length;
  }
  return offsets;
}

function concatBytes(parts: readonly Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.byteLength, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.byteLength;
  }
  return out;
}

function concatValidity(columns: readonly Column[], length: number): Validity {
  if (columns.every((column) => column.validity === null)) return null;
  const bits = new Uint8Array((length + 7) >> 3);
  let base = 0;
  for (const column of columns) {
    for (let row = 0; row < column.length; row++) if (isValid(column.validity, row)) bits[(base + row) >> 3] |= 1 << ((base + row) & 7);
    base += column.length;
  }
  return countValid(bits, length) === length ? null : bits;
}

/** Batch of equal-length columns; the length is theirs. */
export function makeBatch(columns: Iterable<readonly [number, Column]>): ColumnBatch {
  const map = new Map(columns);
  let length: number | undefined;
  for (const [id, column] of map) {
    length ??= column.length;
    assert(column.length === length, `field ${id} has ${column.length} rows, the batch ${length}`);
  }
  return { length: length ?? 0, columns: map };
}

function mapBatch(batch: ColumnBatch, length: number, change: (column: Column) => Column): ColumnBatch {
  const columns = new Map<number, Column>();
  for (const [id, column] of batch.columns) columns.set(id, change(column));
  return { length, columns };
}

export function takeBatch(batch: ColumnBatch, rows: Int32Array): ColumnBatch {
  return mapBatch(batch, rows.length, (column) => takeColumn(column, rows));
}

export function sliceBatch(batch: ColumnBatch, start: number, end: number): ColumnBatch {
  return mapBatch(batch, end - start, (column) => sliceColumn(column, start, end));
}

/** Batches with the same fields, back to back. At least one. */
export function concatBatches(batches: readonly ColumnBatch[]): ColumnBatch {
  const first = batches[0];
  assert(first !== undefined, 'no batches to concatenate');
  if (batches.length === 1) return first;
  const columns = new Map<number, Column>();
  for (const id of first.columns.keys()) {
    const parts = batches.map((batch) => {
      const column = batch.columns.get(id);
      assert(column !== undefined && batch.columns.size === first.columns.size, `batches differ in field ${id}`);
      return column;
    });
    columns.set(id, concatColumns(parts));
  }
  return { length: batches.reduce((sum, batch) => sum + batch.length, 0), columns };
}

/** The bytes in a SharedArrayBuffer of their own, starting at offset 0. */
export function sharedBytes(bytes: Uint8Array): Uint8Array {
  const copy = new Uint8Array(new SharedArrayBuffer(bytes.byteLength));
  copy.set(bytes);
  return copy;
}

/** The column on SharedArrayBuffers, so that workers get it without a copy. */
export function sharedCopy<C extends Column>(column: C): C {
  const validity = column.validity === null ? null : sharedBytes(column.validity);
  const copy = visitColumn<Column>(column, {
    fixed: (from) => ({ ...from, validity, values: sharedFixed(from) }),
    bytes: (from) => ({ ...from, validity, offsets: sharedOffsets(from.offsets), data: sharedBytes(from.data) }),
    vector: (from) => ({ ...from, validity, data: sharedBytes(from.data) }),
    list: (from) => ({ ...from, validity, offsets: sharedOffsets(from.offsets), child: sharedCopy(from.child) }),
  });
  return copy as C;
}

/** The bytes under a typed array. */
export function bytesOf(array: ArrayBufferView): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

function sharedFixed(from: FixedColumn): FixedValues {
  const bytes = sharedBytes(bytesOf(from.values));
  return new (fixedArray(from.type))(bytes.buffer, 0, from.length);
}

function sharedOffsets(offsets: Int32Array): Int32Array {
  return new Int32Array(sharedBytes(bytesOf(offsets)).buffer, 0, offsets.length);
}

/** Bytes of the column's buffers. */
export function columnBytes(column: Column): number {
  const own = visitColumn<number>(column, {
    fixed: (from) => from.values.byteLength,
    bytes: (from) => from.offsets.byteLength + from.data.byteLength,
    vector: (from) => from.data.byteLength,
    list: (from) => from.offsets.byteLength + columnBytes(from.child),
  });
  return own + (column.validity?.byteLength ?? 0);
}

export function batchBytes(batch: ColumnBatch): number {
  let sum = 0;
  for (const column of batch.columns.values()) sum += columnBytes(column);
  return sum;
}
