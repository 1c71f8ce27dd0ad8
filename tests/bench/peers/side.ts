/** What every side of the comparison does with the same rows: key 0 to n-1, `bucket`, one vector; nearest by L2. */
export interface PeerData {
  readonly dim: number;
  readonly vectors: Float32Array;
  /** Uniform in 0..999: `bucket < 10` is one row of a hundred. */
  readonly buckets: Int32Array;
  readonly queries: Float32Array;
}

/** Equal for all. */
export const HNSW = { M: 16, efConstruction: 128 };

export interface Filled {
  /** Until the last row was acknowledged. */
  readonly insertSeconds: number;
  /** Until all rows were in the graph, from the beginning. */
  readonly indexedSeconds: number;
}

export interface Load {
  readonly clients: number;
  readonly nq: number;
  readonly ef: number;
  /** Rows with a smaller bucket only; absent: all. */
  readonly below?: number;
  readonly seconds: number;
}

export interface Side {
  readonly name: string;
  /** How it was asked, for the reader of the table. */
  readonly note: string;
  fill(data: PeerData): Promise<Filled>;
  /** Keys of the ten nearest rows of each of the first `count` queries. */
  nearest(count: number, ef: number, below?: number): Promise<number[][]>;
  /** Queries answered a second (each of the nq vectors of a request is one). */
  run(load: Load): Promise<number>;
  stop(): Promise<void>;
}

export const TOP_K = 10;

export const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');

export const queryOf = (data: PeerData, i: number): Float32Array => {
  const at = (i % (data.queries.length / data.dim)) * data.dim;
  return data.queries.slice(at, at + data.dim);
};
