import { type Bitmap, bitAt, countBits, rowsOfBits } from '@cairn/base';
import { BestRows, hitsOfBest } from './best-rows.ts';
import { ExactScorer } from './exact-scorer.ts';
import { eligibleRows } from './exact-search.ts';
import { codeQueries, codeRows, leastRescored, Nearness, unitsOf } from './graph-codes.ts';
import { type Metric, metricOf } from './metric.ts';
import { scansInPlace } from './search-cost.ts';
import type { DenseVectors, ExactTask, GraphCodes, IndexHits } from './search-types.ts';
import { type NativeVectors, usearch } from './usearch.ts';
import { floatsOf, gatherFloats } from './vector-floats.ts';

/** Codes of a column, row by row, shared with workers: what a filter leaves is looked at through them. */
export type CodeColumn = Int8Array;

/** Codes gathered at once, so that they are still in the processor's cache when they are compared. */
const BLOCK_BYTES = 524_288;
/** Rows that are written as codes at once. */
const CODED_ROWS = 4_096;
/** Rows kept by their codes, as a multiple of those that a graph's hits would need. */
const KEPT = 2;

/** int8 codes of all rows of a column in shared memory. Takes a few ns a component: work for a worker. */
export function codeColumn(vectors: DenseVectors, codes: GraphCodes): CodeColumn {
  const { dim, length } = vectors;
  const out = new Int8Array(new SharedArrayBuffer(length * dim));
  for (let from = 0; from < length; from += CODED_ROWS) {
    const rows = Int32Array.from({ length: Math.min(CODED_ROWS, length - from) }, (_, i) => from + i);
    const floats = new Float32Array(rows.length * dim);
    gatherFloats(vectors, rows, floats);
    out.set(codeRows(codes, floats, dim) as Int8Array, from * dim);
  }
  return out;
}

export interface CodeScanTask extends Omit<ExactTask, 'range'> {
  readonly vectors: DenseVectors;
  readonly codes: GraphCodes;
  readonly column: CodeColumn;
}

export interface CodeHits extends IndexHits {
  /** Queries whose rows the codes do not tell apart: theirs are no hits, they want an exact search. */
  readonly unfinished: readonly number[];
}

/** Best rows of each query among those that the filter leaves: all of them compared by their codes, the nearest scored by the vectors. */
export function scanCodes(task: CodeScanTask): CodeHits {
  const { vectors, column, codes, nq, k, rows } = task;
  const { dim } = vectors;
  const metric = metricOf(task.metric);
  const floats = floatsOf(vectors.type, task.queries);
  const queries = codeQueries(codes, metric, floats, dim);
  const eligible = eligibleRows(task);
  const matching = eligible ? countBits(eligible) : rows;
  const matches = eligible ? rowsOfBits(eligible) : Int32Array.from({ length: rows }, (_, row) => row);
  const near = Array.from({ length: nq }, () => new BestRows(Math.min(matching, KEPT * leastRescored(k))));
  // The library reads queries from the start of their buffer.
  if (matching > 0) {
    const asked = own(queries);
    const left = scansInPlace(matching, rows, dim, nq)
      ? scanAll(task, asked, metric, eligible, matching, near)
      : near.map((_, query) => query);
    if (left.length > 0) {
      const open = left.map((query) => near[query]);
      compareAll(column, matches, own(chosen(asked, left, dim)), dim, metric, open);
    }
  }
  const scorer = new ExactScorer(vectors, metric);
  const unfinished: number[] = [];
  const best = near.map((list, query) => {
    const nearness = new Nearness(unitsOf(codes, metric, floats, query * dim, dim), k);
    const scored = rescored(list, k, matching, scorer, nearness, floats, query * dim);
    if (!scored) unfinished.push(query);
    return scored ?? new BestRows(0);
  });
  return { ...hitsOfBest(best, metric), unfinished };
}

/** Of the rows that a filter leaves, so many more are asked for than are kept: others stand among them. */
const IN_PLACE_ROOM = 1.5;
/** Distances that the native library keeps at once (16 bytes each, twice): 64 MB. */
const DISTANCES_AT_ONCE = 2_000_000;

/** Compares all rows where they stand and leaves out what the filter does not let through; returns the queries for which too few were left. */
function scanAll(
  task: CodeScanTask,
  queries: NativeVectors,
  metric: Metric,
  eligible: Bitmap | undefined,
  matching: number,
  near: readonly BestRows[],
): number[] {
  const { column, rows, vectors } = task;
  const { dim } = vectors;
  const all = column.subarray(0, rows * dim);
  const wanted = Math.min(rows, Math.ceil((near[0].rows.length * rows * IN_PLACE_ROOM) / matching));
  const step = Math.max(1, Math.floor(DISTANCES_AT_ONCE / rows));
  const left: number[] = [];
  for (let from = 0; from < near.length; from += step) {
    const asked = own(queries.slice(from * dim, Math.min(near.length, from + step) * dim));
    const [keys, distances] = usearch().exactSearch(all, asked, dim, wanted, metric.native ?? 'l2sq', 1);
    const found = new Uint32Array(keys.buffer, keys.byteOffset, keys.length * 2);
    for (let at = 0; at < asked.length / dim; at++) {
      const list = near[from + at];
      for (let i = at * wanted; i < (at + 1) * wanted && list.edge === Number.POSITIVE_INFINITY; i++) {
        const row = found[2 * i];
        if (!eligible || bitAt(eligible, row)) list.add(distances[i], row);
      }
      if (list.length === list.rows.length) continue;
      list.clear();
      left.push(from + at);
    }
  }
  return left;
}

function chosen(queries: NativeVectors, numbers: readonly number[], dim: number): NativeVectors {
  if (numbers.length === queries.length / dim) return queries;
  const out = new Int8Array(numbers.length * dim);
  numbers.forEach((query, i) => {
    out.set(queries.subarray(query * dim, (query + 1) * dim), i * dim);
  });
  return out;
}

/** One block of codes, for one search after another of this thread. */
let gathered = new Int8Array(0);

function compareAll(
  column: CodeColumn,
  matches: Int32Array,
  queries: NativeVectors,
  dim: number,
  metric: Metric,
  near: readonly BestRows[],
): void {
  const blockRows = Math.max(64, Math.min(matches.length, Math.floor(BLOCK_BYTES / dim)));
  if (gathered.length < blockRows * dim) gathered = new Int8Array(blockRows * dim);
  const scratch = gathered;
  for (let at = 0; at < matches.length; at += blockRows) {
    const rows = matches.subarray(at, at + blockRows);
    gatherCodes(column, rows, dim, scratch);
    const wanted = Math.min(rows.length, near[0].rows.length);
    const block = scratch.subarray(0, rows.length * dim);
    const [keys, distances] = usearch().exactSearch(block, queries, dim, wanted, metric.native ?? 'l2sq', 1);
    const positions = new Uint32Array(keys.buffer, keys.byteOffset, keys.length * 2);
    near.forEach((list, query) => {
      for (let i = query * wanted; i < (query + 1) * wanted; i++) {
        // They come nearest first: behind one that is none of the best there is no other.
        if (!list.add(distances[i], rows[positions[2 * i]])) break;
      }
    });
  }
}

/** Copies the codes of chosen rows together, by words where rows are made of them. */
function gatherCodes(column: CodeColumn, rows: Int32Array, dim: number, out: Int8Array): void {
  if (dim % 8 !== 0) {
    for (let i = 0; i < rows.length; i++) out.set(column.subarray(rows[i] * dim, (rows[i] + 1) * dim), i * dim);
    return;
  }
  const words = dim >> 3;
  const from = new Float64Array(column.buffer, column.byteOffset, column.length >> 3);
  const to = new Float64Array(out.buffer, out.byteOffset, out.length >> 3);
  let at = 0;
  for (let i = 0; i < rows.length; i++) {
    const start = rows[i] * words;
    for (let word = start; word < start + words; word++) to[at++] = from[word];
  }
}

/**
 * The k best by the vectors, out of those that are the nearest by codes; undefined when these end before the rest is known to be too far: codes do not
 * tell the rows there apart.
 */
function rescored(
  near: BestRows,
  k: number,
  matching: number,
  scorer: ExactScorer,
  nearness: Nearness,
  queries: Float32Array,
  at: number,
): BestRows | undefined {
  const best = new BestRows(k);
  scorer.ask(queries, at);
  for (let i = 0; i < near.length; i++) {
    const row = near.rows[i];
    if (nearness.settled(near.distances[i], best.edge)) return best;
    const distance = scorer.distance(row);
    nearness.see(near.distances[i], distance);
    best.add(distance, row);
  }
  return near.length === matching ? best : undefined;
}

const own = (vectors: NativeVectors): NativeVectors =>
  vectors.byteOffset === 0 && vectors.buffer.byteLength === vectors.byteLength ? vectors : vectors.slice();
