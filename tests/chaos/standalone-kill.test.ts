/**
 * kill -9 at seeded moments of the main job, embedded mode: no acknowledged row lost, none twice, snapshots exact, restores finished or cleanly
 * absent. CAIRN_KILL_CYCLES (default 30) and CAIRN_KILL_SEED change it.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { startStandalone } from '../support/cairn.ts';
import { findingsOf } from '../support/consistency.ts';
import { describeProblems, seeded, Workload } from '../support/workload.ts';

const cycles = Number(process.env['CAIRN_KILL_CYCLES'] ?? 30);
const seed = Number(process.env['CAIRN_KILL_SEED'] ?? 1);

test(`nothing acknowledged is lost or doubled over ${cycles} kills of a standalone server (seed ${seed})`, {
  timeout: 900_000,
}, async () => {
  const directory = await mkdtemp(join(tmpdir(), 'cairn-kill-'));
  const random = seeded(seed);
  // A short grace, so that garbage collection runs all the while: what it must not touch, it would.
  const server = await startStandalone({ dataDir: join(directory, 'data'), settings: { 'gc.graceMs': 1000, 'gc.intervalMs': 500 } });
  const workload = new Workload({ address: server.address, collection: 'victim', seed: seed + 1000 });
  try {
    await workload.prepare();
    for (let cycle = 0; cycle < cycles; cycle++) {
      const killAfterMs = random() * 1500;
      let dead = false;
      const killer = new Promise<void>((resolve) =>
        setTimeout(async () => {
          dead = true;
          await server.process.kill();
          resolve();
        }, killAfterMs),
      );
      while (!dead) await Promise.race([workload.step(), killer]);
      await killer;
      await server.process.restart();
      await workload.reconnect(server.address);
      const problems = [...(await workload.checkCollection()), ...(await workload.checkRestores())];
      expect(describeProblems(problems), `cycle ${cycle}, killed after ${killAfterMs.toFixed(0)} ms`).toBe('');
    }
    expect(describeProblems(await workload.settleTargets())).toBe('');
    expect(describeProblems(await workload.checkSnapshots(10))).toBe('');
    expect(workload.snapshots.length).toBeGreaterThan(0);
    expect(await findingsOf(server.address, true)).toBe('');
  } finally {
    await workload.close();
    await server.stop();
    await rm(directory, { recursive: true, force: true });
  }
});
