import type { BytesColumn, Column, FixedColumn, StoredVectors, VectorColumn } from '@cairn/schema';

/** Bit i set: row i. LSB first, ceil(rows / 8) bytes. */
export type Bitmap = Uint8Array;

/**
 * One segment as readers see it, growing (in its owner) or sealed (in a datanode). Rows never move and never change; only deletes are added.
 */
export interface ReadableSegment {
  readonly id: number;
  readonly partitionId: number;
  /** Rows now; a growing segment's number grows between reads, never within one. */
  readonly rows: number;
  /** Sorted by primary key, then timestamp: key look-ups are binary searches and key order is row order. */
  readonly sorted: boolean;
  /** Rows and their values never change; they can only be deleted. */
  readonly final?: boolean;
  /** Row timestamps, at least `rows` of them. */
  readonly timestamps: Float64Array;
  /**
   * Rows inserted at or before readTs (and the segment's as_of) and not deleted at or before it. `undefined` when that is all rows.
   * The bitmap is fresh: the caller may clear bits in it.
   */
  visible(readTs: number): Bitmap | undefined;
  /** A whole column; loaded on first use and kept. Missing columns (fields added later) are filled with the default or null. */
  column(fieldId: number): Promise<Column>;
  /** Some rows of a column, in the order given; for vectors this reads only those rows. */
  gather(fieldId: number, rows: Int32Array): Promise<Column>;
  /** Whole vector column in a SharedArrayBuffer, so that workers share it. */
  vectors(fieldId: number): Promise<VectorColumn>;
  /** The same where it is in memory or may be, else where it lies in a file. Absent: `vectors`. */
  vectorsInPlace?(fieldId: number): Promise<VectorColumn | StoredVectors>;
  /** Rows that have one of these keys (any timestamp, deleted or not), ascending. */
  rowsOfKeys(keys: Column): Int32Array;
  /** The built index of a vector field, when there is one: what libs/index opened. */
  vectorIndex(fieldId: number): LoadedVectorIndex | undefined;
  /** The built indexes of a scalar field (one of JSON may have several); none: filters read the column. */
  scalarIndexes(fieldId: number): readonly LoadedScalarIndex[];
}

/** A scalar index in memory; libs/index has the one there is. */
export interface LoadedScalarIndex {
  readonly indexType: string;
  readonly rows: number;
  readonly dictionary: FixedColumn | BytesColumn;
}

/** An index file opened for search; see libs/index. Keys in it are row numbers of the segment. */
export interface LoadedVectorIndex {
  readonly indexType: string;
  readonly metric: string;
  readonly rows: number;
  /** Local file that workers map. */
  readonly path: string;
  readonly params: Readonly<Record<string, string>>;
  readonly dim?: number | undefined;
  /** How a graph holds the vectors. */
  readonly codes?:
    | {
        readonly scalar: 'i8' | 'f16' | 'bf16' | 'f32';
        readonly exact: boolean;
        readonly scale?: number | undefined;
        readonly offset?: number | undefined;
      }
    | undefined;
}
