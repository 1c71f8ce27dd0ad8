/** The simulation as a test. More seeds: `make sim SEEDS=2000 SEED_START=0`; all kills: `make sim KILLS=all`; one seed with what the services log: `node tests/sim/main.ts --seed N --log`. */
import { describe, expect, test } from 'vitest';
import { kill, killPoints, OPERATIONS } from './kills.ts';
import { runSeed } from './run-seed.ts';

/** As many as run in about four minutes of one core. */
const SEEDS = 200;
/** Of the points of an operation, every so many-th is killed here; `make sim KILLS=all` kills at all. */
const EVERY = 25;
const SEEDS_IN_A_TEST = 5;
const TIMEOUT_MS = 240_000;

/** Seeds that failed once, and what they found. What they go through changes with the simulation itself; their number stays as a sample. */
const FOUND: ReadonlyMap<number, string> = new Map([
  [5, 'the create of a snapshot that failed while leadership changed answered "unexpected"'],
  [8, 'a try of a transaction that was given up came late and brought an ended restore intent and its pin back'],
  [14, 'strong reads were refused for ever once the oracle ran before the clock of a streaming node'],
  [24, 'the oracle span for ever on a raise of its limit that had nothing to save'],
  [27, 'a channel whose owner came back under its id could go to no other node'],
  [38, 'a channel that could not be handed back at the first try stayed without an owner'],
  [82, 'a proxy of a cluster that was only starting had "no database default"'],
  [87, 'a channel that was handed back before its assignment was answered counted as assigned'],
  [2, 'a read of a loaded partition was refused right after its channel had moved'],
  [1060, 'a clock that jumped failed a snapshot as if its request were wrong'],
  [1134, 'a streaming node whose restart failed half-way kept its own successor out for good'],
  [1280, 'metadata of a dropped snapshot came late and stayed, named by nothing'],
  [50007, 'a flush whose ids were never given left a rejection that nobody handled: the end of the process'],
  [2000213, 'a segment whose heir was compacted further, and its record removed, was waited for by every read for ever'],
  [3000317, 'a change that waited for its turn while its append was refused left a rejection that nobody handled'],
  [4124, 'a flush whose commit was not answered was made anew, met its own late commit, and never ended'],
]);

async function problemsOf(seed: number): Promise<string[]> {
  return (await runSeed(seed)).problems.map((problem) => `seed ${seed}: ${problem}`);
}

test('a seed replays exactly', { timeout: TIMEOUT_MS }, async () => {
  const first = await runSeed(3);
  const second = await runSeed(3);
  expect([second.digest, second.events, second.virtualMs]).toEqual([first.digest, first.events, first.virtualMs]);
  expect(second.counts).toEqual(first.counts);
});

describe('an operation whose process dies at any await is done, or cleanly absent, or goes on', () => {
  for (const operation of OPERATIONS) {
    test(`${operation}: every ${EVERY}th point`, { timeout: TIMEOUT_MS }, async () => {
      const points = (await killPoints(operation)).filter((_, i) => i % EVERY === 0);
      const results = [];
      for (const point of points) results.push(await kill(operation, point));
      expect(points.length).toBeGreaterThan(0);
      expect(results.filter(({ problems }) => problems.length > 0)).toEqual([]);
    });
  }
});

describe('everything promised holds through crashes, cuts, lost and late calls', () => {
  for (let first = 0; first < SEEDS; first += SEEDS_IN_A_TEST) {
    test(`seeds ${first} to ${first + SEEDS_IN_A_TEST - 1} of ${SEEDS}`, { timeout: TIMEOUT_MS }, async () => {
      const problems: string[] = [];
      for (let seed = first; seed < first + SEEDS_IN_A_TEST; seed++) problems.push(...(await problemsOf(seed)));
      expect(problems).toEqual([]);
    });
  }

  for (const [seed, found] of FOUND) {
    if (seed < SEEDS) continue;
    test(`seed ${seed}, which found that ${found}`, { timeout: TIMEOUT_MS }, async () => expect(await problemsOf(seed)).toEqual([]));
  }
});
