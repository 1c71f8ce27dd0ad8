import { type Bitmap, bitAt, CairnError } from '@cairn/base';
import type { DataType } from '@cairn/schema';
import { BestRows, hitsOfBest } from './best-rows.ts';
import { ExactScorer } from './exact-scorer.ts';
import { codeQueries, holdsQuery, leastRescored, Nearness, PATIENCE, surelyRescored, unitsOf } from './graph-codes.ts';
import type { OpenGraph, OpenGraphs } from './graph-index.ts';
import { type Metric, metricOf, rangeTest, scoreOf } from './metric.ts';
import type { DenseVectors, GraphCodes, IndexHits, ScoreRange } from './search-types.ts';
import { floatsOf } from './vector-floats.ts';

/** Hits that one native call may return: 24 MB. */
const HITS_AT_ONCE = 2_000_000;
/** A filtered search is trusted when its k-th match stands within this part of its breadth: near the edge a graph misses more. */
const TRUSTED_PART = 0.7;
/** A walk with so much less of the matches than their share of all rows is in the wrong place. */
const FEW_MATCHES = 0.25;

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
  /** The column, by which hits are scored; needed when the graph's distances are not exact. */
  readonly vectors: DenseVectors | undefined;
  /** Part of the rows that the filter leaves: a walk that meets far fewer is where they are not, and is not widened. */
  readonly share?: number | undefined;
}

export interface GraphHits extends IndexHits {
  /** Queries that did not find enough within maxBreadth: theirs are no hits, they want an exact search. */
  readonly unfinished: readonly number[];
}

/** Searches the graph; where the filter leaves too few of what was found, again with twice the breadth. */
export function searchGraph(graphs: OpenGraphs, task: GraphTask): GraphHits {
  const graph = graphs.get(task.path);
  const { dim, dataType } = graph.trailer;
  const metric = metricOf(graph.trailer.metric);
  const queries = floatsOf(dataType as DataType, task.queries);
  const taker = new HitTaker(graph, metric, queries, task);
  const lists = Array.from({ length: task.nq }, () => new BestRows(task.k));
  const unfinished: number[] = [];
  let open: number[] = [];
  for (let query = 0; query < task.nq; query++)
    (holdsQuery(graph.codes, metric, queries, query * dim, dim) ? open : unfinished).push(query);
  for (let breadth = task.breadth; open.length > 0 && breadth <= task.maxBreadth; breadth *= 2) {
    const again: number[] = [];
    const step = Math.max(1, Math.floor(HITS_AT_ONCE / breadth));
    for (let at = 0; at < open.length; at += step) {
      const chunk = open.slice(at, at + step);
      const asked = codeQueries(graph.codes, metric, chosenQueries(queries, chunk, task.nq, dim), dim);
      const [keys, distances, counts] = graph.index.search(asked, breadth, 1);
      const rows = new Uint32Array(keys.buffer, keys.byteOffset, keys.length * 2);
      for (let i = 0; i < chunk.length; i++) {
        const found = { rows, distances, from: i * breadth, count: Number(counts[i]), breadth };
        const taken = taker.take(found, chunk[i], lists[chunk[i]]);
        if (taken !== 'enough') (taken === 'wider' ? again : unfinished).push(chunk[i]);
      }
    }
    open = again;
  }
  unfinished.push(...open);
  unfinished.sort((a, b) => a - b);
  return { ...hitsOfBest(lists, metric), unfinished };
}

function chosenQueries(queries: Float32Array, chosen: readonly number[], nq: number, dim: number): Float32Array {
  if (chosen.length === nq) return queries;
  const out = new Float32Array(chosen.length * dim);
  chosen.forEach((query, i) => {
    out.set(queries.subarray(query * dim, (query + 1) * dim), i * dim);
  });
  return out;
}

/** What one native search found for one query; of `rows` every second word is a row. */
interface FoundHits {
  readonly rows: Uint32Array;
  readonly distances: Float32Array;
  readonly from: number;
  readonly count: number;
  readonly breadth: number;
}

/** Keeps what filter and range let through, scored exactly. */
class HitTaker {
  readonly #task: GraphTask;
  readonly #queries: Float32Array;
  readonly #metric: Metric;
  readonly #entries: number;
  readonly #dim: number;
  readonly #codes: GraphCodes;
  readonly #scorer: ExactScorer | undefined;

  constructor(graph: OpenGraph, metric: Metric, queries: Float32Array, task: GraphTask) {
    this.#task = task;
    this.#queries = queries;
    this.#metric = metric;
    this.#entries = graph.trailer.entries;
    this.#dim = graph.trailer.dim;
    this.#codes = graph.codes;
    if (graph.codes.exact && !task.vectors) return;
    if (!task.vectors) throw new CairnError('Internal', `index file ${task.path} holds codes, and its search brought no vectors`);
    this.#scorer = new ExactScorer(task.vectors, metric);
  }

  /** Unless it found enough, nothing is kept: a wider search may do, or another way is needed. */
  take(found: FoundHits, query: number, list: BestRows): 'enough' | 'wider' | 'elsewhere' {
    const { filter, k } = this.#task;
    const { rows, distances, from, count, breadth } = found;
    const range = this.#task.range && rangeTest(this.#metric, this.#task.range);
    const scorer = this.#scorer;
    scorer?.ask(this.#queries, query * this.#dim);
    const nearness = scorer && new Nearness(unitsOf(this.#codes, this.#metric, this.#queries, query * this.#dim, this.#dim), k);
    const least = scorer ? leastRescored(k) : k;
    if (!filter) scorer?.fetch(rows, from, Math.min(count, surelyRescored(k)));
    // Codes put rows in nearly the right order: a few that came to nothing end the walk. Exact distances come in order: one ends it.
    const patience = scorer ? PATIENCE : 1;
    const limit = filter ? Math.floor(breadth * TRUSTED_PART) : breadth;
    let enough = count >= this.#entries;
    let kept = 0;
    let vain = 0;
    let beyond = 0;
    for (let i = from; i < from + count; i++) {
      const row = rows[2 * i];
      if (filter && !bitAt(filter, row)) continue;
      if (nearness?.settled(distances[i], list.edge)) break;
      const distance = scorer ? scorer.distance(row) : distances[i];
      nearness?.see(distances[i], distance);
      if (range) {
        const score = scoreOf(this.#metric, distance);
        if (range.worse(score)) {
          if (++beyond < patience) continue;
          enough = true;
          break;
        }
        beyond = 0;
        if (range.better(score)) continue;
      }
      kept++;
      vain = list.add(distance, row) ? 0 : vain + 1;
      if (kept === k && i - from < limit) enough = true;
      if (kept >= least && (!scorer || vain >= patience)) break;
    }
    if (enough) return 'enough';
    list.clear();
    return filter && kept < count * (this.#task.share ?? 0) * FEW_MATCHES ? 'elsewhere' : 'wider';
  }
}
