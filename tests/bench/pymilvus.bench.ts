/**
 * One pymilvus client, the same script for every side: Cairn, a server of ours that only acknowledges (what this client can reach at all), and milvus-lite.
 * Inserts of 50,000 × 128 in batches of 2,000, queries of 50,000 rows with three scalars (by key, `in` of 100, `count(*)`, 10,000 rows of a range), and searches with nq=1, top 10, HNSW M 16, efConstruction 128, COSINE over 20,000 × 384. The sides take
 * turns; medians of the turns.
 *   node tests/bench/pymilvus.bench.ts [standalone|cluster] [seconds a search run] [insert,query,search]
 */
import { type ChildProcess, fork, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { ConnectRequest, DescribeCollectionRequest, GetVersionRequest, QueryRequest } from '@cairn/proto/milvus/milvus';
import { Client, credentials } from '@grpc/grpc-js';
import { startCluster, startStandalone } from '../support/cairn.ts';
import { MILVUS_LITE, PYMILVUS, preparePython } from '../support/python.ts';
import { freePorts } from '../support/servers.ts';
import { packagesData } from './support/packages.ts';
import { createCollection, insertRequest, PATH, searchRequest } from './support/requests.ts';
import { printTable, quantile, round } from './support/table.ts';

const mode = process.argv[2] ?? 'standalone';
const seconds = Number(process.argv[3] ?? 4);
const parts = (process.argv[4] ?? 'insert,query,search').split(',');
const RUNS = 3;
const INSERT = { rows: 50_000, dim: 128, batch: 2000 };
const SEARCH = { dim: 384, limit: 10, ef: 64 };
const COLLECTION = 'bench';
const SCALARS = 'scalars';
const SCALAR_ROWS = 50_000;
const FIELDS = ['id', 'n', 'price', 'name'];
const keyed = (i: number): number => (i * 7919) % SCALAR_ROWS;
const range = (i: number): string => `id >= ${i * 900} and id < ${i * 900 + 10_000}`;
const QUERIES = [
  { what: 'by key', rows: 1, fields: FIELDS, filters: Array.from({ length: 200 }, (_, i) => `id == ${keyed(i)}`) },
  {
    ...{ what: 'in of 100 keys', rows: 100, fields: FIELDS },
    filters: Array.from({ length: 50 }, (_, i) => `id in [${Array.from({ length: 100 }, (_, j) => keyed(i * 100 + j)).join(', ')}]`),
  },
  { what: 'count(*)', rows: 1, fields: ['count(*)'], filters: [''] },
  { what: 'count(*) where n < 500', rows: 1, fields: ['count(*)'], filters: ['n < 500'] },
  { what: '10,000 rows of a range', rows: 10_000, fields: FIELDS, filters: Array.from({ length: 40 }, (_, i) => range(i)) },
];

const prepared = await preparePython([MILVUS_LITE, PYMILVUS]);
if ('missing' in prepared) {
  console.log(`pymilvus is not measured: ${prepared.missing}`);
  process.exit(0);
}

interface Answer {
  readonly error?: string;
  readonly rows?: number;
  readonly searches?: number;
  readonly seconds?: number;
  readonly clientCpu?: number;
  readonly recall?: number;
}

/** A pymilvus client in a process of its own, at a server or in milvus-lite's file. */
class Worker {
  readonly #child;
  readonly #answers: AsyncIterator<string>;

  constructor(python: string, uri: string) {
    this.#child = spawn(python, [join(import.meta.dirname, 'support/pymilvus_worker.py'), uri], { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#answers = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  async ask(request: Readonly<Record<string, unknown>>): Promise<Answer> {
    this.#child.stdin.write(`${JSON.stringify(request)}\n`);
    const line = await this.#answers.next();
    if (line.done) throw new Error(`the pymilvus process ended during ${request['do']}`);
    const answer = JSON.parse(line.value) as Answer;
    if (answer.error) throw new Error(`${request['do']}: ${answer.error}`);
    return answer;
  }

  async end(): Promise<void> {
    const exited = once(this.#child, 'exit');
    this.#child.stdin.end();
    await exited;
  }
}

/** Answers of a real server to the calls of the client, for the server that only acknowledges. */
async function record(address: string, queries: Float32Array, search: boolean): Promise<Record<string, string>> {
  await createCollection(address, COLLECTION, INSERT.dim, { index: false });
  const client = new Client(address, credentials.createInsecure());
  const reply = (method: string, request: Uint8Array): Promise<string> =>
    new Promise((resolve, reject) =>
      client.makeUnaryRequest(
        `${PATH}${method}`,
        (value: Buffer) => value,
        (value: Buffer) => value,
        Buffer.from(request),
        (error, bytes) => (error || !bytes ? reject(error) : resolve(bytes.toString('base64'))),
      ),
    );
  const batch = insertRequest(COLLECTION, 0, new Float32Array(INSERT.batch * INSERT.dim), INSERT.dim);
  const query = searchRequest(
    { collection: 'packages', field: 'vector', metric: 'COSINE', topK: SEARCH.limit, ef: 64 },
    queries,
    SEARCH.dim,
  );
  const rangeQuery = QueryRequest.fromPartial({ collectionName: SCALARS, expr: range(0), outputFields: FIELDS });
  const requests: Record<string, Uint8Array> = {
    Connect: ConnectRequest.encode(ConnectRequest.fromPartial({})).finish(),
    GetVersion: GetVersionRequest.encode(GetVersionRequest.fromPartial({})).finish(),
    DescribeCollection: DescribeCollectionRequest.encode(DescribeCollectionRequest.fromPartial({ collectionName: COLLECTION })).finish(),
    Insert: batch,
    ...(search ? { Search: query } : {}),
    ...(parts.includes('query') ? { Query: QueryRequest.encode(rangeQuery).finish() } : {}),
  };
  const replies: Record<string, string> = {};
  for (const [method, request] of Object.entries(requests)) replies[`${PATH}${method}`] = await reply(method, request);
  client.close();
  return replies;
}

/** CPU seconds of processes, user and system (Linux). */
function cpuSeconds(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
    return sum + (Number(fields[11]) + Number(fields[12])) / 100;
  }, 0);
}

const scratch = mkdtempSync(join(tmpdir(), 'cairn-bench-'));
const server = mode === 'cluster' ? await startCluster() : await startStandalone();
const address = 'addresses' in server ? (server.addresses[0] ?? '') : server.address;
const pids = 'addresses' in server ? server.all().map((one) => one.pid) : [server.process.pid];
const workers: Worker[] = [];
let canned: ChildProcess | undefined;
try {
  const { vectors, queries, source } = packagesData();
  const [vectorFile, queryFile] = [join(scratch, 'vectors.f32'), join(scratch, 'queries.f32')];
  writeFileSync(vectorFile, new Uint8Array(vectors.buffer, vectors.byteOffset, vectors.byteLength));
  writeFileSync(queryFile, new Uint8Array(queries.buffer, queries.byteOffset, queries.byteLength));

  const ours = new Worker(prepared.python, `http://${address}`);
  const lite = new Worker(prepared.python, join(scratch, 'lite.db'));
  workers.push(ours, lite);
  for (const side of [ours, lite]) {
    if (parts.includes('query')) await side.ask({ do: 'scalars', collection: SCALARS, rows: SCALAR_ROWS });
    if (!parts.includes('search')) continue;
    await side.ask({ do: 'create', collection: 'packages', dim: SEARCH.dim, index: true, metric: 'COSINE' });
    await side.ask({ do: 'insert', collection: 'packages', vectors: vectorFile, dim: SEARCH.dim, batch: 1000 });
    await side.ask({ do: 'load', collection: 'packages' });
  }
  const cannedFile = join(scratch, 'canned.json');
  writeFileSync(cannedFile, JSON.stringify(await record(address, queries.slice(0, SEARCH.dim), parts.includes('search'))));
  const [port = 0] = await freePorts(1);
  canned = fork(join(import.meta.dirname, 'support/canned-server.ts'), [String(port), cannedFile]);
  await once(canned, 'message');
  const limit = new Worker(prepared.python, `http://127.0.0.1:${port}`);
  workers.push(limit);

  const sides = [
    { name: `Cairn, ${mode}`, worker: ours, makes: true, pids },
    { name: 'acknowledges only', worker: limit, makes: false, pids: [canned.pid ?? 0] },
    { name: 'milvus-lite', worker: lite, makes: true, pids: [] },
  ].map((side) => ({ ...side, inserts: [] as number[], searches: [] as number[], client: 0, server: 0, recall: Number.NaN }));

  // The first turn warms up.
  for (let run = 0; parts.includes('insert') && run <= RUNS; run++)
    for (const side of sides) {
      const collection = side.makes ? `run${run}` : COLLECTION;
      if (side.makes) await side.worker.ask({ do: 'create', collection, dim: INSERT.dim, index: false });
      const before = cpuSeconds(side.pids);
      const answer = await side.worker.ask({ do: 'insert', collection, ...INSERT });
      const used = cpuSeconds(side.pids) - before;
      if (side.makes) await side.worker.ask({ do: 'drop', collection });
      if (run === 0) continue;
      side.inserts.push((answer.rows ?? 0) / (answer.seconds ?? 0));
      side.client += (answer.clientCpu ?? 0) / RUNS;
      side.server += used / RUNS;
    }
  const rate = (side: (typeof sides)[number] | undefined): number => quantile(side?.inserts ?? [], 0.5);
  const line = (values: readonly number[], ofs: readonly (readonly number[])[]): Record<string, string> => ({
    'of acknowledging': `${round((100 * quantile(values, 0.5)) / quantile(ofs[1] ?? [], 0.5))} %`,
    'x milvus-lite': `${round(quantile(values, 0.5) / quantile(ofs[2] ?? [], 0.5))}`,
  });
  if (parts.includes('insert'))
    printTable(`insert by one pymilvus client, ${INSERT.rows} × ${INSERT.dim}, batches of ${INSERT.batch}`, [
      ...sides.map((side) => ({
        side: side.name,
        'rows/s': round(rate(side), 0),
        range: `${round(Math.min(...side.inserts), 0)} to ${round(Math.max(...side.inserts), 0)}`,
        'CPU s client': round(side.client, 2),
        'CPU s server': side.pids.length > 0 ? round(side.server, 2) : 'in the client',
        ...line(
          side.inserts,
          sides.map((one) => one.inserts),
        ),
      })),
    ]);

  const asked: Record<string, string | number>[] = [];
  for (const { what, ...query } of parts.includes('query') ? QUERIES : []) {
    // The server that only acknowledges has one answer, the range's.
    const able = sides.filter(({ makes }) => makes || query.rows === 10_000);
    const rates = able.map((): number[] => []);
    for (let run = 0; run <= RUNS; run++)
      for (const [i, side] of able.entries()) {
        const collection = side.makes ? SCALARS : COLLECTION;
        const answer = await side.worker.ask({ do: 'query', collection, ...query, seconds: run === 0 ? 0.3 : seconds });
        if (run > 0) rates[i]?.push((answer.searches ?? 0) / (answer.seconds ?? 0));
      }
    const median = (name: string): number => quantile(rates[able.findIndex((side) => side.name === name)] ?? [], 0.5);
    const ours = quantile(rates[0] ?? [], 0.5);
    asked.push({
      query: what,
      'Cairn/s': round(ours, 1),
      'rows/s': round(ours * query.rows, 0),
      'milvus-lite/s': round(median('milvus-lite'), 1),
      'x milvus-lite': round(ours / median('milvus-lite'), 1),
      ...(able.length === 3 ? { 'acknowledging, rows/s': round(median('acknowledges only') * query.rows, 0) } : {}),
    });
  }
  if (asked.length > 0) printTable(`query by one pymilvus client, ${SCALAR_ROWS} rows`, asked);

  for (let run = 0; parts.includes('search') && run <= RUNS; run++)
    for (const side of sides) {
      const collection = side.makes ? 'packages' : COLLECTION;
      const truth = run === 0 && side.makes ? { vectors: vectorFile } : {};
      const answer = await side.worker.ask({
        do: 'search',
        collection,
        queries: queryFile,
        ...SEARCH,
        ...truth,
        seconds: run === 0 ? 1 : seconds,
      });
      side.recall = answer.recall ?? side.recall;
      if (run > 0) side.searches.push((answer.searches ?? 0) / (answer.seconds ?? 0));
    }
  if (parts.includes('search'))
    printTable(
      `search by one pymilvus client, ${vectors.length / SEARCH.dim} × ${SEARCH.dim} (${source}), nq=1, top ${SEARCH.limit}, HNSW M 16, ef ${SEARCH.ef}`,
      [
        ...sides.map((side) => ({
          side: side.name,
          'searches/s': round(quantile(side.searches, 0.5), 1),
          range: `${round(Math.min(...side.searches), 1)} to ${round(Math.max(...side.searches), 1)}`,
          'recall@10': Number.isNaN(side.recall) ? '' : round(side.recall, 4),
          ...line(
            side.searches,
            sides.map((one) => one.searches),
          ),
        })),
      ],
    );
} finally {
  for (const worker of workers) await worker.end();
  canned?.kill();
  await server.stop();
  rmSync(scratch, { recursive: true, force: true });
}
