import { CairnError } from '@cairn/base';
import type { SearchHits } from '@cairn/query';
import { sliceBatch } from '@cairn/schema';

/** One page of a search that goes on and on: what its client sends back to get the next page. No state is kept here. */
export interface IteratorPage {
  readonly batchSize: number;
  /** Empty on the first page. */
  readonly token: string;
  /** Score of the last hit of the page before. */
  readonly lastBound: number | undefined;
  /** Wire timestamp that all pages after the first read at. */
  readonly readAt: bigint;
}

/** Range parameters of an index search. Scores lie strictly beyond `radius` and are no better than `range_filter`. */
export interface RangeParams {
  readonly radius: number;
  readonly range_filter?: number;
}

const MAX_FLOAT32 = 3.4028234663852886e38;
const BIGGER_IS_BETTER = new Set(['IP', 'COSINE', 'BM25', 'MAX_SIM', 'MAX_SIM_IP', 'MAX_SIM_COSINE']);

/** The range of the page after `lastBound`, within the user's own range. undefined: the first page without a range. */
export function rangeOfPage(
  metric: string,
  index: Readonly<Record<string, unknown>>,
  lastBound: number | undefined,
): RangeParams | undefined {
  const bigger = BIGGER_IS_BETTER.has(metric);
  const radius = numberOf(index['radius']) ?? (bigger ? -MAX_FLOAT32 : MAX_FLOAT32);
  const outer = numberOf(index['range_filter']);
  if (lastBound === undefined)
    return index['radius'] === undefined && outer === undefined
      ? undefined
      : { radius, ...(outer === undefined ? {} : { range_filter: outer }) };
  const next = nextFloat(lastBound, !bigger);
  return { radius, range_filter: outer === undefined ? next : bigger ? Math.min(outer, next) : Math.max(outer, next) };
}

/** The range that holds the hits with exactly this score. */
export function rangeOfTies(metric: string, score: number): RangeParams {
  return { radius: nextFloat(score, !BIGGER_IS_BETTER.has(metric)), range_filter: score };
}

/**
 * Cuts a list of up to batchSize + 1 hits to a page whose last score no hit behind it shares: the next page begins strictly after that score, and
 * would lose the rest of a group of ties. undefined: the whole page is one group; then the group has to be asked for.
 */
export function cutPage(hits: SearchHits, batchSize: number): SearchHits | undefined {
  const { scores } = hits;
  if (scores.length <= batchSize) return hits;
  let end = batchSize;
  if (scores[batchSize] === scores[batchSize - 1]) while (end > 0 && scores[end - 1] === scores[batchSize]) end--;
  return end === 0 ? undefined : firstHits(hits, end);
}

export function firstHits(hits: SearchHits, count: number): SearchHits {
  return { ...hits, counts: [count], scores: hits.scores.subarray(0, count), columns: sliceBatch(hits.columns, 0, count) };
}

/** The float32 next to `value`, up or down. */
export function nextFloat(value: number, up: boolean): number {
  const float = Float32Array.of(value);
  const bits = new Int32Array(float.buffer);
  if (float[0] === 0) return up ? 1.401298464324817e-45 : -1.401298464324817e-45;
  bits[0] += float[0] > 0 === up ? 1 : -1;
  return float[0];
}

function numberOf(value: unknown): number | undefined {
  if (value === undefined) return undefined;
  const number = Number(value);
  if (Number.isNaN(number))
    throw new CairnError('InvalidParameter', `radius and range_filter must be numbers, got ${JSON.stringify(value)}`);
  return number;
}
