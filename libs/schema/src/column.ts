import type { DataType } from './types.ts';

/**
 * Columns in memory. Layouts are Arrow's, so that files map onto them without copying: bitmaps are LSB first, offsets have length + 1 entries,
 * values of null rows are zero or empty. Columns are immutable once built.
 */
export type Column = FixedColumn | BytesColumn | VectorColumn | ListColumn;

/** Bit i set: row i has a value. null: no nulls. */
export type Validity = Uint8Array | null;

export type FixedValues = Int8Array | Int16Array | Int32Array | BigInt64Array | Float32Array | Float64Array;

/** Bool (Int8Array of 0/1), Int8/16/32/64, Float, Double, Timestamptz (BigInt64Array, µs); row ids and row timestamps are Float64Array. */
export interface FixedColumn {
  readonly kind: 'fixed';
  readonly type: DataType;
  readonly length: number;
  readonly values: FixedValues;
  readonly validity: Validity;
}

/** VarChar, String, Text (UTF-8), Json (UTF-8), Geometry (WKT as sent), SparseFloatVector (pairs u32 LE index, f32 LE value, sorted by index). */
export interface BytesColumn {
  readonly kind: 'bytes';
  readonly type: DataType;
  readonly length: number;
  readonly offsets: Int32Array;
  readonly data: Uint8Array;
  readonly validity: Validity;
}

/** Dense vectors of one width, row after row: FloatVector 4·dim bytes, Float16 and BFloat16 2·dim, Int8 dim, Binary dim/8. Null rows are zero. */
export interface VectorColumn {
  readonly kind: 'vector';
  readonly type: DataType;
  readonly length: number;
  readonly dim: number;
  readonly bytesPerRow: number;
  /** length · bytesPerRow bytes; 4-byte aligned for FloatVector. */
  readonly data: Uint8Array;
  readonly validity: Validity;
}

/** Dense vectors that stay in a local file, every row at its place there: they are read row by row. */
export interface StoredVectors {
  readonly kind: 'stored';
  readonly type: DataType;
  readonly length: number;
  readonly dim: number;
  readonly bytesPerRow: number;
  readonly validity: Validity;
  /** Open for reading, in every thread of this process, as long as who gave it away keeps it open. */
  readonly fd: number;
  /** Byte of the file at which row 0 begins. */
  readonly offset: number;
  /** Names the object in errors. */
  readonly key: string;
}

/** Array, ArrayOfVector. */
export interface ListColumn {
  readonly kind: 'list';
  readonly type: DataType;
  readonly length: number;
  readonly offsets: Int32Array;
  readonly child: Column;
  readonly validity: Validity;
}

/** Equal-length columns by field id. Field 0 is the row id and field 1 the row timestamp, where present. */
export interface ColumnBatch {
  readonly length: number;
  readonly columns: ReadonlyMap<number, Column>;
}
