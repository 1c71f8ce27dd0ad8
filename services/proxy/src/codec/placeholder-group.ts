import { CairnError } from '@cairn/base';
import { PlaceholderGroup, PlaceholderType } from '@cairn/proto/milvus/common';
import { DataType, elementField, type Field } from '@cairn/schema';

/** What the placeholder type of a list of vectors is above that of one. */
const EMB_LIST = 200;
const LIST_PREFIX_BYTES = 4;

/**
 * Query vectors of one search in the field's storage layout, back to back; sparse ones, and lists of vectors, each with their length (u32 LE) before
 * them.
 */
export interface QueryVectors {
  readonly nq: number;
  readonly bytes: Uint8Array;
}

/** Bytes of one vector; 0 for sparse ones, whose length varies. */
export function bytesPerVector(field: Field): number {
  switch (field.type) {
    case DataType.FloatVector:
      return field.dim * 4;
    case DataType.Float16Vector:
    case DataType.BFloat16Vector:
      return field.dim * 2;
    case DataType.Int8Vector:
      return field.dim;
    case DataType.BinaryVector:
      return field.dim / 8;
    case DataType.SparseFloatVector:
      return 0;
    default:
      throw new CairnError('InvalidParameter', `field ${field.name} is not a vector field: it cannot be searched`);
  }
}

/**
 * Query vectors out of a serialized PlaceholderGroup, checked against the field: InvalidParameter for another type, another dimension, none at
 * all, too many, NaN or infinity.
 */
export function decodePlaceholderGroup(group: Uint8Array, field: Field, limits: { readonly maxNq: number }): QueryVectors {
  const [placeholder, ...others] = decodeGroup(group).placeholders;
  if (!placeholder || others.length > 0) {
    throw new CairnError('InvalidParameter', `a search takes one placeholder, got ${placeholder ? others.length + 1 : 0}`);
  }
  const { values } = placeholder;
  const nq = values.length;
  if (nq === 0) throw new CairnError('InvalidParameter', 'nq [0] is invalid, it should be in range [1, 16384]: no query vectors');
  if (nq > limits.maxNq) {
    throw new CairnError(
      'InvalidParameter',
      `nq [${nq}] is invalid, nq (number of search vector per search request) should be in range [1, ${limits.maxNq}]`,
    );
  }
  if (field.type === DataType.ArrayOfVector) return { nq, bytes: joinLists(values, placeholder.type, field) };
  if (placeholder.type === PlaceholderType.VarChar) throw new CairnError('NotSupported', 'not supported: search by text');
  if ((placeholder.type as number) !== (field.type as number)) {
    throw new CairnError(
      'InvalidParameter',
      `vector type must be the same: field ${field.name} is of type ${typeName(field.type)}, the query vectors are of type ${typeName(placeholder.type)}`,
    );
  }
  const width = bytesPerVector(field);
  return { nq, bytes: width === 0 ? joinSparse(values, field) : joinDense(values, field, width) };
}

function decodeGroup(group: Uint8Array): PlaceholderGroup {
  try {
    return PlaceholderGroup.decode(group);
  } catch (error) {
    throw new CairnError('InvalidParameter', `malformed placeholder group: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    });
  }
}

function joinDense(values: readonly Uint8Array[], field: Field, width: number): Uint8Array {
  const joined = new Uint8Array(values.length * width);
  values.forEach((value, query) => {
    if (value.length !== width) {
      const dim = field.type === DataType.BinaryVector ? value.length * 8 : (value.length / width) * field.dim;
      throw new CairnError(
        'InvalidParameter',
        `vector dimension mismatch, expected vector size(byte) ${width}, actual ${value.length}: field ${field.name} has dim ${field.dim}, query vector ${query} has ${dim}`,
      );
    }
    joined.set(value, query * width);
  });
  if (field.type === DataType.FloatVector) {
    const floats = new Float32Array(joined.buffer);
    const at = firstOdd(floats);
    if (at >= 0)
      throw new CairnError(
        'InvalidParameter',
        `value '${floats[at]}' is not a number or infinity: query vector ${Math.floor(at / field.dim)} for field ${field.name}`,
      );
  }
  return joined;
}

/** Where the first number stands that is none, or infinite; -1: nowhere. A sum is finite only when all its parts are, and may overflow by itself. */
function firstOdd(floats: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < floats.length; i++) sum += floats[i];
  return Number.isFinite(sum) ? -1 : floats.findIndex((value) => !Number.isFinite(value));
}

/** A list of vectors for each query, each list with its length before it. */
function joinLists(values: readonly Uint8Array[], type: number, field: Field): Uint8Array {
  if (type < PlaceholderType.EmbListBinaryVector)
    throw new CairnError(
      'NotSupported',
      `not supported: search of single elements of field ${field.name}; send a list of vectors for each query`,
    );
  const element = elementField(field);
  if (type - EMB_LIST !== element.type)
    throw new CairnError(
      'InvalidParameter',
      `vector type must be the same: field ${field.name} holds lists of ${typeName(element.type)}, the query vectors are of type ${typeName(type - EMB_LIST)}`,
    );
  const width = bytesPerVector(element);
  const joined = new Uint8Array(values.reduce((sum, value) => sum + LIST_PREFIX_BYTES + value.length, 0));
  const view = new DataView(joined.buffer);
  let at = 0;
  values.forEach((value, query) => {
    if (value.length === 0 || value.length % width !== 0)
      throw new CairnError(
        'InvalidParameter',
        `vector dimension mismatch: query ${query} for field ${field.name} has ${value.length} bytes, vectors of dim ${field.dim} have ${width} each`,
      );
    view.setUint32(at, value.length, true);
    // Checks the numbers in it.
    joined.set(joinDense(vectorsOf(value, width), element, width), at + LIST_PREFIX_BYTES);
    at += LIST_PREFIX_BYTES + value.length;
  });
  return joined;
}

function vectorsOf(list: Uint8Array, width: number): Uint8Array[] {
  return Array.from({ length: list.length / width }, (_, i) => list.subarray(i * width, (i + 1) * width));
}

function joinSparse(values: readonly Uint8Array[], field: Field): Uint8Array {
  const total = values.reduce((sum, value) => sum + 4 + value.length, 0);
  const joined = new Uint8Array(total);
  const view = new DataView(joined.buffer);
  let at = 0;
  values.forEach((value, query) => {
    if (value.length % 8 !== 0)
      throw new CairnError(
        'InvalidParameter',
        `sparse query vector ${query} for field ${field.name} has ${value.length} bytes, not a multiple of 8`,
      );
    const sorted = sortPairs(value, field, query);
    view.setUint32(at, sorted.length, true);
    joined.set(sorted, at + 4);
    at += 4 + sorted.length;
  });
  return joined;
}

/** Pairs by index, as stored vectors have them: senders need not sort. */
function sortPairs(value: Uint8Array, field: Field, query: number): Uint8Array {
  const source = new DataView(value.buffer, value.byteOffset, value.byteLength);
  const pairs = Array.from(
    { length: value.length / 8 },
    (_, i) => [source.getUint32(i * 8, true), source.getFloat32(i * 8 + 4, true)] as const,
  );
  pairs.sort((a, b) => a[0] - b[0]);
  const sorted = new Uint8Array(value.length);
  const target = new DataView(sorted.buffer);
  pairs.forEach(([index, weight], i) => {
    if (!Number.isFinite(weight))
      throw new CairnError(
        'InvalidParameter',
        `value '${weight}' is not a number or infinity: sparse query vector ${query} for field ${field.name}`,
      );
    if (i > 0 && pairs[i - 1][0] === index)
      throw new CairnError('InvalidParameter', `index ${index} stands twice in sparse query vector ${query} for field ${field.name}`);
    target.setUint32(i * 8, index, true);
    target.setFloat32(i * 8 + 4, weight, true);
  });
  return sorted;
}

function typeName(type: number): string {
  return Object.entries(DataType).find(([, value]) => value === type)?.[0] ?? String(type);
}
