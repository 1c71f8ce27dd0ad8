import { CairnError } from '@cairn/base';
import type { DataType, RawArrays, RawByteStrings, RawFieldData, RawPayload, RawScalars, RawVectorArrays, RawVectors } from '@cairn/schema';
import type { WireWriter } from './wire-writer.ts';

/** A result column with the id of its field (0 for a computed one). */
export interface ResultField {
  readonly fieldId: number;
  readonly raw: RawFieldData;
}

const SCALAR_NUMBERS: Readonly<Record<RawScalars['kind'], number>> = {
  bool: 1,
  int: 2,
  long: 3,
  float: 4,
  double: 5,
  text: 6,
  bytes: 7,
  json: 9,
  wkb: 10,
  timestamptz: 11,
  wkt: 12,
};
const VECTOR_NUMBERS: Readonly<Record<RawVectors['kind'], number>> = {
  floatVector: 2,
  binaryVector: 3,
  float16Vector: 4,
  bfloat16Vector: 5,
  sparseVector: 6,
  int8Vector: 7,
};

const BYTES_OF_COMPONENT = { binaryVector: 1 / 8, float16Vector: 2, bfloat16Vector: 2, int8Vector: 1 } as const;

/** Bytes a field will about take, to size the writer. */
export function estimateFieldBytes({ raw }: ResultField): number {
  return 256 + raw.name.length + (raw.validData?.length ?? 0) + payloadBytes(raw.payload);
}

/**
 * Writes a FieldData under `number`. The data oneof is set for zero rows too: clients read it without a check. Emits validity where published
 * SDKs look for it, in FieldData.valid_data.
 */
export function writeFieldData(writer: WireWriter, number: number, { fieldId, raw }: ResultField): void {
  writer.message(number, () => {
    const { validData } = raw;
    if (validData && validData.length > 0) {
      const packed = new Uint8Array(validData.length);
      for (let i = 0; i < packed.length; i++) packed[i] = validData[i] ? 1 : 0;
      writer.bytes(7, packed);
    }
    writer.bool(6, raw.isDynamic);
    writer.integer(5, fieldId);
    writePayload(writer, raw.payload);
    writer.string(2, raw.name);
    writer.integer(1, raw.type);
  });
}

function writePayload(writer: WireWriter, payload: RawPayload): void {
  switch (payload.kind) {
    case 'floatVector':
    case 'binaryVector':
    case 'float16Vector':
    case 'bfloat16Vector':
    case 'int8Vector':
    case 'sparseVector':
      writer.message(4, () => writeVectors(writer, payload));
      return;
    case 'array':
      writer.message(3, () => writeArrays(writer, payload));
      return;
    case 'vectorArray':
      writer.message(4, () => writeVectorArrays(writer, payload));
      return;
    case 'struct':
      writer.message(8, () => {
        for (const raw of payload.members.toReversed()) writeFieldData(writer, 1, { fieldId: 0, raw });
      });
      return;
    case 'unsupported':
      throw new CairnError('NotSupported', `not supported: results of kind ${payload.kind}`);
    case 'none':
      return;
    default:
      writer.message(3, () => writeScalars(writer, payload, 0, scalarCount(payload)));
  }
}

/** VectorField{vector_array}: a VectorField for each row. */
function writeVectorArrays(writer: WireWriter, arrays: RawVectorArrays): void {
  const { elements, offsets, dim, elementType } = arrays;
  writer.message(8, () => {
    writer.integer(3, elementType);
    for (let i = offsets.length - 2; i >= 0; i--) {
      writer.message(2, () => {
        if (elements.kind === 'none') writer.integer(1, dim);
        else writeVectors(writer, vectorRange(elements, offsets[i], offsets[i + 1], elements.dim));
      });
    }
    writer.integer(1, dim);
  });
  writer.integer(1, dim);
}

/** Vectors start..end of dense ones. */
function vectorRange(vectors: RawVectors, start: number, end: number, dim: number): RawVectors {
  if (vectors.kind === 'floatVector') return { ...vectors, values: vectors.values.subarray(start * dim, end * dim) };
  if (vectors.kind === 'sparseVector') throw new CairnError('Internal', 'arrays of sparse vectors');
  const bytes = dim * BYTES_OF_COMPONENT[vectors.kind];
  return { ...vectors, data: vectors.data.subarray(start * bytes, end * bytes) };
}

function writeVectors(writer: WireWriter, vectors: RawVectors): void {
  const number = VECTOR_NUMBERS[vectors.kind];
  if (vectors.kind === 'sparseVector') {
    writer.message(number, () => {
      writer.integer(2, vectors.dim);
      const { offsets, data } = vectors;
      for (let i = offsets.length - 2; i >= 0; i--) writeElement(writer, data, offsets[i], offsets[i + 1]);
    });
  } else if (vectors.kind === 'floatVector') {
    writer.message(number, () => {
      const { values } = vectors;
      if (values.length > 0) writer.bytes(1, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
    });
  } else writer.bytes(number, vectors.data);
  writer.integer(1, vectors.dim);
}

/** Elements start..end of the values, as a ScalarField's content. */
function writeScalars(writer: WireWriter, scalars: RawScalars, start: number, end: number): void {
  writer.message(SCALAR_NUMBERS[scalars.kind], () => {
    if (start === end && !isByteStrings(scalars)) return;
    switch (scalars.kind) {
      case 'bool':
        writer.bytes(1, scalars.values.subarray(start, end));
        return;
      case 'int':
        writer.message(1, () => {
          const { values } = scalars;
          for (let i = end - 1; i >= start; i--) writer.varint64(values[i], values[i] >> 31);
        });
        return;
      case 'long':
      case 'timestamptz':
        writeLongs(writer, 1, scalars.values.subarray(start, end));
        return;
      case 'float':
      case 'double': {
        const { values } = scalars;
        const width = values.BYTES_PER_ELEMENT;
        writer.bytes(1, new Uint8Array(values.buffer, values.byteOffset + start * width, (end - start) * width));
        return;
      }
      default:
        for (let i = end - 1; i >= start; i--) writeElement(writer, scalars.data, scalars.offsets[i], scalars.offsets[i + 1]);
    }
  });
}

/** Packed int64. */
export function writeLongs(writer: WireWriter, field: number, values: BigInt64Array): void {
  if (values.length === 0) return;
  const halves = new Int32Array(values.buffer, values.byteOffset, values.length * 2);
  writer.message(field, () => {
    for (let i = halves.length - 2; i >= 0; i -= 2) writer.varint64(halves[i], halves[i + 1]);
  });
}

function writeArrays(writer: WireWriter, arrays: RawArrays): void {
  writer.message(8, () => {
    writer.integer(2, arrays.elementType as DataType);
    const { elements, offsets } = arrays;
    for (let i = offsets.length - 2; i >= 0; i--) {
      writer.message(1, () => {
        if (elements.kind !== 'none') writeScalars(writer, elements, offsets[i], offsets[i + 1]);
      });
    }
  });
}

function writeElement(writer: WireWriter, data: Uint8Array, start: number, end: number): void {
  writer.rawRange(data, start, end);
  writer.varint(end - start);
  writer.tag(1, 2);
}

function isByteStrings(scalars: RawScalars): scalars is RawByteStrings {
  return 'offsets' in scalars;
}

function scalarCount(scalars: RawScalars): number {
  return isByteStrings(scalars) ? scalars.offsets.length - 1 : scalars.values.length;
}

function payloadBytes(payload: RawPayload): number {
  switch (payload.kind) {
    case 'none':
    case 'unsupported':
      return 0;
    case 'struct':
      return payload.members.reduce((sum, raw) => sum + estimateFieldBytes({ fieldId: 0, raw }), 0);
    case 'vectorArray':
      return payload.offsets.length * 16 + payloadBytes(payload.elements);
    case 'array':
      return payload.offsets.length * 8 + payloadBytes(payload.elements);
    case 'int':
    case 'long':
    case 'timestamptz':
      return payload.values.length * 10;
    default:
      if ('offsets' in payload) return payload.data.length + payload.offsets.length * 4;
      return 'data' in payload ? payload.data.length : payload.values.byteLength;
  }
}
