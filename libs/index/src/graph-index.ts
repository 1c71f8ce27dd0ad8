import { writeFileSync } from 'node:fs';
import { type Bitmap, bitAt, CairnError, countBits, rowsOfBits } from '@cairn/base';
import { DataType, type VectorColumn } from '@cairn/schema';
import { HitList, hitsOf } from './hit-list.ts';
import { appendTrailer, type IndexTrailer, readTrailer } from './index-file.ts';
import { graphParams, isGraph } from './index-params.ts';
import { metricOf, rangeTest, scoreOf } from './metric.ts';
import type { BuildRequest, IndexHits, ScoreRange } from './search-types.ts';
import { type UsearchIndex, usearch } from './usearch.ts';
import { floatsOf, gatherFloats } from './vector-floats.ts';

export interface BuildTask extends BuildRequest {
  /** Threads that the native library uses. */
  readonly threads: number;
}

/** Rows that one call adds when vectors must be copied together first. */
const ADD_ROWS = 16_384;
/** Hits that one native call may return: 24 MB. */
const HITS_AT_ONCE = 2_000_000;
/** A filtered search is trusted when its k-th match stands within this part of its breadth: near the edge a graph misses more. */
const TRUSTED_PART = 0.7;

/** Scalars in which the graph keeps vectors; what has no exact form there is kept as float32. */
const SCALARS: ReadonlyMap<DataType, string> = new Map<DataType, string>([
  [DataType.Float16Vector, 'f16'],
  [DataType.BFloat16Vector, 'bf16'],
]);

/** Builds an index file. Blocks its thread for the whole build. */
export function buildIndexFile(task: BuildTask): IndexTrailer {
  const { vectors, path, indexType, metric, params } = task;
  const dim = vectors.kind === 'vector' ? vectors.dim : 0;
  const entries = vectors.validity ? countBits(vectors.validity) : vectors.length;
  const trailer = { indexType, metric, params, dataType: vectors.type, dim, rows: vectors.length, entries };
  if (isGraph(task) && entries > 0) {
    if (vectors.kind !== 'vector') throw new CairnError('InvalidParameter', `index ${indexType} needs dense vectors`);
    const { m, efConstruction } = graphParams(task);
    const index = openNative(trailer, m, efConstruction);
    addVectors(index, vectors, task.threads);
    index.save(path);
  } else {
    writeFileSync(path, new Uint8Array(0));
  }
  appendTrailer(path, trailer);
  return trailer;
}

/** Breadth comes from each search's `wanted`, so the index's own is the least there is. */
function openNative(trailer: Pick<IndexTrailer, 'metric' | 'dim' | 'dataType'>, connectivity: number, expansionAdd: number): UsearchIndex {
  const native = metricOf(trailer.metric).native;
  if (!native) throw new CairnError('InvalidParameter', `metric type ${trailer.metric} has no graph index`);
  const scalar = SCALARS.get(trailer.dataType as DataType) ?? 'f32';
  return new (usearch().Index)(trailer.dim, native, scalar, connectivity, expansionAdd, 1, false);
}

function addVectors(index: UsearchIndex, column: VectorColumn, threads: number): void {
  const { validity, length, dim } = column;
  if (!validity && column.type === DataType.FloatVector) {
    const keys = BigUint64Array.from({ length }, (_, row) => BigInt(row));
    index.add(keys, floatsOf(column.type, column.data.subarray(0, length * column.bytesPerRow)), threads);
    return;
  }
  const rows = validity ? rowsOfBits(validity) : Int32Array.from({ length }, (_, row) => row);
  for (let at = 0; at < rows.length; at += ADD_ROWS) {
    const chunk = rows.subarray(at, at + ADD_ROWS);
    const floats = new Float32Array(chunk.length * dim);
    gatherFloats(column, chunk, floats);
    index.add(
      BigUint64Array.from(chunk, (row) => BigInt(row)),
      floats,
      threads,
    );
  }
}

/** Index files mapped in this thread, the least recently used closed first. */
export class OpenGraphs {
  readonly #open = new Map<string, { readonly index: UsearchIndex; readonly trailer: IndexTrailer }>();
  readonly #limit: number;

  constructor(limit: number) {
    this.#limit = limit;
  }

  get(path: string): { readonly index: UsearchIndex; readonly trailer: IndexTrailer } {
    const known = this.#open.get(path);
    this.#open.delete(path);
    const entry = known ?? openGraph(path);
    this.#open.set(path, entry);
    for (const oldest of this.#open.keys()) {
      if (this.#open.size <= this.#limit) break;
      this.#open.delete(oldest);
    }
    return entry;
  }

  /** The map itself goes away with the object; true when there was one. */
  close(path: string): boolean {
    return this.#open.delete(path);
  }
}

function openGraph(path: string): { readonly index: UsearchIndex; readonly trailer: IndexTrailer } {
  const trailer = readTrailer(path);
  const { m, efConstruction } = graphParams(trailer);
  const index = openNative(trailer, m, efConstruction);
  try {
    index.view(path);
  } catch (error) {
    throw new CairnError('ObjectDamaged', `index file ${path} cannot be mapped: ${error instanceof Error ? error.message : error}`, {
      cause: error,
    });
  }
  if (index.size() !== trailer.entries)
    throw new CairnError('ObjectDamaged', `index file ${path} holds ${index.size()} rows, its trailer says ${trailer.entries}`);
  return { index, trailer };
}

export interface GraphTask {
  readonly path: string;
  readonly queries: Uint8Array;
  readonly nq: number;
  readonly k: number;
  readonly filter: Bitmap | undefined;
  readonly range: ScoreRange | undefined;
  /** Breadth to begin with, and the one beyond which a query is given up. */
  readonly breadth: number;
  readonly maxBreadth: number;
}

export interface GraphHits extends IndexHits {
  /** Queries that did not find enough within maxBreadth: theirs are no hits, they want an exact search. */
  readonly unfinished: readonly number[];
}

/** Searches the graph; where the filter leaves too few of what was found, again with twice the breadth. */
export function searchGraph(graphs: OpenGraphs, task: GraphTask): GraphHits {
  const { index, trailer } = graphs.get(task.path);
  const queries = floatsOf(trailer.dataType as DataType, task.queries);
  const { dim } = trailer;
  const lists = Array.from({ length: task.nq }, () => new HitList());
  let open = Array.from({ length: task.nq }, (_, query) => query);
  for (let breadth = task.breadth; open.length > 0 && breadth <= task.maxBreadth; breadth *= 2) {
    const again: number[] = [];
    const step = Math.max(1, Math.floor(HITS_AT_ONCE / breadth));
    for (let at = 0; at < open.length; at += step) {
      const chunk = open.slice(at, at + step);
      const found = index.search(chosenQueries(queries, chunk, task.nq, dim), breadth, 1);
      const counts = found.counts ?? [found.keys.length];
      chunk.forEach((query, i) => {
        if (!take(task, trailer, found, i * breadth, Number(counts[i]), breadth, lists[query])) again.push(query);
      });
    }
    open = again;
  }
  const metric = metricOf(trailer.metric);
  return { ...hitsOf(lists, task.k, (distance) => scoreOf(metric, distance)), unfinished: open };
}

function chosenQueries(queries: Float32Array, chosen: readonly number[], nq: number, dim: number): Float32Array {
  if (chosen.length === nq) return queries;
  const out = new Float32Array(chosen.length * dim);
  chosen.forEach((query, i) => {
    out.set(queries.subarray(query * dim, (query + 1) * dim), i * dim);
  });
  return out;
}

/** Keeps what the filter and the range let through; false, and nothing kept, when a wider search is needed. */
function take(
  task: GraphTask,
  trailer: IndexTrailer,
  found: { readonly keys: BigUint64Array; readonly distances: Float32Array },
  from: number,
  count: number,
  breadth: number,
  list: HitList,
): boolean {
  const metric = metricOf(trailer.metric);
  const range = rangeTest(metric, task.range);
  const rows = new Uint32Array(found.keys.buffer, found.keys.byteOffset, found.keys.length * 2);
  const limit = task.filter ? Math.floor(breadth * TRUSTED_PART) : breadth;
  let enough = count >= trailer.entries;
  const kept: number[] = [];
  for (let i = from; i < from + count; i++) {
    const score = scoreOf(metric, found.distances[i]);
    if (range.worse(score)) {
      enough = true;
      break;
    }
    if (kept.length === task.k) break;
    const row = rows[2 * i];
    if (range.better(score) || (task.filter && !bitAt(task.filter, row))) continue;
    kept.push(i);
    if (kept.length === task.k && i - from < limit) enough = true;
  }
  if (!enough) return false;
  for (const i of kept) list.add(found.distances[i], rows[2 * i]);
  return true;
}
