import { isValid, validRows } from './bitmap.ts';
import type { BytesColumn, Column, FixedColumn, ListColumn, VectorColumn } from './column.ts';
import { takeColumn } from './column-ops.ts';
import { elementField, isVectorType, typeName, visitColumn } from './field-types.ts';
import { packBytes } from './plain-values.ts';
import type { RawFieldData, RawPayload, RawScalars } from './raw-field-data.ts';
import { formatTimestamptz } from './timestamptz.ts';
import { DataType, type Field } from './types.ts';

/**
 * A column in the form SDKs read results in: scalars have a value for every row (placeholders at nulls), vectors only for rows that have one;
 * a nullable field always comes with validData. Timestamptz is ISO text in UTC. Shares memory with the column where it can.
 */
export function columnToRaw(field: Field, column: Column): RawFieldData {
  const validData = field.nullable || column.validity !== null ? validFlags(column) : undefined;
  const sent =
    isVectorType(column.type) && column.validity !== null ? takeColumn(column, validRows(column.validity, column.length)) : column;
  return { name: field.name, type: field.type, isDynamic: field.isDynamic, validData, payload: payloadOf(field, sent) };
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
  if (values instanceof BigInt64Array) return column.type === DataType.Timestamptz ? isoTexts(column, values) : { kind: 'long', values };
  if (values instanceof Float32Array) return { kind: 'float', values };
  if (values instanceof Float64Array) return { kind: 'double', values };
  if (values instanceof Int32Array) return { kind: 'int', values };
  if (column.type === DataType.Bool) return { kind: 'bool', values: new Uint8Array(values.buffer, values.byteOffset, values.length) };
  return { kind: 'int', values: Int32Array.from(values) };
}

function isoTexts(column: FixedColumn, values: BigInt64Array): RawScalars {
  const texts = Array.from(values, (micros, row) => Buffer.from(isValid(column.validity, row) ? formatTimestamptz(micros) : '', 'latin1'));
  return { kind: 'text', ...packBytes(texts) };
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
