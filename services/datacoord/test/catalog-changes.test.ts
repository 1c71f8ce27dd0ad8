import { hasCode } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { scan } from '@cairn/meta';
import { ChannelRecord, CollectionRecord, PartitionRecord, ShardRecord } from '@cairn/proto/cairn/meta';
import { decodeSchema } from '@cairn/schema';
import type { WalStore } from '@cairn/wal';
import { afterEach, describe, expect, test } from 'vitest';
import type { Change } from '../src/changes/table.ts';
import { World } from './world.ts';

let world: World;
afterEach(() => world.stop());

async function count(prefix: string): Promise<number> {
  let entries = 0;
  for await (const page of scan(world.meta, prefix)) entries += page.length;
  return entries;
}

async function record<T>(codec: { decode(bytes: Uint8Array): T }, key: string): Promise<T | undefined> {
  const entry = await world.meta.get(key);
  return entry && codec.decode(entry.value);
}

describe('catalog changes', () => {
  test('a new cluster has the default database and its data channels; a collection has shards, partition and checkpoints', async () => {
    world = new World();
    await world.coordinator('a');
    await world.wal.append('dml_0', 'x', new Uint8Array(1), 0);
    const { id, ts, revision } = await world.createCollection('a', 'books');
    const collection = await record(CollectionRecord, keys.collection(id));
    expect(collection?.shards.map((shard) => shard.vchannel)).toEqual([`dml_0_${id}v0`, `dml_1_${id}v1`]);
    expect(collection).toMatchObject({ name: 'books', databaseId: 1, createdTs: ts, maxFieldId: 102 });
    expect((await record(ShardRecord, keys.shard(id, 0)))?.checkpoint).toBe(1);
    expect((await world.meta.get(keys.applied))?.modRevision).toBe(revision);
    const partitions = (await world.meta.range({ prefix: keys.partitions(id) })).entries.map(
      (entry) => PartitionRecord.decode(entry.value).name,
    );
    expect(partitions).toEqual(['_default']);
    const next = await world.createCollection('a', 'films');
    expect((await record(CollectionRecord, keys.collection(next.id)))?.shards.map((shard) => shard.channel)).toEqual(['dml_2', 'dml_3']);
  });

  test('a retry under the same request id gives the same answer, also from a new leader; nothing is made twice', async () => {
    world = new World();
    const first = await world.coordinator('a');
    const [one, two] = await Promise.all([
      world.createCollection('a', 'books', 'request-1'),
      world.createCollection('a', 'books', 'request-1'),
    ]);
    expect(two.id).toBe(one.id);
    const refusal = await world
      .submit('a', { $case: 'dropDatabase', value: { name: 'default' } }, 'request-2')
      .catch((error: unknown) => error);
    expect(hasCode(refusal, 'InvalidParameter')).toBe(true);
    await first.stop();
    await world.coordinator('b');
    expect((await world.createCollection('b', 'books', 'request-1')).id).toBe(one.id);
    expect(await count('catalog/collection/')).toBe(1);
  });

  test('the dynamic field is switched on as a new field, and never off', async () => {
    world = new World();
    await world.coordinator('a');
    const { id } = await world.createCollection('a', 'books');
    const alter = (value: string, deleteKeys: string[] = []) =>
      world.submit('a', {
        $case: 'alterCollection',
        value: { database: 'default', name: 'books', properties: value === '' ? [] : [{ key: 'dynamicfield.enabled', value }], deleteKeys },
      });
    const before = await record(CollectionRecord, keys.collection(id));
    await alter('false');
    expect(await record(CollectionRecord, keys.collection(id))).toMatchObject({ schemaVersion: before?.schemaVersion });
    await alter('true');
    const after = await record(CollectionRecord, keys.collection(id));
    expect(after).toMatchObject({ schemaVersion: (before?.schemaVersion ?? 0) + 1, maxFieldId: 103, properties: before?.properties });
    const schema = decodeSchema(after?.schema ?? new Uint8Array());
    expect(schema.dynamicField).toMatchObject({ id: 103, name: '$meta', isDynamic: true });
    for (const refused of [alter('false'), alter('maybe'), alter('', ['dynamicfield.enabled'])])
      await expect(refused).rejects.toMatchObject({ codeName: 'InvalidParameter' });
  });

  test('the same collection again is success, a different one under its name is refused, a dropped name is free', async () => {
    world = new World();
    await world.coordinator('a');
    const { id } = await world.createCollection('a', 'books');
    expect((await world.createCollection('a', 'books')).id).toBe(id);
    await expect(world.createCollection('a', 'books', undefined, 1)).rejects.toThrow(
      'create duplicate collection with different parameters, collection: books',
    );
    const drop = { $case: 'dropCollection', value: { database: '', name: 'books', collectionId: 0 } } as const;
    await world.submit('a', drop);
    await world.submit('a', drop);
    expect((await world.createCollection('a', 'books')).id).not.toBe(id);
    await world.until(async () => (await count(keys.shards(id))) === 0, 'the shards of the dropped collection are gone');
  });

  test('index, load, release, partitions, aliases keep the rules of the wire', async () => {
    world = new World();
    await world.coordinator('a');
    await world.createCollection('a', 'books');
    const load = {
      $case: 'load',
      value: { database: '', collection: 'books', partitions: [], replicas: 1, resourceGroups: [], loadFields: [], refresh: false },
    } satisfies Change;
    await expect(world.submit('a', load)).rejects.toMatchObject({
      code: 700,
      message: expect.stringContaining('index not found[collection=books]'),
    });
    const { id } = await world.createIndex('a', 'books');
    expect((await world.createIndex('a', 'books')).id).toBe(id);
    await world.submit('a', load);
    const drop = (name: string) => world.submit('a', { $case: 'dropPartition', value: { database: '', collection: 'books', name } });
    await expect(drop('_default')).rejects.toThrow('default partition cannot be deleted');
    await world.submit('a', { $case: 'createPartition', value: { database: '', collection: 'books', name: 'old', id: 0 } });
    await expect(drop('old')).rejects.toThrow('partition is loaded');
    await world.submit('a', { $case: 'release', value: { database: '', collection: 'books', partitions: [] } });
    await drop('old');
    await drop('never there');
    await world.submit('a', { $case: 'createAlias', value: { database: '', collection: 'books', alias: 'shelf' } });
    await expect(world.createCollection('a', 'shelf')).rejects.toMatchObject({ code: 1601 });
    await expect(
      world.submit('a', { $case: 'alterAlias', value: { database: '', collection: 'books', alias: 'none' } }),
    ).rejects.toMatchObject({ code: 1600 });
    await expect(world.createIndex('a', 'nothing')).rejects.toMatchObject({
      code: 100,
      message: 'collection not found[collection=nothing]',
    });
  });

  test('partitions of a partition key collection may be more than a transaction holds', async () => {
    world = new World();
    await world.coordinator('a');
    const { DataType, CollectionSchema } = await import('@cairn/proto/milvus/schema');
    const schema = CollectionSchema.encode(
      CollectionSchema.fromPartial({
        name: 'keyed',
        fields: [
          { fieldID: 100n, name: 'id', dataType: DataType.Int64, isPrimaryKey: true },
          { fieldID: 101n, name: 'vector', dataType: DataType.FloatVector, typeParams: [{ key: 'dim', value: '8' }] },
          { fieldID: 102n, name: 'tenant', dataType: DataType.Int64, isPartitionKey: true },
        ],
      }),
    ).finish();
    const collection = CollectionRecord.fromPartial({ name: 'keyed', schema, numPartitions: 300 });
    const { id } = await world.submit('a', {
      $case: 'createCollection',
      value: { database: '', collection, partitions: [], checkpoints: [] },
    });
    expect(await count(keys.partitions(id))).toBe(300);
    await expect(
      world.submit('a', { $case: 'createPartition', value: { database: '', collection: 'keyed', name: 'x', id: 0 } }),
    ).rejects.toMatchObject({ legacy: 1 });
  });
});

describe('channels', () => {
  test('a channel goes to a living node, and to another with a raised epoch only when the first is gone', async () => {
    world = new World({ settings: { channels: 2 } });
    await world.coordinator('a');
    const first = await world.node('streaming', 's1');
    const owner = async (n: number) => record(ChannelRecord, keys.channel(`dml_${n}`));
    await world.until(async () => (await owner(1))?.nodeId === 's1', 's1 owns both');
    await world.node('streaming', 's2');
    await world.runtime.sleep(50);
    expect(await owner(0)).toMatchObject({ nodeId: 's1', epoch: 1 });
    await first.leave();
    await world.until(async () => (await owner(0))?.nodeId === 's2' && (await owner(1))?.nodeId === 's2', 's2 owns both');
    expect(await owner(0)).toMatchObject({ epoch: 2, address: 'inproc:s2' });
  });
});

test('timestamps and ids are given out before the term serves: writes do not wait for the rest of a fail-over', async () => {
  const held = Promise.withResolvers<void>();
  const wal = (inner: WalStore): WalStore =>
    new Proxy(inner, {
      get: (target, name) => {
        const value: unknown = Reflect.get(target, name);
        if (name !== 'ensureChannel' || typeof value !== 'function') return typeof value === 'function' ? value.bind(target) : value;
        return async (channel: string) => {
          if (channel.startsWith('dml_')) await held.promise;
          return value.call(target, channel);
        };
      },
    });
  world = new World({ wal });
  const coordinator = await world.coordinator('a', false);
  const stamp = async () => (await world.client('a').allocTimestamps({ count: 1 })).first;
  await world.until(
    () =>
      stamp().then(
        () => true,
        () => false,
      ),
    'a gives out timestamps',
  );
  expect(coordinator.leading).toBe(false);
  const early = await stamp();
  const { first } = await world.client('a').allocIds({ count: 3 });
  expect(first).toBeGreaterThan(0);
  held.resolve();
  await world.until(() => coordinator.leading, 'a leads');
  expect(await stamp()).toBeGreaterThan(early);
  expect((await world.client('a').allocIds({ count: 1 })).first).toBeGreaterThanOrEqual(first + 3);
});
