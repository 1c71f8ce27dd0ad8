/** Cold start of a standalone server to its first Connect, with an empty data directory and again with it, and its idle memory. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MilvusClient } from '@zilliz/milvus2-sdk-node';
import { startStandalone } from '../support/cairn.ts';
import { printTable, quantile, round } from './support/table.ts';

const directory = mkdtempSync(join(tmpdir(), 'cairn-bench-'));
const times: number[] = [];
const memory: number[] = [];
for (let run = 0; run < 5; run++) {
  const start = performance.now();
  const server = await startStandalone({ dataDir: join(directory, 'data') });
  const client = new MilvusClient({ address: server.address });
  await client.connectPromise;
  times.push(performance.now() - start);
  await client.closeConnection();
  await new Promise((resolve) => setTimeout(resolve, 2000));
  memory.push(Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${server.process.pid}/status`, 'utf8'))?.[1] ?? 0) / 1024);
  await server.stop();
}
rmSync(directory, { recursive: true, force: true });
printTable('standalone: process start to the first Connect answered', [
  { what: 'first start', ms: round(times[0] ?? 0, 0), 'RSS idle MB': round(memory[0] ?? 0, 0) },
  { what: 'later starts (median)', ms: round(quantile(times.slice(1), 0.5), 0), 'RSS idle MB': round(quantile(memory.slice(1), 0.5), 0) },
]);
