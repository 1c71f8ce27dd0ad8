/** Filters over one sealed segment of a million rows, scanned and with scalar indexes; queries by primary key, count and a range of rows with output. */
import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SystemRuntime } from '@cairn/base';
import { parseFilter, serializeExpr } from '@cairn/expr';
import { decodeScalarIndex, IndexPool, readTrailer, resolveIndex } from '@cairn/index';
import { MemoryObjectStore } from '@cairn/objects';
import { SegmentRecord } from '@cairn/proto/cairn/meta';
import { QueryPlan } from '@cairn/proto/cairn/services';
import { CollectionSchema as WireSchema } from '@cairn/proto/milvus/schema';
import { executeQuery, scalarEntries } from '@cairn/query';
import { type Column, DataType, type FixedColumn, keyColumn, makeBatch, numberColumn, schemaFromWire } from '@cairn/schema';
import { openSegment, writeSegment } from '@cairn/segment';
import { printTable, round } from './support/table.ts';

const ROWS = Number(process.argv[2] ?? 1_000_000);
const TURNS = 5;
const runtime = new SystemRuntime();
const schema = schemaFromWire(
  WireSchema.fromPartial({
    name: 'scalars',
    fields: [
      { fieldID: 100n, name: 'id', dataType: DataType.Int64, isPrimaryKey: true },
      { fieldID: 101n, name: 'n', dataType: DataType.Int32 },
      { fieldID: 102n, name: 'kind', dataType: DataType.Int8 },
      { fieldID: 103n, name: 'name', dataType: DataType.VarChar, typeParams: [{ key: 'max_length', value: '64' }] },
    ],
  }),
);
const mixed = (i: number): number => Math.imul(i ^ (i >>> 13), 0x5bd1e995) >>> 0;
const fixed = (type: DataType, values: FixedColumn['values']): Column => ({ kind: 'fixed', type, length: ROWS, values, validity: null });
const names = Array.from({ length: ROWS }, (_, i) => `${String.fromCharCode(97 + (mixed(i) % 26))}${mixed(i + 7).toString(36)}`);
const batch = makeBatch([
  [0, numberColumn(Float64Array.from({ length: ROWS }, (_, i) => i))],
  [1, numberColumn(new Float64Array(ROWS).fill(1))],
  [
    100,
    fixed(
      DataType.Int64,
      BigInt64Array.from({ length: ROWS }, (_, i) => BigInt(i)),
    ),
  ],
  [
    101,
    fixed(
      DataType.Int32,
      Int32Array.from({ length: ROWS }, (_, i) => mixed(i) % ROWS),
    ),
  ],
  [
    102,
    fixed(
      DataType.Int8,
      Int8Array.from({ length: ROWS }, (_, i) => mixed(i) % 20),
    ),
  ],
  [103, keyColumn(names)],
]);
const directory = await mkdtemp(join(tmpdir(), 'cairn-bench-'));
const pool = new IndexPool({ runtime, threads: 1 });
const objects = new MemoryObjectStore(runtime);
const written = await writeSegment({ objects, runtime, prefix: 's/', schema, batch });
const record: SegmentRecord = { ...SegmentRecord.fromPartial({ id: 1, sorted: true, prefix: 's/' }), ...written };
const [plain, indexed] = [await openSegment({ objects, runtime, schema, record }), await openSegment({ objects, runtime, schema, record })];
const builds: Record<string, string | number>[] = [];
for (const [name, index_type] of [
  ['n', 'STL_SORT'],
  ['kind', 'BITMAP'],
  ['name', 'INVERTED'],
] as const) {
  const field = schema.byName.get(name);
  if (!field) continue;
  const spec = resolveIndex(field, { index_type });
  const path = join(directory, name);
  const started = runtime.monotonic();
  const parts = await scalarEntries(await indexed.column(field.id), field, spec, schema, runtime);
  await pool.buildScalar({ ...spec, ...parts, rows: ROWS, path });
  const bytes = new Uint8Array(readFileSync(path));
  const index = decodeScalarIndex(bytes, readTrailer(path));
  indexed.attachScalarIndex(field.id, field.id, index);
  builds.push({
    index: `${name} ${index_type}`,
    values: index.entries,
    MB: round(bytes.length / 1e6, 1),
    'built in s': round((runtime.monotonic() - started) / 1000, 1),
  });
}
printTable(`scalar: indexes of ${ROWS} rows`, builds);

const hundred = Array.from({ length: 100 }, (_, i) => mixed(i) % ROWS).join(',');
const median = async (work: () => Promise<unknown>): Promise<number> => {
  const took: number[] = [];
  for (let i = 0; i < TURNS; i++) {
    const start = runtime.monotonic();
    await work();
    took.push(runtime.monotonic() - start);
  }
  return took.sort((a, b) => a - b)[TURNS >> 1];
};
const report: Record<string, string | number>[] = [];
for (const filter of [
  'n < 1000',
  'n >= 500000',
  'n == 77',
  `n in [${hundred}]`,
  'kind == 3',
  'kind in [1, 2, 3, 4]',
  'name like "a%"',
  'name like "ab%" and n < 100000',
  'not (kind == 3 or n < 500000)',
]) {
  const plan: QueryPlan = { ...QueryPlan.fromPartial({ countOnly: true }), filter: serializeExpr(parseFilter(filter, schema)) };
  const ask = (segment: typeof plain) => () => executeQuery({ segments: [segment], schema, plan, readTs: 2, runtime });
  const [a, b] = [await ask(plain)(), await ask(indexed)()];
  if (a.count !== b.count) throw new Error(`${filter}: ${a.count} rows scanned, ${b.count} by index`);
  report.push({
    filter: filter.slice(0, 40),
    rows: a.count,
    'scan ms': round(await median(ask(plain)), 2),
    'index ms': round(await median(ask(indexed)), 2),
  });
}
printTable(`scalar: count(*) under a filter, ${ROWS} rows, median of ${TURNS}`, report);

const reads: Record<string, string | number>[] = [];
for (const [what, filter, countOnly] of [
  ['by pk', 'id == 123456', false],
  ['in of 100', `id in [${hundred}]`, false],
  ['count(*)', '', true],
  ['range of 10,000 rows, 4 fields', `id >= ${ROWS / 2} and id < ${ROWS / 2 + 10_000}`, false],
  ['range of 10,000 rows of n, 4 fields', 'n >= 1000 and n < 11000', false],
] as const) {
  const plan: QueryPlan = {
    ...QueryPlan.fromPartial({ countOnly, outputFieldIds: [100, 101, 102, 103] }),
    filter: serializeExpr(parseFilter(filter, schema)),
  };
  const ask = () => executeQuery({ segments: [indexed], schema, plan, readTs: 2, runtime });
  const { count } = await ask();
  const ms = await median(ask);
  reads.push({ what, rows: count, ms: round(ms, 2), 'rows/s': round((count * 1000) / ms) });
}
printTable('scalar: queries, below the services', reads);
await pool.stop();
await rm(directory, { recursive: true });
