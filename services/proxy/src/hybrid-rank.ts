import { CairnError } from '@cairn/base';
import type { SearchHits } from '@cairn/query';
import { type Column, type ColumnBatch, compareKeyRows, concatBatches, isNull, takeBatch, valueAt } from '@cairn/schema';
import { type Decay, factorsOf } from './decay.ts';
import { comparableScore, isBiggerBetter, normalizedScore } from './scores.ts';
import { parseObject } from './search-params.ts';

/** How several searches of one collection become one list. */
export type RankStrategy =
  | { readonly kind: 'rrf'; readonly k: number }
  | { readonly kind: 'weighted'; readonly weights: readonly number[]; readonly normalize: boolean }
  | { readonly kind: 'decay'; readonly decay: Decay };

/** One value of a field is one group; `limit` and `offset` count groups then. */
export interface RankGroups {
  readonly fieldId: number;
  /** Rows of one group at most. */
  readonly size: number;
  /** Groups with fewer rows are left out. */
  readonly strict: boolean;
  /** What of its rows' scores a group is ranked by. */
  readonly scorer: GroupScorer;
}

export type GroupScorer = 'max' | 'sum' | 'avg';

export interface RankPage {
  readonly nq: number;
  readonly limit: number;
  readonly offset: number;
  readonly groups?: RankGroups | undefined;
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

/** `rank_group_scorer` of a hybrid search that groups. */
export function readGroupScorer(text: string): GroupScorer {
  const scorer = text.toLowerCase() || 'max';
  if (scorer === 'max' || scorer === 'sum' || scorer === 'avg') return scorer;
  throw new CairnError('InvalidParameter', `rank_group_scorer must be max, sum or avg, got ${text}`);
}

interface Ranked {
  readonly row: number;
  score: number;
}

/**
 * One list for each query out of the parts' lists: a row that several parts found stands once, with what they give it together. Best first, ties by
 * primary key. Scores that are all distances and stay as they are: the smallest are the best (as in Milvus).
 */
export function rankHits(
  parts: readonly { readonly hits: SearchHits; readonly metric: string }[],
  strategy: RankStrategy,
  pk: number,
  page: RankPage,
): SearchHits {
  const columns = concatBatches(parts.map((part) => part.hits.columns));
  const keys = columnOf(columns, pk);
  const starts = parts.map((_, i) => parts.slice(0, i).reduce((sum, part) => sum + part.hits.scores.length, 0));
  const cursors = [...starts];
  const metrics = parts.map(({ metric }) => metric);
  const asTheyAre = strategy.kind === 'weighted' && !strategy.normalize;
  const sign = asTheyAre && !metrics.some(isBiggerBetter) ? -1 : 1;
  const isMixed = metrics.some(isBiggerBetter) && !metrics.every(isBiggerBetter);
  const gainOf = (part: number, rank: number, score: number): number => {
    if (strategy.kind === 'rrf') return 1 / (strategy.k + rank + 1);
    if (strategy.kind === 'decay') return comparableScore(score, metrics[part], strategy.decay.normalize);
    if (strategy.normalize) return strategy.weights[part] * normalizedScore(score, metrics[part]);
    return strategy.weights[part] * (isMixed ? comparableScore(score, metrics[part], false) : score);
  };
  const mode = strategy.kind === 'decay' ? strategy.decay.mode : 'sum';
  const factor = strategy.kind === 'decay' && keys.length > 0 ? factorsOf(strategy.decay, columns) : () => 1;
  const best = (a: Ranked, b: Ranked): number => sign * (b.score - a.score) || compareKeyRows(keys, a.row, keys, b.row);
  const rows: number[] = [];
  const scores: number[] = [];
  const counts: number[] = [];
  for (let query = 0; query < page.nq; query++) {
    const found = new Map<unknown, { row: number; score: number; times: number }>();
    parts.forEach(({ hits }, part) => {
      const count = hits.counts[query] ?? 0;
      for (let rank = 0; rank < count; rank++) {
        const row = cursors[part] + rank;
        const gain = gainOf(part, rank, hits.scores[row - starts[part]]);
        const key = valueAt(keys, row);
        const entry = found.get(key);
        if (!entry) found.set(key, { row, score: gain, times: 1 });
        else {
          entry.score = mode === 'max' ? Math.max(entry.score, gain) : entry.score + gain;
          entry.times++;
        }
      }
      cursors[part] += count;
    });
    const ranked = [...found.values()]
      .map(({ row, score, times }) => ({ row, score: (mode === 'avg' ? score / times : score) * factor(row) }))
      .sort(best);
    const chosen = page.groups
      ? groupsOf(ranked, page.groups, columnOf(columns, page.groups.fieldId), sign)
          .slice(page.offset, page.offset + page.limit)
          .filter((group) => !page.groups?.strict || group.length === page.groups.size)
          .flat()
      : ranked.slice(page.offset, page.offset + page.limit);
    counts.push(chosen.length);
    for (const { row, score } of chosen) {
      rows.push(row);
      scores.push(score);
    }
  }
  const searchedRows = parts.reduce((sum, part) => sum + part.hits.searchedRows, 0);
  return { counts, scores: Float32Array.from(scores), columns: takeBatch(columns, Int32Array.from(rows)), searchedRows };
}

/** Groups of ranked rows, best first; of equal ones the larger, then the one whose best row comes first. */
function groupsOf(ranked: readonly Ranked[], { size, scorer }: RankGroups, values: Column, sign: number): Ranked[][] {
  const groups = new Map<unknown, Ranked[]>();
  for (const hit of ranked) {
    const value = isNull(values, hit.row) ? null : valueAt(values, hit.row);
    const group = groups.get(value);
    if (!group) groups.set(value, [hit]);
    else if (group.length < size) group.push(hit);
  }
  const total = (group: readonly Ranked[]): number => group.reduce((sum, hit) => sum + hit.score, 0);
  const scoreOf = (group: readonly Ranked[]): number =>
    scorer === 'max' ? group[0].score : scorer === 'sum' ? total(group) : total(group) / group.length;
  return [...groups.values()].sort((a, b) => sign * (scoreOf(b) - scoreOf(a)) || b.length - a.length);
}

function columnOf(columns: ColumnBatch, fieldId: number): Column {
  const column = columns.columns.get(fieldId);
  if (!column) throw new CairnError('Internal', `hits without field ${fieldId}`);
  return column;
}
