import { SystemRuntime, silentLogger } from '@cairn/base';
import { MemoryMetaStore, type Op } from '@cairn/meta';
import { FaultyMetaStore } from '@cairn/meta/testing';
import {
  AliasRecord,
  CollectionRecord,
  CollectionState,
  ControlAppliedRecord,
  DatabaseRecord,
  IndexRecord,
  LoadRecord,
  PartitionRecord,
} from '@cairn/proto/cairn/meta';
import { CollectionSchema } from '@cairn/proto/milvus/schema';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type CatalogChange, CatalogView, keys, putRecord } from '../src/index.ts';

const runtime = new SystemRuntime();
const database = (id: number, name: string): Op => putRecord(keys.database(id), DatabaseRecord, DatabaseRecord.create({ id, name }));
const collection = (id: number, name: string, more: Parameters<typeof CollectionRecord.create>[0] = {}): Op =>
  putRecord(keys.collection(id), CollectionRecord, CollectionRecord.create({ id, name, databaseId: 1, ...more }));
const partition = (id: number, name: string): Op =>
  putRecord(keys.partition(10, id), PartitionRecord, PartitionRecord.create({ id, name, collectionId: 10 }));
const alias = (name: string, collectionId: number): Op =>
  putRecord(keys.alias(1, name), AliasRecord, AliasRecord.create({ databaseId: 1, alias: name, collectionId }));

describe('CatalogView', () => {
  let meta: MemoryMetaStore;
  let view: CatalogView;
  let sequence: number;

  /** As the control channel applies: every change comes with catalog/applied. */
  async function change(...ops: Op[]): Promise<number> {
    const record = putRecord(keys.applied, ControlAppliedRecord, ControlAppliedRecord.create({ sequence: ++sequence }));
    return (await meta.txn({ then: [...ops, record] })).revision;
  }

  beforeEach(async () => {
    sequence = 0;
    meta = new MemoryMetaStore(runtime);
    await change(database(1, 'default'), collection(10, 'books'));
    view = new CatalogView(meta, runtime, silentLogger, { syncTimeoutMs: 200 });
    await view.start();
  });
  afterEach(async () => {
    await view.stop();
    await meta.close();
  });

  test('a view that has synced after a change shows the change', async () => {
    for (let index = 0; index < 20; index++) {
      const revision = await change(collection(100 + index, `c${index}`));
      await view.sync();
      expect(view.resolve('', `c${index}`).collection.id).toBe(100 + index);
      expect(view.revision).toBeGreaterThanOrEqual(revision);
    }
  });

  test('waitFor a revision that never comes is a Timeout, not a hang', async () => {
    await expect(view.waitFor(1_000_000)).rejects.toMatchObject({ codeName: 'Timeout' });
  });

  test('resolves names and aliases in their database; others are not found in the words of Milvus', async () => {
    await change(database(2, 'other'), collection(20, 'books', { databaseId: 2 }), alias('novels', 10));
    await view.sync();
    expect(view.resolve('default', 'books').collection.id).toBe(10);
    expect(view.resolve('other', 'books').collection.id).toBe(20);
    expect(view.resolve('', 'novels')).toMatchObject({ collection: { id: 10 }, database: { id: 1 } });
    expect(() => view.resolve('other', 'novels')).toThrow('collection not found[collection=novels]');
    expect(() => view.resolve('x', 'books')).toThrow('database not found[database=x]');
    expect(view.aliasesOf(10).map((record) => record.alias)).toEqual(['novels']);
  });

  test('a dropped collection is known by id but not by name or alias, and its name may be taken again', async () => {
    await change(alias('novels', 10));
    await change(collection(10, 'books', { state: CollectionState.COLLECTION_DROPPED }), collection(11, 'books'));
    await view.sync();
    expect(view.resolve('', 'books').collection.id).toBe(11);
    expect(() => view.resolve('', 'novels')).toThrow('collection not found');
    expect(view.collections.get(10)?.state).toBe(CollectionState.COLLECTION_DROPPED);
    await change({ kind: 'delete', key: keys.collection(10) });
    await view.sync();
    expect(view.resolve('', 'books').collection.id).toBe(11);
    expect(view.collections.has(10)).toBe(false);
  });

  test('two collections that swap names in one transaction both resolve', async () => {
    await change(collection(11, 'films'));
    await change(collection(10, 'films'), collection(11, 'books'));
    await view.sync();
    expect([view.resolve('', 'films').collection.id, view.resolve('', 'books').collection.id]).toEqual([10, 11]);
  });

  test('an alias that moves to another collection leaves the first', async () => {
    await change(collection(11, 'films'), alias('a', 10));
    await change(alias('a', 11));
    await view.sync();
    expect([view.aliasesOf(10), view.resolve('', 'a').collection.id]).toEqual([[], 11]);
    await change({ kind: 'delete', key: keys.alias(1, 'a') });
    await view.sync();
    expect(view.alias(1, 'a')).toBeUndefined();
  });

  test('listeners run once a transaction, when all of it is there', async () => {
    const calls: { changes: readonly CatalogChange[]; partitions: number; loaded: boolean }[] = [];
    const subscription = view.onChange((changes) =>
      calls.push({ changes, partitions: view.partitionsOf(10).length, loaded: view.loadOf(10) !== undefined }),
    );
    await change(
      partition(1, 'a'),
      partition(2, 'b'),
      putRecord(keys.index(10, 3), IndexRecord, IndexRecord.create({ id: 3, collectionId: 10 })),
      putRecord(keys.load(10), LoadRecord, LoadRecord.create({ collectionId: 10 })),
    );
    await view.sync();
    expect(calls).toHaveLength(1);
    expect(calls[0]).toMatchObject({ partitions: 2, loaded: true });
    expect(calls[0].changes.map(({ kind, collectionId }) => `${kind} ${collectionId}`)).toEqual([
      'partition 10',
      'partition 10',
      'index 10',
      'load 10',
    ]);
    expect(view.indexesOf(10)).toHaveLength(1);
    subscription.close();
    await change({ kind: 'delete', key: keys.load(10) });
    await view.sync();
    expect([calls.length, view.loadOf(10)]).toEqual([1, undefined]);
  });

  test('a schema is decoded once for each version', async () => {
    const schema = (description: string) =>
      CollectionSchema.encode(
        CollectionSchema.fromPartial({
          name: 'books',
          description,
          fields: [{ fieldID: 100n, name: 'id', dataType: 5, isPrimaryKey: true }],
        }),
      ).finish();
    await change(collection(10, 'books', { schema: schema('one') }));
    await view.sync();
    const first = view.schemaOf(10);
    expect(view.schemaOf(10)).toBe(first);
    await change(collection(10, 'books', { schema: schema('two') }));
    await view.sync();
    expect([first.description, view.schemaOf(10).description]).toEqual(['one', 'two']);
    expect(() => view.schemaOf(99)).toThrow('collection not found');
  });

  test('after a cut the view drops what was deleted meanwhile and says so', async () => {
    let cut = false;
    const faulty = new FaultyMetaStore(meta, runtime, ({ method }) => (cut && method === 'watch' ? { kind: 'failBefore' } : undefined));
    const other = new CatalogView(faulty, runtime, silentLogger);
    await other.start();
    const changed: string[] = [];
    other.onChange((changes) => changed.push(...changes.map((one) => one.key)));
    cut = true;
    await change(collection(11, 'films'));
    await change({ kind: 'delete', key: keys.collection(10) });
    await runtime.sleep(20);
    cut = false;
    await other.sync();
    expect([...other.collections.keys()]).toEqual([11]);
    expect(new Set(changed)).toEqual(new Set([keys.collection(10), keys.collection(11)]));
    await other.stop();
  });
});
