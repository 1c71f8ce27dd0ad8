import { type Metric, scoreOf } from './metric.ts';
import type { IndexHits } from './search-types.ts';

/** The k nearest rows of one query while they are collected, by distance, then row. Cheap when they come in nearly the right order. */
export class BestRows {
  readonly distances: Float64Array;
  readonly rows: Int32Array;
  length = 0;

  constructor(k: number) {
    this.distances = new Float64Array(k);
    this.rows = new Int32Array(k);
  }

  /** True when the row is among the best so far. */
  add(distance: number, row: number): boolean {
    const { distances, rows } = this;
    const full = this.length === rows.length;
    let at = full ? this.length - 1 : this.length;
    if (full && !(distance < distances[at] || (distance === distances[at] && row < rows[at]))) return false;
    for (; at > 0 && (distance < distances[at - 1] || (distance === distances[at - 1] && row < rows[at - 1])); at--) {
      distances[at] = distances[at - 1];
      rows[at] = rows[at - 1];
    }
    distances[at] = distance;
    rows[at] = row;
    if (!full) this.length++;
    return true;
  }

  /** Distance that a row must not exceed to be among the best; infinity while there are fewer than k. */
  get edge(): number {
    return this.length === this.rows.length ? this.distances[this.length - 1] : Number.POSITIVE_INFINITY;
  }

  clear(): void {
    this.length = 0;
  }
}

/** Lists of all queries as one result, in buffers of its own. */
export function hitsOfBest(lists: readonly BestRows[], metric: Metric): IndexHits {
  const counts = Uint32Array.from(lists, (list) => list.length);
  let total = 0;
  for (const count of counts) total += count;
  const rows = new Int32Array(total);
  const scores = new Float32Array(total);
  let at = 0;
  for (const list of lists) {
    for (let i = 0; i < list.length; i++, at++) {
      rows[at] = list.rows[i];
      scores[at] = scoreOf(metric, list.distances[i]);
    }
  }
  return { counts, rows, scores };
}
