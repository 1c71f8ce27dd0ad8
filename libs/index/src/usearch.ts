import { createRequire } from 'node:module';
import { join } from 'node:path';

/** Vectors as the library takes them; it converts floats to the scalars of the index, int8 ones pass as they are. */
export type NativeVectors = Float32Array | Int8Array;

/** The part of usearch's native binding that we use. */
export interface UsearchIndex {
  add(keys: BigUint64Array, vectors: NativeVectors, threads: number): void;
  /** Keys and distances, `k` of each query, and how many of them each has. */
  search(vectors: NativeVectors, k: number, threads: number): UsearchMatches;
  size(): number;
  save(path: string): void;
  view(path: string): void;
}
export type UsearchMatches = readonly [keys: BigUint64Array, distances: Float32Array, counts: BigUint64Array];
export interface Usearch {
  readonly CompiledIndex: new (
    dimensions: number,
    metric: string,
    scalar: string,
    connectivity: number,
    expansionAdd: number,
    expansionSearch: number,
    multi: boolean,
  ) => UsearchIndex;
  exactSearch(
    dataset: NativeVectors,
    queries: NativeVectors,
    dimensions: number,
    count: number,
    metric: string,
    threads: number,
  ): UsearchMatches;
}

let loaded: Usearch | undefined;

/**
 * Loads the native library on first use: a process that searches nothing does not pay for it. The package's own JavaScript is left out: it turns int8
 * vectors into floats, which the library then scales by itself, and it looks for the native file through the caller's stack.
 */
export function usearch(): Usearch {
  if (loaded) return loaded;
  const inside = createRequire(import.meta.url).resolve('usearch');
  const load = createRequire(inside)('node-gyp-build') as (directory: string) => Usearch;
  loaded = load(join(inside, '../../../..'));
  return loaded;
}
