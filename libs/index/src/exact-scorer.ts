import { DataType } from '@cairn/schema';
import type { Metric } from './metric.ts';
import type { DenseVectors } from './search-types.ts';
import { readFloats, writeFloats } from './vector-floats.ts';

/** Of a line of the processor's cache. */
const LINE_FLOATS = 16;

/** Distances of single rows of a column to one query, as the metric defines them: 1 - similarity for COSINE and IP. */
export class ExactScorer {
  readonly #column: DenseVectors;
  readonly #metric: Metric;
  /** All rows, where they can be read in place. */
  readonly #floats: Float32Array | undefined;
  readonly #row: Float32Array;
  #query: Float32Array = new Float32Array(0);
  #norm = 0;
  /** Keeps the reads of `fetch` from being left out. */
  #fetched = 0;

  constructor(column: DenseVectors, metric: Metric) {
    this.#column = column;
    this.#metric = metric;
    const { dim, length, type } = column;
    const inPlace = column.kind === 'vector' && type === DataType.FloatVector && column.data.byteOffset % 4 === 0;
    this.#floats = inPlace ? new Float32Array(column.data.buffer, column.data.byteOffset, length * dim) : undefined;
    this.#row = new Float32Array(inPlace ? 0 : dim);
  }

  /** The query that follows: `dim` floats at `at`. */
  ask(queries: Float32Array, at: number): void {
    this.#query = queries.subarray(at, at + this.#column.dim);
    let sum = 0;
    for (const value of this.#query) sum += value * value;
    this.#norm = sum;
  }

  /**
   * Asks memory for rows that are scored next, all at once: they lie far apart, and one after the other each would be waited for. `rows` has them in every
   * second word from `from` on. A third less time for the rows of a search.
   */
  fetch(rows: Uint32Array, from: number, count: number): void {
    const values = this.#floats;
    if (!values) return;
    const { dim } = this.#column;
    let sum = 0;
    for (let i = from; i < from + count; i++) {
      const at = rows[2 * i] * dim;
      for (let word = at; word < at + dim; word += LINE_FLOATS) sum += values[word];
    }
    this.#fetched += sum;
  }

  /** Sum of the squares of the query's components. */
  get querySquare(): number {
    return this.#norm;
  }

  distance(row: number): number {
    const column = this.#column;
    const { dim } = column;
    let values = this.#floats;
    let at = row * dim;
    if (!values) {
      values = this.#row;
      at = 0;
      if (column.kind === 'stored') readFloats(column, row, 1, values, 0);
      else writeFloats(column.type, column.data.subarray(row * column.bytesPerRow, (row + 1) * column.bytesPerRow), values, 0);
    }
    switch (this.#metric.native) {
      case 'l2sq':
        return squaredDistance(this.#query, values, at, dim);
      case 'ip':
        return 1 - dotProduct(this.#query, values, at, dim);
      default:
        return this.#cosine(values, at, dim);
    }
  }

  #cosine(values: Float32Array, at: number, dim: number): number {
    const query = this.#query;
    let dot0 = 0;
    let dot1 = 0;
    let dot2 = 0;
    let dot3 = 0;
    let sum0 = 0;
    let sum1 = 0;
    let sum2 = 0;
    let sum3 = 0;
    const most = dim & ~3;
    for (let i = 0; i < most; i += 4) {
      const a = values[at + i];
      const b = values[at + i + 1];
      const c = values[at + i + 2];
      const d = values[at + i + 3];
      dot0 += query[i] * a;
      sum0 += a * a;
      dot1 += query[i + 1] * b;
      sum1 += b * b;
      dot2 += query[i + 2] * c;
      sum2 += c * c;
      dot3 += query[i + 3] * d;
      sum3 += d * d;
    }
    for (let i = most; i < dim; i++) {
      dot0 += query[i] * values[at + i];
      sum0 += values[at + i] ** 2;
    }
    const norms = this.#norm * (sum0 + sum1 + sum2 + sum3);
    return norms > 0 ? 1 - (dot0 + dot1 + dot2 + dot3) / Math.sqrt(norms) : 1;
  }
}

/** Four sums at a time: one would wait for itself. */
function dotProduct(query: Float32Array, values: Float32Array, at: number, dim: number): number {
  let a = 0;
  let b = 0;
  let c = 0;
  let d = 0;
  const most = dim & ~3;
  for (let i = 0; i < most; i += 4) {
    a += query[i] * values[at + i];
    b += query[i + 1] * values[at + i + 1];
    c += query[i + 2] * values[at + i + 2];
    d += query[i + 3] * values[at + i + 3];
  }
  for (let i = most; i < dim; i++) a += query[i] * values[at + i];
  return a + b + c + d;
}

function squaredDistance(query: Float32Array, values: Float32Array, at: number, dim: number): number {
  let a = 0;
  let b = 0;
  const most = dim & ~1;
  for (let i = 0; i < most; i += 2) {
    const x = query[i] - values[at + i];
    const y = query[i + 1] - values[at + i + 1];
    a += x * x;
    b += y * y;
  }
  if (most < dim) a += (query[most] - values[at + most]) ** 2;
  return a + b;
}
