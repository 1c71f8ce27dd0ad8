/** Races that must have one outcome, each under many seeds: who comes first differs, the outcome is always one. On real processes: tests/e2e/races.test.ts. */
import { describe, expect, test } from 'vitest';
import { races } from '../support/races.ts';
import { kill, killPoints } from './kills.ts';
import { createOverManySegments } from './many-segments.ts';
import { faults, restoreMatrix } from './restore-matrix.ts';
import { raceUnderSeed } from './run-race.ts';

const SEEDS = 12;
const TIMEOUT_MS = 120_000;

describe('races have one outcome', () => {
  for (const name of Object.keys(races)) {
    test(name, { timeout: TIMEOUT_MS }, async () => {
      const problems: string[] = [];
      const saw = new Set<string>();
      for (let seed = 1; seed <= SEEDS; seed++)
        problems.push(...(await raceUnderSeed(name, seed, saw)).map((problem) => `seed ${seed}: ${problem}`));
      expect(problems).toEqual([]);
      // Where either side may win, both did: else the race was none.
      expect(saw.size).not.toBe(1);
    });
  }

  for (const operation of ['create', 'abort'] as const) {
    test(`a coordinator that dies between the objects and the catalog, in either order (${operation}): one decision, kept`, {
      timeout: TIMEOUT_MS,
    }, async () => {
      const points = (await killPoints(operation)).filter(({ where }) => /objects\.put|txn snapshot|txn catalog/.test(where));
      expect(points.length).toBeGreaterThan(3);
      for (const point of points) expect(await kill(operation, point)).toMatchObject({ problems: [] });
    });
  }

  test('create with 10,000 segments while rows are written: all of them are in it, and no write is refused', {
    timeout: TIMEOUT_MS,
  }, async () => {
    expect(await createOverManySegments(10_000, 1)).toEqual([]);
  });
});

test('a restore is Completed and exact, or Failed and clean, whatever strikes in whichever phase', {
  timeout: 2 * TIMEOUT_MS,
}, async () => {
  const bad: string[] = [];
  const passed = new Map<string, number>();
  for await (const { fault, phase, problems } of restoreMatrix()) {
    if (problems.length === 0) passed.set(phase, (passed.get(phase) ?? 0) + 1);
    else bad.push(`${fault}, while ${phase}: ${problems.join('; ')}`);
  }
  const cells = Object.keys(faults).length;
  console.table([...passed].map(([phase, count]) => ({ phase, cells: `${count} of ${cells}` })));
  expect(bad).toEqual([]);
});
