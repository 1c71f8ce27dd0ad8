import { SystemRuntime } from '@cairn/base';
import { CollectionSchema as WireSchema } from '@cairn/proto/milvus/schema';
import { columnFromValues, DataType, type Field, type ListColumn, type PlainValue, prepareNewSchema } from '@cairn/schema';
import { afterAll, describe, expect, it } from 'vitest';
import { IndexPool } from '../src/index.ts';
import { randomNumbers } from './fixtures.ts';

const DIM = 8;
const pool = new IndexPool({ runtime: new SystemRuntime(), threads: 2 });
afterAll(() => pool.stop());

function listField(element: DataType): Field {
  const params = [
    { key: 'dim', value: String(DIM) },
    { key: 'max_capacity', value: '8' },
  ];
  const schema = prepareNewSchema(
    WireSchema.fromPartial({
      name: 'lists',
      fields: [{ name: 'id', dataType: DataType.Int64, isPrimaryKey: true }],
      structArrayFields: [
        { name: 's', fields: [{ name: 'v', dataType: DataType.ArrayOfVector, elementType: element, typeParams: params }] },
      ],
    }),
  );
  const field = schema.byName.get('s[v]');
  if (!field) throw new Error('no member');
  return field;
}

const next = randomNumbers(7);
const vector = (): number[] => Array.from({ length: DIM }, () => Math.fround(next() * 2 - 1));
const list = (most: number): number[][] => Array.from({ length: Math.floor(next() * (most + 1)) }, vector);
const bytesOf = (values: readonly number[]): Uint8Array => new Uint8Array(Float32Array.from(values).buffer);

const pairs: Record<string, (a: readonly number[], b: readonly number[]) => number> = {
  MAX_SIM_IP: (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0),
  MAX_SIM_COSINE: (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0) / Math.hypot(...a) / Math.hypot(...b),
  MAX_SIM_L2: (a, b) => a.reduce((sum, x, i) => sum + (x - b[i]) ** 2, 0),
};
pairs.MAX_SIM = pairs.MAX_SIM_COSINE;

/** As u32 length and vectors, one after another. */
function packed(queries: readonly (readonly Uint8Array[])[]): Uint8Array {
  return Buffer.concat(
    queries.flatMap((vectors) => [new Uint8Array(Uint32Array.of(vectors.reduce((sum, v) => sum + v.length, 0)).buffer), ...vectors]),
  );
}

describe('exact search of lists of vectors', () => {
  const rows = Array.from({ length: 60 }, () => list(5));
  const queries = [list(3).concat([vector()]), [vector()], [vector(), vector()]];
  const column = columnFromValues(
    listField(DataType.FloatVector),
    rows.map((row): PlainValue => row.map(bytesOf)),
  ) as ListColumn;

  it.each(Object.keys(pairs))('%s adds up the best of each query vector', async (metric) => {
    const less = metric === 'MAX_SIM_L2';
    const best = (a: readonly number[], row: readonly number[][]): number => {
      const all = row.map((b) => pairs[metric](a, b));
      return less ? Math.min(...all) : Math.max(...all);
    };
    const filter = new Uint8Array(8).fill(0b1110_1111);
    const hits = await pool.exact({
      vectors: column,
      metric,
      queries: packed(queries.map((query) => query.map(bytesOf))),
      nq: 3,
      k: 10,
      filter,
    });
    let at = 0;
    queries.forEach((query, i) => {
      const expected = rows
        .map((row, number) => ({ number, score: query.reduce((sum, a) => sum + best(a, row), 0), there: row.length > 0 }))
        .filter(({ number, there }) => there && number % 8 !== 4)
        .sort((a, b) => (less ? a.score - b.score : b.score - a.score) || a.number - b.number)
        .slice(0, 10);
      expect([...hits.rows.subarray(at, at + hits.counts[i])]).toEqual(expected.map(({ number }) => number));
      expected.forEach(({ score }, j) => {
        expect(hits.scores[at + j]).toBeCloseTo(score, 4);
      });
      at += hits.counts[i];
    });
  });

  it('counts differing bits of binary vectors', async () => {
    const bits = columnFromValues(listField(DataType.BinaryVector), [
      [Uint8Array.of(0b1111_0000), Uint8Array.of(0)],
      [],
      [Uint8Array.of(0b0000_1111)],
    ]) as ListColumn;
    const query = packed([[Uint8Array.of(0b1111_0001), Uint8Array.of(1)]]);
    const hits = await pool.exact({ vectors: bits, metric: 'MAX_SIM_HAMMING', queries: query, nq: 1, k: 5 });
    expect([...hits.rows]).toEqual([0, 2]);
    expect([...hits.scores]).toEqual([1 + 1, 7 + 3]);
  });
});
