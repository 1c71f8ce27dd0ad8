/**
 * CPU of one search, by process: steady where a rate is not, because it does not count the time others have the machine. 20,000 × 384, HNSW M 16, COSINE,
 * top 10, ef 64; a canned server for comparison.
 *   node tests/bench/cpu.bench.ts [standalone|cluster] [seconds a run]
 */
import { fork } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Client, credentials } from '@grpc/grpc-js';
import { startCluster, startStandalone } from '../support/cairn.ts';
import { freePorts } from '../support/servers.ts';
import { runLoad } from './support/load.ts';
import { PACKAGES_DIM, packagesData } from './support/packages.ts';
import { createCollection, insertRequest, PATH, searchRequest, settleAndLoad } from './support/requests.ts';
import { printTable, quantile, round } from './support/table.ts';

const mode = process.argv[2] ?? 'standalone';
const seconds = Number(process.argv[3] ?? 5);
const RUNS = 3;
/** Of the kernel's clock in /proc/PID/stat, ms. */
const TICK_MS = 10;
const DIM = PACKAGES_DIM;
const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');

/** User and system time of a process with its threads so far, ms. */
function cpuOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS;
}

const { vectors, queries } = packagesData();
const rows = vectors.length / DIM;
const server = mode === 'cluster' ? await startCluster() : await startStandalone();
const address = 'addresses' in server ? server.addresses[0] : server.address;
const processes = 'all' in server ? server.all() : [server.process];
const scratch = mkdtempSync(join(tmpdir(), 'cairn-bench-'));
const collection = 'bench';
const shape = { collection, field: 'vector', metric: 'COSINE', topK: 10, ef: 64 };
const requests = Array.from({ length: queries.length / DIM }, (_, i) => searchRequest(shape, queries.slice(i * DIM, (i + 1) * DIM), DIM));
let canned: ReturnType<typeof fork> | undefined;
try {
  await createCollection(address, collection, DIM, { shards: mode === 'cluster' ? 2 : 1 });
  const inserts: string[] = [];
  for (let row = 0; row < rows; row += 1000)
    inserts.push(base64(insertRequest(collection, row, vectors.subarray(row * DIM, Math.min(rows, row + 1000) * DIM), DIM)));
  await runLoad({ address, path: `${PATH}Insert`, requests: inserts, connections: 1, depth: 2, once: true, durationMs: 0 });
  await settleAndLoad(address, collection);

  const client = new Client(address, credentials.createInsecure());
  const asItIs = (bytes: Buffer): Buffer => bytes;
  const reply = await new Promise<Buffer>((resolve, reject) =>
    client.makeUnaryRequest(`${PATH}Search`, asItIs, asItIs, Buffer.from(requests[0]), (error, bytes) =>
      error || !bytes ? reject(error) : resolve(bytes),
    ),
  );
  client.close();
  writeFileSync(join(scratch, 'canned.json'), JSON.stringify({ [`${PATH}Search`]: base64(reply) }));
  const [cannedPort = 0] = await freePorts(1);
  canned = fork(join(import.meta.dirname, 'support/canned-server.ts'), [String(cannedPort), join(scratch, 'canned.json')]);
  await new Promise((resolve) => canned?.once('message', resolve));

  const watched = [
    ...processes.map(({ name, pid }) => ({ name, pid, at: address })),
    { name: 'canned', pid: canned.pid ?? 0, at: `127.0.0.1:${cannedPort}` },
  ];
  for (const clients of [1, 4]) {
    const seen = new Map<string, number[]>();
    for (let i = 0; i < RUNS; i++) {
      for (const target of [address, `127.0.0.1:${cannedPort}`]) {
        const group = watched.filter(({ at }) => at === target);
        const before = group.map(({ pid }) => cpuOf(pid));
        const path = `${PATH}Search`;
        const load = { address: target, path, requests: requests.map(base64), connections: clients, depth: 1, once: false };
        const { calls, seconds: took } = await runLoad({ ...load, durationMs: seconds * 1000 });
        const add = (name: string, value: number) => seen.set(name, [...(seen.get(name) ?? []), value]);
        const used = group.map(({ pid }, at) => cpuOf(pid) - before[at]);
        group.forEach(({ name }, at) => {
          add(name, used[at] / calls);
        });
        if (target === address) add('ours together', used.reduce((sum, one) => sum + one) / calls);
        add(target === address ? 'searches a second' : 'canned a second', calls / took);
      }
    }
    printTable(
      `${mode}, ${clients} clients: CPU ms a search`,
      [...seen].map(([what, values]) => ({
        what,
        median: round(quantile(values, 0.5), 3),
        all: values.map((one) => round(one, 3)).join(' '),
      })),
    );
  }
} finally {
  canned?.kill();
  await server.stop();
  rmSync(scratch, { recursive: true, force: true });
}
