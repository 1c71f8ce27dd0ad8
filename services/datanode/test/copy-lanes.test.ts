import { deferred, hasCode } from '@cairn/base';
import { describe, expect, test } from 'vitest';
import { CopyLanes } from '../src/copy-lanes.ts';

const LANES = 4;

/** Starts copies of a job that end when told to; `order` notes the job of each as it begins. */
function bench(lanes: CopyLanes) {
  const order: number[] = [];
  const ends: (() => void)[] = [];
  const all: Promise<void>[] = [];
  const start = (job: number, copies: number): void => {
    for (let n = 0; n < copies; n++)
      all.push(
        lanes.run(job, async () => {
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
      // The first took all lanes when nobody else was there.
      if (at > LANES && at < 290) expect(Math.max(...seen.values()) - Math.min(...seen.values())).toBeLessThanOrEqual(LANES + 1);
    });
    expect(seen.size).toBe(10);
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
    const outcomes = await Promise.allSettled(Array.from({ length: 6 }, (_, job) => lanes.run(job, copy)));
    expect(most).toBe(2);
    const refused = outcomes.filter((one) => one.status === 'rejected' && hasCode(one.reason, 'TooManyRequests'));
    expect(refused).toHaveLength(1);
    expect(await lanes.run(1, async () => 'free again')).toBe('free again');
  });
});
