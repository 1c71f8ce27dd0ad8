import { countBits } from '@cairn/base';
import type { GraphScalar } from './graph-codes.ts';
import { DEFAULT_EF } from './index-params.ts';
import type { IndexQuery } from './search-types.ts';

/**
 * When to walk the graph and when to look at rows one by one. Costs in ns, measured on 2 cores at 128 and 384 dimensions; they are sizes, and only
 * their relations matter: a wrong guess costs time, never answers.
 */
const STEP_NS: Readonly<Record<GraphScalar, (dim: number) => number>> = {
  f32: (dim) => 200 + 11 * dim,
  f16: (dim) => 200 + 5.2 * dim,
  bf16: (dim) => 200 + 4.3 * dim,
  i8: (dim) => 250 + 2.4 * dim,
};
const scanRowNs = (dim: number): number => 20 + 0.18 * dim;
const gatherRowNs = (dim: number): number => 150 + 0.4 * dim;

/** Estimate of one query's walk. */
export const graphNs = (scalar: GraphScalar, breadth: number, dim: number): number => breadth * STEP_NS[scalar](dim);

export type SearchRoute =
  | { readonly kind: 'nothing' }
  | { readonly kind: 'exact' }
  | { readonly kind: 'graph'; readonly breadth: number; readonly maxBreadth: number };

/** Chooses for `rows` rows of `dim` dimensions under a filter. */
export function routeOf(
  query: Pick<IndexQuery, 'filter' | 'k' | 'nq' | 'ef'>,
  rows: number,
  dim: number,
  scalar: GraphScalar,
): SearchRoute {
  const stepNs = STEP_NS[scalar](dim);
  const matching = query.filter ? Math.min(rows, countBits(query.filter)) : rows;
  if (matching === 0) return { kind: 'nothing' };
  const base = Math.max(query.ef ?? Math.max(DEFAULT_EF, Math.ceil(query.k * 1.5)), query.k);
  const breadth = Math.min(rows, Math.ceil((base * rows) / matching));
  const scan = Math.min(rows * scanRowNs(dim), matching * scanRowNs(dim) + (matching * gatherRowNs(dim)) / query.nq);
  if (breadth * stepNs >= scan) return { kind: 'exact' };
  // A query that still lacks matches when its walk has cost as much as a scan is better off with the scan.
  return { kind: 'graph', breadth, maxBreadth: Math.max(breadth, Math.floor(scan / stepNs)) };
}
