/** Filters answer the same with and without scalar indexes, whatever the type of the index: rows, nulls, and the order of evaluation. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { rowsOfBits, SystemRuntime } from '@cairn/base';
import { parseFilter } from '@cairn/expr';
import { decodeScalarIndex, IndexPool, readTrailer, resolveIndex } from '@cairn/index';
import { MemoryObjectStore } from '@cairn/objects';
import { SegmentRecord } from '@cairn/proto/cairn/meta';
import { CollectionSchema as WireSchema } from '@cairn/proto/milvus/schema';
import { type Column, columnFromValues, DataType, makeBatch, numberColumn, type PlainValue, schemaFromWire } from '@cairn/schema';
import { openSegment, type SealedSegment, writeSegment } from '@cairn/segment';
import { afterAll, describe, expect, test } from 'vitest';
import { expectedIds, type FilterRow, filterRows, filters } from '../../../tests/support/filter-grammar.ts';
import { seeded } from '../../../tests/support/workload.ts';
import { scalarEntries } from '../src/index.ts';
import { indexAnswers } from '../src/index-answers.ts';
import { matchingRows } from '../src/matching-rows.ts';

const ROWS = 600;
const runtime = new SystemRuntime();
const pool = new IndexPool({ runtime, threads: 1 });
const directory = mkdtempSync(join(tmpdir(), 'cairn-scalar-'));
afterAll(async () => {
  await pool.stop();
  rmSync(directory, { recursive: true });
});

const length = [{ key: 'max_length', value: '64' }];
const FIELDS = [
  { name: 'id', dataType: DataType.Int64, isPrimaryKey: true },
  { name: 'small', dataType: DataType.Int8, nullable: true },
  { name: 'count', dataType: DataType.Int32 },
  { name: 'big', dataType: DataType.Int64, nullable: true },
  { name: 'price', dataType: DataType.Float, nullable: true },
  { name: 'ratio', dataType: DataType.Double },
  { name: 'flag', dataType: DataType.Bool },
  { name: 'name', dataType: DataType.VarChar, nullable: true, typeParams: length },
  { name: 'tags', dataType: DataType.Array, elementType: DataType.VarChar, typeParams: length },
  { name: 'sizes', dataType: DataType.Array, elementType: DataType.Int64, nullable: true },
  { name: 'doc', dataType: DataType.Json, nullable: true },
  { name: '$meta', dataType: DataType.Json, isDynamic: true },
];
const schema = schemaFromWire(
  WireSchema.fromPartial({
    name: 'f',
    enableDynamicField: true,
    fields: FIELDS.map((field, i) => ({ ...field, fieldID: BigInt(100 + i) })),
  }),
);

function cell(row: FilterRow, name: string): PlainValue {
  const json = (value: unknown): PlainValue => new Uint8Array(Buffer.from(JSON.stringify(value)));
  if (name === '$meta') return json(row.extra === undefined ? {} : { extra: row.extra });
  const value = row[name as keyof FilterRow];
  if (value === null || value === undefined) return null;
  if (name === 'doc') return json(value);
  if (name === 'id' || name === 'big') return BigInt(value as number);
  return name === 'sizes' ? (value as number[]).map(BigInt) : (value as PlainValue);
}

async function segmentOf(rows: readonly FilterRow[]): Promise<SealedSegment> {
  const columns = new Map<number, Column>(
    schema.fields.map((field) => [
      field.id,
      columnFromValues(
        field,
        rows.map((row) => cell(row, field.name)),
      ),
    ]),
  );
  columns.set(0, numberColumn(Float64Array.from(rows, (_, i) => i)));
  columns.set(1, numberColumn(new Float64Array(rows.length).fill(1)));
  const objects = new MemoryObjectStore(runtime);
  const written = await writeSegment({ objects, runtime, prefix: 's/', schema, batch: makeBatch(columns) });
  return openSegment({
    objects,
    runtime,
    schema,
    record: { ...SegmentRecord.fromPartial({ id: 1, sorted: true, prefix: 's/' }), ...written },
  });
}

let builds = 0;
async function attach(segment: SealedSegment, name: string, params: Record<string, string>): Promise<void> {
  const field = schema.byName.get(name);
  if (!field) throw new Error(name);
  const spec = resolveIndex(field, params);
  const path = join(directory, String(builds++));
  const { entries, header } = await scalarEntries(await segment.column(field.id), field, spec, schema, runtime);
  await pool.buildScalar({ ...spec, entries, header, rows: segment.rows, path });
  segment.attachScalarIndex(field.id, builds, decodeScalarIndex(new Uint8Array(readFileSync(path)), readTrailer(path)));
}

const json = (json_path: string, json_cast_type: string) => ({ index_type: 'INVERTED', json_path, json_cast_type });

async function indexed(rows: readonly FilterRow[], numbers: string, texts: string): Promise<SealedSegment> {
  const segment = await segmentOf(rows);
  for (const name of ['small', 'count', 'big', 'flag', ...(numbers === 'BITMAP' ? [] : ['price', 'ratio', 'id'])])
    await attach(segment, name, { index_type: name === 'flag' && numbers === 'STL_SORT' ? 'BITMAP' : numbers });
  await attach(segment, 'name', texts === 'NGRAM' ? { index_type: texts, min_gram: '2', max_gram: '3' } : { index_type: texts });
  for (const name of ['tags', 'sizes']) await attach(segment, name, { index_type: 'INVERTED' });
  for (const [path, cast] of [
    ['doc["a"]', 'DOUBLE'],
    ['doc["a"]', 'VARCHAR'],
    ['doc["o"]["c"]', 'BOOL'],
    ['["o"]["c"]', 'DOUBLE'],
    ['doc["list"]', 'ARRAY_DOUBLE'],
  ] as const)
    await attach(segment, 'doc', json(path, cast));
  await attach(segment, '$meta', json('$meta["extra"]', 'DOUBLE'));
  return segment;
}

const ids = async (segment: SealedSegment, text: string): Promise<number[]> => {
  const { bits, rows } = await matchingRows(segment, { expr: parseFilter(text, schema), primaryKey: schema.primaryKey, readTs: 2 });
  return bits ? [...rowsOfBits(bits)] : Array.from({ length: rows }, (_, row) => row);
};

describe('filters with scalar indexes', () => {
  const random = seeded(61);
  const rows = filterRows(ROWS, random);
  const made = filters(15, 350, random);

  test.each([
    ['INVERTED', 'INVERTED'],
    ['STL_SORT', 'TRIE'],
    ['BITMAP', 'BITMAP'],
    ['AUTOINDEX', 'NGRAM'],
  ])('agree with the rules and with the scan: numbers %s, texts %s', async (numbers, texts) => {
    const segment = await indexed(rows, numbers, texts);
    const plain = await segmentOf(rows);
    const wrong: string[] = [];
    let used = 0;
    for (const filter of made) {
      used += indexAnswers(segment, parseFilter(filter.text, schema)).size;
      const got = (await ids(segment, filter.text)).join();
      if (got !== expectedIds(filter, rows).join() || got !== (await ids(plain, filter.text)).join())
        wrong.push(`${filter.kind}: ${filter.text}`);
    }
    expect(wrong).toEqual([]);
    expect(used).toBeGreaterThan(made.length / 2);
  });
});
