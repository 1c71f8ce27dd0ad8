import { expect, test } from 'vitest';
import { OwnThread } from '../src/own-thread.ts';

const QUICK_NS = 300_000;
const atOnce = (callback: () => void): void => queueMicrotask(callback);
const busy = (ns: number) => ({ wallNs: ns, cpuNs: ns });

test('a file is searched elsewhere first, then at the call while that is quick', async () => {
  const own = new OwnThread(atOnce);
  expect(own.placeOf('a', 20_000, QUICK_NS)).toBe('elsewhere');
  await own.elsewhere('a', async () => undefined);
  expect(own.placeOf('a', 20_000, QUICK_NS)).toBe('here');
  expect(own.placeOf('a', 20_000, 2_000_000), 'too long for one turn').toBe('elsewhere');
  expect(own.placeOf('a', 5_000_000, QUICK_NS), 'mapping it takes too long').toBe('elsewhere');
  own.forget('a');
  expect(own.placeOf('a', 20_000, QUICK_NS)).toBe('elsewhere');
});

test('an index that turns out slow goes elsewhere, and is tried again after a while', async () => {
  const own = new OwnThread(atOnce);
  await own.elsewhere('a', async () => undefined);
  for (let i = 0; i < 100; i++) own.learn('a', QUICK_NS, busy(10 * QUICK_NS));
  expect(own.placeOf('a', 20_000, QUICK_NS)).toBe('elsewhere');
  for (let i = 0; i < 1000; i++) await own.elsewhere('a', async () => undefined);
  expect(own.placeOf('a', 20_000, QUICK_NS)).toBe('here');
});

test('a thread that was put aside by others does not move an index away', async () => {
  const own = new OwnThread(atOnce, () => 7);
  await own.elsewhere('a', async () => undefined);
  for (let i = 0; i < 1000; i++) own.learn('a', QUICK_NS, { wallNs: 100 * QUICK_NS, cpuNs: QUICK_NS });
  expect(own.placeOf('a', 20_000, QUICK_NS)).toBe('here');
});

test('an index whose pages come from disk goes elsewhere', async () => {
  let faults = 0;
  const own = new OwnThread(atOnce, () => faults++);
  await own.elsewhere('a', async () => undefined);
  for (let i = 0; i < 100; i++) own.learn('a', QUICK_NS, { wallNs: 100 * QUICK_NS, cpuNs: QUICK_NS });
  expect(own.placeOf('a', 20_000, QUICK_NS)).toBe('elsewhere');
});

test('searches that others would wait behind must be shorter', async () => {
  const own = new OwnThread(atOnce);
  await own.elsewhere('a', async () => undefined);
  const open = Promise.withResolvers<void>();
  const running = own.elsewhere('b', () => open.promise);
  expect(own.placeOf('a', 20_000, 800_000)).toBe('elsewhere');
  open.resolve();
  await running;
  expect(own.placeOf('a', 20_000, 800_000)).toBe('here');
});

test('one turn of the event loop is held for a while only, however many segments are searched in it', async () => {
  let turn = (): void => undefined;
  const own = new OwnThread((callback) => {
    turn = callback;
  });
  await own.elsewhere('a', async () => undefined);
  let taken = 0;
  while (own.placeOf('a', 20_000, 900_000) === 'here') taken++;
  expect(taken).toBe(4);
  expect(own.mayHold(900_000)).toBe(false);
  turn();
  expect(own.placeOf('a', 20_000, 900_000)).toBe('here');
});

test('searches that come several at a time go to workers that have nothing to do, and nothing is learned from it', async () => {
  let turn = (): void => undefined;
  const own = new OwnThread(
    (callback) => {
      turn = callback;
    },
    () => 0,
    1,
  );
  /** Turns of the event loop that bring so many searches each; where the last one is to run. */
  const turns = (count: number, searches: number, ns = QUICK_NS): string[] => {
    let places: string[] = [];
    for (let i = 0; i < count; i++) {
      places = Array.from({ length: searches }, () => own.placeOf('a', 20_000, ns));
      turn();
    }
    return places;
  };
  await own.elsewhere('a', async () => undefined);
  expect(turns(100, 1), 'a lone client').toEqual(['here']);
  expect(turns(100, 2)).toEqual(['relief', 'relief']);
  expect(turns(1, 2, 10_000), 'a message would cost more').toEqual(['here', 'here']);
  const open = Promise.withResolvers<void>();
  const running = own.elsewhere('a', () => open.promise, false);
  expect(turns(1, 2), 'the worker is busy too').toEqual(['here', 'here']);
  open.resolve();
  await running;
  for (let i = 0; i < 5000; i++) await own.elsewhere('a', async () => undefined, false);
  expect(turns(100, 1), 'alone again').toEqual(['here']);
  expect(turns(1, 1, 10 * QUICK_NS), 'still known to take long').toEqual(['elsewhere']);
});
