import { type BytesColumn, type CollectionSchema, type Column, DataType, type Field, type FixedValues, type Validity } from '@cairn/schema';

/** Columns and a schema for these tests, made by hand so that they do not lean on libs/schema's builders. */
export type Cell = boolean | bigint | number | string | null | readonly Cell[];

export function field(id: number, name: string, type: DataType, extra: Partial<Field> = {}): Field {
  return {
    id,
    name,
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
    maxLength: 0,
    maxCapacity: 0,
    typeParams: {},
    indexParams: {},
    ...extra,
  };
}

export function schemaOf(fields: readonly Field[]): CollectionSchema {
  const dynamicField = fields.find((f) => f.isDynamic);
  return {
    name: 'c',
    description: '',
    fields,
    structs: [],
    enableDynamicField: dynamicField !== undefined,
    properties: {},
    primaryKey: fields[0],
    byId: new Map(fields.map((f) => [f.id, f])),
    byName: new Map(fields.map((f) => [f.name, f])),
    vectorFields: fields.filter((f) => f.type === DataType.FloatVector),
    dynamicField,
    partitionKey: undefined,
  };
}

export const FIELDS = {
  id: field(100, 'id', DataType.Int64, { isPrimaryKey: true }),
  small: field(101, 'small', DataType.Int8, { nullable: true }),
  count: field(102, 'count', DataType.Int32),
  price: field(103, 'price', DataType.Float),
  ratio: field(104, 'ratio', DataType.Double, { nullable: true }),
  flag: field(105, 'flag', DataType.Bool),
  name: field(106, 'name', DataType.VarChar, { nullable: true }),
  tags: field(107, 'tags', DataType.Array, { elementType: DataType.VarChar }),
  sizes: field(108, 'sizes', DataType.Array, { elementType: DataType.Int64, nullable: true }),
  doc: field(109, 'doc', DataType.Json, { nullable: true }),
  vec: field(110, 'vec', DataType.FloatVector, { dim: 4 }),
  big: field(111, 'big', DataType.Int64, { nullable: true }),
  meta: field(112, '$meta', DataType.Json, { isDynamic: true }),
};
export const SCHEMA = schemaOf(Object.values(FIELDS));

function validityOf(cells: readonly unknown[]): Validity {
  if (!cells.includes(null)) return null;
  const bits = new Uint8Array((cells.length + 7) >> 3);
  cells.forEach((cell, i) => {
    if (cell !== null) bits[i >> 3] |= 1 << (i & 7);
  });
  return bits;
}

export function bytesColumn(type: DataType, cells: readonly (string | null)[]): BytesColumn {
  const parts = cells.map((cell) => Buffer.from(cell ?? ''));
  const offsets = new Int32Array(cells.length + 1);
  parts.forEach((part, i) => {
    offsets[i + 1] = offsets[i] + part.length;
  });
  return { kind: 'bytes', type, length: cells.length, offsets, data: new Uint8Array(Buffer.concat(parts)), validity: validityOf(cells) };
}

/** A JSON column takes its texts. */
export function columnOf(f: Pick<Field, 'type' | 'elementType'>, cells: readonly Cell[]): Column {
  const fixed = (values: FixedValues): Column => ({
    kind: 'fixed',
    type: f.type,
    length: cells.length,
    values,
    validity: validityOf(cells),
  });
  const numbers = cells.map((cell) => Number(cell ?? 0));
  switch (f.type) {
    case DataType.Bool:
    case DataType.Int8:
      return fixed(Int8Array.from(numbers));
    case DataType.Int32:
      return fixed(Int32Array.from(numbers));
    case DataType.Int64:
    case DataType.Timestamptz:
      return fixed(BigInt64Array.from(cells.map((cell) => BigInt((cell as bigint) ?? 0))));
    case DataType.Float:
      return fixed(Float32Array.from(numbers));
    case DataType.Double:
      return fixed(Float64Array.from(numbers));
    case DataType.Array: {
      const lists = cells.map((cell) => (cell ?? []) as readonly Cell[]);
      const offsets = new Int32Array(cells.length + 1);
      lists.forEach((list, i) => {
        offsets[i + 1] = offsets[i] + list.length;
      });
      const child = columnOf({ type: f.elementType, elementType: DataType.None }, lists.flat());
      return { kind: 'list', type: f.type, length: cells.length, offsets, child, validity: validityOf(cells) };
    }
    default:
      return bytesColumn(f.type, cells as readonly (string | null)[]);
  }
}
