/**
 * Cycles of bad luck on a real cluster under the main job: in each something is killed, hangs or misbehaves at a seeded moment while a restore runs,
 * then all is well again, and nothing acknowledged may be lost or doubled; the restore is Completed and exact, or Failed and clean.
 */
import { type Cluster, startCluster } from '../support/cairn.ts';
import { findingsOf } from '../support/consistency.ts';
import type { ServerProcess } from '../support/servers.ts';
import type { StoreMood } from '../support/store-proxy.ts';
import { describeProblems, seeded, Workload } from '../support/workload.ts';

export interface CyclesOptions {
  readonly cycles: number;
  readonly seed: number;
  /** How long a store hangs, ms. */
  readonly hangMs: number;
  /** Kinds of fault, drawn from with their weights. */
  readonly faults?: readonly Fault[];
  onCycle?(line: string): void;
}

export interface CyclesResult {
  readonly passed: number;
  readonly failed: number;
  readonly problems: readonly string[];
  /** Cycles that ended right, of those of each kind of fault. */
  readonly cells: readonly { readonly fault: Fault; readonly cycles: string }[];
  /** Ended jobs of restores, by state. */
  readonly restores: { readonly completed: number; readonly failed: number };
}

const FAULTS = ['kill', 'kill store', 'no datanode', 'hang etcd', 'hang nats', 'hang minio', 'slow', 'refuse', 'full', 'cut'] as const;
export type Fault = (typeof FAULTS)[number];

/** Kills are quick and many, hangs are long and few. */
export const ALL_FAULTS: readonly Fault[] = [
  ...(Array(6).fill('kill') as Fault[]),
  ...(Array(3).fill('kill store') as Fault[]),
  ...([
    'no datanode',
    'no datanode',
    'hang etcd',
    'hang nats',
    'hang minio',
    'slow',
    'slow',
    'refuse',
    'refuse',
    'full',
    'full',
    'cut',
    'cut',
  ] as Fault[]),
];

/** Time after which the cluster must serve again, ms: a lease of 3 s, take-over, back-off of stores that were away, and a slow machine. */
const RECOVERY_MS = 60_000;
const MOOD_MS = 6_000;
const MAX_DOWN_MS = 1_000;
/** The fault begins this long after the restore at most. */
const MAX_OFFSET_MS = 600;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Works until it works: while ownership moves, a read waits or fails retriably. */
async function eventually<T>(work: () => Promise<T>): Promise<T> {
  const until = performance.now() + RECOVERY_MS;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (performance.now() > until) throw error;
      await sleep(200);
    }
  }
}

export async function runCycles(options: CyclesOptions): Promise<CyclesResult> {
  const { cycles, seed } = options;
  const random = seeded(seed);
  const pick = <T>(all: readonly T[]): T => all[Math.floor(random() * all.length)] as T;
  const cluster = await startCluster({ settings: { 'gc.graceMs': 1_000, 'gc.intervalMs': 500 }, storeProxy: true });
  const address = cluster.addresses[0] ?? '';
  const workload = new Workload({ address, collection: 'victim', seed: seed + 2_000 });
  const problems: string[] = [];
  const seen = new Map<Fault, { well: number; all: number }>();
  let failed = 0;
  try {
    await workload.prepare();
    await workload.step();
    await workload.snapshot();
    for (let cycle = 0; cycle < cycles; cycle++) {
      const started = performance.now();
      const kind = pick(options.faults ?? ALL_FAULTS);
      const cell = seen.get(kind) ?? { well: 0, all: 0 };
      seen.set(kind, cell);
      const { what, hurt } = faultOf(cluster, kind, pick, random, options.hangMs);
      const offsetMs = random() * MAX_OFFSET_MS;
      let over = false;
      const fault = sleep(offsetMs)
        .then(hurt)
        .finally(() => {
          over = true;
        });
      let found = '';
      try {
        await workload.restore();
        while (!over) await Promise.race([workload.step(), fault]);
        await fault;
        await workload.reconnect(address);
        found = [
          describeProblems(await eventually(() => workload.checkCollection())),
          describeProblems(await eventually(() => workload.checkRestores({ mayFail: true }))),
        ]
          .filter((text) => text !== '')
          .join('\n');
      } catch (error) {
        await fault.catch((late: unknown) => problems.push(String(late)));
        found = String(error);
      }
      cell.all++;
      if (found === '') cell.well++;
      else {
        failed++;
        problems.push(`cycle ${cycle}, ${what}: ${found}`);
      }
      const seconds = ((performance.now() - started) / 1000).toFixed(1);
      options.onCycle?.(
        `cycle ${cycle + 1} of ${cycles}: ${what}, ${offsetMs.toFixed(0)} ms into a restore: ${found === '' ? 'well' : found} (${seconds} s)`,
      );
    }
    for (const [what, check] of Object.entries({
      'jobs that were never answered': async () => describeProblems(await workload.settleTargets()),
      'snapshots at the end': async () => describeProblems(await workload.checkSnapshots(5)),
      'deep check at the end': () => findingsOf(address, true),
    })) {
      const found = await eventually(check).catch((error: unknown) => String(error));
      if (found === '') continue;
      failed++;
      problems.push(`${what}: ${found}`);
    }
    if (problems.length > 0) for (const server of cluster.all()) options.onCycle?.(`--- ${server.name}\n${server.logTail(8)}`);
    const cells = [...seen].map(([fault, { well, all }]) => ({ fault, cycles: `${well} of ${all}` }));
    return { passed: cycles + 3 - failed, failed, problems, cells, restores: workload.ended };
  } finally {
    await workload.close();
    await cluster.stop();
  }
}

type Pick = <T>(all: readonly T[]) => T;

/** One fault: its name, and what does it from beginning to end. */
function faultOf(cluster: Cluster, fault: Fault, pick: Pick, random: () => number, hangMs: number) {
  const killed = async (victim: ServerProcess): Promise<void> => {
    await victim.kill();
    await sleep(random() * MAX_DOWN_MS);
    await victim.restart();
  };
  const hung = (victims: readonly ServerProcess[]) => async (): Promise<void> => {
    for (const victim of victims) victim.pause();
    await sleep(hangMs);
    for (const victim of victims) victim.resume();
  };
  const moody = (mood: StoreMood) => async (): Promise<void> => {
    if (!cluster.storeProxy) throw new Error('the cluster has no proxy before its object store');
    cluster.storeProxy.mood = mood;
    await sleep(MOOD_MS);
    cluster.storeProxy.mood = 'well';
  };
  switch (fault) {
    case 'kill': {
      const victim = pick(cluster.all());
      return { what: `kill -9 of ${victim.name}`, hurt: () => killed(victim) };
    }
    case 'kill store': {
      const victim = pick([cluster.etcd, ...cluster.nats, cluster.minio]);
      return { what: `kill -9 of ${victim.name}`, hurt: () => killed(victim) };
    }
    case 'no datanode':
      return {
        what: 'kill -9 of all datanodes, one comes back, the others later',
        hurt: async () => {
          const [first, ...others] = cluster.processes.datanode;
          await Promise.all(cluster.processes.datanode.map((node) => node.kill()));
          await sleep(random() * MAX_DOWN_MS);
          await first?.restart();
          await sleep(MOOD_MS);
          await Promise.all(others.map((node) => node.restart()));
        },
      };
    case 'hang etcd':
      return { what: `etcd hangs for ${hangMs} ms`, hurt: hung([cluster.etcd]) };
    case 'hang nats':
      return { what: `NATS hangs for ${hangMs} ms`, hurt: hung(cluster.nats) };
    case 'hang minio':
      return { what: `MinIO hangs for ${hangMs} ms`, hurt: hung([cluster.minio]) };
    case 'slow':
      return { what: 'MinIO takes a second longer for each call', hurt: moody('slow') };
    case 'refuse':
      return { what: 'MinIO answers every third call with 503', hurt: moody('refuse') };
    case 'full':
      return { what: 'MinIO has no room for what is written', hurt: moody('full') };
    case 'cut':
      return { what: 'connections to MinIO break in the middle of writes and copies', hurt: moody('cut') };
    default:
      throw new Error(`unknown fault ${fault satisfies never}`);
  }
}
