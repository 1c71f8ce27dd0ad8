import { CairnError } from '@cairn/base';
import type { ScoreRange } from './search-types.ts';

/** A metric as distance (smaller is better) and back: hits are ordered by distance inside, scores are what users see. */
export interface Metric {
  readonly name: string;
  /** Bigger scores are better. */
  readonly descending: boolean;
  /** Name in usearch; undefined for metrics that we compute. */
  readonly native: 'cos' | 'ip' | 'l2sq' | undefined;
}

const METRICS: ReadonlyMap<string, Metric> = new Map(
  (
    [
      { name: 'COSINE', descending: true, native: 'cos' },
      { name: 'IP', descending: true, native: 'ip' },
      { name: 'L2', descending: false, native: 'l2sq' },
      { name: 'HAMMING', descending: false, native: undefined },
      { name: 'JACCARD', descending: false, native: undefined },
      { name: 'MAX_SIM', descending: true, native: undefined },
      { name: 'MAX_SIM_COSINE', descending: true, native: undefined },
      { name: 'MAX_SIM_IP', descending: true, native: undefined },
      { name: 'MAX_SIM_L2', descending: false, native: undefined },
      { name: 'MAX_SIM_HAMMING', descending: false, native: undefined },
      { name: 'MAX_SIM_JACCARD', descending: false, native: undefined },
    ] as const
  ).map((metric) => [metric.name, metric]),
);

export function metricOf(name: string): Metric {
  const metric = METRICS.get(name);
  if (!metric) throw new CairnError('NotSupported', `not supported: metric type ${name}`);
  return metric;
}

/** True when bigger scores are better. */
export const isDescending = (metric: string): boolean => metricOf(metric).descending;

/** usearch gives 1 - similarity for COSINE and IP. */
export const scoreOf = (metric: Metric, distance: number): number => (metric.descending ? 1 - distance : distance);

/**
 * Milvus's rule: L2 and the other distances keep rangeFilter <= score < radius; IP and COSINE keep radius < score <= rangeFilter.
 * `better` says that a score is too good (cut by rangeFilter), `worse` that it lies beyond radius. All are compared as the float32 that users see:
 * a page of an iterator begins where the one before ended, and a score that is told from its neighbour only in double would stand on neither.
 */
export function rangeTest(
  metric: Metric,
  range: ScoreRange | undefined,
): { better(score: number): boolean; worse(score: number): boolean } {
  if (!range) return { better: () => false, worse: () => false };
  const radius = Math.fround(range.radius);
  const rangeFilter = range.rangeFilter === undefined ? undefined : Math.fround(range.rangeFilter);
  return metric.descending
    ? { better: (score) => rangeFilter !== undefined && Math.fround(score) > rangeFilter, worse: (score) => Math.fround(score) <= radius }
    : { better: (score) => rangeFilter !== undefined && Math.fround(score) < rangeFilter, worse: (score) => Math.fround(score) >= radius };
}

/** InvalidParameter when rangeFilter lies on the wrong side of radius. */
export function checkRange(metric: Metric, range: ScoreRange): void {
  const { radius, rangeFilter } = range;
  if (rangeFilter === undefined) return;
  if (metric.descending ? radius >= rangeFilter : rangeFilter >= radius) {
    const wanted = metric.descending ? 'greater' : 'less';
    throw new CairnError(
      'InvalidParameter',
      `range_filter(${rangeFilter}) must be ${wanted} than radius(${radius}) for metric type ${metric.name}`,
    );
  }
}
