import { CairnError } from '@cairn/base';
import type { SearchHits } from '@cairn/query';
import { type Column, type ColumnBatch, compareKeyRows, concatBatches, takeBatch, valueAt } from '@cairn/schema';
import { parseObject } from './search-params.ts';

/** How several searches of one collection become one list. */
export type RankStrategy =
  | { readonly kind: 'rrf'; readonly k: number }
  | { readonly kind: 'weighted'; readonly weights: readonly number[]; readonly normalize: boolean };

export interface RankPage {
  readonly nq: number;
  readonly limit: number;
  readonly offset: number;
}

const DEFAULT_RRF_K = 60;
const MAX_RRF_K = 16_384;

/** `strategy` and its `params` (JSON) of a hybrid search with `searches` parts. */
export function readRankStrategy(strategy: string, paramsText: string, searches: number): RankStrategy {
  const params = parseObject(paramsText);
  const kind = strategy.toLowerCase() || 'rrf';
  if (kind === 'rrf') {
    const k = params['k'] === undefined ? DEFAULT_RRF_K : Number(params['k']);
    if (!(k > 0 && k < MAX_RRF_K))
      throw new CairnError('InvalidParameter', `the rank params k should be in range (0, ${MAX_RRF_K}), got ${params['k']}`);
    return { kind, k };
  }
  if (kind !== 'weighted') throw new CairnError('InvalidParameter', `unsupported rank type ${strategy}, expected rrf or weighted`);
  const weights = Array.isArray(params['weights']) ? params['weights'].map(Number) : [];
  if (weights.length !== searches) {
    throw new CairnError(
      'InvalidParameter',
      `the length of weights param mismatch with ann search requests: ${searches} requests, ${weights.length} weights`,
    );
  }
  const wrong = weights.find((weight) => !(weight >= 0 && weight <= 1));
  if (wrong !== undefined) throw new CairnError('InvalidParameter', `rank param weight should be in range [0, 1], got ${wrong}`);
  return { kind, weights, normalize: params['norm_score'] !== false };
}

/**
 * One list for each query out of the parts' lists: a row that several parts found stands once with the sum of what they give it. Best first, ties
 * by primary key.
 */
export function rankHits(
  parts: readonly { readonly hits: SearchHits; readonly metric: string }[],
  strategy: RankStrategy,
  pk: number,
  page: RankPage,
): SearchHits {
  const columns = concatBatches(parts.map((part) => part.hits.columns));
  const keys = keyColumnOf(columns, pk);
  const starts = parts.map((_, i) => parts.slice(0, i).reduce((sum, part) => sum + part.hits.scores.length, 0));
  const cursors = [...starts];
  const rows: number[] = [];
  const scores: number[] = [];
  const counts: number[] = [];
  for (let query = 0; query < page.nq; query++) {
    const found = new Map<unknown, { row: number; score: number }>();
    parts.forEach(({ hits, metric }, part) => {
      const count = hits.counts[query] ?? 0;
      for (let rank = 0; rank < count; rank++) {
        const row = cursors[part] + rank;
        const gain = gainOf(strategy, part, rank, hits.scores[row - starts[part]], metric);
        const key = valueAt(keys, row);
        const entry = found.get(key);
        if (entry) entry.score += gain;
        else found.set(key, { row, score: gain });
      }
      cursors[part] += count;
    });
    const ranked = [...found.values()]
      .sort((a, b) => b.score - a.score || compareKeyRows(keys, a.row, keys, b.row))
      .slice(page.offset, page.offset + page.limit);
    counts.push(ranked.length);
    for (const { row, score } of ranked) {
      rows.push(row);
      scores.push(score);
    }
  }
  const searchedRows = parts.reduce((sum, part) => sum + part.hits.searchedRows, 0);
  return { counts, scores: Float32Array.from(scores), columns: takeBatch(columns, Int32Array.from(rows)), searchedRows };
}

function gainOf(strategy: RankStrategy, part: number, rank: number, score: number, metric: string): number {
  if (strategy.kind === 'rrf') return 1 / (strategy.k + rank + 1);
  return strategy.weights[part] * (strategy.normalize ? normalizedScore(score, metric) : score);
}

/** A raw metric value as 0..1, bigger is better. */
export function normalizedScore(score: number, metric: string): number {
  switch (metric) {
    case 'COSINE':
      return (1 + score) / 2;
    case 'IP':
      return 0.5 + Math.atan(score) / Math.PI;
    case 'BM25':
      return (2 * Math.atan(score)) / Math.PI;
    default:
      return 1 - (2 * Math.atan(score)) / Math.PI;
  }
}

function keyColumnOf(columns: ColumnBatch, pk: number): Column {
  const keys = columns.columns.get(pk);
  if (!keys) throw new CairnError('Internal', `hits without their primary keys, field ${pk}`);
  return keys;
}
