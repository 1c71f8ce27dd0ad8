import { SystemRuntime } from '@cairn/base';
import { MemoryObjectStore } from '@cairn/objects';
import { SegmentRecord } from '@cairn/proto/cairn/meta';
import {
  type CollectionSchema,
  type Column,
  columnFromValues,
  DataType,
  type Field,
  keyColumn,
  makeBatch,
  makeSchema,
  type PlainValue,
  ROW_ID_FIELD,
  TIMESTAMP_FIELD,
  valueAt,
} from '@cairn/schema';
import { field, readable, samples } from '@cairn/schema/testing';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { deletesOf, GrowingSegment, mergeSegments, openSegment, type SealedSegment, survivingRows, writeSegment } from '../src/index.ts';

const runtime = new SystemRuntime();
/** A field of every type, key first; even ones never null, so that vectors take both roads. */
const fields: Field[] = [
  field(DataType.Int64, { id: 100, name: 'pk', isPrimaryKey: true }),
  ...samples.map(([of], i) => ({ ...of, id: 101 + i, name: `f${i}`, nullable: true })),
];
const schema: CollectionSchema = makeSchema({ name: 'c', description: '', fields, enableDynamicField: false, properties: {} });

interface Write {
  readonly key: number;
  readonly ts: number;
}

/** A sealed segment of these rows; without nulls where `whole`, and without the last field where `old`. */
async function sealed(
  objects: MemoryObjectStore,
  id: number,
  writes: readonly Write[],
  more: { whole?: boolean; old?: boolean; asOf?: number },
) {
  const own = more.old ? makeSchema({ ...schema, fields: fields.slice(0, -1) }) : schema;
  const growing = new GrowingSegment({ id, partitionId: 2, schema: own });
  writes.forEach(({ key, ts }, at) => {
    const columns = new Map<number, Column>([[100, keyColumn([BigInt(key)])]]);
    for (const [i, [, values]] of samples.entries()) {
      if (101 + i > Math.max(...own.fields.map((one) => one.id))) continue;
      const drawn = more.whole ? values : fc.option(values, { nil: null, freq: 3 });
      columns.set(101 + i, columnFromValues(fields[i + 1], fc.sample(drawn, { numRuns: 1, seed: key * 31 + ts }) as PlainValue[]));
    }
    growing.append(makeBatch(columns), ts, id * 1000 + at);
  });
  const prefix = `segments/${id}/`;
  const written = await writeSegment({ objects, runtime, prefix, schema: own, batch: growing.freeze() });
  const record = { ...SegmentRecord.fromPartial({ id, partitionId: 2, sorted: true, prefix, asOf: more.asOf ?? 0 }), ...written };
  return openSegment({ objects, runtime, schema, record });
}

async function rowsOf(segment: Pick<SealedSegment, 'rows' | 'column'>, at: (row: number) => boolean): Promise<string[]> {
  const ids = [ROW_ID_FIELD, TIMESTAMP_FIELD, ...fields.map((one) => one.id)];
  const columns = await Promise.all(ids.map((id) => segment.column(id)));
  return Array.from({ length: segment.rows }, (_, row) => row)
    .filter(at)
    .map((row) =>
      JSON.stringify(
        columns.map((column) => readable(valueAt(column, row)) ?? null),
        (_, value) => (typeof value === 'bigint' ? `${value}n` : value),
      ),
    );
}

const write = fc.record({ key: fc.integer({ min: 0, max: 12 }), ts: fc.integer({ min: 10, max: 60 }) });
const inputs = fc.array(
  fc.record({
    writes: fc.array(write, { minLength: 1, maxLength: 12 }),
    whole: fc.boolean(),
    old: fc.boolean(),
    asOf: fc.constantFrom(0, 0, 0, 35),
  }),
  { minLength: 1, maxLength: 4 },
);
const deletes = fc.array(fc.record({ key: fc.integer({ min: 0, max: 12 }), ts: fc.integer({ min: 10, max: 70 }) }), { maxLength: 10 });

describe('merged segments', () => {
  it('have exactly the rows of the inputs that are neither deleted up to the given time, nor after as_of, nor expired, by key, then time', async () => {
    await fc.assert(
      fc.asyncProperty(
        inputs,
        deletes,
        fc.constantFrom(Number.POSITIVE_INFINITY, 40),
        fc.constantFrom(0, 0, 30),
        async (parts, dels, until, expired) => {
          const objects = new MemoryObjectStore(runtime);
          const segments = await Promise.all(parts.map((part, i) => sealed(objects, i + 1, part.writes, part)));
          for (const segment of segments) for (const { key, ts } of dels) segment.applyDeletes(deletesOf(keyColumn([BigInt(key)]), ts));
          const hit = ({ key, ts }: Write): number =>
            Math.min(...dels.filter((one) => one.key === key && ts < one.ts).map((one) => one.ts), Infinity);
          const all = parts.flatMap((part, i) =>
            part.writes.map((one, at) => ({ ...one, part, segment: segments[i], id: (i + 1) * 1000 + at })),
          );
          const visible = all.filter(({ part, ts }) => part.asOf === 0 || ts <= part.asOf);
          const kept = visible.filter((one) => one.ts > expired && (hit(one) > until || hit(one) === Infinity));

          const surviving = await survivingRows(segments, until, runtime, expired);
          expect(surviving.rows).toBe(kept.length);
          expect(surviving.purgedRows).toBe(all.length - kept.length);
          expect(surviving.purgedTs).toBe(Math.max(0, ...visible.map(hit).filter((ts) => ts <= until && ts < Infinity)));
          const merged = await mergeSegments(surviving, schema, runtime);

          const ids = new Set(kept.map((one) => one.id));
          const expected: string[] = [];
          for (const segment of segments) {
            const rowIds = await segment.column(ROW_ID_FIELD);
            expected.push(...(await rowsOf(segment, (row) => ids.has(Number(readable(valueAt(rowIds, row)))))));
          }
          const column = async (id: number): Promise<Column> => merged.columns.get(id) as Column;
          const found = await rowsOf({ rows: merged.length, column }, () => true);
          expect([...found].sort()).toEqual(expected.sort());
          const keys = merged.columns.get(100) as Column;
          const ts = merged.columns.get(TIMESTAMP_FIELD) as Column;
          for (let row = 1; row < merged.length; row++) {
            const [a, b] = [row - 1, row].map((at) => [Number(valueAt(keys, at)), Number(valueAt(ts, at))]);
            expect(a[0] < b[0] || (a[0] === b[0] && a[1] <= b[1])).toBe(true);
          }
        },
      ),
      { numRuns: 25 },
    );
  });
});
