import { isRetriable, type Runtime, SystemRuntime } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { FaultyMetaStore, type MetaFaultHook } from '@cairn/meta/testing';
import { ControlAppliedRecord, PartitionRecord } from '@cairn/proto/cairn/meta';
import { FaultyWalStore } from '@cairn/wal/testing';
import { afterEach, describe, expect, test } from 'vitest';
import { World } from './world.ts';

let world: World;
afterEach(() => world.stop(), 5_000);

/** Numbers drawn from a seed. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

const partition = (name: string) => ({ $case: 'createPartition', value: { database: '', collection: 'books', name, id: 0 } }) as const;

async function depose(): Promise<void> {
  await world.meta.txn({ then: [{ kind: 'delete', key: keys.leader }] });
}

describe('exactly once', () => {
  test.each(Array.from({ length: 12 }, (_, seed) => seed + 1))(
    'seed %i: every answered change is there once, in order, through faults and changes of leader',
    async (seed) => {
      const draw = seeded(seed);
      let faults = false;
      const metaHook: MetaFaultHook = (call) => {
        if (!faults || call.method === 'watch' || call.method === 'revoke' || draw() > 0.15) return undefined;
        return draw() < 0.5 ? { kind: 'failBefore' } : { kind: 'timeoutAfter' };
      };
      const runtime: Runtime = new SystemRuntime();
      world = new World({
        runtime,
        meta: (inner) => new FaultyMetaStore(inner, runtime, metaHook),
        wal: (inner) =>
          new FaultyWalStore(inner, runtime, () => {
            if (!faults || draw() > 0.1) return { kind: 'none' };
            return draw() < 0.5 ? { kind: 'lost' } : { kind: 'written but unanswered' };
          }),
      });
      let leader = await world.coordinator('n0');
      const collection = await world.createCollection('n0', 'books');
      faults = true;
      const answered = new Map<string, number>();
      let node = 'n0';
      let done = false;
      const work = Array.from({ length: 20 }, async (_, k) => {
        const name = `p${k}`;
        for (;;) {
          try {
            answered.set(name, (await world.submit(node, partition(name), `request-${k}`)).id);
            return;
          } catch (error) {
            if (!isRetriable(error)) throw error;
            await runtime.sleep(5);
          }
        }
      });
      const changes = (async () => {
        for (let n = 1; n <= 2; n++) {
          await runtime.sleep(20 + draw() * 60);
          if (done) return;
          const before = leader;
          leader = await world.coordinator(`n${n}`, false);
          await depose();
          await world.until(() => leader.leading || before.leading, 'one leads', 10_000);
          node = leader.leading ? `n${n}` : node;
          await before.stop();
          await world.until(() => leader.leading, 'the next leads', 10_000);
          node = `n${n}`;
        }
      })();
      await Promise.all(work);
      done = true;
      await changes;
      faults = false;
      const page = await world.meta.range({ prefix: keys.partitions(collection.id) });
      const names = page.entries.map((entry) => PartitionRecord.decode(entry.value));
      expect(names.map((record) => record.name).sort()).toEqual(['_default', ...answered.keys()].sort());
      for (const record of names) if (record.name !== '_default') expect(answered.get(record.name)).toBe(record.id);
      const applied = await world.meta.get(keys.applied);
      expect(applied && ControlAppliedRecord.decode(applied.value).sequence).toBe((await world.wal.state('control')).lastSequence);
    },
    20_000,
  );

  test('a change that the old leader had only written is applied by the next one', async () => {
    const runtime = new SystemRuntime();
    let cut = false;
    world = new World({
      runtime,
      meta: (inner) => new FaultyMetaStore(inner, runtime, (call) => (cut && call.method === 'txn' ? { kind: 'failBefore' } : undefined)),
    });
    const old = await world.coordinator('old');
    const { id } = await world.createCollection('old', 'books');
    const before = (await world.wal.state('control')).lastSequence;
    cut = true;
    const lost = world.submit('old', partition('late'), 'request-late').catch((error: unknown) => error);
    await world.until(async () => (await world.wal.state('control')).lastSequence > before, 'the message is in the log');
    await depose();
    const stopping = old.stop();
    cut = false;
    await stopping;
    await lost;
    await world.coordinator('next');
    const names = (await world.meta.range({ prefix: keys.partitions(id) })).entries.map(
      (entry) => PartitionRecord.decode(entry.value).name,
    );
    expect(names).toContain('late');
    expect((await world.submit('next', partition('late'), 'request-late')).id).toBeGreaterThan(0);
  });
});

describe('standby', () => {
  test('answers ServiceNotReady (retriable), and stops while another leads', async () => {
    world = new World();
    await world.coordinator('leader');
    const standby = await world.coordinator('standby', false);
    await expect(world.createCollection('standby', 'books')).rejects.toMatchObject({ code: 1, retriable: true });
    await standby.stop();
  });
});

describe('timestamps', () => {
  test('grow for ever: over calls, restarts and a clock that goes back; each leader is above all before it', async () => {
    let shift = 0;
    class Shifting extends SystemRuntime {
      override now(): number {
        return super.now() + shift;
      }
    }
    world = new World({ runtime: new Shifting() });
    let last = 0;
    for (let n = 0; n < 4; n++) {
      const leader = await world.coordinator(`n${n}`);
      for (let call = 0; call < 50; call++) {
        const { first } = await world.client(`n${n}`).allocTimestamps({ count: 7 });
        expect(first).toBeGreaterThan(last);
        last = first + 6;
      }
      const big = await world.client(`n${n}`).allocTimestamps({ count: 500_000 });
      expect(big.first).toBeGreaterThan(last);
      last = big.first + 499_999;
      shift -= 60_000;
      await leader.stop();
    }
  });

  test('a leader whose key is gone runs dry, and what it still gives out is below its successor', async () => {
    world = new World();
    await world.coordinator('old');
    await depose();
    const next = await world.coordinator('next', false);
    const old: number[] = [];
    await world.until(async () => {
      const given = await world
        .client('old')
        .allocTimestamps({ count: 1_000 })
        .catch(() => undefined);
      if (given) old.push(given.first + 999);
      return next.leading && given === undefined;
    }, 'the old one is dry');
    const { first } = await world.client('next').allocTimestamps({ count: 1 });
    expect(first).toBeGreaterThan(Math.max(0, ...old));
    await expect(world.client('old').allocTimestamps({ count: 1 })).rejects.toMatchObject({ code: 1, retriable: true });
  });
});
