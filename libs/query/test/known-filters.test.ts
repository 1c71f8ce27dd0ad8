import type { ReadableSegment } from '@cairn/segment';
import { describe, expect, it, vi } from 'vitest';
import { executeQuery } from '../src/index.ts';
import { growing, queryPlan, type Row, remove, rowKeys, runtime, SCHEMA, sealed } from './fixtures.ts';

const row = (id: number): Row => ({ id, color: id % 2 ? 'odd' : null, count: id % 7, vec: [0, 0, 0, 0], extra: { n: id } });
const rows = (from: number, count: number): Row[] => Array.from({ length: count }, (_, i) => row(from + i));
const asked = async (segment: ReadableSegment, filter: string, readTs = 1_000): Promise<number[]> =>
  rowKeys(await executeQuery({ segments: [segment], schema: SCHEMA, plan: queryPlan(filter, { outputFieldIds: [] }), readTs, runtime }));
const multiples = (count: number, of: number): number[] => Array.from({ length: count }, (_, i) => i).filter((i) => i % of === 0);

describe('filters that come again', () => {
  it('are worked out twice for a sealed segment, and known from then on', async () => {
    const segment = await sealed([[1, rows(0, 50)]]);
    const column = vi.spyOn(segment, 'column');
    for (let turn = 0; turn < 5; turn++) expect(await asked(segment, 'count == 0')).toEqual(multiples(50, 7));
    expect(column.mock.calls.filter(([field]) => field === 102)).toHaveLength(2);
    // Another filter has its own answer.
    expect(await asked(segment, 'count == 0 and id > 20')).toEqual([21, 28, 35, 42, 49]);
  });

  it('follow deletes, and reads from before them still see the rows', async () => {
    const segment = await sealed([[1, rows(0, 30)]]);
    for (let turn = 0; turn < 3; turn++) expect(await asked(segment, 'count == 0')).toEqual([0, 7, 14, 21, 28]);
    remove(segment, [7, 14], 50);
    for (let turn = 0; turn < 3; turn++) {
      expect(await asked(segment, 'count == 0', 100)).toEqual([0, 21, 28]);
      expect(await asked(segment, 'count == 0', 49)).toEqual([0, 7, 14, 21, 28]);
    }
    // Asked first where rows are missing, then from before.
    for (let turn = 0; turn < 3; turn++) expect(await asked(segment, 'count != 0 and id < 9', 100)).toEqual([1, 2, 3, 4, 5, 6, 8]);
    remove(segment, [1], 200);
    for (let turn = 0; turn < 3; turn++) {
      expect(await asked(segment, 'count != 0 and id < 9', 300)).toEqual([2, 3, 4, 5, 6, 8]);
      expect(await asked(segment, 'count == 0', 20)).toEqual([0, 7, 14, 21, 28]);
      expect(await asked(segment, 'count != 0 and id < 9', 100)).toEqual([1, 2, 3, 4, 5, 6, 8]);
    }
    // Known where a row is missing that an older read sees, which itself misses others.
    for (const readTs of [300, 300, 300, 100]) expect((await asked(segment, 'count == 1', readTs)).includes(1)).toBe(readTs < 200);
  });

  it('are worked out again for every read where rows arrive, and where chance decides', async () => {
    const segment = growing([[1, rows(0, 20)]]);
    for (let turn = 0; turn < 3; turn++) expect(await asked(segment, 'count == 0')).toEqual([0, 7, 14]);
    const more = growing([
      [1, rows(0, 20)],
      [2, rows(20, 10)],
    ]);
    expect(await asked(more, 'count == 0')).toEqual([0, 7, 14, 21, 28]);
    const fixed = await sealed([[1, rows(0, 200)]]);
    const seen = new Set<string>();
    for (let turn = 0; turn < 8; turn++) seen.add((await asked(fixed, 'random_sample(0.5)')).join());
    expect(seen.size).toBeGreaterThan(4);
  });

  it('more than are kept of a segment are right as well', async () => {
    const segment = await sealed([[1, rows(0, 60)]]);
    for (let turn = 0; turn < 3; turn++)
      for (let n = 0; n < 20; n++)
        expect(await asked(segment, `count == ${n % 7} and id >= ${n}`)).toEqual(
          multiples(60, 1).filter((id) => id % 7 === n % 7 && id >= n),
        );
  });
});
