import { countBits } from '@cairn/base';
import { DEFAULT_EF } from './index-params.ts';
import type { GraphScalar, IndexQuery } from './search-types.ts';

/**
 * When to walk the graph and when to look at rows one by one. Costs in ns, measured on 2 cores at 128 and 384 dimensions; they are sizes, and only
 * their relations matter: a wrong guess costs time, never answers.
 */
const STEP_NS: Readonly<Record<GraphScalar, (dim: number) => number>> = {
  f32: (dim) => 200 + 11 * dim,
  f16: (dim) => 200 + 5.2 * dim,
  bf16: (dim) => 200 + 4.3 * dim,
  i8: (dim) => 500 + 2.4 * dim,
};
const scanRowNs = (dim: number): number => 20 + 0.18 * dim;
const gatherRowNs = (dim: number): number => 150 + 0.4 * dim;

/** What a row costs more that is read from the system's cache of files: by itself, and in a run of all rows. */
const STORED_ROW_NS = 2_000;
const storedRunNs = (dim: number): number => 1.2 * dim;

/** Estimate of one query's walk. */
export const graphNs = (scalar: GraphScalar, breadth: number, dim: number): number => breadth * STEP_NS[scalar](dim);

/** A row's int8 code copied to the others that match, once for all queries of a request, out of the processor's cache or out of memory; and what a query costs beside its rows. */
const CACHED_BYTES = 8_000_000;
const codeGatherNs = (rows: number, dim: number): number => (rows * dim <= CACHED_BYTES ? 5 + 0.1 * dim : 30 + 0.22 * dim);
const CODE_SCAN_NS = 20_000;

/** A row that is compared where it stands, its match with the filter looked up for the nearest only. */
const inPlaceRowNs = (dim: number): number => 6 + 0.03 * dim;

/** Whether all rows are compared where they stand, rather than those that match copied together. */
export const scansInPlace = (matching: number, rows: number, dim: number, nq: number): boolean =>
  rows * inPlaceRowNs(dim) < matching * (inPlaceRowNs(dim) + codeGatherNs(rows, dim) / nq);

/** Estimate of looking at `matching` of `rows` rows through their codes. */
export const codeScanNs = (matching: number, rows: number, dim: number, nq: number): number =>
  CODE_SCAN_NS + Math.min(matching * (inPlaceRowNs(dim) + codeGatherNs(rows, dim) / nq), rows * inPlaceRowNs(dim));

/** One query of several that look at `matching` of `rows` rows: copied together, or all of them in place. */
const scanNs = (rows: number, matching: number, dim: number, nq: number): number =>
  Math.min(rows * scanRowNs(dim), matching * scanRowNs(dim) + (matching * gatherRowNs(dim)) / nq);

/** The same of rows in a file: they are read in any case, in one run where all of them match. */
const storedScanNs = (rows: number, matching: number, dim: number, nq: number): number =>
  matching * (scanRowNs(dim) + (matching < rows ? gatherRowNs(dim) + STORED_ROW_NS : storedRunNs(dim)) / nq);

/** Estimate of one query's exact search. */
export const exactNs = (query: Pick<IndexQuery, 'filter' | 'nq'>, rows: number, dim: number): number =>
  scanNs(rows, query.filter ? countBits(query.filter) : rows, dim, query.nq);

export type SearchRoute =
  | { readonly kind: 'nothing' }
  | { readonly kind: 'exact' }
  | { readonly kind: 'codes'; readonly matching: number }
  | {
      readonly kind: 'graph';
      readonly breadth: number;
      readonly maxBreadth: number;
      /** How queries that the walk leaves unfinished are answered. */
      readonly rest: 'exact' | 'codes';
      readonly matching: number;
    };

/** What a search has before it. */
export interface SearchGround {
  readonly rows: number;
  readonly dim: number;
  readonly scalar: GraphScalar;
  /** Rows can be compared by int8 codes alone. */
  readonly codedRows: boolean;
  /** The vectors are read from a file. */
  readonly stored: boolean;
}

/** Chooses the cheapest way of a query under a filter. */
export function routeOf(query: Pick<IndexQuery, 'filter' | 'k' | 'nq' | 'ef'>, ground: SearchGround): SearchRoute {
  const { rows, dim, scalar, codedRows, stored } = ground;
  const stepNs = STEP_NS[scalar](dim);
  const matching = query.filter ? Math.min(rows, countBits(query.filter)) : rows;
  if (matching === 0) return { kind: 'nothing' };
  const base = Math.max(query.ef ?? Math.max(DEFAULT_EF, Math.ceil(query.k * 1.5)), query.k);
  const breadth = Math.min(rows, filteredBreadth(base, query.k, rows / matching));
  const scan = (stored ? storedScanNs : scanNs)(rows, matching, dim, query.nq);
  const coded = codedRows && query.filter ? codeScanNs(matching, rows, dim, query.nq) : Number.POSITIVE_INFINITY;
  if (coded <= Math.min(scan, breadth * stepNs)) return { kind: 'codes', matching };
  if (breadth * stepNs >= scan) return { kind: 'exact' };
  // A query that still lacks matches when its walk has cost as much as a scan is better off with the scan.
  const rest = coded < scan ? 'codes' : 'exact';
  return { kind: 'graph', breadth, maxBreadth: Math.max(breadth, Math.floor(Math.min(scan, coded) / stepNs)), rest, matching };
}

/** Of a walk's hits one in `share` matches. It need not be that much wider for as many of the nearest: the more it sees, the less it overlooks. */
const WIDENING = 0.6;
/** The k-th match is expected at k * share, and looked for well within the walk. */
const ROOM = 1.8;

function filteredBreadth(base: number, k: number, share: number): number {
  if (share <= 1) return base;
  return Math.ceil(Math.min(base * share, Math.max(base * share ** WIDENING, ROOM * k * share)));
}
