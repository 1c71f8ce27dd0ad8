/**
 * `make sim KILLS=create,drop,pin`: a kill at every await of these operations (see kills.ts); `all` means every one there is. Last line as below.
 * `node tests/sim/main.ts --kills create --at 17` replays one with a log; `--every 5` takes every fifth point.
 *
 * `make sim SEEDS=2000 SEED_START=0`: runs seeds, prints each that fails with how to replay it; last line `N passed, N failed`.
 * `node tests/sim/main.ts --seed 17 [--log]` replays one, with what every service logs.
 */
import { parseArgs } from 'node:util';
import { kill, killPoints, OPERATIONS, type Operation } from './kills.ts';
import { runSeed, type SeedResult } from './run-seed.ts';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '200' },
    start: { type: 'string', default: '0' },
    seed: { type: 'string' },
    log: { type: 'boolean', default: false },
    progress: { type: 'boolean', default: false },
    counts: { type: 'boolean', default: false },
    kills: { type: 'string', default: '' },
    at: { type: 'string' },
    every: { type: 'string', default: '1' },
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

/** Kills at every point of the operations; how many passed and failed. */
async function runKills(operations: readonly Operation[]): Promise<{ readonly passed: number; readonly failed: number }> {
  let passed = 0;
  let failed = 0;
  for (const operation of operations) {
    const points = (await killPoints(operation)).filter(
      (point, i) => (values.at === undefined || point.at === Number(values.at)) && i % Number(values.every) === 0,
    );
    const roles = new Map<string, number>();
    let bad = 0;
    for (const point of points) {
      const role = point.where.replace(/:.*/, '');
      roles.set(role, (roles.get(role) ?? 0) + 1);
      const { problems } = await kill(operation, point, values.log || values.at !== undefined);
      if (problems.length === 0) continue;
      bad++;
      console.log(`${operation}, killed at point ${point.at} (${point.where}, the call ${point.lands ? 'arrives' : 'does not arrive'})`);
      for (const problem of problems.slice(0, 4)) console.log(`  ${problem.slice(0, 800)}`);
      console.log(`  replay: node tests/sim/main.ts --kills ${operation} --at ${point.at}`);
    }
    const counted = [...roles].map(([role, times]) => `${role} ${times}`).join(', ');
    console.log(`${operation}: ${points.length} kills (${counted}), ${bad} failed`);
    passed += points.length - bad;
    failed += bad;
  }
  return { passed, failed };
}

const started = performance.now();
const seconds = (): string => `${((performance.now() - started) / 1000).toFixed(1)} s`;
if (values.kills !== '') {
  const names: readonly string[] = values.kills === 'all' ? OPERATIONS : values.kills.split(',');
  const unknown = names.filter((name) => !OPERATIONS.some((known) => known === name));
  if (unknown.length > 0) throw new Error(`kills at ${unknown.join(', ')}: known are ${OPERATIONS.join(', ')}`);
  const { passed, failed } = await runKills(OPERATIONS.filter((known) => names.includes(known)));
  console.log(seconds());
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed > 0 ? 1 : 0);
}
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
console.log(seconds());
console.log(`${many - failed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
