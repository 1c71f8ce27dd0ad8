import { expect, test } from 'vitest';
import { OwnThread } from '../src/own-thread.ts';

const QUICK_NS = 300_000;
const atOnce = (callback: () => void): void => queueMicrotask(callback);
const busy = (ns: number) => ({ wallNs: ns, cpuNs: ns });

test('a file is searched elsewhere first, then at the call while that is quick', async () => {
  const own = new OwnThread(atOnce);
  expect(own.takes('a', 20_000, QUICK_NS)).toBe(false);
  await own.elsewhere('a', async () => undefined);
  expect(own.takes('a', 20_000, QUICK_NS)).toBe(true);
  expect(own.takes('a', 20_000, 2_000_000), 'too long for one turn').toBe(false);
  expect(own.takes('a', 5_000_000, QUICK_NS), 'mapping it takes too long').toBe(false);
  own.forget('a');
  expect(own.takes('a', 20_000, QUICK_NS)).toBe(false);
});

test('an index that turns out slow goes elsewhere, and is tried again after a while', async () => {
  const own = new OwnThread(atOnce);
  await own.elsewhere('a', async () => undefined);
  for (let i = 0; i < 100; i++) own.learn('a', QUICK_NS, busy(10 * QUICK_NS));
  expect(own.takes('a', 20_000, QUICK_NS)).toBe(false);
  for (let i = 0; i < 1000; i++) await own.elsewhere('a', async () => undefined);
  expect(own.takes('a', 20_000, QUICK_NS)).toBe(true);
});

test('a thread that was put aside by others does not move an index away', async () => {
  const own = new OwnThread(atOnce, () => 7);
  await own.elsewhere('a', async () => undefined);
  for (let i = 0; i < 1000; i++) own.learn('a', QUICK_NS, { wallNs: 100 * QUICK_NS, cpuNs: QUICK_NS });
  expect(own.takes('a', 20_000, QUICK_NS)).toBe(true);
});

test('an index whose pages come from disk goes elsewhere', async () => {
  let faults = 0;
  const own = new OwnThread(atOnce, () => faults++);
  await own.elsewhere('a', async () => undefined);
  for (let i = 0; i < 100; i++) own.learn('a', QUICK_NS, { wallNs: 100 * QUICK_NS, cpuNs: QUICK_NS });
  expect(own.takes('a', 20_000, QUICK_NS)).toBe(false);
});

test('searches that others would wait behind must be shorter', async () => {
  const own = new OwnThread(atOnce);
  await own.elsewhere('a', async () => undefined);
  const open = Promise.withResolvers<void>();
  const running = own.elsewhere('b', () => open.promise);
  expect(own.takes('a', 20_000, 800_000)).toBe(false);
  open.resolve();
  await running;
  expect(own.takes('a', 20_000, 800_000)).toBe(true);
});

test('one turn of the event loop is held for a while only, however many segments are searched in it', async () => {
  let turn = (): void => undefined;
  const own = new OwnThread((callback) => {
    turn = callback;
  });
  await own.elsewhere('a', async () => undefined);
  let taken = 0;
  while (own.takes('a', 20_000, 900_000)) taken++;
  expect(taken).toBe(4);
  expect(own.mayHold(900_000)).toBe(false);
  turn();
  expect(own.takes('a', 20_000, 900_000)).toBe(true);
});
