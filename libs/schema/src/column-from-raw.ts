import { isUtf8 } from 'node:buffer';
import { CairnError } from '@cairn/base';
import { validityOf } from './bitmap.ts';
import type { BytesColumn, Column, FixedColumn, FixedValues, ListColumn, Validity, VectorColumn } from './column.ts';
import { concatColumns, takeColumn } from './column-ops.ts';
import { elementField, fixedArray, typeInfo, typeName, vectorBytes } from './field-types.ts';
import { defaultColumn, emptyColumn, nullColumn } from './plain-values.ts';
import type { RawFieldData, RawPayload } from './raw-field-data.ts';
import { orderSparseRows } from './sparse-rows.ts';
import { TimeZone } from './time-zone.ts';
import { parseTimestamptz } from './timestamptz.ts';
import { DataType, type Field } from './types.ts';
import { wktProblem } from './wkt.ts';

/** Bytes of one JSON value, as in Milvus. */
export const MAX_JSON_BYTES = 65_536;
/** Bytes of the text of one geometry; checking it takes time in proportion. */
export const MAX_GEOMETRY_BYTES = 1 << 20;

function invalid(field: Field, message: string): CairnError {
  return new CairnError('InvalidParameter', `field "${field.name}": ${message}`);
}

/**
 * One field's data of an insert as a column of `rows` rows. Validates types, counts, dimensions, ranges, lengths, NaN, JSON; every error is
 * InvalidParameter with the field, and the row and value where there is one. Null rows of a field with a default get the default.
 * The column may share memory with `raw`. Texts of times without an offset are of `zone`.
 */
export function columnFromRaw(field: Field, raw: RawFieldData, rows: number, zone = TimeZone.UTC): Column {
  const valid = raw.validData;
  const hasValidity = valid !== undefined && valid.length > 0;
  if (hasValidity && valid.length !== rows) throw invalid(field, `valid_data has ${valid.length} entries for ${rows} rows`);
  const validity = hasValidity ? validityOf(rows, (row) => Boolean(valid[row])) : null;
  let values = rows;
  if (validity !== null && valid !== undefined) {
    values = 0;
    for (let row = 0; row < rows; row++) if (valid[row]) values++;
    if (!field.nullable && field.defaultValue === undefined) {
      const missing = Array.from(valid, Boolean).indexOf(false);
      throw invalid(field, `row ${missing} has no value, and the field is not nullable and has no default`);
    }
  }
  const payload = timesOf(field, raw.payload, zone);
  const column = dense(field, payloadColumn(field, payload, values, rows), validity, rows);
  return field.defaultValue !== undefined && validity !== null ? withDefaults(field, column, validity) : column;
}

/** `sent` has a row per value (compact) or per row (placeholders at nulls); the result a row per row, nulls zero or empty. */
function dense(field: Field, sent: Column, validity: Validity, rows: number): Column {
  if (validity === null) return sent;
  // One more row, the zero value, for the nulls to point at.
  const padded = concatColumns([sent, nullColumn(field, 1)]);
  const from = new Int32Array(rows);
  const compact = sent.length !== rows;
  for (let row = 0, at = 0; row < rows; row++) {
    const has = ((validity[row >> 3] >> (row & 7)) & 1) === 1;
    from[row] = has ? (compact ? at++ : row) : sent.length;
  }
  return { ...takeColumn(padded, from), validity };
}

function withDefaults(field: Field, column: Column, validity: Uint8Array): Column {
  const padded = concatColumns([{ ...column, validity: null }, defaultColumn(field, 1)]);
  const from = new Int32Array(column.length);
  for (let row = 0; row < from.length; row++) from[row] = (validity[row >> 3] >> (row & 7)) & 1 ? row : column.length;
  return takeColumn(padded, from);
}

/** Column with as many rows as the payload has values, which is `values` or `rows`. */
function payloadColumn(field: Field, payload: RawPayload, values: number, rows: number): Column {
  if (payload.kind === 'unsupported') throw new CairnError('NotSupported', `not supported: field "${field.name}" sent as ${payload.what}`);
  // A field whose rows are all null may come without a payload, or with an empty one without dim.
  if (values === 0 && isEmpty(payload)) return emptyColumn(field);
  const column = converters[typeInfo(field.type).family](field, payload);
  if (column.length !== values && column.length !== rows)
    throw invalid(field, `${column.length} values were sent for ${rows} rows${values === rows ? '' : ` of which ${values} have a value`}`);
  return column;
}

function isEmpty(payload: RawPayload): boolean {
  if ('values' in payload) return payload.values.length === 0;
  if ('offsets' in payload) return payload.offsets.length <= 1;
  return 'data' in payload ? payload.data.byteLength === 0 : payload.kind === 'none';
}

const converters: Record<Column['kind'], (field: Field, payload: RawPayload) => Column> = {
  fixed: fixedFromRaw,
  bytes: bytesFromRaw,
  vector: vectorFromRaw,
  list: listFromRaw,
};

function mismatch(field: Field, payload: RawPayload): CairnError {
  return invalid(field, `data sent as ${payload.kind} does not fit type ${typeName(field.type)}`);
}

function fixedFromRaw(field: Field, payload: RawPayload): FixedColumn {
  const values = fixedValues(field, payload);
  return { kind: 'fixed', type: field.type, length: values.length, values, validity: null };
}

const intRanges: Partial<Record<DataType, readonly [number, number]>> = {
  [DataType.Int8]: [-128, 127],
  [DataType.Int16]: [-32_768, 32_767],
};

function fixedValues(field: Field, payload: RawPayload): FixedValues {
  const type = field.type;
  if (payload.kind === 'bool' && type === DataType.Bool)
    return new Int8Array(payload.values.buffer, payload.values.byteOffset, payload.values.byteLength);
  if (payload.kind === 'int' && type === DataType.Int32) return payload.values;
  if (payload.kind === 'int' && (type === DataType.Int8 || type === DataType.Int16)) return narrowInts(field, payload.values);
  if (payload.kind === 'long' && type === DataType.Int64) return payload.values;
  if ((payload.kind === 'float' && type === DataType.Float) || (payload.kind === 'double' && type === DataType.Double)) {
    checkFinite(field, payload.values, 1);
    return payload.values;
  }
  if ((payload.kind === 'timestamptz' || payload.kind === 'long') && type === DataType.Timestamptz) return payload.values;
  throw mismatch(field, payload);
}

/** Texts of a Timestamptz field as µs; any other payload as it is. */
function timesOf(field: Field, payload: RawPayload, zone: TimeZone): RawPayload {
  if (payload.kind !== 'text' || field.type !== DataType.Timestamptz) return payload;
  const values = new BigInt64Array(payload.offsets.length - 1);
  for (let i = 0; i < values.length; i++) {
    const bytes = payload.data.subarray(payload.offsets[i], payload.offsets[i + 1]);
    // Null rows of the dense form hold an empty text.
    if (bytes.byteLength > 0)
      values[i] = parseTimestamptz(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8'), zone);
    else if (!field.nullable) throw invalid(field, `row ${i} is an empty text, not a time`);
  }
  return { kind: 'timestamptz', values };
}

function narrowInts(field: Field, values: Int32Array): FixedValues {
  const [least, most] = intRanges[field.type] ?? [0, 0];
  for (let i = 0; i < values.length; i++)
    if (values[i] < least || values[i] > most)
      throw invalid(field, `value ${values[i]} at position ${i} is out of range of ${typeName(field.type)} [${least}, ${most}]`);
  const out = new (fixedArray(field.type))(values.length);
  if (!(out instanceof BigInt64Array)) out.set(values);
  return out;
}

/** `width` values a row, for the message. */
function checkFinite(field: Field, values: Float32Array | Float64Array, width: number): void {
  for (let i = 0; i < values.length; i++) {
    // Infinity - Infinity and NaN - NaN are NaN.
    if (values[i] - values[i] !== 0)
      throw invalid(field, `value ${values[i]} at row ${Math.floor(i / width)} is not a number that can be compared (NaN or infinity)`);
  }
}

function bytesFromRaw(field: Field, payload: RawPayload): BytesColumn {
  const column = (offsets: Int32Array, data: Uint8Array): BytesColumn => {
    const used = data.byteLength === offsets[offsets.length - 1] ? data : data.subarray(0, offsets[offsets.length - 1]);
    return { kind: 'bytes', type: field.type, length: offsets.length - 1, offsets, data: used, validity: null };
  };
  if (payload.kind === 'text' && (field.type === DataType.VarChar || field.type === DataType.String || field.type === DataType.Text)) {
    checkTexts(field, payload.offsets, payload.data);
    return column(payload.offsets, payload.data);
  }
  if (payload.kind === 'json' && field.type === DataType.Json) {
    checkJson(field, payload.offsets, payload.data);
    return column(payload.offsets, payload.data);
  }
  if (payload.kind === 'sparseVector' && field.type === DataType.SparseFloatVector) {
    return column(payload.offsets, orderSparseRows(field, payload.offsets, payload.data));
  }
  if ((payload.kind === 'wkt' || payload.kind === 'text') && field.type === DataType.Geometry) {
    checkGeometries(field, payload.offsets, payload.data);
    return column(payload.offsets, payload.data);
  }
  if (payload.kind === 'wkb' && field.type === DataType.Geometry)
    throw new CairnError('NotSupported', `not supported: WKB for geometry field "${field.name}", send WKT`);
  throw mismatch(field, payload);
}

function checkTexts(field: Field, offsets: Int32Array, data: Uint8Array): void {
  if (!isUtf8(data)) throw invalid(field, 'a text is not valid UTF-8');
  if (field.maxLength === 0) return;
  for (let i = 1; i < offsets.length; i++) {
    const length = offsets[i] - offsets[i - 1];
    if (length > field.maxLength)
      throw invalid(field, `length ${length} of the text at row ${i - 1} exceeds max_length ${field.maxLength}`);
  }
}

function checkJson(field: Field, offsets: Int32Array, data: Uint8Array): void {
  const buffer = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  if (!isUtf8(data)) throw invalid(field, 'a JSON value is not valid UTF-8');
  for (let i = 1; i < offsets.length; i++) {
    const [start, end] = [offsets[i - 1], offsets[i]];
    if (end - start > MAX_JSON_BYTES) throw invalid(field, `JSON of ${end - start} bytes at row ${i - 1} exceeds ${MAX_JSON_BYTES} bytes`);
    // Null rows of the dense form hold nothing.
    if (start === end && field.nullable) continue;
    try {
      JSON.parse(buffer.toString('utf8', start, end));
    } catch (error) {
      throw new CairnError('InvalidParameter', `field "${field.name}": row ${i - 1} is not valid JSON`, { cause: error });
    }
  }
}

function checkGeometries(field: Field, offsets: Int32Array, data: Uint8Array): void {
  if (!isUtf8(data)) throw invalid(field, 'a geometry is not valid UTF-8');
  const buffer = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  for (let i = 1; i < offsets.length; i++) {
    const [start, end] = [offsets[i - 1], offsets[i]];
    // Null rows of the dense form hold nothing.
    if (start === end && field.nullable) continue;
    if (end - start > MAX_GEOMETRY_BYTES)
      throw invalid(field, `geometry of ${end - start} bytes at row ${i - 1} exceeds ${MAX_GEOMETRY_BYTES} bytes`);
    const problem = wktProblem(buffer.toString('latin1', start, end));
    if (problem !== undefined) throw invalid(field, `row ${i - 1} is no well-known text: ${problem}`);
  }
}

function vectorFromRaw(field: Field, payload: RawPayload): VectorColumn {
  const data = vectorData(field, payload);
  const bytesPerRow = vectorBytes(field.type, field.dim);
  if (data.byteLength % bytesPerRow !== 0)
    throw invalid(field, `${data.byteLength} bytes of vectors are not a multiple of dim ${field.dim} (${bytesPerRow} bytes a row)`);
  return { kind: 'vector', type: field.type, length: data.byteLength / bytesPerRow, dim: field.dim, bytesPerRow, data, validity: null };
}

function vectorData(field: Field, payload: RawPayload): Uint8Array {
  const checkDim = (dim: number): void => {
    if (dim !== field.dim) throw invalid(field, `the dim (${dim}) of the vectors is not equal to the schema's dim (${field.dim})`);
  };
  if (payload.kind === 'floatVector' && field.type === DataType.FloatVector) {
    checkDim(payload.dim);
    checkFinite(field, payload.values, field.dim);
    return new Uint8Array(payload.values.buffer, payload.values.byteOffset, payload.values.byteLength);
  }
  const carrier = payload.kind in vectorCarriers ? (payload as Extract<RawPayload, { kind: keyof typeof vectorCarriers }>) : undefined;
  if (carrier === undefined || vectorCarriers[carrier.kind] !== field.type) throw mismatch(field, payload);
  checkDim(carrier.dim);
  const exponent = exponentBits[carrier.kind];
  if (exponent !== undefined) checkHalves(field, carrier.data, exponent);
  return carrier.data;
}

const vectorCarriers = {
  binaryVector: DataType.BinaryVector,
  float16Vector: DataType.Float16Vector,
  bfloat16Vector: DataType.BFloat16Vector,
  int8Vector: DataType.Int8Vector,
} as const;

/** All ones there: NaN or infinity. */
const exponentBits: Partial<Record<keyof typeof vectorCarriers, number>> = { float16Vector: 0x7c00, bfloat16Vector: 0x7f80 };

function checkHalves(field: Field, data: Uint8Array, exponent: number): void {
  for (let at = 0; at + 1 < data.byteLength; at += 2)
    if (((data[at] | (data[at + 1] << 8)) & exponent) === exponent)
      throw invalid(field, `a value at row ${Math.floor(at / 2 / field.dim)} is NaN or infinity`);
}

function listFromRaw(field: Field, payload: RawPayload): ListColumn {
  if (payload.kind !== (field.type === DataType.Array ? 'array' : 'vectorArray')) throw mismatch(field, payload);
  const { offsets, elements } = payload;
  for (let i = 1; i < offsets.length; i++) {
    const count = offsets[i] - offsets[i - 1];
    if (count > field.maxCapacity)
      throw invalid(field, `array of ${count} elements at row ${i - 1} exceeds max_capacity ${field.maxCapacity}`);
  }
  const count = offsets[offsets.length - 1];
  const child = payloadColumn(elementField(field), elements, count, count);
  return { kind: 'list', type: field.type, length: offsets.length - 1, offsets, child, validity: null };
}
