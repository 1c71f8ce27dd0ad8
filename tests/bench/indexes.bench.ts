/**
 * Every vector index name that is accepted, over 20,000 rows of 128 dimensions (512 bits; 30 of 5,000 sparse ones): recall@10, searches a second through a
 * server, time of the build, size of its files. Beside it the index of that name as faiss builds and searches it in its own process with the name's default
 * search parameters: whether a name loses anything by the engine that serves it.
 *   node tests/bench/indexes.bench.ts [seconds a run] [NAME,NAME,...]
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { PlaceholderType } from '@cairn/proto/milvus/common';
import { InsertRequest, SearchResults } from '@cairn/proto/milvus/milvus';
import { FieldData, DataType as WireType } from '@cairn/proto/milvus/schema';
import { DataType, MilvusClient } from '@zilliz/milvus2-sdk-node';
import { startStandalone } from '../support/cairn.ts';
import { preparePython } from '../support/python.ts';
import { seeded } from '../support/workload.ts';
import { callRaw } from './peers/raw-call.ts';
import { runLoad } from './support/load.ts';
import { latentPoints } from './support/points.ts';
import { insertFields, keyField, PATH, searchRequestOf, settleAndLoad } from './support/requests.ts';
import { printTable, round } from './support/table.ts';

const seconds = Number(process.argv[2] ?? 1);
const only = process.argv[3]?.split(',');
const ROWS = 20_000;
const QUERIES = 200;
const SAMPLE = 100;
const TOP_K = 10;
const DIM = 128;
const BITS = 512;
const BATCH = 2000;
const THREADS = 2;
/** Milvus's defaults where a search names none. */
const SEARCHED = { nprobe: 8, ef: 64 };
const FAISS = 'faiss-cpu==1.15.1';

interface Kind {
  readonly metric: string;
  readonly type: DataType;
  readonly placeholder: PlaceholderType;
  readonly dim?: number;
  rows(first: number, count: number): FieldData[];
  readonly queries: readonly Uint8Array[];
  /** Bigger is nearer. */
  nearness(query: number, row: number): number;
}

interface Name {
  readonly name: string;
  readonly kind: Kind;
  readonly params?: Readonly<Record<string, string | number>>;
  readonly faiss?: { readonly factory: string; readonly binary?: boolean; readonly refine?: number };
}

const random = seeded(77);
const points = latentPoints(DIM, random);
const [vectors, queries] = [points(ROWS), points(QUERIES)];
const bytesOf = (floats: Float32Array): Uint8Array => new Uint8Array(floats.buffer, floats.byteOffset, floats.byteLength);
const eachOf = (bytes: Uint8Array, width: number): Uint8Array[] =>
  Array.from({ length: bytes.length / width }, (_, i) => bytes.slice(i * width, (i + 1) * width));

const dense: Kind = {
  ...{ metric: 'L2', type: DataType.FloatVector, placeholder: PlaceholderType.FloatVector, dim: DIM },
  rows: (first, count) => insertFields(first, vectors.subarray(first * DIM, (first + count) * DIM), DIM),
  queries: eachOf(bytesOf(queries), DIM * 4),
  nearness: (query, row) => {
    let sum = 0;
    for (let i = 0; i < DIM; i++) sum += ((vectors[row * DIM + i] ?? 0) - (queries[query * DIM + i] ?? 0)) ** 2;
    return -sum;
  },
};

/** On which side of so many planes through the middle the points lie. */
const planes = Array.from({ length: BITS }, () => Float32Array.from({ length: DIM }, () => random() - 0.5));
function sidesOf(floats: Float32Array): Uint8Array {
  const bytes = new Uint8Array((floats.length / DIM) * (BITS / 8));
  for (let row = 0; row < floats.length / DIM; row++)
    planes.forEach((plane, bit) => {
      let sum = 0;
      for (let i = 0; i < DIM; i++) sum += (floats[row * DIM + i] ?? 0) * (plane[i] ?? 0);
      if (sum > 0) bytes[row * (BITS / 8) + (bit >> 3)] = (bytes[row * (BITS / 8) + (bit >> 3)] ?? 0) | (1 << (bit & 7));
    });
  return bytes;
}
const [bits, queryBits] = [sidesOf(vectors), sidesOf(queries)];
const ones = Uint8Array.from({ length: 256 }, (_, byte) => byte.toString(2).replaceAll('0', '').length);
const binary: Kind = {
  ...{ metric: 'HAMMING', type: DataType.BinaryVector, placeholder: PlaceholderType.BinaryVector, dim: BITS },
  rows: (first, count) => {
    const data = { $case: 'binaryVector' as const, value: bits.slice((first * BITS) / 8, ((first + count) * BITS) / 8) };
    const field = { $case: 'vectors' as const, value: { dim: BigInt(BITS), data } };
    return [keyField(first, count), FieldData.fromPartial({ type: WireType.BinaryVector, fieldName: 'vector', field })];
  },
  queries: eachOf(queryBits, BITS / 8),
  nearness: (query, row) => {
    let sum = 0;
    for (let i = 0; i < BITS / 8; i++) sum -= ones[(bits[(row * BITS) / 8 + i] ?? 0) ^ (queryBits[(query * BITS) / 8 + i] ?? 0)] ?? 0;
    return sum;
  },
};

const SPARSE_DIM = 5000;
const sparseRow = (): Map<number, number> =>
  new Map(
    Array.from({ length: 30 }, () => [Math.floor(random() ** 2 * SPARSE_DIM), Math.fround(random())] as const).sort(([a], [b]) => a - b),
  );
const [sparseRows, sparseQueries] = [Array.from({ length: ROWS }, sparseRow), Array.from({ length: QUERIES }, sparseRow)];
function pairsOf(row: ReadonlyMap<number, number>): Uint8Array {
  const view = new DataView(new ArrayBuffer(row.size * 8));
  [...row].forEach(([index, value], i) => {
    view.setUint32(i * 8, index, true);
    view.setFloat32(i * 8 + 4, value, true);
  });
  return new Uint8Array(view.buffer);
}
const sparse: Kind = {
  ...{ metric: 'IP', type: DataType.SparseFloatVector, placeholder: PlaceholderType.SparseFloatVector },
  rows: (first, count) => {
    const contents = sparseRows.slice(first, first + count).map(pairsOf);
    const data = { $case: 'sparseFloatVector' as const, value: { contents, dim: BigInt(SPARSE_DIM) } };
    const field = { $case: 'vectors' as const, value: { dim: BigInt(SPARSE_DIM), data } };
    return [keyField(first, count), FieldData.fromPartial({ type: WireType.SparseFloatVector, fieldName: 'vector', field })];
  },
  queries: sparseQueries.map(pairsOf),
  nearness: (query, row) => {
    let sum = 0;
    for (const [index, value] of sparseQueries[query] ?? []) sum += value * (sparseRows[row]?.get(index) ?? 0);
    return sum;
  },
};

const NAMES: readonly Name[] = [
  { name: 'FLAT', kind: dense, faiss: { factory: 'Flat' } },
  { name: 'HNSW', kind: dense, params: { M: 16, efConstruction: 160 }, faiss: { factory: 'HNSW16,Flat' } },
  { name: 'AUTOINDEX', kind: dense },
  { name: 'HNSW_SQ', kind: dense, params: { M: 16, efConstruction: 160, sq_type: 'SQ8' }, faiss: { factory: 'HNSW16,SQ8' } },
  // faiss takes minutes to train and build this one.
  { name: 'HNSW_PQ', kind: dense, params: { M: 16, efConstruction: 160, m: 32, nbits: 8 } },
  { name: 'HNSW_PRQ', kind: dense, params: { M: 16, efConstruction: 160, m: 2, nbits: 8 } },
  { name: 'IVF_FLAT', kind: dense, params: { nlist: 128 }, faiss: { factory: 'IVF128,Flat' } },
  { name: 'IVF_SQ8', kind: dense, params: { nlist: 128 }, faiss: { factory: 'IVF128,SQ8' } },
  { name: 'IVF_PQ', kind: dense, params: { nlist: 128, m: 32, nbits: 8 }, faiss: { factory: 'IVF128,PQ32' } },
  { name: 'IVF_RABITQ', kind: dense, params: { nlist: 128 }, faiss: { factory: 'IVF128,RaBitQ' } },
  { name: 'SCANN', kind: dense, params: { nlist: 128 }, faiss: { factory: 'IVF128,PQ64x4fs,Refine(Flat)', refine: 100 } },
  { name: 'DISKANN', kind: dense },
  { name: 'BIN_FLAT', kind: binary, faiss: { factory: 'BFlat', binary: true } },
  { name: 'BIN_IVF_FLAT', kind: binary, params: { nlist: 128 }, faiss: { factory: 'BIVF128', binary: true } },
  { name: 'AUTOINDEX (binary)', kind: binary },
  { name: 'SPARSE_INVERTED_INDEX', kind: sparse, params: { inverted_index_algo: 'DAAT_MAXSCORE' } },
  { name: 'SPARSE_WAND', kind: sparse },
  { name: 'AUTOINDEX (sparse)', kind: sparse },
];

const truths = new Map<Kind, number[]>();
/** Nearness of the tenth nearest row of each sampled query. */
function truthOf(kind: Kind): number[] {
  const known = truths.get(kind);
  if (known) return known;
  const truth = Array.from({ length: SAMPLE }, (_, query) => {
    const all = Float64Array.from({ length: ROWS }, (_, row) => kind.nearness(query, row)).sort();
    return all[ROWS - TOP_K] ?? 0;
  });
  truths.set(kind, truth);
  return truth;
}
function recallOf(kind: Kind, lists: readonly (readonly number[])[]): number {
  const truth = truthOf(kind);
  const good = lists.map((ids, query) => {
    const bound = truth[query] ?? 0;
    return ids.filter((row) => row >= 0 && kind.nearness(query, row) >= bound - 1e-5 * Math.max(1, Math.abs(bound))).length;
  });
  return good.reduce((sum, count) => sum + count, 0) / (SAMPLE * TOP_K);
}

const prepared = await preparePython([FAISS]);
if ('missing' in prepared) console.log(`faiss is not measured: ${prepared.missing}`);
const scratch = mkdtempSync(join(tmpdir(), 'cairn-bench-'));
const worker =
  'missing' in prepared
    ? undefined
    : spawn(prepared.python, [join(import.meta.dirname, 'support/faiss_worker.py')], { stdio: ['pipe', 'pipe', 'inherit'] });
const answers = worker && createInterface({ input: worker.stdout })[Symbol.asyncIterator]();

async function byFaiss({ kind, faiss }: Name): Promise<Record<string, string | number>> {
  if (!worker || !answers || !faiss) return {};
  const files = { vectors: join(scratch, `${kind.metric}.rows`), queries: join(scratch, `${kind.metric}.queries`) };
  writeFileSync(files.vectors, kind === dense ? bytesOf(vectors) : bits);
  writeFileSync(files.queries, kind === dense ? bytesOf(queries) : queryBits);
  worker.stdin.write(`${JSON.stringify({ ...SEARCHED, binary: false, ...faiss, ...files, dim: kind.dim, threads: THREADS, seconds })}\n`);
  const line = await answers.next();
  if (line.done) return { 'faiss recall': 'ended' };
  const answer = JSON.parse(line.value) as { error?: string; build: number; mb: number; ids: number[][]; qps: number };
  if (answer.error) return { 'faiss recall': answer.error.slice(0, 60) };
  return {
    'faiss recall': round(recallOf(kind, answer.ids), 4),
    'faiss nq 100/s': round(answer.qps, 0),
    'faiss build s': round(answer.build, 2),
    'faiss MB': round(answer.mb, 1),
  };
}

const must = (what: string, status: { error_code?: unknown; reason?: string }): void => {
  if (status.error_code !== 'Success') throw new Error(`${what}: ${status.reason}`);
};
const server = await startStandalone();
const { address } = server;
const client = new MilvusClient({ address, timeout: 120_000 });
await client.connectPromise;

/** Bytes of the files of vector indexes. */
function indexBytes(): number {
  const root = join(server.dataDir, 'objects');
  return readdirSync(root, { recursive: true })
    .map(String)
    .filter((name) => /index\.[^/]*$/.test(name))
    .reduce((sum, name) => sum + statSync(join(root, name)).size, 0);
}

async function byCairn({ name, kind, params }: Name): Promise<Record<string, string | number>> {
  const collection = `c_${name.replace(/\W+/g, '_')}`;
  must(
    'create collection',
    await client.createCollection({
      collection_name: collection,
      shards_num: 1,
      fields: [
        { name: 'id', data_type: DataType.Int64, is_primary_key: true },
        { name: 'vector', data_type: kind.type, ...(kind.dim ? { dim: kind.dim } : {}) },
      ],
    }),
  );
  const inserts: string[] = [];
  for (let row = 0; row < ROWS; row += BATCH) {
    const request = InsertRequest.fromPartial({ collectionName: collection, numRows: BATCH, fieldsData: kind.rows(row, BATCH) });
    inserts.push(Buffer.from(InsertRequest.encode(request).finish()).toString('base64'));
  }
  await runLoad({ address, path: `${PATH}Insert`, requests: inserts, connections: 1, depth: 1, once: true, durationMs: 0 });
  must('flush', (await client.flushSync({ collection_names: [collection] })).status);
  const before = indexBytes();
  const start = performance.now();
  const index_type = name.split(' ')[0] ?? name;
  must(
    'create index',
    await client.createIndex({
      collection_name: collection,
      field_name: 'vector',
      index_type,
      metric_type: kind.metric,
      params: params ?? {},
    }),
  );
  for (;;) {
    const described = await client.describeIndex({ collection_name: collection });
    const index = described.index_descriptions[0];
    if (index?.state === 'Finished' && Number(index.pending_index_rows ?? 0) === 0) break;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const build = (performance.now() - start) / 1000;
  const size = indexBytes() - before;
  await settleAndLoad(address, collection);
  const shape = { collection, field: 'vector', metric: kind.metric, topK: TOP_K };
  const request = (from: number, nq: number): Uint8Array => searchRequestOf(shape, kind.placeholder, kind.queries.slice(from, from + nq));
  const reply = SearchResults.decode(await callRaw(address, `${PATH}Search`, request(0, SAMPLE)));
  if (reply.status?.code) throw new Error(`${name}: ${reply.status.reason}`);
  const ids = reply.results?.ids?.idField?.value.data.map(Number) ?? [];
  const lists = Array.from({ length: SAMPLE }, (_, i) => ids.slice(i * TOP_K, (i + 1) * TOP_K));
  const rate = async (requests: readonly Uint8Array[], connections: number): Promise<number> => {
    const texts = requests.map((one) => Buffer.from(one).toString('base64'));
    const load = await runLoad({
      address,
      path: `${PATH}Search`,
      requests: texts,
      connections,
      depth: 1,
      once: false,
      durationMs: seconds * 1000,
    });
    return load.calls / load.seconds;
  };
  const single = await rate(
    Array.from({ length: QUERIES }, (_, i) => request(i, 1)),
    4,
  );
  const hundred = (await rate([request(0, 100), request(100, 100)], 1)) * 100;
  must('drop', await client.dropCollection({ collection_name: collection }));
  return {
    'recall@10': round(recallOf(kind, lists), 4),
    'nq 1, 4 clients/s': round(single, 0),
    'nq 100/s': round(hundred, 0),
    'build s': size > 0 ? round(build, 2) : 'none',
    'index MB': round(size / 2 ** 20, 1),
  };
}

try {
  const table: Record<string, string | number>[] = [];
  for (const name of NAMES) {
    if (only && !only.includes(name.name)) continue;
    const params = Object.entries(name.params ?? {}).map(([key, value]) => `${key} ${value}`);
    table.push({ name: name.name, params: params.join(', '), ...(await byCairn(name)), ...(await byFaiss(name)) });
    console.error(JSON.stringify(table.at(-1)));
  }
  printTable(`indexes: ${ROWS} rows, top ${TOP_K}, search parameters left out (ef 64; faiss: ef 64, nprobe 8, ${THREADS} threads)`, table);
} finally {
  worker?.stdin.end();
  await client.closeConnection();
  await server.stop();
  rmSync(scratch, { recursive: true, force: true });
}
