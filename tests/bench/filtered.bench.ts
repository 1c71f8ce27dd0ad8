/**
 * Filtered vector search below the services: one sealed segment with an HNSW index, filters that leave 0.1, 1, 10 and 50 % of the rows, by a column that
 * knows nothing of the vectors and by one that goes with them. Recall@10 against exact answers, searches per second beside the unfiltered ones.
 * `node tests/bench/filtered.bench.ts [rows] [ms per round]`.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SystemRuntime } from '@cairn/base';
import { parseFilter, serializeExpr } from '@cairn/expr';
import { IndexPool } from '@cairn/index';
import { MemoryObjectStore } from '@cairn/objects';
import { SegmentRecord } from '@cairn/proto/cairn/meta';
import { SearchPlan } from '@cairn/proto/cairn/services';
import { CollectionSchema as WireSchema } from '@cairn/proto/milvus/schema';
import { executeSearch } from '@cairn/query';
import { type Column, DataType, type FixedColumn, makeBatch, numberColumn, schemaFromWire, type VectorColumn } from '@cairn/schema';
import { openSegment, writeSegment } from '@cairn/segment';
import { printTable, round } from './support/table.ts';

const ROWS = Number(process.argv[2] ?? 100_000);
const DIM = 128;
const CENTRES = 500;
const QUERIES = 100;
const ROUNDS = 3;
const MIN_MS = Number(process.argv[3] ?? 400);
const THREADS = 2;

const runtime = new SystemRuntime();
let state = 12345;
const random = (): number => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 32;
};
const gauss = (): number => Math.sqrt(-2 * Math.log(random() + 1e-12)) * Math.cos(2 * Math.PI * random());

const schema = schemaFromWire(
  WireSchema.fromPartial({
    name: 'filtered',
    fields: [
      { fieldID: 100n, name: 'id', dataType: DataType.Int64, isPrimaryKey: true },
      { fieldID: 101n, name: 'spread', dataType: DataType.Int32 },
      { fieldID: 102n, name: 'cluster', dataType: DataType.Int32 },
      { fieldID: 103n, name: 'vec', dataType: DataType.FloatVector, typeParams: [{ key: 'dim', value: String(DIM) }] },
    ],
  }),
);
const centres = Float32Array.from({ length: CENTRES * DIM }, gauss);
function pointNear(centre: number, out: Float32Array, at: number): void {
  for (let i = 0; i < DIM; i++) out[at + i] = centres[centre * DIM + i] + gauss() * 0.6;
}
const vectors = new Float32Array(ROWS * DIM);
const clusters = new Int32Array(ROWS);
for (let row = 0; row < ROWS; row++) {
  clusters[row] = Math.floor(random() * CENTRES);
  pointNear(clusters[row], vectors, row * DIM);
}
const queries = new Float32Array(QUERIES * DIM);
for (let i = 0; i < QUERIES; i++) pointNear(Math.floor(random() * CENTRES), queries, i * DIM);

const fixed = (type: DataType, values: FixedColumn['values']): Column => ({ kind: 'fixed', type, length: ROWS, values, validity: null });
const vectorColumn: VectorColumn = {
  kind: 'vector',
  type: DataType.FloatVector,
  length: ROWS,
  dim: DIM,
  bytesPerRow: DIM * 4,
  data: new Uint8Array(vectors.buffer),
  validity: null,
};
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
      Int32Array.from({ length: ROWS }, () => Math.floor(random() * 1000)),
    ),
  ],
  [102, fixed(DataType.Int32, clusters)],
  [103, vectorColumn],
]);
const directory = await mkdtemp(join(tmpdir(), 'cairn-bench-'));
const pool = new IndexPool({ runtime, threads: THREADS });
const objects = new MemoryObjectStore(runtime);
const written = await writeSegment({ objects, runtime, prefix: 's/', schema, batch });
const segment = await openSegment({
  objects,
  runtime,
  schema,
  record: { ...SegmentRecord.fromPartial({ id: 1, sorted: true, prefix: 's/' }), ...written },
});

const planOf = (from: number, nq: number, filter: string, params = ''): SearchPlan => ({
  ...SearchPlan.fromPartial({ fieldId: 103, metric: 'L2', nq, topK: 10, params }),
  queries: new Uint8Array(queries.slice(from * DIM, (from + nq) * DIM).buffer),
  filter: serializeExpr(parseFilter(filter, schema)),
});
const search = (plan: SearchPlan) => executeSearch({ segments: [segment], schema, plan, readTs: 2, pool, runtime });
const keys = async (plan: SearchPlan): Promise<bigint[][]> => {
  const { counts, columns } = await search(plan);
  const all = [...((columns.columns.get(100) as FixedColumn).values as BigInt64Array)];
  return counts.map((count) => all.splice(0, count));
};

const FILTERS = [
  ['(none)', ''],
  ['0.1 %, spread', 'spread < 1'],
  ['1 %, spread', 'spread < 10'],
  ['3 %, spread', 'spread < 30'],
  ['10 %, spread', 'spread < 100'],
  ['30 %, spread', 'spread < 300'],
  ['50 %, spread', 'spread < 500'],
  ['0.2 %, one cluster', 'cluster == 7'],
  ['1 %, clusters', 'cluster < 5'],
  ['10 %, clusters', 'cluster < 50'],
  ['50 %, clusters', 'cluster < 250'],
] as const;
const exact: bigint[][][] = [];
for (const [, filter] of FILTERS) exact.push(await keys(planOf(0, QUERIES, filter)));
const path = join(directory, 'index');
const started = runtime.monotonic();
await pool.build({
  indexType: 'HNSW',
  metric: 'L2',
  params: { M: '16', efConstruction: '160' },
  vectors: await segment.vectors(103),
  path,
});
console.log(`built in ${round((runtime.monotonic() - started) / 1000)} s`);
segment.attachIndex(103, await pool.open(path));

const plans = FILTERS.map(([, filter]) => Array.from({ length: QUERIES }, (_, i) => planOf(i, 1, filter)));
const rates = FILTERS.map(() => [] as number[]);
const cpu = FILTERS.map(() => [] as number[]);
for (let turn = 0; turn < ROUNDS; turn++) {
  for (const f of FILTERS.keys()) {
    const begin = runtime.monotonic();
    const before = process.cpuUsage();
    let done = 0;
    while (runtime.monotonic() - begin < MIN_MS) {
      await search(plans[f][done++ % QUERIES]);
      // As between requests: a turn of the event loop holds so much vector work only.
      await new Promise((resolve) => setImmediate(resolve));
    }
    rates[f].push((done * 1000) / (runtime.monotonic() - begin));
    const { user, system } = process.cpuUsage(before);
    cpu[f].push((user + system) / done);
  }
}
const median = (list: number[]): number => [...list].sort((a, b) => a - b)[list.length >> 1];
const base = median(rates[0]);
const baseCpu = median(cpu[0]);
const report: Record<string, string | number>[] = [];
for (const [f, [what, filter]] of FILTERS.entries()) {
  let found = 0;
  let wanted = 0;
  for (let i = 0; i < QUERIES; i++) {
    const [got] = await keys(planOf(i, 1, filter));
    const truth = new Set(exact[f][i]);
    wanted += truth.size;
    found += got.filter((key) => truth.has(key)).length;
  }
  report.push({
    filter: what,
    'recall@10': round(found / wanted, 4),
    'searches/s': round(median(rates[f])),
    'of unfiltered': round(median(rates[f]) / base, 2),
    'CPU us': round(median(cpu[f])),
    'by CPU': round(baseCpu / median(cpu[f]), 2),
  });
}
printTable(`filtered: ${ROWS} x ${DIM}, default breadth, nq 1, 1 client`, report);
await segment.close();
await pool.stop();
await rm(directory, { recursive: true });
