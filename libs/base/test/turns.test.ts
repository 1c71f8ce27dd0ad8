import { expect, test } from 'vitest';
import { TurnQueue } from '../src/turn-queue.ts';

/** Slices of three works that run side by side, with the turn of the event loop each of them was in. */
async function slices(queue: TurnQueue): Promise<readonly { readonly turn: number; readonly work: string }[]> {
  let turn = 0;
  let counting = true;
  const count = (): void => {
    turn++;
    if (counting) setImmediate(count);
  };
  setImmediate(count);
  const seen: { readonly turn: number; readonly work: string }[] = [];
  const works = ['a', 'b', 'c'].map(async (work) => {
    for (let i = 0; i < 20; i++) {
      await queue.take();
      seen.push({ turn, work });
    }
  });
  await Promise.all(works);
  counting = false;
  return seen;
}

test('no two slices of long works that run side by side have the same turn of the event loop, and each work has its share', async () => {
  const seen = await slices(new TurnQueue(() => 0));
  expect(new Set(seen.map(({ turn }) => turn)).size).toBe(60);
  expect(seen.slice(0, 30).filter(({ work }) => work === 'c')).toHaveLength(10);
});

test('where turns are long two slices have one, so that long work goes on beside others', async () => {
  let now = 0;
  const seen = await slices(
    new TurnQueue(() => {
      now += 20;
      return now;
    }),
  );
  const turns = new Set(seen.map(({ turn }) => turn)).size;
  expect(turns).toBeGreaterThanOrEqual(29);
  expect(turns).toBeLessThanOrEqual(31);
});
