/**
 * CreateSnapshot of a collection of 4 shards under full ingest: how long each create takes, and what inserts wait meanwhile, of what they wait otherwise.
 *   node tests/bench/ingest.bench.ts [standalone|cluster] [how many creates, default 6]
 */
import { MilvusClient } from '@zilliz/milvus2-sdk-node';
import { startCluster, startStandalone } from '../support/cairn.ts';
import { seeded } from '../support/workload.ts';
import { runLoad } from './support/load.ts';
import { clusteredVectors, createCollection, insertRequest, PATH } from './support/requests.ts';
import { printTable, quantile, round } from './support/table.ts';

const mode = process.argv[2] ?? 'standalone';
const count = Number(process.argv[3] ?? 6);
const DIM = 128;
const ROWS = 500;
const REQUESTS = 40;
/** Inserts alone before the first create and between two, ms. */
const APART_MS = 2_500;
/** Longest time of a create that is waited for, ms. */
const CREATE_MS = 10_000;

const now = (): number => performance.timeOrigin + performance.now();
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const server = mode === 'cluster' ? await startCluster() : await startStandalone();
try {
  const address = 'addresses' in server ? (server.addresses[0] ?? '') : server.address;
  await createCollection(address, 'ingest', DIM, { shards: 4, index: false });
  const random = seeded(1);
  const requests = Array.from({ length: REQUESTS }, (_, i) =>
    Buffer.from(insertRequest('ingest', i * ROWS, clusteredVectors(ROWS, DIM, random), DIM)).toString('base64'),
  );
  const client = new MilvusClient({ address });
  await client.connectPromise;
  const load = runLoad({
    ...{ address, path: `${PATH}Insert`, requests, connections: 4, depth: 1, once: false },
    durationMs: (count + 1) * APART_MS + count * 1_500 + 2_000,
  });
  await pause(2 * APART_MS);
  const creates: { from: number; to: number }[] = [];
  for (let i = 0; i < count; i++) {
    const from = now();
    const status = await client.createSnapshot({ collection_name: 'ingest', snapshot_name: `s${i}`, timeout: CREATE_MS });
    if (status.error_code !== 'Success') throw new Error(status.reason);
    creates.push({ from, to: now() });
    await pause(APART_MS);
  }
  const { latenciesMs, endedMs, calls, seconds, bytes } = await load;
  const until = Math.max(...endedMs);
  const within = creates.filter(({ to }) => to < until);
  /** An insert counts to a create when any of its time lies within it. */
  const during = latenciesMs.map((latency, i) => {
    const ended = endedMs[i] ?? 0;
    return within.some(({ from, to }) => ended > from && ended - latency < to);
  });
  const first = (creates[0]?.from ?? 0) - APART_MS;
  const last = within.at(-1)?.to ?? 0;
  const row = (what: string, values: readonly number[]): Record<string, string | number> => ({
    what,
    n: values.length,
    'p50 ms': round(quantile(values, 0.5)),
    'p99 ms': round(quantile(values, 0.99)),
    'max ms': round(Math.max(...values)),
  });
  const took = within.map(({ from, to }) => to - from);
  const inserts = latenciesMs.filter((_, i) => during[i]);
  const otherwise = latenciesMs.filter((latency, i) => !during[i] && (endedMs[i] ?? 0) - latency > first && (endedMs[i] ?? 0) < last);
  printTable(
    `create under ingest, ${mode}, 4 shards, 4 connections, batches of ${ROWS} × ${DIM}: ${round((calls * ROWS) / seconds, 0)} rows/s, ${round(bytes / seconds / 1e6)} MB/s`,
    [row('create', took), row('insert during a create', inserts), row('insert otherwise', otherwise)],
  );
  console.log(`p99 of inserts during creates, of that otherwise: ${round(quantile(inserts, 0.99) / quantile(otherwise, 0.99), 2)} x`);
  await client.closeConnection();
} finally {
  await server.stop();
}
