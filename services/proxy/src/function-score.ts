import { CairnError } from '@cairn/base';
import type { FunctionScore } from '@cairn/proto/milvus/schema';
import type { SearchHits } from '@cairn/query';
import { type CollectionSchema, compareKeyRows, type TimeZone, takeBatch } from '@cairn/schema';
import { type Boosts, boostedScores, readBoosts, readOf } from './boost.ts';
import { type Decay, factorsOf, readDecay } from './decay.ts';
import { type RankStrategy, readRankStrategy } from './hybrid-rank.ts';
import { rankFunctions } from './rank-function.ts';
import { comparableScore, isBiggerBetter } from './scores.ts';
import { notSupported } from './status.ts';

/** How the hits of one search get new scores. */
export type Rescore = { readonly fieldIds: readonly number[]; readonly dynamicKeys: readonly string[] } & (
  | { readonly kind: 'decay'; readonly decay: Decay }
  | { readonly kind: 'boost'; readonly boosts: Boosts }
);

/** How the parts of a hybrid search become one list: the functions `rrf` and `weighted`, which need no field, and `decay`. */
export function readRankFunction(score: FunctionScore, searches: number, schema: CollectionSchema): RankStrategy {
  const [one] = rankFunctions(score, 'HybridSearch');
  const { inputs, params, reranker } = one;
  if (reranker === 'decay') return { kind: 'decay', decay: readDecay(one, schema) };
  if (reranker !== 'rrf' && reranker !== 'weighted') throw notSupported(`reranker ${reranker || 'without a name'} in HybridSearch`);
  if (inputs.length > 0) throw new CairnError('InvalidParameter', `reranker ${reranker} takes no input fields, got ${inputs.join(', ')}`);
  // A text of the wire: numbers and lists as JSON says them.
  const values = [...params].flatMap(([key, value]) =>
    ['k', 'weights', 'norm_score'].includes(key) ? [`${JSON.stringify(key)}:${value}`] : [],
  );
  const text = `{${values.join(',')}}`;
  return readRankStrategy(reranker, params.has('norm_score') ? text.toLowerCase() : withoutNorm(text), searches);
}

/** Functions take scores as they are unless they are told to make them comparable; strategies of old do it by themselves. */
const withoutNorm = (text: string): string => (text === '{}' ? '{"norm_score":false}' : `${text.slice(0, -1)},"norm_score":false}`);

/** The function score of a search: one `decay`, or one or more `boost`. */
export function readRescore(score: FunctionScore, schema: CollectionSchema, zone: TimeZone): Rescore {
  const functions = rankFunctions(score, 'Search');
  const [one] = functions;
  switch (one.reranker) {
    case 'decay': {
      const decay = readDecay(one, schema);
      return { kind: 'decay', decay, fieldIds: [decay.field.id], dynamicKeys: [] };
    }
    case 'boost': {
      const boosts = readBoosts(functions, score.params, schema, zone);
      return { kind: 'boost', boosts, ...readOf(boosts, schema) };
    }
    default:
      throw notSupported(`reranker ${one.reranker || 'without a name'} in Search`);
  }
}

/** The hits of each query with their new scores, best first; equal ones by the primary key `pk`, as in Milvus. A decay turns distances round: bigger is better then, whatever the metric. */
export function rescored(hits: SearchHits, rescore: Rescore, metric: string, pk: number): SearchHits {
  if (hits.scores.length === 0) return hits;
  const keys = hits.columns.columns.get(pk);
  if (!keys) throw new CairnError('Internal', `hits without field ${pk}`);
  const sign = rescore.kind === 'decay' || isBiggerBetter(metric) ? 1 : -1;
  const scores = newScores(hits, rescore, metric, sign);
  const order: number[] = [];
  let start = 0;
  for (const count of hits.counts) {
    order.push(
      ...Array.from({ length: count }, (_, i) => start + i).sort(
        (a, b) => sign * (scores[b] - scores[a]) || compareKeyRows(keys, a, keys, b),
      ),
    );
    start += count;
  }
  const rows = Int32Array.from(order);
  return { ...hits, columns: takeBatch(hits.columns, rows), scores: Float32Array.from(rows, (row) => scores[row]) };
}

function newScores(hits: SearchHits, rescore: Rescore, metric: string, sign: 1 | -1): Float32Array {
  if (rescore.kind === 'boost') return boostedScores(rescore.boosts, hits.scores, hits.columns, sign);
  const factor = factorsOf(rescore.decay, hits.columns);
  return hits.scores.map((score, row) => comparableScore(score, metric, rescore.decay.normalize) * factor(row));
}
