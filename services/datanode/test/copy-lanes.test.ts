import { deferred, hasCode } from '@cairn/base';
import { describe, expect, test } from 'vitest';
import { CopyLanes } from '../src/copy-lanes.ts';

const LANES = 4;
const BYTES = 1_000_000;

/** Starts copies of a job that end when told to; `order` notes the job of each as it begins. */
function bench(lanes: CopyLanes) {
  const order: number[] = [];
  const ends: (() => void)[] = [];
  const all: Promise<void>[] = [];
  const start = (job: number, copies: number, bytes = BYTES): void => {
    for (let n = 0; n < copies; n++)
      all.push(
        lanes.run(job, bytes, async () => {
          order.push(job);
          const end = deferred<void>();
          ends.push(end.resolve);
          await end.promise;
        }),
      );
  };
  const drain = async (): Promise<void> => {
    let done = false;
    void Promise.all(all).then(() => {
      done = true;
    });
    while (!done) {
      ends.shift()?.();
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  return { order, start, drain };
}

describe('lanes of copies', () => {
  test('a job that comes late with few copies does not stand behind all those of one that has many', async () => {
    const { order, start, drain } = bench(new CopyLanes(LANES, 1000));
    start(1, 200);
    start(2, 5);
    await drain();
    expect(order).toHaveLength(205);
    expect(order.lastIndexOf(2)).toBeLessThan(LANES + 2 * 5 + 1);
  });

  test('ten jobs with as many copies each are even at every moment', async () => {
    const { order, start, drain } = bench(new CopyLanes(LANES, 10_000));
    for (let job = 1; job <= 10; job++) start(job, 30);
    await drain();
    const seen = new Map<number, number>();
    order.forEach((job, at) => {
      seen.set(job, (seen.get(job) ?? 0) + 1);
      // The first took all lanes when nobody else was there; the others have caught up when each had as many turns.
      if (at >= 10 * LANES) expect(Math.max(...seen.values()) - Math.min(...seen.values())).toBeLessThanOrEqual(1);
    });
    expect(seen.size).toBe(10);
  });

  test('a job of large objects and one of small ones get as many bytes', async () => {
    const { order, start, drain } = bench(new CopyLanes(LANES, 10_000));
    start(1, 100, 10 * BYTES);
    start(2, 800, BYTES);
    await drain();
    const half = order.slice(0, 440);
    const bytes = (job: number) => half.filter((one) => one === job).length * (job === 1 ? 10 : 1);
    expect(bytes(1) / bytes(2)).toBeGreaterThan(0.85);
    expect(bytes(1) / bytes(2)).toBeLessThan(1.15);
  });

  test('a job that comes late catches up, but does not keep a long one waiting until it has as much', async () => {
    const { order, start, drain } = bench(new CopyLanes(LANES, 100_000));
    start(1, 5_000);
    const drained = drain();
    while (order.length < 2_000) await new Promise((resolve) => setImmediate(resolve));
    const from = order.length;
    start(2, 1_000);
    await drained;
    // Ahead by its credit of 128 MiB at first, then in turn.
    const ahead = order.slice(from, from + 400);
    expect(ahead.slice(0, 120).filter((job) => job === 2).length).toBeGreaterThan(110);
    expect(ahead.slice(200).filter((job) => job === 1).length).toBeGreaterThan(90);
  });

  test('no more at once than lanes, also after copies that failed, and no endless queue', async () => {
    const lanes = new CopyLanes(2, 3);
    let [running, most] = [0, 0];
    const copy = async (): Promise<void> => {
      most = Math.max(most, ++running);
      await new Promise((resolve) => setImmediate(resolve));
      running--;
      throw new Error('failed');
    };
    const outcomes = await Promise.allSettled(Array.from({ length: 6 }, (_, job) => lanes.run(job, BYTES, copy)));
    expect(most).toBe(2);
    const refused = outcomes.filter((one) => one.status === 'rejected' && hasCode(one.reason, 'TooManyRequests'));
    expect(refused).toHaveLength(1);
    expect(await lanes.run(1, BYTES, async () => 'free again')).toBe('free again');
  });
});
