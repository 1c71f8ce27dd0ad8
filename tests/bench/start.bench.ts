/**
 * Start of a standalone server to its first Connect, and its idle memory: with nothing compiled (as it would be without `make install`'s last step), the first
 * time after an install (the cache as that step leaves it, filled anew here), and later, on an empty data directory and on one that was used before.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MilvusClient } from '@zilliz/milvus2-sdk-node';
import { startStandalone } from '../support/cairn.ts';
import { printTable, quantile, round } from './support/table.ts';

const RUNS = 3;
const IDLE_MS = 2000;
const installed = join(import.meta.dirname, '../../node_modules/.cache/cairn');
const scratch = mkdtempSync(join(tmpdir(), 'cairn-bench-'));

interface Start {
  readonly ms: number;
  readonly idleMb: number;
}

/**
 * One start with the compile cache in `cache`, or where it lies by itself. Not by the variable there: Node would open the cache before main.ts sets its
 * flags of V8, and refuse what was compiled under them.
 */
async function start(dataDir: string, cache?: string): Promise<Start> {
  if (cache === undefined) delete process.env['NODE_COMPILE_CACHE'];
  else process.env['NODE_COMPILE_CACHE'] = cache;
  const began = performance.now();
  const server = await startStandalone({ dataDir });
  const client = new MilvusClient({ address: server.address });
  await client.connectPromise;
  const ms = performance.now() - began;
  await client.closeConnection();
  await new Promise((resolve) => setTimeout(resolve, IDLE_MS));
  const idleMb = Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${server.process.pid}/status`, 'utf8'))?.[1] ?? 0) / 1024;
  await server.stop();
  return { ms, idleMb };
}

function refill(): void {
  delete process.env['NODE_COMPILE_CACHE'];
  rmSync(installed, { recursive: true, force: true, maxRetries: 5 });
  execFileSync(process.execPath, [join(import.meta.dirname, '../../tools/install/warm-compile-cache.ts')], { stdio: 'inherit' });
}

const row = (what: string, starts: readonly Start[]): Record<string, string | number> => {
  const ms = starts.map((one) => one.ms);
  return {
    what,
    'median ms': round(quantile(ms, 0.5), 0),
    'slowest ms': round(Math.max(...ms), 0),
    'RSS idle MB': round(
      quantile(
        starts.map((one) => one.idleMb),
        0.5,
      ),
      0,
    ),
  };
};

try {
  const [cold, first, empty, used]: [Start[], Start[], Start[], Start[]] = [[], [], [], []];
  // The packages are read once before: what is measured is compiling, not the disk.
  await start(join(scratch, 'before'), join(scratch, 'cache-before'));
  for (let run = 0; run < RUNS; run++) {
    cold.push(await start(join(scratch, `cold-${run}`), join(scratch, `cache-${run}`)));
    refill();
    first.push(await start(join(scratch, `first-${run}`)));
    empty.push(await start(join(scratch, `empty-${run}`)));
    used.push(await start(join(scratch, 'before')));
  }
  printTable(`standalone: process start to the first Connect answered, ${RUNS} runs each`, [
    row('nothing compiled yet', cold),
    row('first after an install', first),
    row('later, empty data directory', empty),
    row('later, used data directory', used),
  ]);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
