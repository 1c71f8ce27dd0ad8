/**
 * The races that must have one outcome, once on real processes with etcd, JetStream and MinIO; under many seeds in tests/sim/races.test.ts. All share
 * one cluster, several at a time; those that stop or kill a process come one after another at the end.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Cluster, startCluster } from '../support/cairn.ts';
import { findingsOf } from '../support/consistency.ts';
import { type RaceHouse, races, runRace } from '../support/races.ts';
import { serversAvailable } from '../support/servers.ts';
import { WireClient } from '../support/wire-client.ts';
import { seeded } from '../support/workload.ts';

/** A lease of 3 s, and what passes until the next owner is named. */
const FROZEN_MS = 5_000;
const DOWN_MS = 200;
const TIMEOUT_MS = 120_000;
const AT_ONCE = 3;
const CHECK_PATIENCE_MS = 60_000;

const available = await serversAvailable();
const why = available.ok ? '' : ` (skipped: ${available.reason})`;
const names = Object.keys(races);
/** Those in which a process is stopped or dies. */
const rough = names.filter((name) => /dies|deposed|believe/.test(name));
const gentle = names.filter((name) => !rough.includes(name));

describe.skipIf(!available.ok)(`races have one outcome on a real cluster${why}`, () => {
  let cluster: Cluster;
  let client: WireClient;
  const random = seeded(11);
  const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
  const house = (): RaceHouse => ({
    client,
    sleep,
    random,
    freeze: async (role, which) => {
      const process = cluster.processes[role][which];
      process?.pause();
      await sleep(FROZEN_MS);
      process?.resume();
    },
    kill: async (role, which) => {
      const process = cluster.processes[role][which];
      await process?.kill();
      await sleep(DOWN_MS);
      await process?.restart();
    },
  });
  const tell = async (name: string): Promise<void> => {
    const { problems } = await runRace(name, `race_${names.indexOf(name)}`, house());
    expect(problems).toEqual([]);
  };

  beforeAll(async () => {
    cluster = await startCluster({ settings: { 'gc.graceMs': 2_000, 'gc.intervalMs': 1_000 } });
    client = new WireClient(cluster.addresses, random);
  }, TIMEOUT_MS);
  afterAll(async () => {
    client?.close();
    await cluster?.stop();
  });

  describe('where all goes well', { concurrent: true, timeout: TIMEOUT_MS }, () => {
    // A few at a time: a test here begins when its turn comes.
    const turns = Array.from({ length: AT_ONCE }, () => Promise.resolve());
    gentle.forEach((name, i) => {
      test(name, async () => {
        const turn = turns[i % AT_ONCE].then(() => tell(name));
        turns[i % AT_ONCE] = turn.catch(() => undefined);
        await turn;
      });
    });
  });

  describe('where a process is lost', { timeout: TIMEOUT_MS }, () => {
    for (const name of rough) test(name, () => tell(name));
  });

  test('the checker finds nothing after all of them', { timeout: TIMEOUT_MS }, async () => {
    const until = performance.now() + CHECK_PATIENCE_MS;
    let findings = 'none asked for';
    while (performance.now() < until && findings !== '') {
      findings = await findingsOf(cluster.addresses[0] ?? '', true).catch((error: unknown) => String(error));
      if (findings !== '') await sleep(500);
    }
    expect(findings).toBe('');
  });
});
