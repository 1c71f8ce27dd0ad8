import { CairnError } from '@cairn/base';
import type { SearchHits } from '@cairn/query';
import { type Field, keyColumn, makeBatch, numberColumn, valueAt } from '@cairn/schema';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { rescored } from '../src/function-score.ts';
import { rankHits, readRankStrategy } from '../src/hybrid-rank.ts';
import { cutPage, nextFloat, rangeOfPage, rangeOfTies } from '../src/search-iterator.ts';
import { afterOffset, rounded } from '../src/search-runner.ts';

const PK = 100;
const hitsOf = (...queries: [number, number][][]): SearchHits => {
  const all = queries.flat();
  const keys = keyColumn(all.map(([key]) => BigInt(key)));
  return {
    counts: queries.map((query) => query.length),
    scores: Float32Array.from(all, ([, score]) => score),
    columns: makeBatch([[PK, keys]]),
    searchedRows: all.length,
  };
};
const fieldNamed = (id: number): Field => ({ id, name: 'count' }) as Field;
const keysOf = (hits: SearchHits): number[] => {
  const keys = hits.columns.columns.get(PK);
  return keys ? Array.from(hits.scores, (_, row) => Number(valueAt(keys, row))) : [];
};

describe('function score', () => {
  test('new scores that are equal go by key, whatever the order of the old ones', () => {
    const count = numberColumn(Float64Array.of(30, 20, 10));
    const hits = hitsOf([
      [9, 0.75],
      [2, 0.5],
      [5, 0.5],
    ]);
    const decay = {
      field: fieldNamed(101),
      factor: (value: number) => (value === 30 ? 0.5 : 0.75),
      normalize: false,
      mode: 'max' as const,
    };
    const columns = makeBatch([...hits.columns.columns, [101, count]]);
    const ranked = rescored({ ...hits, columns }, { kind: 'decay', decay, fieldIds: [101], dynamicKeys: [] }, 'COSINE', PK);
    expect(keysOf(ranked)).toEqual([2, 5, 9]);
    expect([...ranked.scores]).toEqual([0.375, 0.375, 0.375]);
  });
});

describe('hybrid search', () => {
  const page = { nq: 1, limit: 10, offset: 0 };
  const a = {
    hits: hitsOf([
      [1, 0.9],
      [2, 0.8],
      [3, 0.7],
    ]),
    metric: 'COSINE',
  };
  const b = {
    hits: hitsOf([
      [3, 0.1],
      [1, 0.5],
    ]),
    metric: 'L2',
  };

  test('RRF adds 1 / (k + rank) of every list that has the row', () => {
    const ranked = rankHits([a, b], { kind: 'rrf', k: 60 }, PK, page);
    expect(keysOf(ranked)).toEqual([1, 3, 2]);
    expect(ranked.scores[0]).toBeCloseTo(1 / 61 + 1 / 62, 6);
  });

  test('weights count normalized scores, smaller distances more', () => {
    const ranked = rankHits([a, b], { kind: 'weighted', weights: [0, 1], normalize: true }, PK, page);
    expect(keysOf(ranked).slice(0, 2)).toEqual([3, 1]);
    expect(ranked.scores[0]).toBeCloseTo(1 - (2 * Math.atan(0.1)) / Math.PI, 5);
  });

  test('weights of scores as they are: distances alone leave the smallest first, beside others they are turned round', () => {
    const asTheyAre = { kind: 'weighted', weights: [0.5, 1], normalize: false } as const;
    const alone = rankHits([{ ...a, metric: 'L2' }, b], asTheyAre, PK, page);
    expect(keysOf(alone)).toEqual([2, 3, 1]);
    expect([...alone.scores]).toEqual([0.4, 0.45, 0.95].map((score) => expect.closeTo(score, 5)));
    const beside = rankHits([a, b], asTheyAre, PK, page);
    expect(keysOf(beside)).toEqual([3, 1, 2]);
    expect(beside.scores[0]).toBeCloseTo(0.35 + 1 - (2 * Math.atan(0.1)) / Math.PI, 5);
  });

  test.each([
    ['max', false, [[5, 4], [3, 2], [1]]],
    ['sum', false, [[3, 2], [5, 4], [1]]],
    ['avg', false, [[1], [3, 2], [5, 4]]],
    ['max', true, [[5, 4], [3, 2], []]],
  ] as const)('groups by their rows, ranked by %s, strict: %s', (scorer, strict, groups) => {
    const hits = hitsOf([
      [5, 1.1],
      [3, 1],
      [2, 0.9],
      [1, 0.96],
      [4, 0.75],
      [6, 0.1],
    ]);
    const values = keyColumn([5, 3, 3, 1, 5, 3].map(BigInt));
    const part = { hits: { ...hits, columns: makeBatch([...hits.columns.columns, [101, values]]) }, metric: 'IP' };
    const strategy = { kind: 'weighted', weights: [1], normalize: false } as const;
    const grouped = { nq: 1, limit: 3, offset: 0, groups: { fieldId: 101, size: 2, strict, scorer } };
    expect(keysOf(rankHits([part], strategy, PK, grouped))).toEqual(groups.flat());
    expect(keysOf(rankHits([part], strategy, PK, { ...grouped, limit: 1, offset: 1 }))).toEqual(groups[1]);
  });

  test('every query has a list of its own, cut to its page', () => {
    const two = {
      hits: hitsOf(
        [
          [1, 0.9],
          [2, 0.8],
        ],
        [
          [7, 0.6],
          [8, 0.5],
          [9, 0.4],
        ],
      ),
      metric: 'IP',
    };
    const ranked = rankHits([two, two], { kind: 'rrf', k: 60 }, PK, { nq: 2, limit: 2, offset: 1 });
    expect(ranked.counts).toEqual([1, 2]);
    expect(keysOf(ranked)).toEqual([2, 8, 9]);
  });

  test.each([
    ['other', '{}', /unsupported rank type/],
    ['rrf', '{"k":0}', /range/],
    ['weighted', '{"weights":[1]}', /mismatch/],
    ['weighted', '{"weights":[1,2]}', /range \[0, 1\]/],
  ])('strategy %s %s is refused', (strategy, params, words) => {
    expect(() => readRankStrategy(strategy, params, 2)).toThrow(words);
    expect(() => readRankStrategy(strategy, params, 2)).toThrow(CairnError);
  });
});

describe('a search iterator', () => {
  test('the next float is the next: nothing lies between', () => {
    fc.assert(
      fc.property(fc.float({ noNaN: true, noDefaultInfinity: true, min: Math.fround(-1e30), max: Math.fround(1e30) }), (value) => {
        const up = nextFloat(value, true);
        expect(up).toBeGreaterThan(value);
        expect(nextFloat(up, false)).toBeCloseTo(value, 40);
        const middle = Math.fround((up + value) / 2);
        expect(middle === Math.fround(value) || middle === up).toBe(true);
      }),
    );
  });

  /** A search as an owner runs it: best first, ties by key. */
  const search = (
    scores: readonly number[],
    metric: string,
    range: { radius?: number; range_filter?: number } | undefined,
    k: number,
  ): SearchHits => {
    const bigger = metric === 'IP';
    const rows = scores.map((score, key) => [key, score] as [number, number]);
    const { radius, range_filter: filter } = range ?? {};
    const inside = rows.filter(
      ([, score]) =>
        (radius === undefined || (bigger ? score > radius : score < radius)) &&
        (filter === undefined || (bigger ? score <= filter : score >= filter)),
    );
    inside.sort((x, y) => (bigger ? y[1] - x[1] : x[1] - y[1]) || x[0] - y[0]);
    return hitsOf(inside.slice(0, k));
  };

  test('pages together are every row once, ties included', () => {
    const score = fc.integer({ min: -6, max: 6 }).map((n) => Math.fround(n / 7));
    fc.assert(
      fc.property(
        fc.array(score, { minLength: 1, maxLength: 60 }),
        fc.integer({ min: 1, max: 9 }),
        fc.constantFrom('IP', 'L2'),
        (scores, batch, metric) => {
          const seen: number[] = [];
          let bound: number | undefined;
          for (let pages = 0; pages < 200; pages++) {
            const hits = search(scores, metric, rangeOfPage(metric, {}, bound), batch + 1);
            const page = cutPage(hits, batch) ?? search(scores, metric, rangeOfTies(metric, hits.scores[0]), 1_000);
            if (page.scores.length === 0) break;
            seen.push(...keysOf(page));
            bound = page.scores.at(-1);
          }
          expect(seen.toSorted((x, y) => x - y)).toEqual(scores.map((_, key) => key));
        },
      ),
      { numRuns: 300 },
    );
  });

  test("stays within the user's own range", () => {
    expect(rangeOfPage('L2', { radius: 2, range_filter: 1 }, undefined)).toEqual({ radius: 2, range_filter: 1 });
    expect(rangeOfPage('L2', { radius: 2, range_filter: 1 }, 1.5)).toEqual({ radius: 2, range_filter: nextFloat(1.5, true) });
    expect(rangeOfPage('COSINE', { radius: 0.2 }, 0.5)).toEqual({ radius: 0.2, range_filter: nextFloat(0.5, false) });
    expect(rangeOfPage('COSINE', {}, undefined)).toBeUndefined();
  });
});

test('an offset drops the first hits of every query', () => {
  const hits = afterOffset(
    hitsOf(
      [
        [1, 9],
        [2, 8],
        [3, 7],
      ],
      [[4, 6]],
      [],
    ),
    2,
  );
  expect(hits.counts).toEqual([1, 0, 0]);
  expect(keysOf(hits)).toEqual([3]);
});

test('round_decimal rounds scores, -1 leaves them', () => {
  const hits = hitsOf([[1, 0.123456]]);
  expect(rounded(hits, 2).scores[0]).toBeCloseTo(0.12, 6);
  expect(rounded(hits, -1)).toBe(hits);
});
