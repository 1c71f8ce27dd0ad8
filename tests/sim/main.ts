/**
 * `make sim SEEDS=2000 SEED_START=0`: runs seeds, prints each that fails with how to replay it; last line `N passed, N failed`.
 * `node tests/sim/main.ts --seed 17 [--log]` replays one, with what every service logs.
 */
import { parseArgs } from 'node:util';
import { runSeed, type SeedResult } from './run-seed.ts';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '200' },
    start: { type: 'string', default: '0' },
    seed: { type: 'string' },
    log: { type: 'boolean', default: false },
    progress: { type: 'boolean', default: false },
    counts: { type: 'boolean', default: false },
  },
});

let current = -1;
const rejections = new Map<number, string[]>();
process.on('unhandledRejection', (error) => {
  const all = rejections.get(current) ?? [];
  all.push(`a rejection that nobody handled: ${error instanceof Error ? error.stack : String(error)}`);
  rejections.set(current, all);
});

const counts = new Map<string, number>();
const crashes = new Map<string, number>();
const add = (to: Map<string, number>, from: ReadonlyMap<string, number>): void => {
  for (const [key, value] of from) to.set(key, (to.get(key) ?? 0) + value);
};

async function run(seed: number): Promise<SeedResult> {
  current = seed;
  if (values.progress) console.error(`seed ${seed}`);
  const result = await runSeed(seed, { log: values.log });
  await new Promise((resolve) => setImmediate(resolve));
  add(counts, result.counts);
  add(crashes, result.crashes);
  return { ...result, problems: [...result.problems, ...(rejections.get(seed) ?? [])] };
}

function report({ seed, problems, digest, events, virtualMs }: SeedResult): void {
  console.log(`seed ${seed} (${digest}, ${events} events, ${Math.round(virtualMs / 1000)} virtual s)`);
  for (const problem of problems.slice(0, 6)) console.log(`  ${problem.slice(0, 1500)}`);
  if (problems.length > 6) console.log(`  and ${problems.length - 6} more`);
}

const started = performance.now();
const first = values.seed === undefined ? Number(values.start) : Number(values.seed);
const many = values.seed === undefined ? Number(values.seeds) : 1;
let failed = 0;
for (let seed = first; seed < first + many; seed++) {
  const result = await run(seed);
  if (result.problems.length > 0 || values.seed !== undefined) report(result);
  if (result.problems.length > 0) {
    failed++;
    console.log(`  replay: node tests/sim/main.ts --seed ${seed} --log`);
  }
}
if (values.counts) {
  const table = (of: Map<string, number>): string =>
    [...of]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([what, times]) => `  ${times.toString().padStart(7)} ${what}`)
      .join('\n');
  console.log(`what clients did\n${table(counts)}\nwhere processes crashed\n${table(crashes)}`);
}
console.log(`${((performance.now() - started) / 1000).toFixed(1)} s`);
console.log(`${many - failed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
