/** Data types with Milvus's public numbers (schema.proto DataType). */
export const DataType = {
  None: 0,
  Bool: 1,
  Int8: 2,
  Int16: 3,
  Int32: 4,
  Int64: 5,
  Float: 10,
  Double: 11,
  String: 20,
  VarChar: 21,
  Array: 22,
  Json: 23,
  Geometry: 24,
  Text: 25,
  Timestamptz: 26,
  BinaryVector: 100,
  FloatVector: 101,
  Float16Vector: 102,
  BFloat16Vector: 103,
  SparseFloatVector: 104,
  Int8Vector: 105,
  ArrayOfVector: 106,
  ArrayOfStruct: 200,
  Struct: 201,
} as const;
export type DataType = (typeof DataType)[keyof typeof DataType];

/** Field ids that are not the user's: they are columns of every segment. */
export const ROW_ID_FIELD = 0;
export const TIMESTAMP_FIELD = 1;
/** First id of a user's field. */
export const FIRST_FIELD_ID = 100;
/** Name of the dynamic field, a JSON object of all keys that no field has. */
export const DYNAMIC_FIELD_NAME = '$meta';

export interface Field {
  readonly id: number;
  readonly name: string;
  readonly description: string;
  readonly type: DataType;
  /** Of an Array (scalar type) or ArrayOfVector (vector type). */
  readonly elementType: DataType;
  readonly isPrimaryKey: boolean;
  readonly autoId: boolean;
  readonly nullable: boolean;
  readonly isDynamic: boolean;
  readonly isPartitionKey: boolean;
  readonly isClusteringKey: boolean;
  readonly isFunctionOutput: boolean;
  /** Default as a plain value (bigint for Int64 and Timestamptz, Uint8Array for Json); undefined when none. */
  readonly defaultValue: PlainValue | undefined;
  /** Vectors: dimension. Else 0. */
  readonly dim: number;
  /** VarChar (and VarChar elements): bytes of UTF-8. Else 0. */
  readonly maxLength: number;
  /** Array: elements. Else 0. */
  readonly maxCapacity: number;
  /** All type_params as sent. */
  readonly typeParams: Readonly<Record<string, string>>;
  readonly indexParams: Readonly<Record<string, string>>;
}

/** One value outside columns. Json is its UTF-8 bytes; vectors are their storage bytes; arrays are lists. */
export type PlainValue = boolean | number | bigint | string | Uint8Array | readonly PlainValue[] | null;

/**
 * An array of structs. Its members are fields of the schema like others, named `struct[member]`, of type Array or ArrayOfVector: element i of each
 * of them makes struct i of the row, so they are equally long in each row.
 */
export interface StructField {
  readonly id: number;
  readonly name: string;
  readonly description: string;
  readonly typeParams: Readonly<Record<string, string>>;
  /** Ids of its members, in order. */
  readonly memberIds: readonly number[];
}

export interface CollectionSchema {
  readonly name: string;
  readonly description: string;
  /** User fields in order, members of structs behind them, `$meta` last when the dynamic field is on; without row id and timestamp. */
  readonly fields: readonly Field[];
  readonly structs: readonly StructField[];
  readonly enableDynamicField: boolean;
  readonly properties: Readonly<Record<string, string>>;
  readonly primaryKey: Field;
  readonly byId: ReadonlyMap<number, Field>;
  readonly byName: ReadonlyMap<string, Field>;
  readonly vectorFields: readonly Field[];
  readonly dynamicField: Field | undefined;
  readonly partitionKey: Field | undefined;
}
