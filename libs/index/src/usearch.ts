import { createRequire } from 'node:module';

/** The part of usearch's binding that we use. Its ES module looks for the native file through the caller's stack, which fails in some callers; the CommonJS one does not. */
export interface UsearchIndex {
  add(keys: BigUint64Array, vectors: Float32Array, threads: number): void;
  search(vectors: Float32Array, k: number, threads: number): UsearchMatches;
  size(): number;
  save(path: string): void;
  view(path: string): void;
}
/** With one query there are no counts: the arrays are as long as what was found. */
export interface UsearchMatches {
  readonly keys: BigUint64Array;
  readonly distances: Float32Array;
  readonly counts?: BigUint64Array;
}
export interface Usearch {
  readonly Index: new (
    dimensions: number,
    metric: string,
    scalar: string,
    connectivity: number,
    expansionAdd: number,
    expansionSearch: number,
    multi: boolean,
  ) => UsearchIndex;
  exactSearch(
    dataset: Float32Array,
    queries: Float32Array,
    dimensions: number,
    count: number,
    metric: string,
    threads: number,
  ): UsearchMatches;
}

let loaded: Usearch | undefined;

/** Loads the native library on first use: a process that searches nothing does not pay for it. */
export function usearch(): Usearch {
  loaded ??= createRequire(import.meta.url)('usearch') as Usearch;
  return loaded;
}
