import { SystemRuntime } from '@cairn/base';
import { type BytesColumn, DataType, type VectorColumn } from '@cairn/schema';
import { afterAll, describe, expect, it } from 'vitest';
import { IndexPool } from '../src/index.ts';
import { bitmapOf, bruteForce, bytesOf, clusteredVectors, SCORES, vectorColumn } from './fixtures.ts';

const DIM = 24;
const ROWS = 3_000;
const values = clusteredVectors(ROWS, DIM, 1);
const queries = clusteredVectors(12, DIM, 2);
const pool = new IndexPool({ runtime: new SystemRuntime(), threads: 2 });
afterAll(() => pool.stop());

const query = (i: number): Float32Array => queries.subarray(i * DIM, (i + 1) * DIM);

describe('exact search', () => {
  const filters: [string, (row: number) => boolean][] = [
    ['all rows', () => true],
    ['most rows', (row) => row % 10 !== 0],
    ['few rows', (row) => row % 97 === 0],
    ['a block of rows', (row) => row >= 100 && row < 130],
    ['no row', () => false],
  ];
  for (const metric of Object.keys(SCORES)) {
    for (const [name, may] of filters) {
      it(`${metric} finds the best rows of every query among ${name}, nulls left out`, async () => {
        const column = vectorColumn(values, DIM, [3, 100, 970]);
        const filter = name === 'all rows' ? undefined : bitmapOf(ROWS, may);
        const hits = await pool.exact({ vectors: column, metric, queries: bytesOf(queries), nq: 12, k: 20, filter });
        let at = 0;
        hits.counts.forEach((count, i) => {
          const wanted = bruteForce(values, DIM, query(i), metric, 20, (row) => may(row) && ![3, 100, 970].includes(row));
          expect(count).toBe(wanted.length);
          expect([...hits.rows.subarray(at, at + count)]).toEqual(wanted.map((hit) => hit.row));
          wanted.forEach((hit, j) => {
            expect(hits.scores[at + j]).toBeCloseTo(hit.score, 4);
          });
          at += count;
        });
      });
    }
  }

  it('reads a column that does not start at the buffer, and only the rows it was told of', async () => {
    const shifted = vectorColumn(values.subarray(10 * DIM), DIM);
    const hits = await pool.exact({ vectors: shifted, metric: 'L2', queries: bytesOf(query(0)), nq: 1, k: 5, rows: 1_000 });
    const wanted = bruteForce(values.subarray(10 * DIM), DIM, query(0), 'L2', 5, (row) => row < 1_000);
    expect([...hits.rows]).toEqual(wanted.map((hit) => hit.row));
  });

  it('orders ties by row and cuts them by row', async () => {
    const same = new Float32Array(new SharedArrayBuffer(500 * DIM * 4)).fill(1);
    for (const filter of [undefined, bitmapOf(500, (row) => row % 3 === 0), bitmapOf(500, (row) => row % 50 === 1)]) {
      const hits = await pool.exact({
        vectors: vectorColumn(same, DIM),
        metric: 'COSINE',
        queries: bytesOf(query(0)),
        nq: 1,
        k: 10,
        filter,
      });
      const rows = Array.from({ length: 500 }, (_, row) => row).filter((row) => !filter || (filter[row >> 3] >> (row & 7)) & 1);
      expect([...hits.rows]).toEqual(rows.slice(0, 10));
    }
  });

  it('keeps a range of scores: outer bound exclusive, inner bound inclusive', async () => {
    const line = Float32Array.from({ length: 20 * 2 }, (_, i) => (i % 2 === 0 ? i / 2 : 0));
    const origin = bytesOf(new Float32Array(2));
    const search = (range: { radius: number; rangeFilter: number | undefined }, filter?: Uint8Array) =>
      pool
        .exact({ vectors: vectorColumn(line, 2), metric: 'L2', queries: origin, nq: 1, k: 10, range, filter })
        .then((hits) => [...hits.rows]);
    expect(await search({ radius: 16, rangeFilter: 4 })).toEqual([2, 3]);
    expect(await search({ radius: 17, rangeFilter: undefined })).toEqual([0, 1, 2, 3, 4]);
    expect(
      await search(
        { radius: 100, rangeFilter: 9 },
        bitmapOf(20, (row) => row % 4 === 0),
      ),
    ).toEqual([4, 8]);
    const ones = bytesOf(Float32Array.of(1, 0));
    const ip = await pool.exact({
      vectors: vectorColumn(line, 2),
      metric: 'IP',
      queries: ones,
      nq: 1,
      k: 10,
      range: { radius: 3, rangeFilter: 6 },
    });
    expect([...ip.rows]).toEqual([6, 5, 4]);
    await expect(search({ radius: 4, rangeFilter: 16 })).rejects.toThrow('range_filter(16) must be less than radius(4)');
  });

  it('computes half floats and bytes as what they stand for', async () => {
    const whole = Float32Array.from({ length: 8 * 40 }, (_, i) => ((i * 37) % 64) - 32);
    const narrow: [DataType, Uint8Array][] = [
      [DataType.Int8Vector, bytesOf(Int8Array.from(whole))],
      [DataType.Float16Vector, new Uint8Array(new Float16Array(whole).buffer)],
      [DataType.BFloat16Vector, bytesOf(Uint16Array.from(new Uint32Array(whole.buffer), (bits) => bits >>> 16))],
    ];
    for (const [type, data] of narrow) {
      const bytesPerRow = data.length / 40;
      const column: VectorColumn = { kind: 'vector', type, length: 40, dim: 8, bytesPerRow, data, validity: null };
      const hits = await pool.exact({ vectors: column, metric: 'L2', queries: data.slice(0, bytesPerRow), nq: 1, k: 7 });
      const wanted = bruteForce(whole, 8, whole.subarray(0, 8), 'L2', 7, () => true);
      expect([...hits.rows]).toEqual(wanted.map((hit) => hit.row));
      expect([...hits.scores]).toEqual(wanted.map((hit) => hit.score));
    }
  });

  it('HAMMING and JACCARD count bits', async () => {
    const data = Uint8Array.of(0b1111, 0, 0b1110, 0, 0, 0, 0b1111, 0xff);
    const column: VectorColumn = { kind: 'vector', type: DataType.BinaryVector, length: 4, dim: 16, bytesPerRow: 2, data, validity: null };
    const search = (metric: string) => pool.exact({ vectors: column, metric, queries: Uint8Array.of(0b1111, 0), nq: 1, k: 4 });
    const hamming = await search('HAMMING');
    expect([[...hamming.rows], [...hamming.scores]]).toEqual([
      [0, 1, 2, 3],
      [0, 1, 4, 8],
    ]);
    const jaccard = await search('JACCARD');
    expect([...jaccard.rows]).toEqual([0, 1, 3, 2]);
    expect([...jaccard.scores]).toEqual([0, 0.25, 2 / 3, 1].map(Math.fround));
    await expect(search('L2')).rejects.toThrow('does not go with binary vectors');
  });

  it('sparse IP multiplies shared dimensions; rows without one are no hits', async () => {
    const pairs = (...entries: [number, number][]): Buffer => {
      const out = Buffer.alloc(entries.length * 8);
      entries.forEach(([index, value], i) => {
        out.writeUInt32LE(index, i * 8);
        out.writeFloatLE(value, i * 8 + 4);
      });
      return out;
    };
    const rows = [pairs([1, 2], [5, 1]), pairs([7, 3]), pairs([5, 4])];
    const offsets = Int32Array.of(0, 16, 24, 32);
    const column: BytesColumn = {
      kind: 'bytes',
      type: DataType.SparseFloatVector,
      length: 3,
      offsets,
      data: new Uint8Array(Buffer.concat(rows)),
      validity: null,
    };
    const length = Buffer.from([16, 0, 0, 0]);
    const hits = await pool.exact({
      vectors: column,
      metric: 'IP',
      queries: new Uint8Array(Buffer.concat([length, pairs([1, 1], [5, 2])])),
      nq: 1,
      k: 3,
    });
    expect([[...hits.rows], [...hits.scores]]).toEqual([
      [2, 0],
      [8, 4],
    ]);
    await expect(pool.exact({ vectors: column, metric: 'IP', queries: Uint8Array.of(9, 0, 0, 0), nq: 1, k: 3 })).rejects.toThrow(
      'sparse query 0 of 1 is damaged',
    );
  });
});
