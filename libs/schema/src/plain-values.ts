import { assert, CairnError } from '@cairn/base';
import { isValid, validityOf } from './bitmap.ts';
import type { BytesColumn, Column, FixedValues, Validity } from './column.ts';
import { takeColumn } from './column-ops.ts';
import { elementField, fixedArray, isTextType, typeInfo, typeName, vectorBytes, visitColumn } from './field-types.ts';
import { DataType, type Field, type PlainValue } from './types.ts';

const text = new TextDecoder();

/** One value: null, boolean, number, bigint (Int64, Timestamptz), string (VarChar), bytes (Json, vectors: a view) or a list. */
export function valueAt(column: Column, row: number): PlainValue {
  if (!isValid(column.validity, row)) return null;
  return visitColumn<PlainValue>(column, {
    fixed: (from) => (from.type === DataType.Bool ? from.values[row] !== 0 : from.values[row]),
    bytes: (from) => {
      const bytes = from.data.subarray(from.offsets[row], from.offsets[row + 1]);
      return isTextType(from.type) ? decodeText(bytes) : bytes;
    },
    vector: (from) => from.data.subarray(row * from.bytesPerRow, (row + 1) * from.bytesPerRow),
    list: (from) => {
      const out: PlainValue[] = [];
      for (let at = from.offsets[row]; at < from.offsets[row + 1]; at++) out.push(valueAt(from.child, at));
      return out;
    },
  });
}

/** TextDecoder refuses views on shared memory; Buffer does not. */
function decodeText(bytes: Uint8Array): string {
  if (bytes.buffer instanceof SharedArrayBuffer) return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
  return text.decode(bytes);
}

function wrong(field: Field, value: unknown): CairnError {
  return new CairnError('InvalidParameter', `field "${field.name}": ${typeof value} value does not fit ${typeName(field.type)}`);
}

function outOfRange(field: Field, value: PlainValue, row: number): CairnError {
  return new CairnError(
    'InvalidParameter',
    `field "${field.name}": value ${value} at row ${row} is out of range of ${typeName(field.type)}`,
  );
}

/** Column of plain values; null where the field has none, whether it is nullable or not. InvalidParameter when a value has another type. */
export function columnFromValues(field: Field, values: readonly PlainValue[]): Column {
  const length = values.length;
  const validity = validityOf(length, (row) => values[row] !== null);
  const common = { type: field.type, length, validity };
  switch (typeInfo(field.type).family) {
    case 'fixed':
      return { kind: 'fixed', ...common, values: fixedFromValues(field, values) };
    case 'bytes':
      return { kind: 'bytes', ...common, ...bytesFromValues(field, values) };
    case 'vector':
      return { kind: 'vector', ...common, ...vectorsFromValues(field, values) };
    case 'list':
      return { kind: 'list', ...common, ...listsFromValues(field, values) };
  }
}

function fixedFromValues(field: Field, values: readonly PlainValue[]): FixedValues {
  const out = new (fixedArray(field.type))(values.length);
  for (let row = 0; row < values.length; row++) {
    const value = values[row];
    if (value === null) continue;
    if (out instanceof BigInt64Array) {
      if (typeof value !== 'bigint' && !Number.isSafeInteger(value)) throw wrong(field, value);
      out[row] = BigInt(value as bigint | number);
      if (out[row] !== BigInt(value as bigint | number)) throw outOfRange(field, value, row);
      continue;
    }
    if (typeof value !== (field.type === DataType.Bool ? 'boolean' : 'number')) throw wrong(field, value);
    out[row] = Number(value);
    // Integer arrays wrap silently; Float rounds, which is what storing a float means.
    if (!(out instanceof Float32Array) && !Object.is(out[row] + 0, Number(value) + 0)) throw outOfRange(field, value, row);
  }
  return out;
}

function bytesFromValues(field: Field, values: readonly PlainValue[]): { offsets: Int32Array; data: Uint8Array } {
  return packBytes(
    values.map((value) => {
      if (value === null) return new Uint8Array(0);
      if (typeof value === 'string' && field.type !== DataType.SparseFloatVector) return Buffer.from(value, 'utf8');
      if (value instanceof Uint8Array && !isTextType(field.type)) return value;
      throw wrong(field, value);
    }),
  );
}

/** Byte strings back to back with their offsets. */
export function packBytes(values: readonly Uint8Array[]): { offsets: Int32Array; data: Uint8Array } {
  const offsets = new Int32Array(values.length + 1);
  for (let i = 0; i < values.length; i++) offsets[i + 1] = offsets[i] + values[i].byteLength;
  const data = new Uint8Array(offsets[values.length]);
  for (let i = 0; i < values.length; i++) data.set(values[i], offsets[i]);
  return { offsets, data };
}

function vectorsFromValues(field: Field, values: readonly PlainValue[]): { dim: number; bytesPerRow: number; data: Uint8Array } {
  const bytesPerRow = vectorBytes(field.type, field.dim);
  const data = new Uint8Array(values.length * bytesPerRow);
  for (let row = 0; row < values.length; row++) {
    const value = values[row];
    if (value === null) continue;
    if (!(value instanceof Uint8Array) || value.byteLength !== bytesPerRow) throw wrong(field, value);
    data.set(value, row * bytesPerRow);
  }
  return { dim: field.dim, bytesPerRow, data };
}

function listsFromValues(field: Field, values: readonly PlainValue[]): { offsets: Int32Array; child: Column } {
  const offsets = new Int32Array(values.length + 1);
  const elements: PlainValue[] = [];
  for (let row = 0; row < values.length; row++) {
    const value = values[row];
    if (value !== null) {
      if (!Array.isArray(value)) throw wrong(field, value);
      for (const element of value as readonly PlainValue[]) elements.push(element);
    }
    offsets[row + 1] = elements.length;
  }
  return { offsets, child: columnFromValues(elementField(field), elements) };
}

/** Column of nulls. */
export function nullColumn(field: Field, rows: number): Column {
  const none: Validity = new Uint8Array((rows + 7) >> 3);
  const common = { type: field.type, length: rows, validity: rows === 0 ? null : none };
  switch (typeInfo(field.type).family) {
    case 'fixed':
      return { kind: 'fixed', ...common, values: new (fixedArray(field.type))(rows) };
    case 'bytes':
      return { kind: 'bytes', ...common, offsets: new Int32Array(rows + 1), data: new Uint8Array(0) };
    case 'vector': {
      const bytesPerRow = vectorBytes(field.type, field.dim);
      return { kind: 'vector', ...common, dim: field.dim, bytesPerRow, data: new Uint8Array(rows * bytesPerRow) };
    }
    case 'list':
      return { kind: 'list', ...common, offsets: new Int32Array(rows + 1), child: nullColumn(elementField(field), 0) };
  }
}

/** A column without rows. */
export function emptyColumn(field: Field): Column {
  return nullColumn(field, 0);
}

const emptyObject = Buffer.from('{}');

/** What a row has that was written without this field: the default, else `{}` for $meta, else null. */
export function defaultColumn(field: Field, rows: number): Column {
  const value = field.defaultValue ?? (field.isDynamic ? emptyObject : undefined);
  if (value === undefined) return nullColumn(field, rows);
  return takeColumn(columnFromValues(field, [value]), new Int32Array(rows));
}

/** Column of primary keys: Int64 from bigints, VarChar from strings. */
export function keyColumn(keys: readonly bigint[] | BigInt64Array | readonly string[]): Column {
  if (keys instanceof BigInt64Array) return { kind: 'fixed', type: DataType.Int64, length: keys.length, values: keys, validity: null };
  const numbers: bigint[] = [];
  const strings: Uint8Array[] = [];
  for (const key of keys) {
    if (typeof key === 'bigint') numbers.push(key);
    else strings.push(Buffer.from(key, 'utf8'));
  }
  assert(numbers.length === 0 || strings.length === 0, 'keys of two types in one column');
  if (numbers.length > 0) return keyColumn(BigInt64Array.from(numbers));
  const column: BytesColumn = { kind: 'bytes', type: DataType.VarChar, length: strings.length, validity: null, ...packBytes(strings) };
  return column;
}
