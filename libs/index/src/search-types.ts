import type { Bitmap } from '@cairn/base';
import type { BytesColumn, ListColumn, StoredVectors, VectorColumn } from '@cairn/schema';

/** Scalars in which a graph keeps its vectors. */
export type GraphScalar = 'i8' | 'f16' | 'bf16' | 'f32';

/** How the vectors of a graph are written, as its file says. Files from before this was written have none: see `codesBefore`. */
export interface GraphCodes {
  readonly scalar: GraphScalar;
  /** The graph's distances are those of the vectors themselves. Else hits are scored again by the column. */
  readonly exact: boolean;
  /** int8: a component is round((value - offset) * scale). Without it every row has its own scale, which COSINE does not see. */
  readonly scale?: number | undefined;
  readonly offset?: number | undefined;
}

/** What an index is: type (FLAT, HNSW, AUTOINDEX), metric (L2, IP, COSINE…) and build parameters (M, efConstruction), as the user gave them. */
export interface IndexSpec {
  readonly indexType: string;
  readonly metric: string;
  readonly params: Readonly<Record<string, string>>;
}

/** An index file that is open for search. Keys in it are row numbers of the column it was built from. */
export interface OpenIndex extends IndexSpec {
  readonly rows: number;
  /** Local file that every worker maps. */
  readonly path: string;
  readonly dim?: number | undefined;
  /** Of a graph: how it holds the vectors. */
  readonly codes?: GraphCodes | undefined;
}

/** Vectors that a build or an exact search reads: dense or binary rows, sparse ones, or lists of dense ones. Workers share them when they lie on a SharedArrayBuffer; else they are copied. */
export type VectorSource = DenseVectors | BytesColumn | ListColumn;

/** Rows of one size, in memory or in a file. */
export type DenseVectors = VectorColumn | StoredVectors;

/** Scores strictly beyond `radius`, and no better than `rangeFilter` when it is given. See rangeOf. */
export interface ScoreRange {
  readonly radius: number;
  readonly rangeFilter: number | undefined;
}

/** Rows of all queries back to back, best first within each query; ties by row. Scores are raw metric values (COSINE and IP: bigger is better). */
export interface IndexHits {
  /** Hits of each query. */
  readonly counts: Uint32Array;
  readonly rows: Int32Array;
  readonly scores: Float32Array;
}

export interface VectorQuery {
  /** Query vectors back to back in the column's storage layout; sparse ones and lists of vectors: each as u32 LE length and its bytes. */
  readonly queries: Uint8Array;
  readonly nq: number;
  /** Hits per query; with a range, at most so many of the best. */
  readonly k: number;
  /** Rows that may match; undefined: all. Rows without a vector never match. */
  readonly filter?: Bitmap | undefined;
  readonly range?: ScoreRange | undefined;
}

export interface ExactQuery extends VectorQuery {
  readonly vectors: VectorSource;
  readonly metric: string;
  /** Rows of `vectors` to look at (a growing column has room behind its rows); undefined: all. */
  readonly rows?: number | undefined;
}

export interface IndexQuery extends VectorQuery {
  /** Breadth of a graph search; undefined: the default. At least k is used. */
  readonly ef?: number | undefined;
  /** The column that the index was built from: hits of a graph over codes are scored by it, and all of it is read when the filter leaves so few rows that looking at each is cheaper. */
  readonly vectors: () => Promise<VectorSource>;
  /** The same where it is in memory or may be, else where it lies in a file. Absent: `vectors`. */
  readonly inPlace?: (() => Promise<VectorSource>) | undefined;
}

export interface BuildRequest extends IndexSpec {
  readonly vectors: VectorSource;
  /** The file to write; its directory exists. */
  readonly path: string;
}

export type BuiltIndex = OpenIndex;

/** A search that looks at every row: `nq` queries back to back in `queries`, the best `k` of the rows that the filter leaves. */
export interface ExactTask {
  readonly vectors: VectorSource;
  readonly metric: string;
  readonly queries: Uint8Array;
  readonly nq: number;
  readonly k: number;
  readonly rows: number;
  readonly filter: Bitmap | undefined;
  readonly range: ScoreRange | undefined;
}
