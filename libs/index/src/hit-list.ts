import type { IndexHits } from './search-types.ts';

/** Hits of one query while they are collected: pairs of distance and row; `best` orders them by distance, then row. */
export class HitList {
  readonly #distances: number[] = [];
  readonly #rows: number[] = [];

  add(distance: number, row: number): void {
    this.#distances.push(distance);
    this.#rows.push(row);
  }

  get length(): number {
    return this.#rows.length;
  }

  /** Order of the k best, as positions in this list. */
  #order(k: number): number[] {
    const order = Array.from(this.#rows, (_, i) => i);
    order.sort((a, b) => this.#distances[a] - this.#distances[b] || this.#rows[a] - this.#rows[b]);
    if (order.length > k) order.length = k;
    return order;
  }

  /** Keeps the k best; called now and then so that a list stays short. */
  prune(k: number): void {
    const order = this.#order(k);
    const distances = order.map((i) => this.#distances[i]);
    const rows = order.map((i) => this.#rows[i]);
    this.#distances.splice(0, this.#distances.length, ...distances);
    this.#rows.splice(0, this.#rows.length, ...rows);
  }

  /** The k best as (distance, row), best first. */
  best(k: number): { readonly distances: readonly number[]; readonly rows: readonly number[] } {
    const order = this.#order(k);
    return { distances: order.map((i) => this.#distances[i]), rows: order.map((i) => this.#rows[i]) };
  }
}

/** Lists of all queries as one result. */
export function hitsOf(lists: readonly HitList[], k: number, scoreOf: (distance: number) => number): IndexHits {
  const bests = lists.map((list) => list.best(k));
  const total = bests.reduce((sum, best) => sum + best.rows.length, 0);
  const counts = Uint32Array.from(bests, (best) => best.rows.length);
  const rows = new Int32Array(total);
  const scores = new Float32Array(total);
  let at = 0;
  for (const best of bests) {
    for (let i = 0; i < best.rows.length; i++, at++) {
      rows[at] = best.rows[i];
      scores[at] = scoreOf(best.distances[i]);
    }
  }
  return { counts, rows, scores };
}

/** Results of consecutive queries, one after another. */
export function concatHits(parts: readonly IndexHits[]): IndexHits {
  if (parts.length === 1) return parts[0];
  const total = parts.reduce((sum, part) => sum + part.rows.length, 0);
  const counts = Uint32Array.from(parts.flatMap((part) => [...part.counts]));
  const rows = new Int32Array(total);
  const scores = new Float32Array(total);
  let at = 0;
  for (const part of parts) {
    rows.set(part.rows, at);
    scores.set(part.scores, at);
    at += part.rows.length;
  }
  return { counts, rows, scores };
}
