import { CairnError } from '@cairn/base';
import type { Column, FixedValues } from './column.ts';
import { DataType, type Field } from './types.ts';

/** How a type lies in memory: the `kind` of its columns. */
export type Family = Column['kind'];

interface TypeInfo {
  readonly name: string;
  readonly family: Family;
}

const names = new Map<number, string>(Object.entries(DataType).map(([name, number]) => [number, name]));

const families: Partial<Record<DataType, Family>> = {
  [DataType.Bool]: 'fixed',
  [DataType.Int8]: 'fixed',
  [DataType.Int16]: 'fixed',
  [DataType.Int32]: 'fixed',
  [DataType.Int64]: 'fixed',
  [DataType.Float]: 'fixed',
  [DataType.Double]: 'fixed',
  [DataType.Timestamptz]: 'fixed',
  [DataType.String]: 'bytes',
  [DataType.VarChar]: 'bytes',
  [DataType.Text]: 'bytes',
  [DataType.Json]: 'bytes',
  [DataType.Geometry]: 'bytes',
  [DataType.SparseFloatVector]: 'bytes',
  [DataType.BinaryVector]: 'vector',
  [DataType.FloatVector]: 'vector',
  [DataType.Float16Vector]: 'vector',
  [DataType.BFloat16Vector]: 'vector',
  [DataType.Int8Vector]: 'vector',
  [DataType.Array]: 'list',
  [DataType.ArrayOfVector]: 'list',
};

/** Name of a type number for messages; an unknown number is given as it is. */
export function typeName(type: number): string {
  return names.get(type) ?? `type ${type}`;
}

/** Number as a DataType when it is one of ours. */
export function toDataType(type: number): DataType | undefined {
  return names.has(type) ? (type as DataType) : undefined;
}

/** Name and family of a type that has columns; NotSupported for the others (Struct, ...). */
export function typeInfo(type: DataType): TypeInfo {
  const family = families[type];
  if (family === undefined) throw new CairnError('NotSupported', `not supported: data type ${typeName(type)}`);
  return { name: typeName(type), family };
}

export function familyOf(type: DataType): Family | undefined {
  return families[type];
}

/** A vector of any kind, sparse ones too. */
export function isVectorType(type: DataType): boolean {
  return families[type] === 'vector' || type === DataType.SparseFloatVector || type === DataType.ArrayOfVector;
}

/** UTF-8 text that a user sees as a string. */
export function isTextType(type: DataType): boolean {
  return type === DataType.VarChar || type === DataType.String || type === DataType.Text;
}

export interface FixedConstructor {
  new (length: number): FixedValues;
  new (buffer: ArrayBufferLike, byteOffset: number, length: number): FixedValues;
  readonly BYTES_PER_ELEMENT: number;
}

const fixedArrays: Partial<Record<DataType, FixedConstructor>> = {
  [DataType.Bool]: Int8Array,
  [DataType.Int8]: Int8Array,
  [DataType.Int16]: Int16Array,
  [DataType.Int32]: Int32Array,
  [DataType.Int64]: BigInt64Array,
  [DataType.Timestamptz]: BigInt64Array,
  [DataType.Float]: Float32Array,
  [DataType.Double]: Float64Array,
};

/** Typed array that holds a fixed-width type. */
export function fixedArray(type: DataType): FixedConstructor {
  const found = fixedArrays[type];
  if (found === undefined) throw new CairnError('Internal', `${typeName(type)} is not a fixed-width type`);
  return found;
}

/** Bytes of one dense vector. */
export function vectorBytes(type: DataType, dim: number): number {
  switch (type) {
    case DataType.FloatVector:
      return dim * 4;
    case DataType.Float16Vector:
    case DataType.BFloat16Vector:
      return dim * 2;
    case DataType.Int8Vector:
      return dim;
    case DataType.BinaryVector:
      return dim / 8;
    default:
      throw new CairnError('Internal', `${typeName(type)} is not a dense vector type`);
  }
}

/** What each family does; one function per family instead of a ladder per use. */
export interface ColumnVisitor<R> {
  fixed(column: Extract<Column, { kind: 'fixed' }>): R;
  bytes(column: Extract<Column, { kind: 'bytes' }>): R;
  vector(column: Extract<Column, { kind: 'vector' }>): R;
  list(column: Extract<Column, { kind: 'list' }>): R;
}

export function visitColumn<R>(column: Column, visitor: ColumnVisitor<R>): R {
  switch (column.kind) {
    case 'fixed':
      return visitor.fixed(column);
    case 'bytes':
      return visitor.bytes(column);
    case 'vector':
      return visitor.vector(column);
    case 'list':
      return visitor.list(column);
  }
}

/** The elements of an Array or ArrayOfVector as a field of their own: same limits, never null. */
export function elementField(field: Field): Field {
  return { ...field, type: field.elementType, elementType: DataType.None, nullable: false, defaultValue: undefined, isPrimaryKey: false };
}
