/**
 * How long the event loop of the process that serves clients is held up under full load: searches, inserts, and ordered queries over 100,000 rows. The
 * delay is the process's own figure (`cairn_event_loop_delay_seconds`), beyond its timer, reset at each scrape.
 *   node tests/bench/delay.bench.ts [standalone|cluster] [seconds a load]
 */
import { QueryRequest } from '@cairn/proto/milvus/milvus';
import { startCluster, startStandalone } from '../support/cairn.ts';
import { seeded } from '../support/workload.ts';
import { type LoadResult, runLoad } from './support/load.ts';
import { clusteredVectors, createCollection, insertRequest, PATH, searchRequest, settleAndLoad } from './support/requests.ts';
import { printTable, quantile, round } from './support/table.ts';

const mode = process.argv[2] ?? 'cluster';
const seconds = Number(process.argv[3] ?? 5);
const DIM = 32;
const ROWS = 100_000;
const BATCH = 2_000;
const COLLECTION = 'delay';

const vectors = clusteredVectors(ROWS, DIM, seeded(1));
const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
const inserts = (collection: string): string[] =>
  Array.from({ length: ROWS / BATCH }, (_, i) =>
    base64(insertRequest(collection, i * BATCH, vectors.subarray(i * BATCH * DIM, (i + 1) * BATCH * DIM), DIM)),
  );

const server = mode === 'cluster' ? await startCluster() : await startStandalone();
const address = 'addresses' in server ? (server.addresses[0] ?? '') : server.address;
const httpPort = 'httpPorts' in server ? (server.httpPorts.get('proxy-0') ?? 0) : server.httpPort;

/** Quantiles since the last call, ms. */
async function delays(): Promise<Record<string, number>> {
  const text = await (await fetch(`http://127.0.0.1:${httpPort}/metrics`)).text();
  const found = text.matchAll(/^cairn_event_loop_delay_seconds\{[^}]*quantile="([\d.]+)"[^}]*\} (\S+)/gm);
  return Object.fromEntries([...found].map(([, name, value]) => [name, Number(value) * 1000]));
}

try {
  await createCollection(address, COLLECTION, DIM, { shards: 2 });
  await runLoad({ address, path: `${PATH}Insert`, requests: inserts(COLLECTION), connections: 2, depth: 2, once: true, durationMs: 0 });
  await settleAndLoad(address, COLLECTION);
  await createCollection(address, 'written', DIM, { index: false });
  const shape = { collection: COLLECTION, field: 'vector', metric: 'COSINE', topK: 10, ef: 64 };
  const searches = Array.from({ length: 500 }, (_, i) => base64(searchRequest(shape, vectors.slice(i * DIM, (i + 1) * DIM), DIM)));
  const ordered = base64(
    QueryRequest.encode(
      QueryRequest.fromPartial({
        collectionName: COLLECTION,
        expr: 'id >= 0',
        outputFields: ['id'],
        guaranteeTimestamp: 1n,
        queryParams: [
          { key: 'limit', value: '10' },
          { key: 'order_by_fields', value: 'id:desc' },
        ],
      }),
    ).finish(),
  );
  const load = (path: string, requests: readonly string[], connections: number, depth: number): Promise<LoadResult> =>
    runLoad({ address, path: `${PATH}${path}`, requests, connections, depth, once: false, durationMs: seconds * 1000 });
  const loads: Record<string, () => Promise<LoadResult[]>> = {
    'searches, 4 × 4 at once': () => Promise.all([load('Search', searches, 4, 4)]),
    'inserts, 4 × 2 at once': () => Promise.all([load('Insert', inserts('written'), 4, 2)]),
    'ordered queries over 100,000 rows, 2 at once': () => Promise.all([load('Query', [ordered], 2, 1)]),
    'all three': () =>
      Promise.all([load('Search', searches, 2, 4), load('Insert', inserts('written'), 2, 1), load('Query', [ordered], 1, 1)]),
  };
  const rows: Record<string, string | number>[] = [];
  for (const [what, run] of Object.entries(loads)) {
    await delays();
    const results = await run();
    const seen = await delays();
    rows.push({
      what,
      'requests/s': round(
        results.reduce((sum, result) => sum + result.calls / result.seconds, 0),
        0,
      ),
      'p99 of a request, ms': round(Math.max(...results.map((result) => quantile(result.latenciesMs, 0.99)))),
      'loop p50 ms': round(seen['0.5'] ?? Number.NaN),
      'loop p99 ms': round(seen['0.99'] ?? Number.NaN),
      'loop max ms': round(seen['1'] ?? Number.NaN),
    });
  }
  printTable(`event loop of the ${mode === 'cluster' ? 'proxy' : 'one process'} under load, ${ROWS} × ${DIM}`, rows);
} finally {
  await server.stop();
}
