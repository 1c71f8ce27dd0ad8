/** What a write means where keys are given out, defaults stand in, or only a part is sent: through the Node SDK, in memory and flushed. */
import { DataType, MilvusClient } from '@zilliz/milvus2-sdk-node';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Standalone, startStandalone } from '../support/cairn.ts';
import { stopChecked } from '../support/consistency.ts';

let server: Standalone;
let sdk: MilvusClient;
beforeAll(async () => {
  server = await startStandalone({ settings: { 'compaction.ttlGraceMs': '0' } });
  sdk = new MilvusClient({ address: server.address, timeout: 30_000 });
});
afterAll(async () => {
  await sdk.closeConnection();
  await stopChecked(server);
});

interface Outcome {
  readonly code: number;
  readonly reason: string;
  readonly ids: string[];
}

async function create(name: string, autoID: boolean, more: object = {}): Promise<void> {
  const created = await sdk.createCollection({
    collection_name: name,
    num_shards: 4,
    enable_dynamic_field: true,
    fields: [
      { name: 'id', data_type: DataType.Int64, is_primary_key: true, autoID },
      { name: 'vector', data_type: DataType.FloatVector, dim: 2 },
      { name: 'count', data_type: DataType.Int32, default_value: 7 },
      { name: 'note', data_type: DataType.VarChar, max_length: 20, nullable: true },
      { name: 'tags', data_type: DataType.Array, element_type: DataType.VarChar, max_capacity: 3, max_length: 10, nullable: true },
    ],
    index_params: [{ field_name: 'vector', index_type: 'FLAT', metric_type: 'L2' }],
    ...more,
  } as never);
  expect(created.error_code, created.reason).toBe('Success');
}

async function send(method: 'insert' | 'upsert', name: string, data: object[], more: object = {}): Promise<Outcome> {
  const { status, IDs } = await sdk[method]({ collection_name: name, data, ...more } as never);
  return { code: status.code ?? 0, reason: status.reason, ids: IDs && 'int_id' in IDs ? IDs.int_id.data.map(String) : [] };
}

async function rows(name: string): Promise<Record<string, unknown>[]> {
  const reply = await sdk.query({
    ...{ collection_name: name, expr: 'id > -100', limit: 1000, consistency_level: 'Strong' },
    output_fields: ['id', 'vector', 'count', 'note', 'tags', '$meta'],
  } as never);
  expect(reply.status.error_code, reply.status.reason).toBe('Success');
  return reply.data.map(({ $meta, ...row }) => ({ ...row, ...($meta as object) }));
}

test('under auto ids an upsert takes the old key away and gives a new one, whole rows and partial ones, on every shard', async () => {
  await create('auto', true);
  const { ids } = await send(
    'insert',
    'auto',
    Array.from({ length: 20 }, (_, i) => ({ vector: [i, i], note: `n${i}`, big: i })),
  );
  expect(new Set(ids).size).toBe(20);
  await sdk.flushSync({ collection_names: ['auto'] });
  const whole = await send('upsert', 'auto', [{ id: ids[0], vector: [100, 100] }]);
  expect(whole).toMatchObject({ code: 0, ids: [expect.not.stringMatching(ids[0])] });
  const partial = await send(
    'upsert',
    'auto',
    ids.slice(1, 11).map((id, i) => ({ id, count: i })),
    { partial_update: true },
  );
  expect(partial.code, partial.reason).toBe(0);
  expect(partial.ids.filter((id) => ids.includes(id))).toEqual([]);
  const found = new Map((await rows('auto')).map((row) => [String(row.id), row]));
  expect([...found.keys()].sort()).toEqual([...whole.ids, ...partial.ids, ...ids.slice(11)].sort());
  expect(found.get(whole.ids[0])).toMatchObject({ vector: [100, 100], count: 7, note: null });
  partial.ids.forEach((id, i) => {
    expect(found.get(id)).toMatchObject({ vector: [i + 1, i + 1], count: i, note: `n${i + 1}`, big: i + 1 });
  });
});

test('a collection that allows it keeps the auto id that is sent', async () => {
  await create('given', true);
  // The Node SDK leaves a key out that the server makes; the property makes it send what it is given.
  await sdk.alterCollectionProperties({ collection_name: 'given', properties: { allow_insert_auto_id: true } });
  const sent = await send('insert', 'given', [{ id: 42, vector: [1, 2] }]);
  expect(sent.code, sent.reason).toBe(0);
  const [row] = await rows('given');
  expect(row).toMatchObject({ id: '42', vector: [1, 2], count: 7, note: null });
});

test('a key twice in one upsert is 1100 and writes nothing; a partial update keeps, merges, and names what a new row lacks', async () => {
  await create('parts', false);
  await send('insert', 'parts', [
    { id: 1, vector: [1, 1], note: 'one', tags: ['a'], x: 1, y: { z: [1] } },
    { id: 2, vector: [2, 2], tags: null },
  ]);
  for (const flushed of [false, true]) {
    if (flushed) await sdk.flushSync({ collection_names: ['parts'] });
    const twice = await send('upsert', 'parts', [
      { id: 1, vector: [9, 9] },
      { id: 1, vector: [8, 8] },
    ]);
    expect(twice).toMatchObject({ code: 1100, reason: expect.stringMatching(/duplicate primary keys/) });
    const lacking = await send('upsert', 'parts', [{ id: 77, note: 'new' }], { partial_update: true });
    expect(lacking).toMatchObject({ code: 1100, reason: expect.stringMatching(/no data for field "vector"/) });
    expect(await rows('parts')).toHaveLength(2);
  }
  expect((await send('upsert', 'parts', [{ id: 1, count: 5, x: 2 }], { partial_update: true })).code).toBe(0);
  const append = { field_ops: [{ field_name: 'tags', op: 'ARRAY_APPEND' }] };
  expect(
    (
      await send(
        'upsert',
        'parts',
        [
          { id: 1, tags: ['b', 'c'] },
          { id: 2, tags: ['d'] },
        ],
        append,
      )
    ).code,
  ).toBe(0);
  expect(await send('upsert', 'parts', [{ id: 1, tags: ['e'] }], append)).toMatchObject({
    code: 1100,
    reason: expect.stringMatching(/max_capacity is 3/),
  });
  expect(await send('upsert', 'parts', [{ id: 1, note: 'x' }], { field_ops: [{ field_name: 'note', op: 'ARRAY_REMOVE' }] })).toMatchObject({
    code: 1100,
    reason: expect.stringMatching(/is no array/),
  });
  expect(await rows('parts')).toEqual([
    { id: '1', vector: [1, 1], count: 5, note: 'one', tags: ['a', 'b', 'c'], x: 2, y: { z: [1] } },
    { id: '2', vector: [2, 2], count: 7, note: null, tags: ['d'] },
  ]);
  await sdk.releaseCollection({ collection_name: 'parts' });
  expect((await send('upsert', 'parts', [{ id: 1, count: 6 }], { partial_update: true })).code).toBe(101);
});

test('with a partition key a partial update finds its row wherever it is, and moves it when the key changes', async () => {
  const created = await sdk.createCollection({
    ...{ collection_name: 'keyed', num_shards: 2, num_partitions: 5 },
    fields: [
      { name: 'id', data_type: DataType.VarChar, is_primary_key: true, max_length: 20 },
      { name: 'vector', data_type: DataType.FloatVector, dim: 2 },
      { name: 'owner', data_type: DataType.VarChar, max_length: 20, is_partition_key: true },
      { name: 'day', data_type: DataType.Int32, is_clustering_key: true },
    ],
    index_params: [{ field_name: 'vector', index_type: 'FLAT', metric_type: 'L2' }],
  } as never);
  expect(created.error_code, created.reason).toBe('Success');
  const all = Array.from({ length: 30 }, (_, i) => ({ id: `k${i}`, vector: [i, i], owner: `o${i % 7}`, day: i }));
  await send('insert', 'keyed', all);
  await sdk.flushSync({ collection_names: ['keyed'] });
  await send(
    'upsert',
    'keyed',
    all.slice(0, 15).map(({ id }) => ({ id, day: 100 })),
    { partial_update: true },
  );
  await send(
    'upsert',
    'keyed',
    all.slice(10, 20).map(({ id }) => ({ id, owner: 'moved' })),
    { partial_update: true },
  );
  const reply = await sdk.query({
    collection_name: 'keyed',
    expr: 'day >= 0',
    limit: 100,
    output_fields: ['id', 'owner', 'day', 'vector'],
    consistency_level: 'Strong',
  } as never);
  const expected = all.map((row, i) => ({ ...row, day: i < 15 ? 100 : i, owner: i >= 10 && i < 20 ? 'moved' : row.owner }));
  expect(reply.data.toSorted((a, b) => Number(a.id.slice(1)) - Number(b.id.slice(1)))).toEqual(expected);
  // The filter on the partition key is what decides which partitions are read.
  const moved = await sdk.query({
    collection_name: 'keyed',
    expr: 'owner == "moved"',
    output_fields: ['count(*)'],
    consistency_level: 'Strong',
  } as never);
  expect(moved.data[0]['count(*)']).toBe('10');
});

test('rows outlive collection.ttl.seconds in no read, and its values are checked', async () => {
  await create('mortal', false);
  await send('insert', 'mortal', [{ id: 1, vector: [1, 1] }]);
  for (const value of ['soon', '-2', '1.5']) {
    const altered = await sdk.alterCollectionProperties({ collection_name: 'mortal', properties: { 'collection.ttl.seconds': value } });
    expect(altered).toMatchObject({ code: 1100, reason: expect.stringMatching(/collection.ttl.seconds/) });
  }
  await sdk.alterCollectionProperties({ collection_name: 'mortal', properties: { 'collection.ttl.seconds': 3600 } });
  expect(await rows('mortal')).toHaveLength(1);
  await sdk.alterCollectionProperties({ collection_name: 'mortal', properties: { 'collection.ttl.seconds': 1 } });
  while ((await rows('mortal')).length > 0) await new Promise((resolve) => setTimeout(resolve, 100));
  const count = await sdk.query({
    collection_name: 'mortal',
    expr: '',
    output_fields: ['count(*)'],
    consistency_level: 'Eventually',
  } as never);
  expect(count.data[0]['count(*)']).toBe('0');

  // A time to live that is taken away shows them again, until a compaction has left them out.
  const setTtl = (seconds: number) =>
    sdk.alterCollectionProperties({ collection_name: 'mortal', properties: { 'collection.ttl.seconds': seconds } });
  await setTtl(-1);
  expect(await rows('mortal')).toHaveLength(1);
  await sdk.flushSync({ collection_names: ['mortal'] });
  await setTtl(1);
  while ((await rows('mortal')).length > 0) await new Promise((resolve) => setTimeout(resolve, 100));
  await sdk.compact({ collection_name: 'mortal' } as never);
  for (;;) {
    await setTtl(-1);
    if ((await rows('mortal')).length === 0) break;
    await setTtl(1);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
});
