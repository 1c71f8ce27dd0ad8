import { SystemRuntime } from '@cairn/base';
import type { DeltaLogRecord } from '@cairn/proto/cairn/meta';
import { expect, test } from 'vitest';
import { CHANNEL, Stage } from './fakes.ts';

const runtime = new SystemRuntime();
const RUNS = 60;
const STEPS = 40;
const KEYS = 30;

/** A stream of numbers in [0, below) from a seed. */
function dice(seed: number): (below: number) => number {
  let state = seed * 2654435761;
  return (below) => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) >>> 0;
    return (state >>> 8) % below;
  };
}

/**
 * Deletes, flushes, trims, take-overs, loads (some with lists that are out of date) and releases in any order: at the end, and at each read on the way,
 * every loaded segment shows exactly the deletes that were acknowledged.
 */
async function storm(seed: number): Promise<void> {
  const roll = dice(seed);
  const stage = new Stage(runtime);
  await stage.takeOver();
  const shard = stage.shard();
  const deleted = new Map<number, number>();
  const logs: DeltaLogRecord[] = [];
  /** What an owner knew at some time. */
  const lists: { checkpoint: number; deltaLogs: DeltaLogRecord[] }[] = [{ checkpoint: 0, deltaLogs: [] }];
  let unflushed: { keys: number[]; ts: number; sequence: number }[] = [];
  const loaded = new Set<number>();
  let [ts, sequence, segments] = [100, 0, 0];

  const check = async (): Promise<void> => {
    await shard.waitForDeletes(loaded.size > 0 ? sequence : 0, 5000);
    for (const id of loaded) {
      const expected = (stage.segments.get(id)?.keys ?? []).map(Number).filter((key) => !deleted.has(key));
      expect(stage.alive(id), `seed ${seed}, segment ${id}, at ts ${ts}`).toEqual(expected);
    }
  };

  for (let step = 0; step < STEPS; step++) {
    const event = roll(10);
    if (event < 4) {
      const keys = Array.from({ length: 1 + roll(3) }, () => roll(KEYS));
      const parts = roll(3) === 0 ? 2 : 1;
      ts++;
      if (parts === 2) await stage.delete(keys, ts, { batchSize: 2, lastOnSubject: false });
      sequence = await stage.delete(keys, ts, { batchIndex: parts - 1, batchSize: parts });
      unflushed.push({ keys, ts, sequence });
      for (const key of keys) deleted.set(key, ts);
    } else if (event === 4) {
      // An owner dies in the middle of a write; the next one goes on.
      ts++;
      await stage.delete([roll(KEYS)], ts, { batchSize: 2, lastOnSubject: false });
      await stage.takeOver();
    } else if (event === 5 && unflushed.length > 0) {
      const cut = unflushed[roll(unflushed.length)].sequence;
      logs.push(
        await stage.flush(
          cut,
          unflushed.filter((entry) => entry.sequence <= cut),
        ),
      );
      unflushed = unflushed.filter((entry) => entry.sequence > cut);
      lists.push({ checkpoint: cut, deltaLogs: [...logs] });
      if (roll(2) === 0) await stage.wal.trim(CHANNEL, cut + 1);
    } else if (event < 9) {
      const id = ++segments;
      const keys = Array.from({ length: KEYS }, (_, key) => key).filter(() => roll(2) === 0);
      const known = lists[Math.max(0, lists.length - 1 - roll(3))];
      await shard.load(stage.request({ segments: [stage.segment(id, keys, 10)], ...known }));
      loaded.add(id);
    } else if (loaded.size > 1) {
      const [id] = loaded;
      loaded.delete(id);
      await shard.release([id]);
    }
    if (roll(4) === 0) await check();
  }
  await check();
  await shard.release([]);
}

test(`${RUNS} seeded storms: no delete is lost or invented, whatever is flushed, trimmed, loaded or taken over meanwhile`, async () => {
  for (let seed = 1; seed <= RUNS; seed += 6) await Promise.all([0, 1, 2, 3, 4, 5].map((more) => storm(seed + more)));
});
