import { CairnError, type Runtime, SystemRuntime } from '@cairn/base';
import { type Column, columnFromValues, makeBatch, type PlainValue, schemaFromWire, valueAt } from '@cairn/schema';
import { expect, test } from 'vitest';
import { orderedRows, orderKeys, readOrderBy } from '../src/order-by.ts';
import { keysToRead, resolveOutputFields, withoutNeededKeys } from '../src/output-fields.ts';
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

test('a key of the dynamic field orders too: numbers, texts, false, true, then what is not there', async () => {
  const meta = schema.dynamicField;
  if (!meta) throw new CairnError('Internal', 'no dynamic field');
  const texts = [
    '{"a":"x"}',
    '{"a":true}',
    '{}',
    '{"a":2.5}',
    '{"a":9007199254740993}',
    '{"a":9007199254740992}',
    '{"a":[1]}',
    '{"a":"b","b":1}',
  ];
  const rows = makeBatch([
    [
      meta.id,
      columnFromValues(
        meta,
        texts.map((text) => Buffer.from(text)),
      ),
    ],
  ]);
  const sorted = async (order: string): Promise<number[]> => [
    ...(await orderedRows(rows, readOrderBy(order, schema), 0, texts.length, runtime)),
  ];
  const expected = [3, 5, 4, 7, 0, 1, 2, 6];
  expect(await sorted('a')).toEqual(expected);
  expect(await sorted('$meta["a"]:asc')).toEqual(expected);
  expect(await sorted('a:desc')).toEqual([2, 6, 1, 0, 7, 4, 5, 3]);
  expect(await sorted('$meta["b"],$meta["a"]:desc')).toEqual([7, 2, 6, 1, 0, 4, 5, 3]);
});

test('what was read for the order alone is not answered', () => {
  const meta = schema.dynamicField;
  if (!meta) throw new CairnError('Internal', 'no dynamic field');
  const rows = makeBatch([[meta.id, columnFromValues(meta, [Buffer.from('{"a":1,"b":2}')])]]);
  const order = orderKeys(readOrderBy('b', schema));
  const some = resolveOutputFields(schema, ['a']);
  expect(keysToRead(some, order)).toEqual(['a', 'b']);
  expect(valueAt(withoutNeededKeys(rows, some, order).columns.get(meta.id) as Column, 0)).toEqual(new Uint8Array(Buffer.from('{"a":1}')));
  expect(keysToRead(resolveOutputFields(schema, ['*']), order)).toEqual([]);
  expect(keysToRead(resolveOutputFields(schema, ['title']), order)).toEqual(['b']);
});

test('what is no order is refused by name', () => {
  expect(readOrderBy('', schema)).toEqual([]);
  expect(() => readOrderBy('nothing', { ...schema, dynamicField: undefined })).toThrow('order_by field nothing does not exist');
  expect(() => readOrderBy('title["a"]', schema)).toThrow('neither JSON nor an array');
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
    turn: async () => undefined,
  };
  const count = 20_000;
  const rows = batch(
    Array.from({ length: count }, (_, i) => BigInt((i * 7919) % count)),
    new Array<string>(count).fill('x'),
  );
  await orderedRows(rows, readOrderBy('id', schema), 0, count, slow);
  expect(pauses).toBeGreaterThan(20);
});
