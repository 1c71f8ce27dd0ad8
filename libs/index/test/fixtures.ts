import { DataType, type VectorColumn } from '@cairn/schema';

/** Small repeatable numbers in [0, 1). */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Vectors around centres, as embeddings are: uniform noise in many dimensions has no near neighbours worth finding. */
export function clusteredVectors(rows: number, dim: number, seed: number, centres = 50): Float32Array {
  const random = randomNumbers(seed);
  const centre = Float32Array.from({ length: centres * dim }, () => random() - 0.5);
  const out = new Float32Array(new SharedArrayBuffer(rows * dim * 4));
  for (let row = 0; row < rows; row++) {
    const at = Math.floor(random() * centres) * dim;
    for (let i = 0; i < dim; i++) out[row * dim + i] = centre[at + i] + (random() - 0.5) * 0.8;
  }
  return out;
}

export const bytesOf = (values: Float32Array | Int8Array | Uint16Array): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

export function vectorColumn(values: Float32Array, dim: number, nulls: readonly number[] = []): VectorColumn {
  const length = values.length / dim;
  let validity: Uint8Array | null = null;
  if (nulls.length > 0) {
    validity = new Uint8Array((length + 7) >> 3).fill(255);
    for (const row of nulls) validity[row >> 3] &= ~(1 << (row & 7));
  }
  return { kind: 'vector', type: DataType.FloatVector, length, dim, bytesPerRow: dim * 4, data: bytesOf(values), validity };
}

export type Distance = (a: ArrayLike<number>, b: ArrayLike<number>) => number;

/** Scores in the plainest form, bigger better where `sign` is -1. */
export const SCORES: Readonly<Record<string, { readonly sign: 1 | -1; readonly score: Distance }>> = {
  L2: { sign: 1, score: (a, b) => sum(a, (x, i) => (x - b[i]) ** 2) },
  IP: { sign: -1, score: (a, b) => sum(a, (x, i) => x * b[i]) },
  COSINE: { sign: -1, score: (a, b) => sum(a, (x, i) => x * b[i]) / Math.sqrt(sum(a, (x) => x * x) * sum(b, (x) => x * x)) },
};

function sum(values: ArrayLike<number>, of: (value: number, i: number) => number): number {
  let total = 0;
  for (let i = 0; i < values.length; i++) total += of(values[i], i);
  return total;
}

/** Best rows among those that may match, by looking at each. */
export function bruteForce(
  values: ArrayLike<number>,
  dim: number,
  query: ArrayLike<number>,
  metric: string,
  k: number,
  may: (row: number) => boolean,
) {
  const { sign, score } = SCORES[metric];
  const all: { row: number; score: number }[] = [];
  for (let row = 0; row < values.length / dim; row++) {
    if (may(row)) all.push({ row, score: score(Array.prototype.slice.call(values, row * dim, (row + 1) * dim), query) });
  }
  return all.sort((a, b) => sign * (a.score - b.score) || a.row - b.row).slice(0, k);
}

export function bitmapOf(rows: number, has: (row: number) => boolean): Uint8Array {
  const bits = new Uint8Array((rows + 7) >> 3);
  for (let row = 0; row < rows; row++) if (has(row)) bits[row >> 3] |= 1 << (row & 7);
  return bits;
}
