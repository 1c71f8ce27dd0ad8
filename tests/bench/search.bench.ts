/**
 * Searches below the services: one sealed segment of the packages data set with an HNSW index, through libs/query and the worker pool. Recall
 * against the exact answers for every filter of the set; searches per second beside usearch called directly; filters over a million rows.
 */
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SystemRuntime } from '@cairn/base';
import { evaluate, parseFilter, serializeExpr } from '@cairn/expr';
import { IndexPool } from '@cairn/index';
import { MemoryObjectStore } from '@cairn/objects';
import { SegmentRecord } from '@cairn/proto/cairn/meta';
import { SearchPlan } from '@cairn/proto/cairn/services';
import { CollectionSchema as WireSchema } from '@cairn/proto/milvus/schema';
import { executeSearch } from '@cairn/query';
import { type Column, columnFromValues, DataType, makeBatch, numberColumn, type PlainValue, schemaFromWire, valueAt } from '@cairn/schema';
import { openSegment, writeSegment } from '@cairn/segment';
import { tableFromIPC, type Vector } from 'apache-arrow';
import { codeQueries, codesBefore } from '../../libs/index/src/graph-codes.ts';
import { metricOf } from '../../libs/index/src/metric.ts';
import { usearch } from '../../libs/index/src/usearch.ts';
import { printTable, quantile, round } from './support/table.ts';

const DATA = new URL('../../../shared/data/packages/', import.meta.url).pathname;
const DIM = 384;
const EF = 64;
const THREADS = 2;

if (!existsSync(join(DATA, 'packages.arrow'))) {
  console.log(`search: no data set at ${DATA}, nothing measured`);
  process.exit(0);
}

interface Case {
  readonly id: string;
  readonly filter: string;
  readonly matching_rows: number;
  readonly neighbours: readonly (readonly (readonly [string, number])[])[];
}

const schema = schemaFromWire(
  WireSchema.fromPartial({
    name: 'packages',
    fields: [
      { fieldID: 100n, name: 'name', dataType: DataType.VarChar, isPrimaryKey: true, typeParams: [{ key: 'max_length', value: '100' }] },
      { fieldID: 101n, name: 'section', dataType: DataType.VarChar, typeParams: [{ key: 'max_length', value: '100' }] },
      { fieldID: 102n, name: 'installed_kb', dataType: DataType.Int32 },
      { fieldID: 103n, name: 'homepage', dataType: DataType.VarChar, nullable: true, typeParams: [{ key: 'max_length', value: '1000' }] },
      {
        fieldID: 104n,
        name: 'depends',
        dataType: DataType.Array,
        elementType: DataType.VarChar,
        typeParams: [
          { key: 'max_length', value: '200' },
          { key: 'max_capacity', value: '64' },
        ],
      },
      { fieldID: 105n, name: 'tags', dataType: DataType.Json },
      { fieldID: 106n, name: 'embedding', dataType: DataType.FloatVector, typeParams: [{ key: 'dim', value: String(DIM) }] },
    ],
  }),
);

function plain(value: unknown, name: string): PlainValue {
  if (name === 'tags') return new Uint8Array(Buffer.from(value as string));
  if (name === 'embedding') return new Uint8Array(Float32Array.from(value as Iterable<number>).buffer);
  return name === 'depends' ? [...(value as Iterable<string>)] : ((value ?? null) as PlainValue);
}

const table = tableFromIPC(readFileSync(join(DATA, 'packages.arrow')));
const rows = table.numRows;
const columns = new Map<number, Column>(
  schema.fields.map((field) => [
    field.id,
    columnFromValues(
      field,
      [...(table.getChild(field.name) as Vector)].map((value) => plain(value, field.name)),
    ),
  ]),
);
columns.set(0, numberColumn(Float64Array.from({ length: rows }, (_, i) => i)));
columns.set(1, numberColumn(new Float64Array(rows).fill(1)));
const queryVectors = [...(tableFromIPC(readFileSync(join(DATA, 'queries.arrow'))).getChild('embedding') as Vector)];
const queries = Float32Array.from(queryVectors.flatMap((vector) => [...(vector as Iterable<number>)]));
const nq = queryVectors.length;
const { cases } = JSON.parse(readFileSync(join(DATA, 'neighbours.json'), 'utf8')) as { readonly cases: readonly Case[] };

const directory = await mkdtemp(join(tmpdir(), 'cairn-bench-'));
const runtime = new SystemRuntime();
const pool = new IndexPool({ runtime, threads: THREADS });
const objects = new MemoryObjectStore(runtime);
const written = await writeSegment({ objects, runtime, prefix: 's/', schema, batch: makeBatch(columns) });
const record: SegmentRecord = { ...SegmentRecord.fromPartial({ id: 1, partitionId: 1, sorted: true, prefix: 's/' }), ...written };
const segment = await openSegment({ objects, runtime, schema, record });
const path = join(directory, 'index');

function planOf(from: number, count: number, filter = ''): SearchPlan {
  const plan = SearchPlan.fromPartial({ fieldId: 106, metric: 'COSINE', nq: count, topK: 10, params: JSON.stringify({ ef: EF }) });
  const bytes = queries.slice(from * DIM, (from + count) * DIM);
  return { ...plan, queries: new Uint8Array(bytes.buffer), filter: serializeExpr(parseFilter(filter, schema)) };
}
const search = (plan: SearchPlan) => executeSearch({ segments: [segment], schema, plan, readTs: 2, pool, runtime });

/** Recall by similarity, because summaries repeat: a hit counts when it is as near as the tenth neighbour. */
async function recall(entry: Case): Promise<{ readonly recall: number; readonly msEach: number }> {
  const start = runtime.monotonic();
  const hits = await search(planOf(0, nq, entry.filter));
  const msEach = (runtime.monotonic() - start) / nq;
  let found = 0;
  let at = 0;
  hits.counts.forEach((count, i) => {
    const least = entry.neighbours[i].at(-1)?.[1] ?? 2;
    for (let hit = at; hit < at + count; hit++) if (hits.scores[hit] >= least - 1e-5) found++;
    at += count;
  });
  return { recall: found / entry.neighbours.reduce((sum, list) => sum + list.length, 0), msEach };
}

async function timed(
  work: (i: number) => Promise<unknown>,
  times: number,
  clients: number,
): Promise<{ readonly perSecond: number; readonly p99: number }> {
  const took: number[] = [];
  let next = 0;
  const start = runtime.monotonic();
  const lane = async (): Promise<void> => {
    for (let i = next++; i < times; i = next++) {
      const before = runtime.monotonic();
      await work(i);
      took.push(runtime.monotonic() - before);
    }
  };
  await Promise.all(Array.from({ length: clients }, lane));
  return { perSecond: round((times * 1000) / (runtime.monotonic() - start)), p99: round(quantile(took, 0.99), 2) };
}

const exactRecall = await Promise.all(cases.map(recall));
const buildStart = runtime.monotonic();
const vectors = await segment.vectors(106);
await pool.build({ indexType: 'HNSW', metric: 'COSINE', params: { M: '16', efConstruction: '128' }, vectors, path });
const buildMs = runtime.monotonic() - buildStart;
segment.attachIndex(106, await pool.open(path));
const graphRecall: { readonly recall: number; readonly msEach: number }[] = [];
for (const entry of cases) graphRecall.push(await recall(entry));
printTable(
  `search: recall@10 of ${rows} x ${DIM}, ${nq} queries, HNSW M 16, ef ${EF} (built in ${round(buildMs / 1000)} s)`,
  cases.map((entry, i) => ({
    filter: entry.filter || '(none)',
    rows: entry.matching_rows,
    'no index': round(exactRecall[i].recall, 4),
    HNSW: round(graphRecall[i].recall, 4),
    'ms each': round(graphRecall[i].msEach, 3),
  })),
);

const { codes = codesBefore(0) } = await pool.open(path);
const direct = new (usearch().CompiledIndex)(DIM, 'cos', codes.scalar, 16, 128, EF, false);
direct.view(path);
const asked = (from: number, count: number) => codeQueries(codes, metricOf('COSINE'), queries.slice(from * DIM, (from + count) * DIM), DIM);
const one = (i: number) => asked(i % nq, 1);
const hundred = (i: number) => asked((i % 5) * 100, 100);
await timed((i) => search(planOf(i % nq, 1)), 200, 4);
const measured = [
  { what: `usearch directly (${codes.scalar}), nq 1`, ...(await timed(async (i) => direct.search(one(i), 10, 1), 2_000, 1)) },
  { what: 'executeSearch, nq 1, 1 client', ...(await timed((i) => search(planOf(i % nq, 1)), 2_000, 1)) },
  { what: 'executeSearch, nq 1, 4 clients', ...(await timed((i) => search(planOf(i % nq, 1)), 2_000, 4)) },
  { what: `usearch directly, nq 100, ${THREADS} threads`, ...(await timed(async (i) => direct.search(hundred(i), 10, THREADS), 40, 1)) },
  { what: 'executeSearch, nq 100, 1 client', ...(await timed((i) => search(planOf((i % 5) * 100, 100)), 40, 1)) },
];
printTable(
  'search: requests per second below the services',
  measured.map(({ what, perSecond, p99 }) => ({ what, 'requests/s': perSecond, 'p99 ms': p99 })),
);

const MILLION = 1_000_000;
const times = Math.ceil(MILLION / rows);
const repeat = (values: readonly PlainValue[]): PlainValue[] =>
  Array.from({ length: times }, () => values)
    .flat()
    .slice(0, MILLION);
const large = new Map<number, Column>();
for (const id of [100, 101, 102, 103]) {
  const field = schema.byId.get(id);
  const column = columns.get(id);
  if (field && column) large.set(id, columnFromValues(field, repeat(Array.from({ length: rows }, (_, row) => valueAt(column, row)))));
}
printTable(
  'search: a filter over 1,000,000 rows',
  [
    'installed_kb > 1000',
    'section == "libs"',
    'name like "lib%"',
    'name like "%python%"',
    'homepage is null',
    'section in ["libs", "python", "doc"] and installed_kb < 200',
  ].map((filter) => {
    const expr = parseFilter(filter, schema);
    const took = Array.from({ length: 7 }, () => {
      const start = runtime.monotonic();
      evaluate(expr, (id) => large.get(id) as Column, MILLION);
      return runtime.monotonic() - start;
    });
    return { filter, 'ms (best of 7)': round(Math.min(...took), 1) };
  }),
);
await segment.close();
await pool.stop();
await rm(directory, { recursive: true });
