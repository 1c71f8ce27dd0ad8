import { andBits, type Bitmap, bitAt, CairnError, countBits, fullBitmap, rowsOfBits } from '@cairn/base';
import { DataType, type VectorColumn } from '@cairn/schema';
import { searchBinary } from './binary-search.ts';
import { ExactScorer } from './exact-scorer.ts';
import { HitList, hitsOf } from './hit-list.ts';
import { searchLists } from './list-search.ts';
import { type Metric, metricOf, rangeTest, scoreOf } from './metric.ts';
import type { DenseVectors, ExactTask, IndexHits } from './search-types.ts';
import { searchSparse } from './sparse-search.ts';
import { type UsearchMatches, usearch } from './usearch.ts';
import { floatsOf, gatherFloats } from './vector-floats.ts';

/** Distances that the native library keeps at once (16 bytes each): 64 MB. */
const DISTANCES_AT_ONCE = 4_000_000;
/** Floats that a gather copies at once: 1 MB, so that a block is still in the processor's cache when it is compared. */
const GATHER_FLOATS = 262_144;
/** How far a distance of the native library, added up in float32, may lie from the exact one: of the distance, and of the query's square for IP. */
const NATIVE_ERROR = 1e-5;
/** Above this share of matching rows a scan of everything is cheaper than copying the matches together. Measured: 0.07 against 0.3 µs a row at 384 dimensions. */
const SCAN_SHARE = 0.25;

/** Best rows of each query by looking at every row that may match. Runs in a worker. */
export function searchExact(task: ExactTask): IndexHits {
  const { vectors, rows } = task;
  const eligible = eligibleRows(task);
  if (vectors.kind === 'bytes') return searchSparse(task, vectors, eligible);
  if (vectors.kind === 'list') return searchLists(task, vectors, eligible);
  if (vectors.kind === 'vector' && vectors.type === DataType.BinaryVector) return searchBinary(task, vectors, eligible);
  const metric = metricOf(task.metric);
  if (!metric.native) throw new CairnError('InvalidParameter', `metric type ${task.metric} does not go with vector type ${vectors.type}`);
  const queries = ownFloats(vectors.type, task.queries);
  const lists = Array.from({ length: task.nq }, () => new HitList());
  const matching = eligible ? countBits(eligible) : rows;
  if (matching > 0) {
    if (vectors.kind === 'vector' && canScan(vectors) && matching >= rows * SCAN_SHARE)
      scanAll(task, vectors, queries, metric, eligible, matching, lists);
    else gatherAll(task, vectors, queries, metric, eligible ?? fullBitmap(rows), lists);
  }
  return hitsOf(lists, task.k, (distance) => scoreOf(metric, distance));
}

/** Rows that pass the filter and have a vector; undefined: all. */
export function eligibleRows(task: Pick<ExactTask, 'filter' | 'vectors' | 'rows'>): Bitmap | undefined {
  const { filter, rows } = task;
  const { validity } = task.vectors;
  if (!filter && !validity) return undefined;
  return andBits(filter && validity ? andBits(filter, validity) : (filter ?? (validity as Bitmap)), fullBitmap(rows));
}

/** usearch's exact search reads from the start of the underlying buffer, whatever the view's offset: only a column at offset 0 can be scanned in place. */
const canScan = (column: VectorColumn): boolean => column.type === DataType.FloatVector && column.data.byteOffset === 0;

/** Queries at offset 0 of a buffer of their own, for the same reason. */
export function ownFloats(type: DataType, bytes: Uint8Array): Float32Array {
  const floats = floatsOf(type, bytes);
  return floats.byteOffset === 0 && floats.buffer.byteLength === floats.byteLength ? floats : floats.slice();
}

function scanAll(
  task: ExactTask,
  column: VectorColumn,
  queries: Float32Array,
  metric: Metric,
  eligible: Bitmap | undefined,
  matching: number,
  lists: readonly HitList[],
): void {
  const { rows, k, nq } = task;
  const { dim } = column;
  const data = new Float32Array(column.data.buffer, 0, rows * dim);
  const start = Math.min(rows, Math.ceil((k + 8) * (rows / matching) * 1.3) + 1);
  const step = Math.max(1, Math.floor(DISTANCES_AT_ONCE / rows));
  for (let from = 0; from < nq; from += step) {
    const end = Math.min(nq, from + step);
    // Widened until every query of the chunk has its k rows and no tie is cut at the edge.
    for (let wanted = start; ; wanted = Math.min(rows, wanted * 4)) {
      const found = usearch().exactSearch(data, queries.slice(from * dim, end * dim), dim, wanted, metric.native as string, 1);
      const complete = collect(task, metric, queries, found, wanted, from, end, (at) => at, eligible, lists, wanted === rows);
      if (complete) break;
    }
  }
}

function gatherAll(
  task: ExactTask,
  column: DenseVectors,
  queries: Float32Array,
  metric: Metric,
  eligible: Bitmap,
  lists: readonly HitList[],
): void {
  const { nq, k } = task;
  const { dim } = column;
  const matches = rowsOfBits(eligible);
  const blockRows = Math.max(256, Math.min(matches.length, Math.floor(GATHER_FLOATS / dim)));
  const step = Math.max(1, Math.floor(DISTANCES_AT_ONCE / blockRows));
  const scratch = new Float32Array(blockRows * dim);
  for (let at = 0; at < matches.length; at += blockRows) {
    const rows = matches.subarray(at, at + blockRows);
    // One buffer for all blocks: a short last one is a shorter view from the same start.
    const block = scratch.subarray(0, rows.length * dim);
    gatherFloats(column, rows, block);
    for (let from = 0; from < nq; from += step) {
      const end = Math.min(nq, from + step);
      const start = task.range?.rangeFilter === undefined ? Math.min(rows.length, k + 8) : rows.length;
      for (let wanted = start; ; wanted = Math.min(rows.length, wanted * 4)) {
        const found = usearch().exactSearch(block, queries.slice(from * dim, end * dim), dim, wanted, metric.native as string, 1);
        if (collect(task, metric, queries, found, wanted, from, end, (i) => rows[i], undefined, lists, wanted === rows.length)) break;
      }
    }
    for (const list of lists) if (list.length > 4 * k + 1024) list.prune(k);
  }
}

/** Adds what was found to the lists; false, and nothing added, when some query needs a wider search. */
function collect(
  task: ExactTask,
  metric: Metric,
  queries: Float32Array,
  [keys, distances]: UsearchMatches,
  wanted: number,
  from: number,
  end: number,
  rowOf: (position: number) => number,
  eligible: Bitmap | undefined,
  lists: readonly HitList[],
  last: boolean,
): boolean {
  const range = rangeTest(metric, task.range);
  const column = task.vectors as DenseVectors;
  const scorer = new ExactScorer(column, metric);
  const positions = new Uint32Array(keys.buffer, keys.byteOffset, keys.length * 2);
  const additions: [HitList, number, number][] = [];
  for (let query = from; query < end; query++) {
    let kept = 0;
    let edge = Number.NaN;
    let done = last;
    scorer.ask(queries, query * column.dim);
    for (let i = (query - from) * wanted; i < (query - from + 1) * wanted; i++) {
      const distance = distances[i];
      const error = NATIVE_ERROR * Math.max(1, Math.abs(distance), metric.native === 'ip' ? scorer.querySquare : 0);
      if (range.worse(scoreOf(metric, distance - error)) || (kept >= task.k && distance - 2 * error > edge)) {
        done = true;
        break;
      }
      const row = rowOf(positions[2 * i]);
      if (range.better(scoreOf(metric, distance + error)) || (eligible && !bitAt(eligible, row))) continue;
      // The same score as by every other way to this row: pages of an iterator meet at scores.
      const exact = scorer.distance(row);
      const score = scoreOf(metric, exact);
      if (range.worse(score) || range.better(score)) continue;
      additions.push([lists[query], exact, row]);
      if (kept < task.k) edge = distance;
      kept++;
    }
    if (!done) return false;
  }
  for (const [list, distance, row] of additions) list.add(distance, row);
  return true;
}
