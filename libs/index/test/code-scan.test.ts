import { describe, expect, it } from 'vitest';
import { codeColumn, scanCodes } from '../src/code-scan.ts';
import { chooseCodes } from '../src/graph-codes.ts';
import { routeOf } from '../src/search-cost.ts';
import { bitmapOf, bruteForce, bytesOf, clusteredVectors, vectorColumn } from './fixtures.ts';

const ROWS = 30_000;
const NQ = 10;
const NULLS = [3, 33, 333];

describe('rows looked at through their codes', () => {
  for (const metric of ['COSINE', 'IP', 'L2']) {
    // 20 components are no whole number of words, and 30,000 rows are several blocks.
    for (const [dim, share] of [
      [20, 3],
      [64, 40],
    ]) {
      it(`${metric}, ${dim} dimensions, one row in ${share}: the best of what a filter leaves, with scores of the vectors themselves`, () => {
        const values = clusteredVectors(ROWS, dim, 7);
        const queries = clusteredVectors(NQ, dim, 7);
        const vectors = vectorColumn(values, dim, NULLS);
        const codes = chooseCodes(vectors, metric, {});
        expect(codes.scalar).toBe('i8');
        const column = codeColumn(vectors, codes);
        expect(column.buffer).toBeInstanceOf(SharedArrayBuffer);
        const may = (row: number): boolean => row % share === 0;
        const filter = bitmapOf(ROWS, may);
        const hits = scanCodes({ vectors, codes, column, metric, queries: bytesOf(queries), nq: NQ, k: 10, rows: ROWS, filter });
        let found = 0;
        for (let q = 0; q < NQ; q++) {
          const query = queries.subarray(q * dim, (q + 1) * dim);
          const best = bruteForce(values, dim, query, metric, 10, (row) => may(row) && !NULLS.includes(row));
          expect(hits.counts[q]).toBe(10);
          for (const { row, score } of best) {
            const at = hits.rows.subarray(q * 10, q * 10 + 10).indexOf(row);
            if (at < 0) continue;
            found++;
            expect(hits.scores[q * 10 + at]).toBeCloseTo(score, 4);
          }
        }
        expect(found / (10 * NQ)).toBeGreaterThanOrEqual(0.99);
      });
    }
  }

  it('a filter that leaves only rows far from the query is kept', () => {
    const dim = 32;
    const values = clusteredVectors(ROWS, dim, 7);
    const query = values.slice(0, dim);
    const near = new Set(bruteForce(values, dim, query, 'L2', ROWS / 2, () => true).map(({ row }) => row));
    const vectors = vectorColumn(values, dim);
    const codes = chooseCodes(vectors, 'L2', {});
    const filter = bitmapOf(ROWS, (row) => !near.has(row));
    const task = { vectors, codes, column: codeColumn(vectors, codes), metric: 'L2', k: 10, rows: ROWS, filter };
    // The second query finds its rows at once, the first does not.
    const other = bruteForce(values, dim, query, 'L2', ROWS, () => true).at(-1)?.row ?? 0;
    const both = Float32Array.of(...query, ...values.subarray(other * dim, (other + 1) * dim));
    // Codes do not tell rows apart that are all nearly as far; of those they do tell apart they miss none.
    const hits = scanCodes({ ...task, queries: bytesOf(both), nq: 2 });
    expect(hits.unfinished).toEqual([0]);
    const best = bruteForce(values, dim, both.subarray(dim), 'L2', 10, (row) => !near.has(row));
    expect([...hits.counts]).toEqual([0, 10]);
    expect([...hits.rows]).toEqual(best.map(({ row }) => row));
  });

  it('no match is no hit, and fewer matches than hits are all of them', () => {
    const vectors = vectorColumn(clusteredVectors(1_000, 16, 1), 16);
    const codes = chooseCodes(vectors, 'L2', {});
    const column = codeColumn(vectors, codes);
    const ask = { vectors, codes, column, metric: 'L2', queries: bytesOf(clusteredVectors(2, 16, 1)), nq: 2, k: 10, rows: 1_000 };
    expect([...scanCodes({ ...ask, filter: bitmapOf(1_000, () => false) }).counts]).toEqual([0, 0]);
    const few = scanCodes({ ...ask, filter: bitmapOf(1_000, (row) => row < 3) });
    expect([...few.counts]).toEqual([3, 3]);
    expect([...few.rows].sort()).toEqual([0, 0, 1, 1, 2, 2]);
  });

  it('are what a filter of middling width asks for; wide ones walk the graph', () => {
    const route = (share: number) =>
      routeOf(
        { k: 10, nq: 1, filter: bitmapOf(20_000, (row) => row % share === 0) },
        { rows: 20_000, dim: 128, scalar: 'i8', codedRows: true, stored: false },
      ).kind;
    expect([500, 20, 2, 1].map(route)).toEqual(['exact', 'codes', 'graph', 'graph']);
  });
});
