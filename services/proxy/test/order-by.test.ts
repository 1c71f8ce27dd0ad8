import { CairnError, type Runtime, SystemRuntime } from '@cairn/base';
import { columnFromValues, makeBatch, type PlainValue, schemaFromWire } from '@cairn/schema';
import { expect, test } from 'vitest';
import { orderedRows, readOrderBy } from '../src/order-by.ts';
import { sampleSchema } from './sample-schema.ts';

const runtime = new SystemRuntime();
const schema = schemaFromWire(sampleSchema());
const [id, title] = ['id', 'title'].map((name) => {
  const field = schema.byName.get(name);
  if (!field) throw new CairnError('Internal', `no field ${name}`);
  return field;
});
const batch = (ids: readonly PlainValue[], titles: readonly PlainValue[]) =>
  makeBatch([
    [id.id, columnFromValues(id, ids)],
    [title.id, columnFromValues(title, titles)],
  ]);

test('rows come by the fields asked for, texts by their bytes, equal ones as they were', async () => {
  const rows = batch([3n, 1n, 2n, 4n], ['b', 'a', 'b', 'A']);
  expect([...(await orderedRows(rows, readOrderBy('title:desc,id', schema), 0, 4, runtime))]).toEqual([2, 0, 1, 3]);
  expect([...(await orderedRows(rows, readOrderBy('id:desc', schema), 1, 4, runtime))]).toEqual([3, 2, 1]);
});

test('null is larger than every value', async () => {
  const rows = batch([1n, 2n, 3n], [null, 'x', 'a']);
  expect([...(await orderedRows(rows, readOrderBy('title', schema), 0, 3, runtime))]).toEqual([2, 1, 0]);
  expect([...(await orderedRows(rows, readOrderBy('title:DESC', schema), 0, 3, runtime))]).toEqual([0, 1, 2]);
});

test('what is no order is refused by name', () => {
  expect(readOrderBy('', schema)).toEqual([]);
  expect(() => readOrderBy('nothing', schema)).toThrow('order_by field nothing does not exist');
  expect(() => readOrderBy('id:up', schema)).toThrow('order_by [id:up] is invalid');
  expect(() => readOrderBy('embedding', schema)).toThrow('not supported: order_by field embedding');
  expect(() => readOrderBy('id,'.repeat(9), schema)).toThrow('at most 8');
});

test('many rows are in order too, texts that begin alike and integers that no double tells apart among them', async () => {
  const count = 20_000;
  const keys = Array.from({ length: count }, (_, i) => 2n ** 60n + BigInt((i * 7919) % count));
  const titles = Array.from({ length: count }, (_, i) => (i % 97 === 0 ? null : `prefix-${(i * 31) % 5000}`));
  const rows = batch(keys, titles);
  const byId = await orderedRows(rows, readOrderBy('id', schema), 0, count, runtime);
  expect([...byId].every((row, i) => i === 0 || keys[byId[i - 1]] < keys[row])).toBe(true);
  const all = [...keys.keys()].sort((a, b) => {
    const [left, right] = [titles[a], titles[b]];
    const texts = left === right ? 0 : left === null ? 1 : right === null ? -1 : left < right ? -1 : 1;
    return -texts || (keys[a] < keys[b] ? -1 : 1);
  });
  expect([...(await orderedRows(rows, readOrderBy('title:desc,id', schema), 0, count, runtime))]).toEqual(all);
});

test('a long sort gives way to other work', async () => {
  let clock = 0;
  let pauses = 0;
  const slow: Runtime = {
    ...{ now: () => 0, after: () => ({ cancel: () => undefined }), random: () => 0, randomBytes: () => new Uint8Array(), inline: false },
    monotonic: () => clock++,
    sleep: async () => {
      pauses++;
    },
  };
  const count = 20_000;
  const rows = batch(
    Array.from({ length: count }, (_, i) => BigInt((i * 7919) % count)),
    new Array<string>(count).fill('x'),
  );
  await orderedRows(rows, readOrderBy('id', schema), 0, count, slow);
  expect(pauses).toBeGreaterThan(20);
});
