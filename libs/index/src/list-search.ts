import { type Bitmap, CairnError, fullBitmap, rowsOfBits } from '@cairn/base';
import { DataType, type ListColumn, type VectorColumn } from '@cairn/schema';
import { hamming, jaccard } from './binary-search.ts';
import { HitList, hitsOf } from './hit-list.ts';
import { metricOf, rangeTest } from './metric.ts';
import type { ExactTask, IndexHits } from './search-types.ts';
import { floatsOf } from './vector-floats.ts';

/** Distance (smaller is nearer) of vector `i` of a query's list and vector `j` of the column's. */
type PairDistance = (i: number, j: number) => number;

/** Distances of one query list to the vectors of the column, and how many vectors the list has. */
interface Query {
  readonly count: number;
  readonly distance: PairDistance;
}

/**
 * Exact search of lists of vectors: the score of a row is the sum, over the vectors of the query, of the best that any vector of the row's list has to
 * it. Similarities (MAX_SIM is that of COSINE, MAX_SIM_IP) add up as they are, distances (L2, HAMMING, JACCARD) too, and there less is better. A row
 * without a vector is no hit.
 */
export function searchLists(task: ExactTask, column: ListColumn, eligible: Bitmap | undefined): IndexHits {
  const { child, offsets } = column;
  if (child.kind !== 'vector') throw new CairnError('Internal', `lists of a ${child.kind} column searched as vectors`);
  const { descending } = metricOf(task.metric);
  const range = rangeTest(metricOf(task.metric), task.range);
  const rows = rowsOfBits(eligible ?? fullBitmap(task.rows));
  const scoreOf = (sum: number): number => (descending ? -sum : sum);
  const lists = queriesOf(task, child).map((query) => {
    const list = new HitList();
    for (const row of rows) {
      if (offsets[row] === offsets[row + 1]) continue;
      let sum = 0;
      for (let i = 0; i < query.count; i++) sum += nearest(query.distance, i, offsets[row], offsets[row + 1]);
      if (range.better(scoreOf(sum)) || range.worse(scoreOf(sum))) continue;
      list.add(sum, row);
      if (list.length > 4 * task.k + 4096) list.prune(task.k);
    }
    return list;
  });
  return hitsOf(lists, task.k, scoreOf);
}

function nearest(distance: PairDistance, i: number, start: number, end: number): number {
  let least = Number.POSITIVE_INFINITY;
  for (let j = start; j < end; j++) least = Math.min(least, distance(i, j));
  return least;
}

/** Each query is a u32 LE length in bytes and its vectors. */
function queriesOf(task: ExactTask, column: VectorColumn): Query[] {
  const { queries, nq } = task;
  const view = new DataView(queries.buffer, queries.byteOffset, queries.byteLength);
  const found: Query[] = [];
  let at = 0;
  const distances = distancesOf(task.metric, column);
  for (let i = 0; i < nq; i++) {
    const length = at + 4 <= queries.length ? view.getUint32(at, true) : -1;
    if (length < 0 || length % column.bytesPerRow !== 0 || at + 4 + length > queries.length)
      throw new CairnError('InvalidParameter', `list ${i} of ${nq} query lists is damaged at byte ${at}`);
    found.push({ count: length / column.bytesPerRow, distance: distances(queries.slice(at + 4, at + 4 + length)) });
    at += 4 + length;
  }
  return found;
}

function distancesOf(metric: string, column: VectorColumn): (query: Uint8Array) => PairDistance {
  const { data, dim, bytesPerRow, type } = column;
  if (type === DataType.BinaryVector) {
    const bits = { MAX_SIM_HAMMING: hamming, MAX_SIM_JACCARD: jaccard }[metric];
    if (!bits) throw new CairnError('InvalidParameter', `metric type ${metric} does not go with lists of binary vectors`);
    return (query) => (i, j) => bits(data, j * bytesPerRow, query, i * bytesPerRow, bytesPerRow);
  }
  const stored = floatsOf(type, data);
  switch (metric) {
    case 'MAX_SIM_IP':
      return (query) => {
        const floats = floatsOf(type, query);
        return (i, j) => -product(floats, i * dim, stored, j * dim, dim);
      };
    case 'MAX_SIM_L2':
      return (query) => {
        const floats = floatsOf(type, query);
        return (i, j) => squares(floats, i * dim, stored, j * dim, dim);
      };
    case 'MAX_SIM':
    case 'MAX_SIM_COSINE': {
      const lengths = lengthsOf(stored, dim);
      return (query) => {
        const floats = floatsOf(type, query);
        const own = lengthsOf(floats, dim);
        // A vector of length 0 is like nothing.
        return (i, j) => -product(floats, i * dim, stored, j * dim, dim) / (own[i] * lengths[j] || 1);
      };
    }
    default:
      throw new CairnError('InvalidParameter', `metric type ${metric} does not go with lists of vectors`);
  }
}

function product(a: Float32Array, from: number, b: Float32Array, at: number, dim: number): number {
  let sum = 0;
  for (let i = 0; i < dim; i++) sum += a[from + i] * b[at + i];
  return sum;
}

function squares(a: Float32Array, from: number, b: Float32Array, at: number, dim: number): number {
  let sum = 0;
  for (let i = 0; i < dim; i++) {
    const difference = a[from + i] - b[at + i];
    sum += difference * difference;
  }
  return sum;
}

function lengthsOf(vectors: Float32Array, dim: number): Float64Array {
  return Float64Array.from({ length: vectors.length / dim }, (_, i) => Math.sqrt(product(vectors, i * dim, vectors, i * dim, dim)));
}
