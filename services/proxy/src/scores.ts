/** Metrics under which the nearest has the largest score. */
const BIGGER_IS_BETTER: ReadonlySet<string> = new Set(['COSINE', 'IP', 'BM25']);

export const isBiggerBetter = (metric: string): boolean => BIGGER_IS_BETTER.has(metric);

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

/** Bigger is better: scores that are so stay as they are unless `normalize` says otherwise; distances are always turned round. */
export function comparableScore(score: number, metric: string, normalize: boolean): number {
  return !normalize && isBiggerBetter(metric) ? score : normalizedScore(score, metric);
}
