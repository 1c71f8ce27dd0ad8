/** Fields and columns of every type for property tests, here and in the rooms above. */
import fc from 'fast-check';
import { type Column, DataType, type Field, type PlainValue } from './index.ts';
import { columnFromValues } from './plain-values.ts';

export function field(type: DataType, more: Partial<Field> = {}): Field {
  return {
    id: 100,
    name: 'f',
    description: '',
    type,
    elementType: DataType.None,
    isPrimaryKey: false,
    autoId: false,
    nullable: false,
    isDynamic: false,
    isPartitionKey: false,
    isClusteringKey: false,
    isFunctionOutput: false,
    defaultValue: undefined,
    dim: 0,
    maxLength: type === DataType.VarChar || more.elementType === DataType.VarChar ? 65535 : 0,
    maxCapacity: 64,
    typeParams: {},
    indexParams: {},
    ...more,
  };
}

const int64 = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n });
const floats = (dim: number): fc.Arbitrary<Uint8Array> =>
  fc
    .array(fc.float({ noNaN: true, noDefaultInfinity: true }), { minLength: dim, maxLength: dim })
    .map((v) => new Uint8Array(Float32Array.from(v).buffer));
const bytes = (length: number): fc.Arbitrary<Uint8Array> => fc.uint8Array({ minLength: length, maxLength: length, max: 0x3f });
const sparse = fc
  .uniqueArray(fc.nat(1000), { maxLength: 5 })
  .map((indices) => new Uint8Array(Uint32Array.from([...indices].sort((a, b) => a - b).flatMap((i) => [i, 0x3f800000])).buffer));

/** A field of each type and its values (never null). */
export const samples: readonly (readonly [Field, fc.Arbitrary<PlainValue>])[] = [
  [field(DataType.Bool), fc.boolean()],
  [field(DataType.Int8), fc.integer({ min: -128, max: 127 })],
  [field(DataType.Int16), fc.integer({ min: -32768, max: 32767 })],
  [field(DataType.Int32), fc.integer()],
  [field(DataType.Int64), int64],
  [field(DataType.Float), fc.float({ noNaN: true, noDefaultInfinity: true })],
  [field(DataType.Double), fc.double({ noNaN: true, noDefaultInfinity: true })],
  [field(DataType.Timestamptz), fc.bigInt({ min: 0n, max: 4102444800000000n })],
  [field(DataType.VarChar), fc.string({ unit: 'grapheme', maxLength: 12 })],
  [field(DataType.Json), fc.json().map((text) => new Uint8Array(Buffer.from(text)))],
  [field(DataType.SparseFloatVector), sparse],
  [field(DataType.FloatVector, { dim: 3 }), floats(3)],
  [field(DataType.Float16Vector, { dim: 3 }), bytes(6)],
  [field(DataType.BFloat16Vector, { dim: 3 }), bytes(6)],
  [field(DataType.Int8Vector, { dim: 5 }), bytes(5)],
  [field(DataType.BinaryVector, { dim: 16 }), bytes(2)],
  [field(DataType.Array, { elementType: DataType.Int64 }), fc.array(int64, { maxLength: 4 })],
  [field(DataType.Array, { elementType: DataType.VarChar }), fc.array(fc.string({ maxLength: 5 }), { maxLength: 4 })],
  [field(DataType.Array, { elementType: DataType.Bool }), fc.array(fc.boolean(), { maxLength: 4 })],
  [field(DataType.ArrayOfVector, { elementType: DataType.FloatVector, dim: 3 }), fc.array(floats(3), { maxLength: 3 })],
  [field(DataType.ArrayOfVector, { elementType: DataType.BFloat16Vector, dim: 3 }), fc.array(bytes(6), { maxLength: 3 })],
  [field(DataType.ArrayOfVector, { elementType: DataType.Int8Vector, dim: 3 }), fc.array(bytes(3), { maxLength: 3 })],
  [field(DataType.ArrayOfVector, { elementType: DataType.BinaryVector, dim: 16 }), fc.array(bytes(2), { maxLength: 3 })],
];

export interface SampleColumn {
  readonly field: Field;
  readonly values: readonly PlainValue[];
  readonly column: Column;
}

/** A column of any type with nulls in it. */
export const anyColumn: fc.Arbitrary<SampleColumn> = fc.constantFrom(...samples).chain(([of, value]) =>
  fc.array(fc.option(value, { nil: null, freq: 4 }), { maxLength: 40 }).map((values) => {
    const nullable = { ...of, nullable: true };
    return { field: nullable, values, column: columnFromValues(nullable, values) };
  }),
);

/** Plain values in a form that toEqual compares: bytes without the kind of their buffer. */
export function readable(value: PlainValue): unknown {
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex');
  return Array.isArray(value) ? value.map((item) => readable(item as PlainValue)) : value;
}
