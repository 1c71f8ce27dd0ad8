import { closeSync, ftruncateSync, openSync, readSync, statSync } from 'node:fs';
import { type FileHandle, mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SystemRuntime } from '@cairn/base';
import { DataType, type StoredVectors, type VectorColumn } from '@cairn/schema';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ExactScorer } from '../src/exact-scorer.ts';
import { chooseCodes, codeQueries, codeRows, unitsOf } from '../src/graph-codes.ts';
import { type IndexHits, IndexPool, readTrailer } from '../src/index.ts';
import { appendTrailer } from '../src/index-file.ts';
import { metricOf } from '../src/metric.ts';
import { usearch } from '../src/usearch.ts';
import { bitmapOf, bruteForce, bytesOf, clusteredVectors, randomNumbers, vectorColumn } from './fixtures.ts';

const DIM = 48;
const ROWS = 4_000;
const NQ = 20;
const K = 10;
const pool = new IndexPool({ runtime: new SystemRuntime(), threads: 2 });
const values = clusteredVectors(ROWS, DIM, 3);
const queries = clusteredVectors(NQ, DIM, 3);
let directory = '';
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cairn-codes-'));
});
const files: FileHandle[] = [];
afterAll(async () => {
  await pool.stop();
  for (const file of files) await file.close();
  await rm(directory, { recursive: true });
});

let builds = 0;
async function built(vectors: VectorColumn, metric: string, params: Readonly<Record<string, string>> = {}, indexType = 'HNSW') {
  const path = join(directory, `${builds++}`);
  await pool.build({ indexType, metric, params, vectors, path });
  return pool.open(path);
}

/** Part of the best rows that were found; every score must be the metric's own. */
function recallOf(hits: IndexHits, rows: ArrayLike<number>, asked: ArrayLike<number>, metric: string): number {
  let found = 0;
  let at = 0;
  const nq = hits.counts.length;
  for (let q = 0; q < nq; q++) {
    const query = Array.prototype.slice.call(asked, q * DIM, (q + 1) * DIM);
    const all = new Map(bruteForce(rows, DIM, query, metric, rows.length / DIM, () => true).map(({ row, score }) => [row, score]));
    const best = [...all.values()].slice(0, K);
    const edge = best[K - 1];
    expect(hits.counts[q]).toBe(K);
    for (let i = at; i < at + K; i++) {
      const score = all.get(hits.rows[i]) as number;
      expect(Math.abs(hits.scores[i] - score)).toBeLessThanOrEqual(1e-5 * Math.max(1, Math.abs(score)));
      if (metric === 'L2' ? score <= edge + 1e-6 * Math.abs(edge) : score >= edge - 1e-6 * Math.abs(edge)) found++;
    }
    at += K;
  }
  return found / (nq * K);
}

/** The column as it lies in a file, behind some bytes of something else. */
async function inFile(column: VectorColumn): Promise<StoredVectors> {
  const { type, length, dim, bytesPerRow, validity } = column;
  const path = join(directory, `vectors-${builds++}`);
  await writeFile(path, [new Uint8Array(24), column.data]);
  const file = await open(path, 'r+');
  files.push(file);
  return { kind: 'stored', type, length, dim, bytesPerRow, validity, fd: file.fd, offset: 24, key: 'a/vectors' };
}

/** Part of the hits of `one` that `other` has too. */
function setsOf(one: IndexHits, other: IndexHits): number {
  let [same, at] = [0, 0];
  for (const count of one.counts) {
    const rows = new Set(other.rows.subarray(at, at + count));
    for (const row of one.rows.subarray(at, at + count)) if (rows.has(row)) same++;
    at += count;
  }
  return one.rows.length === 0 ? 1 : same / one.rows.length;
}

const ask = (vectors: VectorColumn, bytes = bytesOf(queries), nq = NQ) => ({ queries: bytes, nq, k: K, vectors: async () => vectors });

describe('a graph over codes', () => {
  for (const metric of ['COSINE', 'IP', 'L2']) {
    it(`${metric}: int8 where they tell rows apart; a third of the size, recall >= 0.95, scores of the vectors themselves`, async () => {
      const column = vectorColumn(values, DIM);
      const index = await built(column, metric);
      expect(index.codes).toMatchObject({ scalar: 'i8', exact: false });
      expect(recallOf(await pool.search(index, ask(column)), values, queries, metric)).toBeGreaterThanOrEqual(0.95);
      const whole = await built(column, metric, { sq_type: 'fp32' }, 'HNSW_SQ');
      expect(whole.codes).toMatchObject({ scalar: 'f32', exact: true });
      // 48 components of three bytes less.
      expect(statSync(whole.path).size - statSync(index.path).size).toBeGreaterThan(ROWS * DIM * 3 * 0.99);
    });
  }

  it('takes larger scalars where int8 cannot tell neighbours from others, and none that lose where nothing else can', async () => {
    const random = randomNumbers(5);
    // One component outweighs the rest: what tells rows apart lies below one step of int8.
    const outlier = Float32Array.from(values, (value, i) => (i % DIM === 0 ? 200 : value));
    expect((await built(vectorColumn(outlier, DIM), 'IP')).codes).toMatchObject({ scalar: 'bf16', exact: false });
    // All of them far from the origin: bfloat16 rounds the differences away.
    const far = Float32Array.from({ length: ROWS * DIM }, () => 1000 + random());
    const column = vectorColumn(far, DIM);
    const index = await built(column, 'COSINE');
    expect(index.codes).toMatchObject({ scalar: 'f32', exact: true });
    // An origin of its own makes int8 good for L2.
    expect((await built(column, 'L2')).codes).toMatchObject({ scalar: 'i8', exact: false });
  });

  it('a query far outside of the rows is answered exactly', async () => {
    const column = vectorColumn(values, DIM);
    const index = await built(column, 'L2');
    const far = Float32Array.from(queries, (value, i) => (i >= DIM ? value : value * 50));
    expect(recallOf(await pool.search(index, ask(column, bytesOf(far.slice(0, DIM)), 1)), values, far.slice(0, DIM), 'L2')).toBe(1);
    expect(recallOf(await pool.search(index, ask(column, bytesOf(far))), values, far, 'L2')).toBeGreaterThanOrEqual(0.95);
  });

  it('int8 vectors are their own codes', async () => {
    const small = Int8Array.from(values, (value) => Math.round(value * 100));
    const column: VectorColumn = { ...vectorColumn(values, DIM), type: DataType.Int8Vector, bytesPerRow: DIM, data: bytesOf(small) };
    const asked = Int8Array.from(queries, (value) => Math.round(value * 100));
    for (const metric of ['L2', 'IP', 'COSINE']) {
      const index = await built(column, metric);
      expect(index.codes).toMatchObject({ scalar: 'i8', exact: true });
      expect(recallOf(await pool.search(index, ask(column, bytesOf(asked))), small, asked, metric)).toBeGreaterThanOrEqual(0.95);
    }
  });

  it('distances by codes, brought to the units of the vectors, are nearly the exact ones', () => {
    const column = vectorColumn(values, DIM);
    for (const metric of ['COSINE', 'IP', 'L2']) {
      const codes = chooseCodes(column, metric, {});
      const { offset, factor } = unitsOf(codes, metricOf(metric), queries, 0, DIM);
      const coded = codeQueries(codes, metricOf(metric), queries.slice(0, DIM), DIM);
      const [keys, distances] = usearch().exactSearch(codeRows(codes, values, DIM), coded, DIM, 100, metricOf(metric).native ?? '', 1);
      const scorer = new ExactScorer(column, metricOf(metric));
      scorer.ask(queries, 0);
      const exact = Array.from(keys, (key) => scorer.distance(Number(key)));
      const spread = Math.max(...exact) - Math.min(...exact);
      exact.forEach((distance, i) => {
        expect(Math.abs(offset + factor * distances[i] - distance)).toBeLessThan(0.1 * spread);
      });
    }
  });

  it('vectors that stay in their file answer as the same in memory do: filtered, in a range, and where every row is looked at', async () => {
    const column = vectorColumn(values, DIM);
    const stored = await inFile(column);
    const whole = async () => expect.fail('the whole column was read');
    for (const metric of ['COSINE', 'IP', 'L2']) {
      const index = await built(column, metric);
      const found = await pool.search(index, ask(column));
      const radius = found.scores[K - 1];
      const questions = [
        {},
        { range: { radius, rangeFilter: undefined } },
        ...[2, 5, 40, 400, 4_000].map((part) => ({ filter: bitmapOf(ROWS, (row) => row % part === 0) })),
        { k: ROWS / 2 },
      ];
      for (const question of questions) {
        const here = await pool.search(index, { ...ask(column), ...question });
        const there = await pool.search(index, { ...ask(column), vectors: whole, inPlace: async () => stored, ...question });
        expect([...there.counts]).toEqual([...here.counts]);
        expect(setsOf(there, here)).toBeGreaterThanOrEqual(0.95);
      }
      expect(
        recallOf(await pool.search(index, { ...ask(column), inPlace: async () => stored }), values, queries, metric),
      ).toBeGreaterThanOrEqual(0.95);
    }
  });

  it('vectors of a file that has become shorter are an error that names the object', async () => {
    const column = vectorColumn(values, DIM);
    const stored = await inFile(column);
    ftruncateSync(stored.fd, 4_096);
    const index = await built(column, 'L2');
    await expect(pool.search(index, { ...ask(column), inPlace: async () => stored })).rejects.toMatchObject({
      codeName: 'ObjectDamaged',
      message: expect.stringContaining('object a/vectors'),
    });
  });

  it('an index file from before codes loads and is searched as it was', async () => {
    const path = join(directory, 'before');
    const graph = new (usearch().CompiledIndex)(DIM, 'cos', 'f32', 16, 160, 1, false);
    graph.add(
      BigUint64Array.from({ length: ROWS }, (_, row) => BigInt(row)),
      Float32Array.from(values),
      2,
    );
    graph.save(path);
    appendTrailer(path, {
      indexType: 'HNSW',
      metric: 'COSINE',
      params: {},
      dataType: DataType.FloatVector,
      dim: DIM,
      rows: ROWS,
      entries: ROWS,
    });
    const index = await pool.open(path);
    expect(index.codes).toMatchObject({ scalar: 'f32', exact: true });
    const vectors = async () => expect.fail('vectors were read');
    const stored = { vectors, inPlace: async () => inFile(vectorColumn(values, DIM)) };
    const hits = await pool.search(index, { queries: bytesOf(queries), nq: NQ, k: K, ...stored });
    expect(recallOf(hits, values, queries, 'COSINE')).toBeGreaterThanOrEqual(0.95);
    // With the vectors at hand a row has the score that an exact search gives it, to the last bit: pages of an iterator meet.
    const column = vectorColumn(values, DIM);
    const [found, exact] = await Promise.all([
      pool.search(index, ask(column)),
      pool.exact({ vectors: column, metric: 'COSINE', queries: bytesOf(queries), nq: NQ, k: 100 }),
    ]);
    for (let q = 0; q < NQ; q++) {
      const scores = new Map([...exact.rows.subarray(q * 100, (q + 1) * 100)].map((row, i) => [row, exact.scores[q * 100 + i]]));
      for (let i = q * K; i < (q + 1) * K; i++) expect(found.scores[i]).toBe(scores.get(found.rows[i]));
    }
  });

  it('a file of codes is no index for a version that would take its distances for exact', async () => {
    const endOf = (path: string): string => {
      const file = openSync(path, 'r');
      const end = Buffer.alloc(4);
      readSync(file, end, 0, 4, statSync(path).size - 4);
      closeSync(file);
      return end.toString();
    };
    const column = vectorColumn(values, DIM);
    const coded = await built(column, 'L2');
    expect(endOf(coded.path)).toBe('CVI2');
    expect(readTrailer(coded.path).codes).toEqual(coded.codes);
    expect(endOf((await built(column, 'L2', { sq_type: 'FP32' }, 'HNSW_SQ')).path)).toBe('CVI1');
  });

  it('rows without vectors, zero vectors and zero queries do no harm', async () => {
    const some = Float32Array.from(values, (value, i) => (i < 40 * DIM ? 0 : value));
    const column = vectorColumn(some, DIM, [100, 101]);
    for (const metric of ['COSINE', 'IP', 'L2']) {
      const hits = await pool.search(await built(column, metric), ask(column, bytesOf(new Float32Array(DIM)), 1));
      expect(hits.counts[0]).toBe(K);
      expect([...hits.scores].every(Number.isFinite)).toBe(true);
      expect([...hits.rows].includes(100)).toBe(false);
    }
  });
});
