/**
 * kill -9 of a random process of a cluster at seeded moments of the main job: a proxy, a coordinator, a streaming node, a datanode, etcd, nats-server,
 * MinIO. The process comes back; no acknowledged row is lost or doubled, snapshots are exact. CAIRN_KILL_CYCLES (default 10), CAIRN_KILL_SEED.
 */
import { expect, test } from 'vitest';
import { type Cluster, startCluster } from '../support/cairn.ts';
import { findingsOf } from '../support/consistency.ts';
import { type ServerProcess, serversAvailable } from '../support/servers.ts';
import { describeProblems, seeded, Workload } from '../support/workload.ts';

const cycles = Number(process.env['CAIRN_KILL_CYCLES'] ?? 10);
const seed = Number(process.env['CAIRN_KILL_SEED'] ?? 1);
/** Time after which the cluster must serve again, ms: a lease of 3 s, take-over, and a slow machine. */
const RECOVERY_MS = 30_000;

/** Reads until it works: while ownership moves, a read waits or fails retriably. */
async function eventually<T>(work: () => Promise<T>): Promise<T> {
  const until = performance.now() + RECOVERY_MS;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (performance.now() > until) throw error;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }
}

function victims(cluster: Cluster): ServerProcess[] {
  return [...cluster.all(), cluster.etcd, ...cluster.nats, cluster.minio];
}

const available = await serversAvailable();
test.skipIf(!available.ok)(
  `nothing acknowledged is lost or doubled over ${cycles} kills in a cluster (seed ${seed})${available.ok ? '' : ` (skipped: ${available.reason})`}`,
  { timeout: 1_200_000 },
  async () => {
    const random = seeded(seed);
    const cluster = await startCluster({ settings: { 'gc.graceMs': 1000, 'gc.intervalMs': 500 } });
    const [address = ''] = cluster.addresses;
    const workload = new Workload({ address, collection: 'victim', seed: seed + 2000 });
    const killed: string[] = [];
    try {
      await workload.prepare();
      for (let cycle = 0; cycle < cycles; cycle++) {
        const all = victims(cluster);
        const victim = all[Math.floor(random() * all.length)];
        if (!victim) throw new Error('no process to kill');
        killed.push(victim.name);
        const killAfterMs = random() * 2000;
        let back = false;
        const killer = new Promise<void>((resolve, reject) => {
          setTimeout(() => {
            victim
              .kill()
              .then(() => new Promise((wake) => setTimeout(wake, random() * 1000)))
              .then(() => victim.restart())
              .then(() => {
                back = true;
                resolve();
              }, reject);
          }, killAfterMs);
        });
        while (!back) await Promise.race([workload.step(), killer]);
        await killer;
        await workload.reconnect(address);
        const where = `cycle ${cycle}, ${victim.name} killed after ${killAfterMs.toFixed(0)} ms (so far: ${killed.join(', ')})`;
        expect(describeProblems(await eventually(() => workload.checkCollection())), where).toBe('');
        expect(describeProblems(await eventually(() => workload.checkRestores())), where).toBe('');
      }
      expect(describeProblems(await eventually(() => workload.settleTargets()))).toBe('');
      expect(describeProblems(await workload.checkSnapshots(5))).toBe('');
      expect(await eventually(() => findingsOf(address, true))).toBe('');
    } catch (error) {
      for (const server of cluster.all()) console.log(`--- ${server.name}\n${server.logTail(8)}`);
      throw error;
    } finally {
      await workload.close();
      await cluster.stop();
    }
  },
);
