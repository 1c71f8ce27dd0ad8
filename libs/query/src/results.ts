import type { ColumnBatch } from '@cairn/schema';

/** Rows of all queries back to back, best first; `columns` has the primary key, then the output fields. */
export interface SearchHits {
  /** Rows of each query. */
  readonly counts: readonly number[];
  /** Raw metric values. */
  readonly scores: Float32Array;
  readonly columns: ColumnBatch;
  readonly searchedRows: number;
}

export interface QueryRows {
  readonly columns: ColumnBatch;
  readonly count: number;
}
