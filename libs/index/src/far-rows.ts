import type { VectorColumn } from '@cairn/schema';
import { BestRows, hitsOfBest } from './best-rows.ts';
import { ExactScorer } from './exact-scorer.ts';
import { leastRescored, PATIENCE } from './graph-codes.ts';
import type { Metric } from './metric.ts';
import type { IndexHits } from './search-types.ts';

/** Hits by codes that a query wants scored, when its vectors are read for them. */
export const farRows = (k: number): number => leastRescored(k) + PATIENCE;

/** The k best of hits by codes: `vectors` are those of the hits, in their order. */
export function scoreFarRows(hits: IndexHits, vectors: VectorColumn, metric: Metric, queries: Float32Array, k: number): IndexHits {
  const scorer = new ExactScorer(vectors, metric);
  let at = 0;
  const best = Array.from(hits.counts, (count, query) => {
    const list = new BestRows(k);
    scorer.ask(queries, query * vectors.dim);
    for (const end = at + count; at < end; at++) list.add(scorer.distance(at), hits.rows[at]);
    return list;
  });
  return hitsOfBest(best, metric);
}
