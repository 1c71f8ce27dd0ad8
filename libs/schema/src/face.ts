import type { FieldData, FieldSchema, CollectionSchema as WireSchema } from '@cairn/proto/milvus/schema';
import type { BytesColumn, Column, ColumnBatch, FixedColumn } from './column.ts';
import type { RawFieldData } from './raw-field-data.ts';
import type { CollectionSchema, Field, PlainValue } from './types.ts';

/** Signatures that are not implemented yet; this file shrinks to nothing. */

// ---- schema
export declare function decodeSchema(bytes: Uint8Array): CollectionSchema;
export declare function encodeSchema(schema: CollectionSchema): Uint8Array;
export declare function schemaFromWire(message: WireSchema): CollectionSchema;
/** With `$meta` as a field unless `dynamicField: false` (DescribeCollection). */
export declare function schemaToWire(schema: CollectionSchema, options?: { readonly dynamicField?: boolean }): WireSchema;
export interface SchemaLimits {
  /** Fields of one collection, `$meta` not counted. */
  readonly maxFields: number;
  readonly maxVectorFields: number;
  readonly maxDim: number;
}
export declare const DEFAULT_SCHEMA_LIMITS: SchemaLimits;
/** Validates the schema of a CreateCollection and gives ids. */
export declare function prepareNewSchema(message: WireSchema, limits?: SchemaLimits): CollectionSchema;
/** AddCollectionField: validates the new field (nullable or with default, no key, no vector) and gives it the id. */
export declare function addField(schema: CollectionSchema, message: FieldSchema, fieldId: number, limits?: SchemaLimits): CollectionSchema;
/** Schema from its fields, derived parts computed. */
export declare function makeSchema(
  parts: Pick<CollectionSchema, 'name' | 'description' | 'fields' | 'enableDynamicField' | 'properties'>,
): CollectionSchema;

// ---- wire
export declare function rawFromWire(data: FieldData): RawFieldData;
export declare function rawToWire(raw: RawFieldData, fieldId: number): FieldData;
/** Validates everything about one field's data for `rows` rows. Null rows of a field with a default get the default. */
export declare function columnFromRaw(field: Field, raw: RawFieldData, rows: number): Column;
export declare function columnFromWire(field: Field, data: FieldData, rows: number): Column;
/** Result form: scalars row-dense with validData, vectors compact with validData, Timestamptz as ISO text. */
export declare function columnToRaw(field: Field, column: Column): RawFieldData;
export declare function columnToWire(field: Field, column: Column): FieldData;

// ---- columns
/** Adds the columns that are missing: default, null, `{}` for $meta. Auto-id keys are left out. InvalidParameter for a required one. */
export declare function fillDefaults(schema: CollectionSchema, columns: ReadonlyMap<number, Column>, rows: number): Map<number, Column>;
/** Column of `rows` defaults, or nulls where the field has none. */
export declare function defaultColumn(field: Field, rows: number): Column;
export declare function nullColumn(field: Field, rows: number): Column;
export declare function columnFromValues(field: Field, values: readonly PlainValue[]): Column;
export declare function valueAt(column: Column, row: number): PlainValue;
export declare function isNull(column: Column, row: number): boolean;
export declare function takeColumn(column: Column, rows: Int32Array): Column;
export declare function sliceColumn(column: Column, start: number, end: number): Column;
export declare function concatColumns(columns: readonly Column[]): Column;
export declare function takeBatch(batch: ColumnBatch, rows: Int32Array): ColumnBatch;
export declare function sliceBatch(batch: ColumnBatch, start: number, end: number): ColumnBatch;
export declare function concatBatches(batches: readonly ColumnBatch[]): ColumnBatch;
export declare function makeBatch(columns: ReadonlyMap<number, Column> | Iterable<readonly [number, Column]>): ColumnBatch;
export declare function sharedCopy<C extends Column>(column: C): C;
export declare function columnBytes(column: Column): number;
export declare function batchBytes(batch: ColumnBatch): number;
/** Column of row ids or row timestamps: Float64Array under type Double. */
export declare function numberColumn(values: Float64Array): FixedColumn;
/** Column of Int64 or VarChar keys. */
export declare function keyColumn(keys: readonly bigint[] | BigInt64Array | readonly string[]): Column;

// ---- frames
export declare function encodeFrame(batch: ColumnBatch): Uint8Array;
export declare function decodeFrame(bytes: Uint8Array): ColumnBatch;

// ---- keys
export declare function hashKeys(column: Column): Uint32Array;
export declare function shardOf(hash: number, shards: number): number;
/** Negative, 0, positive; Int64 by value, VarChar by UTF-8 bytes. */
export declare function compareKeyRows(a: Column, i: number, b: Column, j: number): number;
/** Row numbers by key, then timestamp. */
export declare function sortOrder(keys: Column, ts: Float64Array): Int32Array;
/** Rows of `sorted` that hold one of `keys`, ascending. */
export declare function findKeyRows(sorted: Column, keys: Column): Int32Array;

// ---- arrow
export declare function writeArrowFile(batch: ColumnBatch, schema: CollectionSchema): Uint8Array[];
export declare function readArrowFile(bytes: Uint8Array): ColumnBatch;

// ---- dynamic field
/** Checks that each row is a JSON object without keys of other fields. */
export declare function checkDynamicColumn(schema: CollectionSchema, column: Column): void;
/** Keeps only these keys of each row's object. */
export declare function selectDynamicKeys(column: BytesColumn, keys: readonly string[]): BytesColumn;
/** Keys of `update` win over those of `base`. */
export declare function mergeDynamic(base: BytesColumn, update: BytesColumn): BytesColumn;
