import { CairnError } from '@cairn/base';
import { isValid, validRows } from './bitmap.ts';
import type { BytesColumn, Column, FixedColumn, ListColumn, VectorColumn } from './column.ts';
import { takeColumn } from './column-ops.ts';
import { elementField, isVectorType, typeName, visitColumn } from './field-types.ts';
import { packBytes } from './plain-values.ts';
import type { RawFieldData, RawPayload, RawScalars } from './raw-field-data.ts';
import { TimeZone } from './time-zone.ts';
import { formatTimestamptz, type TimeField, timeFieldsOf } from './timestamptz.ts';
import { DataType, type Field } from './types.ts';

/**
 * A column in the form SDKs read results in: scalars have a value for every row (placeholders at nulls), vectors only for rows that have one;
 * a nullable field always comes with validData. Timestamptz is ISO text in UTC, or what `times` says. Shares memory with the column where it can.
 */
export function columnToRaw(field: Field, column: Column, times: TimeForm = IN_UTC): RawFieldData {
  if (column.type === DataType.Timestamptz && column.kind === 'fixed') return timesToRaw(field, column, times);
  const validData = field.nullable || column.validity !== null ? validFlags(column) : undefined;
  const sent =
    isVectorType(column.type) && column.validity !== null ? takeColumn(column, validRows(column.validity, column.length)) : column;
  return { name: field.name, type: field.type, isDynamic: field.isDynamic, validData, payload: payloadOf(field, sent) };
}

/** How times are shown: in a zone, as ISO text, or as a list of numbers, one for each of `fields`. */
export interface TimeForm {
  readonly zone: TimeZone;
  readonly fields?: readonly TimeField[];
}

const IN_UTC: TimeForm = { zone: TimeZone.UTC };

function timesToRaw(field: Field, column: FixedColumn, { zone, fields = [] }: TimeForm): RawFieldData {
  const { values, validity, length } = column;
  if (!(values instanceof BigInt64Array)) throw new CairnError('Internal', `field ${field.name}: times are no BigInt64Array`);
  const shared = {
    name: field.name,
    isDynamic: field.isDynamic,
    ...(field.nullable || validity !== null ? { validData: validFlags(column) } : {}),
  };
  if (fields.length === 0) {
    const texts = Array.from(values, (micros, row) => Buffer.from(isValid(validity, row) ? formatTimestamptz(micros, zone) : '', 'latin1'));
    return { ...shared, type: field.type, payload: { kind: 'text', ...packBytes(texts) } };
  }
  const numbers: number[] = [];
  const offsets = new Int32Array(length + 1);
  for (let row = 0; row < length; row++) {
    if (isValid(validity, row)) numbers.push(...timeFieldsOf(values[row], fields, zone));
    offsets[row + 1] = numbers.length;
  }
  const elements: RawScalars = { kind: 'long', values: BigInt64Array.from(numbers, BigInt) };
  return { ...shared, type: DataType.Array, payload: { kind: 'array', elementType: DataType.Int64, offsets, elements } };
}

function validFlags(column: Column): Uint8Array {
  const flags = new Uint8Array(column.length);
  for (let row = 0; row < flags.length; row++) flags[row] = isValid(column.validity, row) ? 1 : 0;
  return flags;
}

function payloadOf(field: Field, column: Column): RawPayload {
  return visitColumn<RawPayload>(column, {
    fixed: fixedPayload,
    bytes: bytesPayload,
    vector: vectorPayload,
    list: (from) => listPayload(field, from),
  });
}

function fixedPayload(column: FixedColumn): RawScalars {
  const { values } = column;
  if (values instanceof BigInt64Array) return { kind: 'long', values };
  if (values instanceof Float32Array) return { kind: 'float', values };
  if (values instanceof Float64Array) return { kind: 'double', values };
  if (values instanceof Int32Array) return { kind: 'int', values };
  if (column.type === DataType.Bool) return { kind: 'bool', values: new Uint8Array(values.buffer, values.byteOffset, values.length) };
  return { kind: 'int', values: Int32Array.from(values) };
}

function bytesPayload(column: BytesColumn): RawPayload {
  const { offsets, data } = column;
  switch (column.type) {
    case DataType.SparseFloatVector:
      return { kind: 'sparseVector', dim: sparseDim(column), offsets, data };
    case DataType.Json:
      return { kind: 'json', offsets, data };
    case DataType.Geometry:
      return { kind: 'wkt', offsets, data };
    default:
      return { kind: 'text', offsets, data };
  }
}

/** Largest index and one; rows are sorted, so it is in the last pair of each. */
function sparseDim(column: BytesColumn): number {
  const view = new DataView(column.data.buffer, column.data.byteOffset, column.data.byteLength);
  let dim = 0;
  for (let row = 0; row < column.length; row++) {
    const end = column.offsets[row + 1];
    if (end > column.offsets[row]) dim = Math.max(dim, view.getUint32(end - 8, true) + 1);
  }
  return dim;
}

const carriers: Partial<Record<DataType, 'binaryVector' | 'float16Vector' | 'bfloat16Vector' | 'int8Vector'>> = {
  [DataType.BinaryVector]: 'binaryVector',
  [DataType.Float16Vector]: 'float16Vector',
  [DataType.BFloat16Vector]: 'bfloat16Vector',
  [DataType.Int8Vector]: 'int8Vector',
};

function vectorPayload(column: VectorColumn): RawPayload {
  const { dim, data } = column;
  const kind = carriers[column.type];
  if (kind !== undefined) return { kind, dim, data };
  return { kind: 'floatVector', dim, values: new Float32Array(data.buffer, data.byteOffset, data.byteLength >> 2) };
}

function listPayload(field: Field, column: ListColumn): RawPayload {
  const elements = payloadOf(elementField(field), column.child);
  const { offsets } = column;
  switch (elements.kind) {
    case 'array':
    case 'vectorArray':
    case 'struct':
    case 'unsupported':
    case 'none':
      return { kind: 'unsupported', what: `lists of ${typeName(field.elementType)}` };
    case 'floatVector':
    case 'binaryVector':
    case 'float16Vector':
    case 'bfloat16Vector':
    case 'int8Vector':
    case 'sparseVector':
      return { kind: 'vectorArray', dim: elements.dim, elementType: field.elementType, offsets, elements };
    default:
      return { kind: 'array', elementType: field.elementType, offsets, elements };
  }
}
