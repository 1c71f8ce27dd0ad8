import { expect, test } from 'vitest';
import { SystemRuntime } from '../src/system-runtime.ts';

test('no two slices of long works that run side by side have the same turn of the event loop, and each work has its share', async () => {
  const runtime = new SystemRuntime();
  let turn = 0;
  let counting = true;
  const count = (): void => {
    turn++;
    if (counting) setImmediate(count);
  };
  setImmediate(count);
  const slices: { readonly turn: number; readonly work: string }[] = [];
  const works = ['a', 'b', 'c'].map(async (work) => {
    for (let i = 0; i < 20; i++) {
      await runtime.turn();
      slices.push({ turn, work });
    }
  });
  await Promise.all(works);
  counting = false;
  expect(new Set(slices.map((slice) => slice.turn)).size).toBe(60);
  expect(slices.slice(0, 30).filter(({ work }) => work === 'c')).toHaveLength(10);
});
