import { CairnError } from '@cairn/base';
import {
  type FieldData,
  type ScalarField,
  type VectorArray,
  type VectorField,
  FieldData as WireFieldData,
} from '@cairn/proto/milvus/schema';
import type { Column } from './column.ts';
import { columnFromRaw } from './column-from-raw.ts';
import { columnToRaw } from './column-to-raw.ts';
import { toDataType } from './field-types.ts';
import { packBytes } from './plain-values.ts';
import type { RawByteStrings, RawFieldData, RawPayload, RawScalars, RawVectorArrays, RawVectors } from './raw-field-data.ts';
import { DataType, type Field } from './types.ts';

/** A generated FieldData in columns. InvalidParameter where its parts contradict each other (rows of an array with different carriers). */
export function rawFromWire(data: FieldData): RawFieldData {
  return {
    name: data.fieldName,
    type: toDataType(data.type) ?? DataType.None,
    isDynamic: data.isDynamic,
    validData: data.validData,
    payload: payloadFromWire(data),
  };
}

/** `columnFromRaw` for a generated message. */
export function columnFromWire(field: Field, data: FieldData, rows: number): Column {
  return columnFromRaw(field, rawFromWire(data), rows);
}

/** `columnToRaw` as a generated message. */
export function columnToWire(field: Field, column: Column): FieldData {
  return rawToWire(columnToRaw(field, column), field.id);
}

function payloadFromWire(data: FieldData): RawPayload {
  switch (data.field?.$case) {
    case 'scalars':
      return scalarsFromWire(data.field.value);
    case 'vectors':
      return vectorsFromWire(data.field.value);
    case 'structArrays':
      return { kind: 'struct', members: data.field.value.fields.map(rawFromWire) };
    case undefined:
      return { kind: 'none' };
  }
}

function texts(values: readonly string[]): { offsets: Int32Array; data: Uint8Array } {
  return packBytes(values.map((value) => Buffer.from(value, 'utf8')));
}

function scalarsFromWire(message: ScalarField): RawPayload {
  const data = message.data;
  switch (data?.$case) {
    case 'boolData':
      return { kind: 'bool', values: Uint8Array.from(data.value.data, Number) };
    case 'intData':
      return { kind: 'int', values: Int32Array.from(data.value.data) };
    case 'longData':
      return { kind: 'long', values: BigInt64Array.from(data.value.data) };
    case 'floatData':
      return { kind: 'float', values: Float32Array.from(data.value.data) };
    case 'doubleData':
      return { kind: 'double', values: Float64Array.from(data.value.data) };
    case 'stringData':
      return { kind: 'text', ...texts(data.value.data) };
    case 'bytesData':
      return { kind: 'bytes', ...packBytes(data.value.data) };
    case 'jsonData':
      return { kind: 'json', ...packBytes(data.value.data) };
    case 'geometryData':
      return { kind: 'wkb', ...packBytes(data.value.data) };
    case 'geometryWktData':
      return { kind: 'wkt', ...texts(data.value.data) };
    case 'timestamptzData':
      return { kind: 'timestamptz', values: BigInt64Array.from(data.value.data) };
    case 'arrayData':
      return arraysFromWire(data.value.data, toDataType(data.value.elementType) ?? DataType.None);
    case undefined:
      return { kind: 'none' };
    case 'dateData':
    case 'timeData':
    case 'molData':
    case 'molSmilesData':
      return { kind: 'unsupported', what: data.$case };
  }
}

function arraysFromWire(rows: readonly ScalarField[], elementType: DataType): RawPayload {
  const offsets = new Int32Array(rows.length + 1);
  const parts: RawScalars[] = [];
  for (let row = 0; row < rows.length; row++) {
    const part = scalarsFromWire(rows[row]);
    const count = countOf(part);
    offsets[row + 1] = offsets[row] + count;
    if (count === 0) continue;
    if (part.kind === 'array' || !isScalars(part)) return { kind: 'unsupported', what: `an array of ${part.kind}` };
    parts.push(part);
  }
  return { kind: 'array', elementType, offsets, elements: joinScalars(parts) };
}

function isScalars(payload: RawPayload): payload is RawScalars {
  return 'values' in payload
    ? payload.kind !== 'floatVector'
    : 'offsets' in payload && 'data' in payload && payload.kind !== 'sparseVector';
}

/** Values (not bytes) in a payload of scalars. */
function countOf(payload: RawPayload): number {
  if ('values' in payload) return payload.values.length;
  if ('offsets' in payload) return payload.offsets.length - 1;
  return 0;
}

function joinScalars(parts: readonly RawScalars[]): RawScalars | { readonly kind: 'none' } {
  const first = parts[0];
  if (first === undefined) return { kind: 'none' };
  for (const part of parts)
    if (part.kind !== first.kind)
      throw new CairnError('InvalidParameter', `rows of an array are sent as ${first.kind} and as ${part.kind}`);
  switch (first.kind) {
    case 'bool':
      return { kind: 'bool', values: Uint8Array.from(parts.flatMap((part) => (part.kind === 'bool' ? Array.from(part.values) : []))) };
    case 'int':
      return { kind: 'int', values: Int32Array.from(parts.flatMap((part) => (part.kind === 'int' ? Array.from(part.values) : []))) };
    case 'float':
      return { kind: 'float', values: Float32Array.from(parts.flatMap((part) => (part.kind === 'float' ? Array.from(part.values) : []))) };
    case 'double':
      return {
        kind: 'double',
        values: Float64Array.from(parts.flatMap((part) => (part.kind === 'double' ? Array.from(part.values) : []))),
      };
    case 'long':
    case 'timestamptz': {
      const values = parts.flatMap((part) => (part.kind === 'long' || part.kind === 'timestamptz' ? Array.from(part.values) : []));
      return { kind: first.kind, values: BigInt64Array.from(values) };
    }
    default: {
      const strings = parts.flatMap((part) => ('offsets' in part ? splitStrings(part) : []));
      return { kind: first.kind, ...packBytes(strings) };
    }
  }
}

function splitStrings(part: RawByteStrings): Uint8Array[] {
  return Array.from({ length: part.offsets.length - 1 }, (_, i) => part.data.subarray(part.offsets[i], part.offsets[i + 1]));
}

function vectorsFromWire(message: VectorField): RawPayload {
  const dim = Number(message.dim);
  const data = message.data;
  switch (data?.$case) {
    case 'floatVector':
      return { kind: 'floatVector', dim, values: Float32Array.from(data.value.data) };
    case 'binaryVector':
    case 'float16Vector':
    case 'bfloat16Vector':
    case 'int8Vector':
      return { kind: data.$case, dim, data: data.value };
    case 'sparseFloatVector':
      return { kind: 'sparseVector', dim: Number(data.value.dim), ...packBytes(data.value.contents) };
    case 'vectorArray':
      return vectorListsFromWire(data.value);
    case undefined:
      return { kind: 'none' };
  }
}

function vectorListsFromWire({ dim: announced, data: rows, elementType }: VectorArray): RawPayload {
  const dim = Number(announced);
  const offsets = new Int32Array(rows.length + 1);
  const parts: Exclude<RawVectors, { kind: 'sparseVector' }>[] = [];
  for (let row = 0; row < rows.length; row++) {
    const part = vectorsFromWire(rows[row]);
    offsets[row + 1] = offsets[row];
    if (part.kind === 'none') continue;
    if (part.kind !== 'floatVector' && !(part.kind in COMPONENT_BYTES)) return { kind: 'unsupported', what: `arrays of ${part.kind}` };
    const vectors = part as Exclude<RawVectors, { kind: 'sparseVector' }>;
    const length = vectors.kind === 'floatVector' ? vectors.values.length : vectors.data.length / COMPONENT_BYTES[vectors.kind];
    offsets[row + 1] += length / dim;
    if (length > 0) parts.push(vectors);
  }
  const [first] = parts;
  const type = toDataType(elementType) ?? DataType.None;
  if (!first) return { kind: 'vectorArray', dim, elementType: type, offsets, elements: { kind: 'none' } };
  if (parts.some((part) => part.kind !== first.kind || part.dim !== dim))
    throw new CairnError('InvalidParameter', 'rows of an array hold vectors of different kinds or dimensions');
  if (first.kind === 'floatVector') {
    const values = Float32Array.from(parts.flatMap((part) => (part.kind === 'floatVector' ? [...part.values] : [])));
    return { kind: 'vectorArray', dim, elementType: type, offsets, elements: { kind: 'floatVector', dim, values } };
  }
  const data = Buffer.concat(parts.map((part) => (part.kind === 'floatVector' ? new Uint8Array() : part.data)));
  return { kind: 'vectorArray', dim, elementType: type, offsets, elements: { kind: first.kind, dim, data: new Uint8Array(data) } };
}

const COMPONENT_BYTES = { binaryVector: 1 / 8, float16Vector: 2, bfloat16Vector: 2, int8Vector: 1 } as const;

function vectorListsToWire({ dim, elementType, offsets, elements }: RawVectorArrays): VectorField {
  const data = Array.from({ length: offsets.length - 1 }, (_, row): VectorField => {
    const [start, end] = [offsets[row] * dim, offsets[row + 1] * dim];
    if (elements.kind === 'none' || elements.kind === 'sparseVector') return { dim: BigInt(dim), data: undefined };
    if (elements.kind === 'floatVector') return vectorsToWire({ ...elements, values: elements.values.subarray(start, end) });
    const bytes = COMPONENT_BYTES[elements.kind];
    return vectorsToWire({ ...elements, data: elements.data.subarray(start * bytes, end * bytes) });
  });
  return { dim: BigInt(dim), data: { $case: 'vectorArray', value: { dim: BigInt(dim), data, elementType } } };
}

/** The generated message; copies. For messages that are not on a hot path: results are encoded from RawFieldData directly. */
export function rawToWire(raw: RawFieldData, fieldId: number): FieldData {
  const validData = raw.validData === undefined ? [] : Array.from(raw.validData as ArrayLike<number | boolean>, Boolean);
  return {
    ...WireFieldData.create(),
    type: raw.type === DataType.None ? 0 : raw.type,
    fieldName: raw.name,
    fieldId: BigInt(fieldId),
    isDynamic: raw.isDynamic,
    validData,
    field: payloadToWire(raw.payload),
  };
}

function payloadToWire(payload: RawPayload): FieldData['field'] {
  switch (payload.kind) {
    case 'none':
      return undefined;
    case 'floatVector':
    case 'binaryVector':
    case 'float16Vector':
    case 'bfloat16Vector':
    case 'int8Vector':
    case 'sparseVector':
      return { $case: 'vectors', value: vectorsToWire(payload) };
    case 'array': {
      const data = Array.from({ length: payload.offsets.length - 1 }, (_, row) =>
        arrayRow(payload.elements, payload.offsets[row], payload.offsets[row + 1]),
      );
      return { $case: 'scalars', value: { data: { $case: 'arrayData', value: { data, elementType: payload.elementType } } } };
    }
    case 'vectorArray':
      return { $case: 'vectors', value: vectorListsToWire(payload) };
    case 'struct':
      return { $case: 'structArrays', value: { fields: payload.members.map((member) => rawToWire(member, 0)) } };
    case 'unsupported':
      throw new CairnError('NotSupported', `not supported: sending ${payload.what}`);
    default:
      return { $case: 'scalars', value: scalarsToWire(payload) };
  }
}

function arrayRow(elements: RawScalars | { readonly kind: 'none' }, start: number, end: number): ScalarField {
  if (elements.kind === 'none') return { data: undefined };
  if ('offsets' in elements) return scalarsToWire({ ...elements, offsets: elements.offsets.subarray(start, end + 1) });
  if (elements.kind === 'bool') return scalarsToWire({ kind: 'bool', values: elements.values.subarray(start, end) });
  if (elements.kind === 'int') return scalarsToWire({ kind: 'int', values: elements.values.subarray(start, end) });
  if (elements.kind === 'float') return scalarsToWire({ kind: 'float', values: elements.values.subarray(start, end) });
  if (elements.kind === 'double') return scalarsToWire({ kind: 'double', values: elements.values.subarray(start, end) });
  return scalarsToWire({ kind: elements.kind, values: elements.values.subarray(start, end) });
}

function strings(payload: RawByteStrings): string[] {
  const buffer = Buffer.from(payload.data.buffer, payload.data.byteOffset, payload.data.byteLength);
  return Array.from({ length: payload.offsets.length - 1 }, (_, i) => buffer.toString('utf8', payload.offsets[i], payload.offsets[i + 1]));
}

function scalarsToWire(payload: RawScalars): ScalarField {
  switch (payload.kind) {
    case 'bool':
      return { data: { $case: 'boolData', value: { data: Array.from(payload.values, Boolean) } } };
    case 'int':
      return { data: { $case: 'intData', value: { data: Array.from(payload.values) } } };
    case 'long':
      return { data: { $case: 'longData', value: { data: Array.from(payload.values) } } };
    case 'float':
      return { data: { $case: 'floatData', value: { data: Array.from(payload.values) } } };
    case 'double':
      return { data: { $case: 'doubleData', value: { data: Array.from(payload.values) } } };
    case 'timestamptz':
      return { data: { $case: 'timestamptzData', value: { data: Array.from(payload.values) } } };
    case 'text':
      return { data: { $case: 'stringData', value: { data: strings(payload) } } };
    case 'wkt':
      return { data: { $case: 'geometryWktData', value: { data: strings(payload) } } };
    case 'json':
      return { data: { $case: 'jsonData', value: { data: splitStrings(payload) } } };
    case 'bytes':
      return { data: { $case: 'bytesData', value: { data: splitStrings(payload) } } };
    case 'wkb':
      return { data: { $case: 'geometryData', value: { data: splitStrings(payload) } } };
  }
}

function vectorsToWire(payload: RawVectors): VectorField {
  const dim = BigInt(payload.dim);
  if (payload.kind === 'floatVector') return { dim, data: { $case: 'floatVector', value: { data: Array.from(payload.values) } } };
  if (payload.kind === 'sparseVector') {
    const contents = Array.from({ length: payload.offsets.length - 1 }, (_, i) =>
      payload.data.subarray(payload.offsets[i], payload.offsets[i + 1]),
    );
    return { dim, data: { $case: 'sparseFloatVector', value: { contents, dim } } };
  }
  return { dim, data: { $case: payload.kind, value: payload.data } };
}
