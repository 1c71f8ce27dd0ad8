import { CairnError } from '@cairn/base';
import { columnFromValues, makeBatch, type PlainValue, schemaFromWire } from '@cairn/schema';
import { expect, test } from 'vitest';
import { orderedRows, readOrderBy } from '../src/order-by.ts';
import { sampleSchema } from './sample-schema.ts';

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

test('rows come by the fields asked for, texts by their bytes, equal ones as they were', () => {
  const rows = batch([3n, 1n, 2n, 4n], ['b', 'a', 'b', 'A']);
  expect([...orderedRows(rows, readOrderBy('title:desc,id', schema), 0, 4)]).toEqual([2, 0, 1, 3]);
  expect([...orderedRows(rows, readOrderBy('id:desc', schema), 1, 4)]).toEqual([3, 2, 1]);
});

test('null is larger than every value', () => {
  const rows = batch([1n, 2n, 3n], [null, 'x', 'a']);
  expect([...orderedRows(rows, readOrderBy('title', schema), 0, 3)]).toEqual([2, 1, 0]);
  expect([...orderedRows(rows, readOrderBy('title:DESC', schema), 0, 3)]).toEqual([0, 1, 2]);
});

test('what is no order is refused by name', () => {
  expect(readOrderBy('', schema)).toEqual([]);
  expect(() => readOrderBy('nothing', schema)).toThrow('order_by field nothing does not exist');
  expect(() => readOrderBy('id:up', schema)).toThrow('order_by [id:up] is invalid');
  expect(() => readOrderBy('embedding', schema)).toThrow('not supported: order_by field embedding');
  expect(() => readOrderBy('id,'.repeat(9), schema)).toThrow('at most 8');
});
