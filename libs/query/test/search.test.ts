import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { IndexPool } from '@cairn/index';
import { type SearchPlan, SearchResult } from '@cairn/proto/cairn/services';
import { makeBatch } from '@cairn/schema';
import type { ReadableSegment } from '@cairn/segment';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { decodeSearchResult, encodeSearchResult, executeSearch, mergeHits, type SearchHits } from '../src/index.ts';
import { cells, growing, keysOf, NEWER_SCHEMA, type Row, remove, runtime, SCHEMA, sealed, searchPlan } from './fixtures.ts';

const pool = new IndexPool({ runtime, threads: 1 });
afterAll(() => pool.stop());

const at = (id: number, x = id): Row => ({
  id,
  color: ['red', 'green', null][id % 3],
  count: id % 5,
  vec: [x, 0, 0, 0],
  extra: { even: id % 2 === 0, n: id },
});
const ids = (from: number, to: number): Row[] => Array.from({ length: to - from }, (_, i) => at(from + i));
const origin = [[0, 0, 0, 0]];
const search = (segments: readonly ReadableSegment[], plan: SearchPlan, readTs = 1_000, schema = SCHEMA): Promise<SearchHits> =>
  executeSearch({ segments, schema, plan, readTs, pool, runtime });
const MERGE = { metric: 'L2', nq: 1, pkField: SCHEMA.primaryKey };

describe('executeSearch', () => {
  it('finds the best rows over growing and sealed segments, with scores and fields, best first', async () => {
    const segments = [growing([[10, ids(20, 30)]]), await sealed([[5, ids(0, 20)]])];
    const hits = await search(
      segments,
      searchPlan(
        [
          [18, 0, 0, 0],
          [0.2, 0, 0, 0],
        ],
        { topK: 4, outputFieldIds: [102, 101] },
      ),
    );
    expect(keysOf(hits)).toEqual([
      [18, 17, 19, 16],
      [0, 1, 2, 3],
    ]);
    expect([...hits.scores].map((score) => Math.round(score * 100) / 100)).toEqual([0, 1, 1, 4, 0.04, 0.64, 3.24, 7.84]);
    expect(cells(hits.columns.columns.get(102))).toEqual([3, 2, 4, 1, 0, 1, 2, 3]);
    expect(cells(hits.columns.columns.get(101))).toEqual(['red', null, 'green', 'green', 'red', 'green', null, 'red']);
    expect(hits.searchedRows).toBe(30);
  });

  it('sees what was there at the read timestamp: no later row, no deleted one, nulls never', async () => {
    const one = remove(
      growing([
        [10, ids(0, 3)],
        [20, ids(3, 6)],
      ]),
      [1],
      15,
    );
    const two = remove(await sealed([[10, [at(10), { ...at(11), vec: null }, at(12)]]]), [12], 30);
    const keys = async (readTs: number) => keysOf(await search([one, two], searchPlan(origin), readTs))[0];
    expect(await keys(12)).toEqual([0, 1, 2, 10, 12]);
    expect(await keys(15)).toEqual([0, 2, 10, 12]);
    expect(await keys(30)).toEqual([0, 2, 3, 4, 5, 10]);
  });

  it('filters', async () => {
    const segments = [growing([[10, ids(0, 700)]]), await sealed([[10, ids(700, 3_000)]])];
    const keys = async (filter: string, topK = 5) => keysOf(await search(segments, searchPlan(origin, { filter, topK })))[0];
    expect(await keys('color == "green" and count == 2')).toEqual([7, 22, 37, 52, 67]);
    expect(await keys('id in [2999, 5, 1500, 77777]')).toEqual([5, 1500, 2999]);
    expect(await keys('id == 650 and n == 650')).toEqual([650]);
    expect(await keys('id == 650 and n == 651')).toEqual([]);
    expect(await keys('n >= 2998')).toEqual([2998, 2999]);
    expect(await keys('color is null and even == true', 3)).toEqual([2, 8, 14]);
    expect(await keys('count > 100')).toEqual([]);
  });

  it('returns a key once, with its best score, and still as many rows as were asked for', async () => {
    const copies = growing([[10, Array.from({ length: 30 }, (_, i) => at(1, i))]]);
    const segments = [copies, await sealed([[10, [at(1, 0.5), ...ids(40, 60)]]])];
    const hits = await search(segments, searchPlan(origin, { topK: 3 }));
    expect(keysOf(hits)).toEqual([[1, 40, 41]]);
    expect(hits.scores[0]).toBe(0);
  });

  it('uses the index of a segment', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'cairn-query-'));
    const rows = Array.from(
      { length: 4_000 },
      (_, i): Row => ({ ...at(i), vec: [Math.sin(i), Math.cos(i * 3), (i % 97) / 97, (i % 31) / 31] }),
    );
    const segment = await sealed([[10, rows]]);
    const plain = await search([segment], searchPlan([[0.1, 0.2, 0.3, 0.4]]));
    const path = join(directory, 'index');
    await pool.build({ indexType: 'HNSW', metric: 'L2', params: {}, vectors: await segment.vectors(103), path });
    segment.attachIndex(103, await pool.open(path));
    expect(keysOf(await search([segment], searchPlan([[0.1, 0.2, 0.3, 0.4]], { params: '{"ef":256}' })))).toEqual(keysOf(plain));
    // Another metric than the index's: still right.
    expect(keysOf(await search([segment], searchPlan([[1, 0, 0, 0]], { metric: 'IP', topK: 1 })))[0]).toHaveLength(1);
    await rm(directory, { recursive: true });
  });

  it('keeps a range', async () => {
    const params = '{"radius": 100, "range_filter": 9}';
    expect(keysOf(await search([growing([[10, ids(0, 50)]])], searchPlan(origin, { params, topK: 50 })))).toEqual([[3, 4, 5, 6, 7, 8, 9]]);
  });

  it('groups: the best rows of the best groups', async () => {
    const segments = [growing([[10, ids(0, 10)]]), await sealed([[10, ids(10, 20)]])];
    const plan = { groupByFieldId: 102, topK: 3 };
    const single = await search(segments, searchPlan(origin, plan));
    expect(keysOf(single)).toEqual([[0, 1, 2]]);
    expect(cells(single.columns.columns.get(102))).toEqual([0, 1, 2]);
    const double = await search(segments, searchPlan(origin, { ...plan, groupSize: 2, strictGroupSize: true }));
    expect(keysOf(double)).toEqual([[0, 1, 2, 5, 6, 7]]);
    // Null is a group.
    expect(keysOf(await search(segments, searchPlan(origin, { groupByFieldId: 101, topK: 5 })))).toEqual([[0, 1, 2]]);
  });

  it('finds groups far behind when one group has all the best rows', async () => {
    const crowd = Array.from({ length: 500 }, (_, i): Row => ({ ...at(i, i / 1000), count: 1 }));
    const segment = growing([[10, [...crowd, { ...at(900, 900), count: 2 }]]]);
    expect(keysOf(await search([segment], searchPlan(origin, { groupByFieldId: 102, topK: 2 })))).toEqual([[0, 900]]);
  });

  it('fills fields that a segment was written without, and takes keys out of the dynamic field', async () => {
    const segment = await sealed([[10, ids(0, 3)]], NEWER_SCHEMA);
    const hits = await search(
      [segment],
      searchPlan(origin, { topK: 2, outputFieldIds: [105, 104], dynamicKeys: ['n'] }),
      1_000,
      NEWER_SCHEMA,
    );
    expect(cells(hits.columns.columns.get(105))).toEqual([7n, 7n]);
    expect(cells(hits.columns.columns.get(104)).map((json) => Buffer.from(json as Uint8Array).toString())).toEqual(['{"n":0}', '{"n":1}']);
  });

  it('answers nothing over nothing, with the columns that were asked for', async () => {
    for (const segments of [[], [growing([])]]) {
      const hits = await search(segments, searchPlan([...origin, ...origin], { outputFieldIds: [101] }));
      expect([hits.counts, hits.scores.length, [...hits.columns.columns.keys()]]).toEqual([[0, 0], 0, [100, 101]]);
    }
  });

  it('refuses plans that do not fit', async () => {
    const cases: [Partial<SearchPlan>, string][] = [
      [{ nq: 2 }, 'vector dimension mismatch: 2 queries of field vec (dim 4) are 32 bytes, got 16'],
      [{ metric: 'HAMMING' }, 'metric type HAMMING does not go with field vec'],
      [{ topK: 0 }, 'limit (0) must be in range [1, 16384]'],
      [{ params: '{"ef": 3}' }, 'ef(3) should be larger than k(10)'],
      [{ params: '{' }, 'search params are not JSON'],
      [{ params: '{"radius": 1, "range_filter": 2}' }, 'range_filter(2) must be less than radius(1)'],
      [{ fieldId: 999 }, 'field 999 is not in the schema'],
    ];
    for (const [more, message] of cases)
      await expect(search([growing([[1, ids(0, 2)]])], { ...searchPlan(origin), ...more })).rejects.toThrow(message);
  });
});

describe('mergeHits', () => {
  it('over parts that came by wire gives what one search over all segments gives', async () => {
    const segments = [growing([[10, ids(0, 40)]]), await sealed([[10, ids(30, 90)]]), growing([])];
    const plan = searchPlan(
      [
        [35, 0, 0, 0],
        [60, 0, 0, 0],
      ],
      { topK: 7, outputFieldIds: [101, 104] },
    );
    const parts = await Promise.all(segments.map((segment) => search([segment], plan)));
    const merged = mergeHits(
      parts.map((part) => decodeSearchResult(SearchResult.decode(SearchResult.encode(encodeSearchResult(part, 5)).finish()))),
      { ...MERGE, nq: 2, k: 7 },
    );
    const whole = await search(segments, plan);
    expect(keysOf(merged)).toEqual(keysOf(whole));
    expect(merged.scores).toEqual(whole.scores);
    expect(cells(merged.columns.columns.get(104))).toEqual(cells(whole.columns.columns.get(104)));
  });

  it('of any parts gives each key once, with its best score, in the order of scores and keys', () => {
    const row = fc.record({ key: fc.integer({ min: -30, max: 30 }), score: fc.integer({ min: 0, max: 6 }) });
    const query = fc.array(row, { maxLength: 40, size: 'max' });
    const shape = fc
      .integer({ min: 1, max: 3 })
      .chain((nq) => fc.array(fc.array(query, { minLength: nq, maxLength: nq }), { minLength: 1, maxLength: 3 }));
    fc.assert(
      fc.property(
        shape,
        fc.integer({ min: 1, max: 40 }),
        fc.constantFrom('L2', 'IP'),
        fc.boolean(),
        (queriesOfParts, k, metric, inOrder) => {
          const sign = metric === 'IP' ? -1 : 1;
          const byScore = (a: { key: number; score: number }, b: { key: number; score: number }) =>
            sign * (a.score - b.score) || a.key - b.key;
          const nq = queriesOfParts[0].length;
          // As searches give them: best first, ties in any order of their keys.
          const given = queriesOfParts.map((queries) =>
            queries.map((rows) => rows.toSorted(inOrder ? byScore : (a, b) => sign * (a.score - b.score))),
          );
          const parts = given.map((queries): SearchHits => {
            const rows = queries.flat();
            const values = BigInt64Array.from(rows, ({ key }) => BigInt(key));
            const column = { kind: 'fixed', type: SCHEMA.primaryKey.type, length: rows.length, values, validity: null } as const;
            return {
              counts: queries.map((one) => one.length),
              scores: Float32Array.from(rows, ({ score }) => score),
              columns: makeBatch([[SCHEMA.primaryKey.id, column]]),
              searchedRows: rows.length,
            };
          });
          const expected = Array.from({ length: nq }, (_, query) => {
            const best = new Map<number, number>();
            const all = given.flatMap((queries) => queries[query]).sort(byScore);
            for (const { key, score } of all) if (!best.has(key)) best.set(key, score);
            return [...best].slice(0, k);
          });
          const merged = mergeHits(parts, { ...MERGE, metric, nq, k });
          expect(keysOf(merged)).toEqual(expected.map((rows) => rows.map(([key]) => key)));
          expect([...merged.scores]).toEqual(expected.flatMap((rows) => rows.map(([, score]) => score)));
        },
      ),
      { numRuns: 400 },
    );
  });

  it('bigger scores win for IP and COSINE, ties go by key', async () => {
    const plan = searchPlan([[1, 0, 0, 0]], { metric: 'IP', topK: 3 });
    const parts = [
      await search([growing([[1, [at(5, 1), at(9, 2)]]])], plan),
      await search([growing([[1, [at(2, 1), at(3, 1), at(4, 3)]]])], plan),
    ];
    expect(keysOf(mergeHits(parts, { ...MERGE, metric: 'IP', k: 4 }))).toEqual([[4, 9, 2, 3]]);
  });
});
