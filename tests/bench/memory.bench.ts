/**
 * What loaded rows cost: inserts rows of 128 dimensions, waits until all are flushed and in HNSW graphs, starts the server again, and measures the load (until
 * a Strong search is answered) and its memory before, after the load and after searches. Raw bytes are those of the vectors.
 * With a folder, the rows of an earlier run in it are used; what is in it stays.
 *   node tests/bench/memory.bench.ts [rows] [folder]
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MilvusClient } from '@zilliz/milvus2-sdk-node';
import { type Standalone, startStandalone } from '../support/cairn.ts';
import { seeded } from '../support/workload.ts';
import { callRaw } from './peers/raw-call.ts';
import { runLoad } from './support/load.ts';
import { latentPoints } from './support/points.ts';
import { createCollection, insertRequest, PATH, searchRequest, settleAndLoad } from './support/requests.ts';
import { printTable, round } from './support/table.ts';

const rows = Number(process.argv[2] ?? 1_000_000);
const DIM = 128;
const BATCH = 2000;
const ROUND = 100_000;
const COLLECTION = 'memory';
const dir = process.argv[3] ?? mkdtempSync(join(tmpdir(), 'cairn-memory-'));
const kept = existsSync(join(dir, 'data'));

/** Megabytes of a process: its own (heap, buffers), and pages of mapped files that are in memory now. A page that several threads have mapped is one page. */
function memoryOf(server: Standalone): { own: number; mapped: number } {
  const pages = readFileSync(`/proc/${server.process.pid}/smaps_rollup`, 'utf8');
  const of = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(pages)?.[1] ?? 0) / 1024;
  return { own: of('Pss_Anon') + of('Pss_Shmem'), mapped: of('Pss_File') };
}

const raw = (rows * DIM * 4) / 2 ** 20;
const table: Record<string, string | number>[] = [];
const note = (what: string, server: Standalone, started?: number): void => {
  const { own, mapped } = memoryOf(server);
  table.push({
    what,
    seconds: started === undefined ? '' : round((performance.now() - started) / 1000, 2),
    'own MB': round(own, 0),
    'mapped MB': round(mapped, 0),
    'of raw vectors': round((own + mapped) / raw, 2),
  });
};

const points = latentPoints(DIM, seeded(3));
// Compaction would have its own memory in the middle of this.
const settings = { 'compaction.enabled': 'false' };
let server = await startStandalone({ dataDir: join(dir, 'data'), settings });
try {
  const started = performance.now();
  if (!kept) await createCollection(server.address, COLLECTION, DIM, { shards: 1, metric: 'L2' });
  for (let first = 0; !kept && first < rows; first += ROUND) {
    const vectors = points(Math.min(ROUND, rows - first));
    const requests: string[] = [];
    for (let at = 0; at < vectors.length / DIM; at += BATCH)
      requests.push(
        Buffer.from(insertRequest(COLLECTION, first + at, vectors.subarray(at * DIM, (at + BATCH) * DIM), DIM)).toString('base64'),
      );
    await runLoad({ address: server.address, path: `${PATH}Insert`, requests, connections: 2, depth: 1, once: true, durationMs: 0 });
  }
  if (!kept) note('inserted', server, started);
  await settleAndLoad(server.address, COLLECTION);
  note('flushed, graphs built, loaded', server, started);

  const release = new MilvusClient({ address: server.address });
  await release.releaseCollection({ collection_name: COLLECTION });
  await release.closeConnection();
  await server.stop();
  server = await startStandalone({ dataDir: join(dir, 'data'), settings });
  note('started again, nothing loaded', server);

  const client = new MilvusClient({ address: server.address, timeout: 300_000 });
  await client.connectPromise;
  const loading = performance.now();
  const { error_code, reason } = await client.loadCollectionSync({ collection_name: COLLECTION });
  if (error_code !== 'Success') throw new Error(`load: ${reason}`);
  const queries = points(200);
  const shape = { collection: COLLECTION, field: 'vector', metric: 'L2', topK: 10, ef: 64 };
  const request = (i: number): Uint8Array => searchRequest(shape, queries.slice(i * DIM, (i + 1) * DIM), DIM);
  await callRaw(server.address, `${PATH}Search`, request(0));
  note('loaded, one search answered', server, loading);
  const requests = Array.from({ length: 200 }, (_, i) => Buffer.from(request(i)).toString('base64'));
  const load = { address: server.address, path: `${PATH}Search`, requests, connections: 4, depth: 1, once: false };
  const searched = performance.now();
  const { calls, seconds } = await runLoad({ ...load, durationMs: 10_000 });
  note(`after ${calls} searches (${round(calls / seconds, 0)}/s)`, server, searched);
  await client.closeConnection();
  printTable(`memory: ${rows} × ${DIM}, ${round(raw, 0)} MB of vectors`, table);
} finally {
  await server.stop();
  if (process.argv[3] === undefined) rmSync(dir, { recursive: true, force: true });
}
