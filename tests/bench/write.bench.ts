/**
 * Inserts with pre-encoded requests over 4 connections: the server as it is, against the same processes with a write-ahead log in memory (every hop,
 * decoding and routing kept; in a cluster nats-server writes to a RAM disk and syncs nothing), and against a server that only acknowledges. 50,000 × 128, batches of 2,000.
 *   node tests/bench/write.bench.ts [standalone|cluster]
 */
import { fork } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MutationResult } from '@cairn/proto/milvus/milvus';
import { startCluster, startStandalone } from '../support/cairn.ts';
import { freePorts } from '../support/servers.ts';
import { seeded } from '../support/workload.ts';
import { type LoadResult, runLoad } from './support/load.ts';
import { clusteredVectors, createCollection, insertRequest, PATH } from './support/requests.ts';
import { printTable, quantile, round } from './support/table.ts';

const mode = process.argv[2] ?? 'standalone';
const ROWS = 50_000;
const DIM = 128;
const BATCH = 2000;
const RUNS = 3;
const vectors = clusteredVectors(ROWS, DIM, seeded(1));
const requestsFor = (collection: string): string[] => {
  const requests: string[] = [];
  for (let row = 0; row < ROWS; row += BATCH)
    requests.push(Buffer.from(insertRequest(collection, row, vectors.subarray(row * DIM, (row + BATCH) * DIM), DIM)).toString('base64'));
  return requests;
};

/** CPU seconds a process has used, user and system (Linux). */
function cpuSeconds(pids: readonly number[]): number {
  return pids.reduce((sum, pid) => {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
    return sum + (Number(fields[11]) + Number(fields[12])) / 100;
  }, 0);
}

const insert = (address: string, collection: string): Promise<LoadResult> =>
  runLoad({ address, path: `${PATH}Insert`, requests: requestsFor(collection), connections: 4, depth: 1, once: true, durationMs: 0 });

async function measure(memory: boolean): Promise<{ rowsPerSecond: number; p50: number; p99: number; cpuPerMb: number }> {
  const ram = mkdtempSync('/dev/shm/cairn-bench-');
  const server =
    mode === 'cluster'
      ? await startCluster(memory ? { nats: { dir: ram, syncInterval: '2m' }, settings: { 'wal.nats.monitors': '' } } : {})
      : await startStandalone({ settings: memory ? { 'wal.kind': 'memory' } : {} });
  try {
    const address = 'addresses' in server ? (server.addresses[0] ?? '') : server.address;
    const pids = 'addresses' in server ? server.all().map((one) => one.pid) : [server.process.pid];
    const results: LoadResult[] = [];
    let cpu = 0;
    for (let run = 0; run <= RUNS; run++) {
      await createCollection(address, `bench${run}`, DIM, { index: false });
      const before = cpuSeconds(pids);
      const result = await insert(address, `bench${run}`);
      // The first run warms up.
      if (run === 0) continue;
      cpu += cpuSeconds(pids) - before;
      results.push(result);
    }
    const latencies = results.flatMap((result) => result.latenciesMs);
    const megabytes = results.reduce((sum, result) => sum + result.bytes, 0) / 1e6;
    return {
      rowsPerSecond: quantile(
        results.map((result) => ROWS / result.seconds),
        0.5,
      ),
      p50: quantile(latencies, 0.5),
      p99: quantile(latencies, 0.99),
      cpuPerMb: cpu / megabytes,
    };
  } finally {
    await server.stop();
    rmSync(ram, { recursive: true, force: true });
  }
}

const real = await measure(false);
const free = await measure(true);
const scratch = mkdtempSync(join(tmpdir(), 'cairn-bench-'));
const file = join(scratch, 'canned.json');
writeFileSync(
  file,
  JSON.stringify({
    [`${PATH}Insert`]: Buffer.from(
      MutationResult.encode(MutationResult.fromPartial({ status: {}, insertCnt: BigInt(BATCH) })).finish(),
    ).toString('base64'),
  }),
);
const [port = 0] = await freePorts(1);
const canned = fork(join(import.meta.dirname, 'support/canned-server.ts'), [String(port), file]);
await new Promise((resolve) => canned.once('message', resolve));
const limits: number[] = [];
for (let run = 0; run < RUNS; run++) limits.push(ROWS / (await insert(`127.0.0.1:${port}`, 'bench')).seconds);
canned.kill();
rmSync(scratch, { recursive: true, force: true });

const row = (what: string, one: typeof real): Record<string, string | number> => ({
  what,
  'rows/s': round(one.rowsPerSecond, 0),
  'p50 ms': round(one.p50),
  'p99 ms': round(one.p99),
  'CPU s/MB': round(one.cpuPerMb, 4),
  'durable of free': `${round((100 * real.rowsPerSecond) / one.rowsPerSecond)} %`,
});
printTable(`insert, ${mode}, ${ROWS} × ${DIM}, batches of ${BATCH}, 4 connections`, [
  row('durable', real),
  row('log in memory', free),
  {
    what: 'acknowledges only',
    'rows/s': round(quantile(limits, 0.5), 0),
    'durable of free': `${round((100 * real.rowsPerSecond) / quantile(limits, 0.5))} %`,
  },
]);
