import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Runtime, SystemRuntime } from '@cairn/base';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type IndexHits, IndexPool, type OpenIndex } from '../src/index.ts';
import { bitmapOf, bruteForce, bytesOf, clusteredVectors, vectorColumn } from './fixtures.ts';

const DIM = 32;
const ROWS = 8_000;
const NQ = 20;
const values = clusteredVectors(ROWS, DIM, 1);
const queries = clusteredVectors(NQ, DIM, 1);
const NULLS = [0, 5, 4_000];
const column = vectorColumn(values, DIM, NULLS);
const pool = new IndexPool({ runtime: new SystemRuntime(), threads: 2 });
let directory = '';
let index: OpenIndex;

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'cairn-index-'));
  await pool.build({
    indexType: 'HNSW',
    metric: 'L2',
    params: { M: '16', efConstruction: '128' },
    vectors: column,
    path: join(directory, 'a'),
  });
  index = await pool.open(join(directory, 'a'));
});
afterAll(async () => {
  await pool.stop();
  await rm(directory, { recursive: true });
});

function recallOf(hits: IndexHits, k: number, may: (row: number) => boolean): number {
  let found = 0;
  let wanted = 0;
  let at = 0;
  hits.counts.forEach((count, i) => {
    const best = bruteForce(values, DIM, queries.subarray(i * DIM, (i + 1) * DIM), 'L2', k, (row) => may(row) && !NULLS.includes(row));
    const rows = new Set(hits.rows.subarray(at, at + count));
    expect(count).toBe(best.length);
    found += best.filter((hit) => rows.has(hit.row)).length;
    wanted += best.length;
    at += count;
  });
  return wanted === 0 ? 1 : found / wanted;
}

describe('graph search', () => {
  const shares: [string, (row: number) => boolean][] = [
    ['every row', () => true],
    ['99 %', (row) => row % 100 !== 1],
    ['half', (row) => row % 2 === 0],
    ['a fifth', (row) => row % 5 === 0],
    ['1 in 20', (row) => row % 20 === 1],
    ['1 in 1000', (row) => row % 1000 === 1],
    ['one row', (row) => row === 77],
    ['no row', () => false],
  ];
  for (const [name, may] of shares) {
    for (const k of [1, 10, 100]) {
      it(`finds ${k} of ${name} with recall >= 0.95`, async () => {
        const filter = name === 'every row' ? undefined : bitmapOf(ROWS, may);
        const hits = await pool.search(index, { queries: bytesOf(queries), nq: NQ, k, filter, vectors: async () => column });
        expect(recallOf(hits, k, may)).toBeGreaterThanOrEqual(0.95);
      });
    }
  }

  it('keeps its recall when the filter leaves only rows far from the query', async () => {
    const near = new Set(bruteForce(values, DIM, queries.subarray(0, DIM), 'L2', 4_000, () => true).map((hit) => hit.row));
    const may = (row: number): boolean => !near.has(row);
    const hits = await pool.search(index, {
      queries: bytesOf(queries),
      nq: NQ,
      k: 10,
      filter: bitmapOf(ROWS, may),
      vectors: async () => column,
    });
    expect(recallOf(hits, 10, may)).toBeGreaterThanOrEqual(0.95);
  });

  it('keeps a range of scores', async () => {
    const [first] = [queries.subarray(0, DIM)];
    const best = bruteForce(values, DIM, first, 'L2', 60, (row) => !NULLS.includes(row));
    const range = { radius: best[30].score, rangeFilter: best[10].score - 1e-4 };
    const hits = await pool.search(index, { queries: bytesOf(first), nq: 1, k: 100, range, ef: 200, vectors: async () => column });
    expect([...hits.rows].filter((row) => best.slice(10, 30).some((hit) => hit.row === row)).length).toBeGreaterThanOrEqual(19);
    expect(hits.scores.every((score) => score < range.radius && score >= range.rangeFilter)).toBe(true);
  });

  it('gives COSINE and IP as similarities, best first', async () => {
    for (const metric of ['COSINE', 'IP']) {
      const path = join(directory, metric);
      await pool.build({ indexType: 'AUTOINDEX', metric, params: {}, vectors: column, path });
      const hits = await pool.search(await pool.open(path), {
        queries: bytesOf(queries.subarray(0, DIM)),
        nq: 1,
        k: 5,
        vectors: async () => column,
      });
      const [best] = bruteForce(values, DIM, queries.subarray(0, DIM), metric, 1, (row) => !NULLS.includes(row));
      expect(hits.scores[0]).toBeCloseTo(best.score, 4);
      expect([...hits.scores]).toEqual([...hits.scores].sort((a, b) => b - a));
    }
  });

  it('FLAT is an exact scan of the column', async () => {
    const path = join(directory, 'flat');
    await pool.build({ indexType: 'FLAT', metric: 'L2', params: {}, vectors: column, path });
    const hits = await pool.search(await pool.open(path), { queries: bytesOf(queries), nq: NQ, k: 10, vectors: async () => column });
    expect(recallOf(hits, 10, () => true)).toBe(1);
  });

  it('an index of nothing but nulls answers nothing', async () => {
    const path = join(directory, 'nulls');
    const vectors = vectorColumn(new Float32Array(3 * DIM), DIM, [0, 1, 2]);
    await pool.build({ indexType: 'HNSW', metric: 'L2', params: {}, vectors, path });
    const hits = await pool.search(await pool.open(path), { queries: bytesOf(queries), nq: NQ, k: 10, vectors: async () => vectors });
    expect(hits.rows.length).toBe(0);
  });

  it('refuses a file that is no index, or half of one', async () => {
    await writeFile(join(directory, 'junk'), 'junk');
    await expect(pool.open(join(directory, 'junk'))).rejects.toMatchObject({ codeName: 'ObjectDamaged' });
    await expect(pool.open(join(directory, 'none'))).rejects.toMatchObject({ codeName: 'ObjectNotFound' });
    await pool.build({ indexType: 'HNSW', metric: 'L2', params: {}, vectors: column, path: join(directory, 'cut') });
    await truncate(join(directory, 'cut'), 10_000);
    await expect(pool.open(join(directory, 'cut'))).rejects.toMatchObject({ codeName: 'ObjectDamaged' });
  });

  it('opens a released index again', async () => {
    await pool.release(index.path);
    const hits = await pool.search(index, { queries: bytesOf(queries), nq: NQ, k: 10, vectors: async () => column });
    expect(recallOf(hits, 10, () => true)).toBeGreaterThanOrEqual(0.95);
  });

  it('gives the same answers without threads', async () => {
    const runtime: Runtime = Object.create(new SystemRuntime(), { inline: { value: true } });
    const inline = new IndexPool({ runtime, threads: 1 });
    const query = { queries: bytesOf(queries), nq: NQ, k: 10, vectors: async () => column };
    expect(await inline.search(index, query)).toEqual(await pool.search(index, query));
    const exact = { vectors: column, metric: 'L2', queries: bytesOf(queries), nq: NQ, k: 10 };
    expect(await inline.exact(exact)).toEqual(await pool.exact(exact));
  });

  it('refuses work beyond its queue, and after it has stopped', async () => {
    const small = new IndexPool({ runtime: new SystemRuntime(), threads: 1, queueLimit: 1 });
    const search = () => small.exact({ vectors: column, metric: 'L2', queries: bytesOf(queries), nq: NQ, k: 1 });
    const results = await Promise.allSettled([search(), search(), search()]);
    expect(results.map((result) => result.status)).toEqual(['fulfilled', 'fulfilled', 'rejected']);
    await small.stop();
    await expect(search()).rejects.toMatchObject({ codeName: 'ServiceNotReady' });
  });
});
