import { SystemRuntime } from '@cairn/base';
import type { QueryPlan } from '@cairn/proto/cairn/services';
import type { ReadableSegment } from '@cairn/segment';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeQueryResult, encodeQueryResult, executeQuery, mergeRows, type QueryRows } from '../src/index.ts';
import { cells, growing, queryPlan, type Row, remove, rowKeys, runtime, SCHEMA, sealed } from './fixtures.ts';

const row = (id: number, count = id % 7): Row => ({ id, color: id % 2 ? 'odd' : null, count, vec: [0, 0, 0, 0], extra: { n: id } });
const query = (segments: readonly ReadableSegment[], plan: QueryPlan, readTs = 1_000): Promise<QueryRows> =>
  executeQuery({ segments, schema: SCHEMA, plan, readTs, runtime });
/** 0, 3, 6 …: not in key order. */
const shuffled = (count: number): Row[] => Array.from({ length: count }, (_, i) => row((i * 37) % count));

describe('executeQuery', () => {
  it('returns rows in key order whatever the order of arrival', async () => {
    const segments = [growing([[1, shuffled(50)]]), await sealed([[1, [row(70), row(60), row(80)]]])];
    const rows = await query(segments, queryPlan('count == 3'));
    expect(rowKeys(rows)).toEqual([3, 10, 17, 24, 31, 38, 45, 80]);
    expect(cells(rows.columns.columns.get(102))).toEqual(new Array(8).fill(3));
    expect(rows.count).toBe(8);
  });

  it('the limit takes the smallest keys', async () => {
    const segments = [growing([[1, shuffled(50)]]), await sealed([[1, shuffled(200)]])];
    expect(rowKeys(await query(segments, queryPlan('', { limit: 5 })))).toEqual([0, 1, 2, 3, 4]);
    expect(rowKeys(await query(segments, queryPlan('id > 120', { limit: 3 })))).toEqual([121, 122, 123]);
    expect(rowKeys(await query(segments, queryPlan('id > 197', { limit: 30 })))).toEqual([198, 199]);
  });

  it('rows that have outlived their time are not there, by scan, by key and in a count', async () => {
    const segments = [
      growing([
        [10, [row(1), row(2)]],
        [20, [row(3)]],
      ]),
      await sealed([
        [5, [row(4)]],
        [20, [row(5), row(1)]],
      ]),
    ];
    const read = (plan: QueryPlan, expiredTs: number) =>
      executeQuery({ segments, schema: SCHEMA, plan, readTs: 1_000, expiredTs, runtime });
    expect(rowKeys(await read(queryPlan(''), 0))).toEqual([1, 2, 3, 4, 5]);
    expect(rowKeys(await read(queryPlan(''), 9))).toEqual([1, 2, 3, 5]);
    expect(rowKeys(await read(queryPlan('id in [1, 2, 4, 5]'), 10))).toEqual([1, 5]);
    expect((await read(queryPlan('count >= 0', { countOnly: true }), 10)).count).toBe(3);
    expect((await read(queryPlan('', { countOnly: true }), 20)).count).toBe(0);
  });

  it('a key that stands twice comes once, its newest row', async () => {
    const twice = await sealed([
      [1, [row(1, 10), row(2, 20), row(3, 30)]],
      [2, [row(1, 11), row(1, 12), row(2, 21)]],
    ]);
    const newer = growing([
      [3, [row(2, 22)]],
      [1, [row(3, 29)]],
    ]);
    const rows = await query([twice, newer], queryPlan('', { limit: 3 }));
    expect(rowKeys(rows)).toEqual([1, 2, 3]);
    expect(cells(rows.columns.columns.get(102)).slice(1)).toEqual([22, 30]);
    const many = await sealed([
      [1, Array.from({ length: 100 }, () => row(1))],
      [2, [row(1, 99), row(2)]],
    ]);
    expect(rowKeys(await query([many], queryPlan('', { limit: 2 })))).toEqual([1, 2]);
    expect(cells((await query([many], queryPlan('', { limit: 1 }))).columns.columns.get(102))).toEqual([99]);
  });

  it('counts what is visible', async () => {
    const segments = [
      remove(
        growing([
          [1, shuffled(50)],
          [20, [row(500)]],
        ]),
        [3, 4],
        10,
      ),
      remove(await sealed([[1, [row(70), row(60)]]]), [60], 30),
    ];
    const count = async (filter: string, readTs: number) => (await query(segments, queryPlan(filter, { countOnly: true }), readTs)).count;
    expect(await count('', 5)).toBe(52);
    expect(await count('', 10)).toBe(50);
    expect(await count('', 40)).toBe(50);
    expect(await count('id >= 60', 40)).toBe(2);
  });

  it('looks up keys, and checks the rest of the filter on them', async () => {
    const segments = [growing([[1, shuffled(300)]]), remove(await sealed([[1, [...shuffled(300), row(1_000)]]]), [1_000], 5)];
    expect(rowKeys(await query(segments, queryPlan('id in [7, 3, 3, 99999, 1000]')))).toEqual([3, 7]);
    expect(rowKeys(await query(segments, queryPlan('id in [7, 3] and count == 3 and n > 2')))).toEqual([3]);
    expect(rowKeys(await query(segments, queryPlan('id == 5 or id == 6')))).toEqual([5, 6]);
    expect(rowKeys(await query(segments, queryPlan('id in []')))).toEqual([]);
  });

  it('filters large segments in slices, with the same result', async () => {
    const large = growing([[1, shuffled(150_001)]]);
    const plan = queryPlan('count == 3 and n < 140000', { countOnly: true });
    const sliced = await query([large], plan);
    expect(sliced.count).toBe((await executeQuery({ segments: [large], schema: SCHEMA, plan, readTs: 1_000 })).count);
    expect(sliced.count).toBe(20_000);
  });
});

describe('mergeRows', () => {
  it('over parts that came by wire gives what one query over all segments gives', async () => {
    const lists = fc.array(fc.uniqueArray(fc.integer({ min: 0, max: 40 }), { maxLength: 15 }), { minLength: 1, maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(lists, fc.integer({ min: 0, max: 20 }), async (keys, limit) => {
        const segments = keys.map((list) => growing([[1, list.map((id) => row(id))]]));
        const plan = queryPlan('', { limit });
        const parts = await Promise.all(
          segments.map(async (segment) => decodeQueryResult(await encodeQueryResult(await query([segment], plan), 1, new SystemRuntime()))),
        );
        expect(rowKeys(await mergeRows(parts, SCHEMA.primaryKey, limit))).toEqual(rowKeys(await query(segments, plan)));
      }),
      { numRuns: 100 },
    );
  });

  it('of many rows gives the same in slices as in one go', async () => {
    const keys = [Array.from({ length: 6_000 }, (_, i) => 2 * i), Array.from({ length: 6_000 }, (_, i) => 3 * i)];
    const parts = await Promise.all(
      keys.map(async (list) => query([growing([[1, list.map((id) => row(id, id % 7))]])], queryPlan('', { limit: 0 }))),
    );
    const whole = await mergeRows(parts, SCHEMA.primaryKey, 0);
    const sliced = await mergeRows(parts, SCHEMA.primaryKey, 0, runtime);
    expect(rowKeys(sliced)).toEqual([...new Set(keys.flat())].sort((a, b) => a - b));
    expect(sliced.columns).toEqual(whole.columns);
  });

  it('takes a key that two parts have from the first, and adds counts', async () => {
    const parts = [
      await query([growing([[1, [row(1, 5)]]])], queryPlan('')),
      await query([growing([[1, [row(1, 6), row(2)]]])], queryPlan('')),
    ];
    const merged = await mergeRows(parts, SCHEMA.primaryKey, 0);
    expect([rowKeys(merged), cells(merged.columns.columns.get(102)), merged.count]).toEqual([[1, 2], [5, 2], 3]);
    expect((await mergeRows([{ ...parts[0], columns: { length: 0, columns: new Map() } }], SCHEMA.primaryKey, 0)).count).toBe(1);
  });
});
