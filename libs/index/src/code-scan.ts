import { countBits, rowsOfBits } from '@cairn/base';
import type { VectorColumn } from '@cairn/schema';
import { BestRows, hitsOfBest } from './best-rows.ts';
import { ExactScorer } from './exact-scorer.ts';
import { eligibleRows } from './exact-search.ts';
import { codeQueries, codeRows, type GraphCodes, leastRescored, Nearness, PATIENCE, unitsOf } from './graph-codes.ts';
import { type Metric, metricOf } from './metric.ts';
import type { ExactTask, IndexHits } from './search-types.ts';
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
export function codeColumn(vectors: VectorColumn, codes: GraphCodes): CodeColumn {
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
  readonly vectors: VectorColumn;
  readonly codes: GraphCodes;
  readonly column: CodeColumn;
}

/** Best rows of each query among those that the filter leaves: all of them compared by their codes, the nearest scored by the vectors. */
export function scanCodes(task: CodeScanTask): IndexHits {
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
  if (matching > 0) compareAll(column, matches, own(queries), dim, metric, near);
  const scorer = new ExactScorer(vectors, metric);
  const best = near.map((list, query) =>
    rescored(list, k, scorer, new Nearness(unitsOf(codes, metric, floats, query * dim, dim), k), floats, query * dim),
  );
  return hitsOfBest(best, metric);
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

/** The k best by the vectors, out of those that are the nearest by codes. */
function rescored(near: BestRows, k: number, scorer: ExactScorer, nearness: Nearness, queries: Float32Array, at: number): BestRows {
  const best = new BestRows(k);
  scorer.ask(queries, at);
  const least = leastRescored(k);
  let vain = 0;
  for (let i = 0; i < near.length && (i < least || vain < PATIENCE); i++) {
    const row = near.rows[i];
    if (nearness.settled(near.distances[i], best.edge)) break;
    const distance = scorer.distance(row);
    nearness.see(near.distances[i], distance);
    vain = best.add(distance, row) ? 0 : vain + 1;
  }
  return best;
}

const own = (vectors: NativeVectors): NativeVectors =>
  vectors.byteOffset === 0 && vectors.buffer.byteLength === vectors.byteLength ? vectors : vectors.slice();
