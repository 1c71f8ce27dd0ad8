/**
 * Vector fields of every type with rows, queries and scores of exact arithmetic: written from the definitions of the metrics, sharing nothing with the
 * product. Components are multiples of 1/64 (floats aside), so that every type holds them as they are and L2 and IP come out exact.
 */
import { DataType } from '@zilliz/milvus2-sdk-node';
import { seeded } from './workload.ts';

/** One vector as the SDK takes it: numbers; bytes of bits; or components by index. */
export type Sent = readonly number[] | Readonly<Record<number, number>>;

export interface VectorCase {
  readonly field: string;
  readonly type: DataType;
  readonly metric: 'L2' | 'IP' | 'COSINE' | 'HAMMING' | 'JACCARD';
  readonly index: string;
  /** Absent for sparse vectors. */
  readonly dim?: number;
  /** Vector number `n`, the same at each call. */
  vector(n: number): Sent;
  /** undefined: the row is no hit at all. */
  score(query: Sent, row: Sent): number | undefined;
  /** How far a score may lie from the exact one. */
  readonly tolerance: number;
}

const DIM = 16;
const BITS = 64;

const sixtyFourths = (random: () => number): number => (Math.floor(random() * 128) - 64) / 64;
const anyFloat = (random: () => number): number => Math.fround(random() * 4 - 2);
const anyByte = (random: () => number): number => Math.floor(random() * 256) - 128;

function dense(component: (random: () => number) => number): (n: number) => number[] {
  return (n) => {
    const random = seeded(n * 7919 + 13);
    return Array.from({ length: DIM }, () => component(random));
  };
}

const dot = (a: readonly number[], b: readonly number[]): number => a.reduce((sum, value, i) => sum + value * b[i], 0);
const numbers = (vector: Sent): readonly number[] => vector as readonly number[];

const SCORES = {
  L2: (a: Sent, b: Sent): number => numbers(a).reduce((sum, value, i) => sum + (value - numbers(b)[i]) ** 2, 0),
  IP: (a: Sent, b: Sent): number => dot(numbers(a), numbers(b)),
  COSINE: (a: Sent, b: Sent): number =>
    dot(numbers(a), numbers(b)) / Math.sqrt(dot(numbers(a), numbers(a))) / Math.sqrt(dot(numbers(b), numbers(b))),
};

const bitsOf = (vector: Sent): string =>
  numbers(vector)
    .map((byte) => byte.toString(2).padStart(8, '0'))
    .join('');

function differing(a: Sent, b: Sent): number {
  const other = bitsOf(b);
  return [...bitsOf(a)].filter((bit, i) => bit !== other[i]).length;
}

function jaccard(a: Sent, b: Sent): number {
  const other = bitsOf(b);
  const both = [...bitsOf(a)].filter((bit, i) => bit === '1' && other[i] === '1').length;
  const either = [...bitsOf(a)].filter((bit, i) => bit === '1' || other[i] === '1').length;
  return 1 - both / either;
}

function sparse(n: number): Record<number, number> {
  const random = seeded(n * 104_729 + 5);
  return Object.fromEntries(
    Array.from({ length: 1 + Math.floor(random() * 6) }, () => [Math.floor(random() * 40), (1 + Math.floor(random() * 128)) / 64]),
  );
}

function sparseProduct(query: Sent, row: Sent): number | undefined {
  const other = new Map(Object.entries(row));
  const shared = Object.entries(query).filter(([index]) => other.has(index));
  return shared.length === 0 ? undefined : shared.reduce((sum, [index, value]) => sum + value * Number(other.get(index)), 0);
}

const binary = (n: number): number[] => {
  const random = seeded(n * 31 + 7);
  return Array.from({ length: BITS / 8 }, () => 1 + Math.floor(random() * 255));
};

const KINDS = [
  { name: 'float', type: DataType.FloatVector, vector: dense(anyFloat), tolerance: 1e-5 },
  { name: 'f16', type: DataType.Float16Vector, vector: dense(sixtyFourths), tolerance: 1e-6 },
  { name: 'bf16', type: DataType.BFloat16Vector, vector: dense(sixtyFourths), tolerance: 1e-6 },
  { name: 'int8', type: DataType.Int8Vector, vector: dense(anyByte), tolerance: 1e-6 },
] as const;

const denseCases = (metric: 'L2' | 'IP' | 'COSINE'): VectorCase[] =>
  KINDS.map(({ name, type, vector, tolerance }) => ({
    ...{ field: `${name}_${metric.toLowerCase()}`, type, metric, index: 'FLAT', dim: DIM, vector, score: SCORES[metric], tolerance },
  }));

const binaryCase = (metric: 'HAMMING' | 'JACCARD', score: (a: Sent, b: Sent) => number): VectorCase => ({
  ...{ field: `bits_${metric.toLowerCase()}`, type: DataType.BinaryVector, metric, index: 'BIN_FLAT', dim: BITS, vector: binary, score },
  tolerance: 1e-6,
});

/** Collections (ten vector fields are the most one has) and their vector fields: every type under every metric it goes with. */
export const COLLECTIONS: Readonly<Record<string, readonly VectorCase[]>> = {
  distances: [...denseCases('L2'), binaryCase('HAMMING', differing)],
  products: [
    ...denseCases('IP'),
    {
      ...{ field: 'sparse_ip', type: DataType.SparseFloatVector, metric: 'IP', index: 'SPARSE_INVERTED_INDEX', tolerance: 1e-6 },
      ...{ vector: sparse, score: sparseProduct },
    },
  ],
  angles: [...denseCases('COSINE'), binaryCase('JACCARD', jaccard)],
};
