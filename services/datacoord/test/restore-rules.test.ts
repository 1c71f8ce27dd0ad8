import { CairnError } from '@cairn/base';
import { keys } from '@cairn/catalog';
import {
  CollectionRecord,
  IndexRecord,
  PartitionRecord,
  RestoreIntentRecord,
  type RestoreJobRecord,
  RestoreJobState,
  SnapshotDefinition,
} from '@cairn/proto/cairn/meta';
import { RestoreSnapshotRequest } from '@cairn/proto/cairn/services';
import { CollectionSchema, DataType, FieldSchema } from '@cairn/proto/milvus/schema';
import type { SnapshotBundle } from '@cairn/segment';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { ControlChannel } from '../src/control-channel.ts';
import type { LeaderStore } from '../src/leader-store.ts';
import { RestoreTarget } from '../src/restore-target.ts';
import { collectionRecord, flushDeletes, sealSegment } from './contents.ts';
import { World } from './world.ts';

/** What a restore keeps of its snapshot, rule by rule, and how it ends where one cannot be kept. */
let world: World;
beforeEach(async () => {
  world = new World({ settings: { copyTaskItems: 2 } });
  await world.node('streaming', 's1');
  await world.node('datanode', 'd1');
  await world.coordinator('a');
});
afterEach(() => world.stop());

const MODES = ['copy', 'reference'] as const;
const field = (id: number, name: string, more: Partial<FieldSchema> = {}): FieldSchema =>
  FieldSchema.fromPartial({
    fieldID: BigInt(id),
    name,
    dataType: DataType.VarChar,
    typeParams: [{ key: 'max_length', value: '64' }],
    ...more,
  });

/** Field ids with gaps, as after fields that came and went. */
const FIELDS: readonly FieldSchema[] = [
  field(100, 'id', { dataType: DataType.Int64, isPrimaryKey: true, typeParams: [] }),
  field(103, 'vector', {
    dataType: DataType.FloatVector,
    typeParams: [
      { key: 'dim', value: '8' },
      { key: 'mmap.enabled', value: 'true' },
    ],
  }),
  field(104, 'tenant', { description: 'whose it is' }),
  field(109, 'meta', { dataType: DataType.JSON, typeParams: [], nullable: true }),
];

interface Made {
  readonly id: number;
  readonly record: CollectionRecord;
}

async function make(
  name: string,
  more: Partial<CollectionRecord> = {},
  fields: readonly FieldSchema[] = FIELDS,
  names: readonly string[] = [],
): Promise<Made> {
  const schema = CollectionSchema.fromPartial({ name, description: 'of many things', fields: [...fields] });
  const collection = CollectionRecord.fromPartial({
    name,
    schema: CollectionSchema.encode(schema).finish(),
    shards: [{ index: 0 }, { index: 1 }],
    maxFieldId: 120,
    schemaVersion: 3,
    ...more,
  });
  const partitions = names.map((one, n) => PartitionRecord.fromPartial({ name: one, id: 800_000 + n }));
  const { id } = await world.submit('a', { $case: 'createCollection', value: { database: '', collection, partitions, checkpoints: [] } });
  return { id, record: await collectionRecord(world, id) };
}

const snapshotOf = (collection: string) =>
  world.client('a').createSnapshot({ requestId: '', database: '', collection, name: 's', description: '', compactionProtectionSeconds: 0 });

async function started(source: string, target: string, more: Partial<RestoreSnapshotRequest> = {}): Promise<number> {
  const snapshot = { database: '', collection: source, name: 's', id: 0 };
  const request = RestoreSnapshotRequest.fromPartial({ snapshot, targetCollection: target, ...more });
  return (await world.client('a').restoreSnapshot(request)).jobId;
}

async function ended(jobId: number, seen: (job: RestoreJobRecord) => void = () => {}): Promise<RestoreJobRecord> {
  let job = await world.client('a').getRestoreJob({ jobId });
  await world.until(async () => {
    job = await world.client('a').getRestoreJob({ jobId });
    seen(job);
    return job.state >= RestoreJobState.RESTORE_COMPLETED;
  }, 'the job ends');
  return job;
}

const recordsUnder = async (prefix: string) => (await world.meta.range({ prefix })).entries;
const partitionsOf = async (id: number) => (await recordsUnder(keys.partitions(id))).map((entry) => PartitionRecord.decode(entry.value));
const indexesOf = async (id: number) => (await recordsUnder(keys.indexes(id))).map((entry) => IndexRecord.decode(entry.value));

async function expectNothingLeft(target: string): Promise<void> {
  for (const prefix of [keys.restoreIntents, keys.pins, keys.groups, keys.copyTasks]) expect(await recordsUnder(prefix)).toEqual([]);
  // The name is free at once.
  await make(target);
}

describe.each(MODES)('what is restored (%s) is as it was', (mode) => {
  test('the schema, byte by byte but for its name, with ids of fields; a field that comes later gets an id that none ever had', async () => {
    const source = await make('books');
    await snapshotOf('books');
    const { targetCollectionId } = await ended(await started('books', 'copy', { mode }));
    const target = await collectionRecord(world, targetCollectionId);
    const was = CollectionSchema.decode(source.record.schema);
    expect(CollectionSchema.decode(target.schema)).toEqual({ ...was, name: 'copy' });
    expect(target).toMatchObject({ maxFieldId: 120, schemaVersion: 3 });
    const added = FieldSchema.encode(field(0, 'later', { nullable: true })).finish();
    await world.submit('a', { $case: 'addField', value: { database: '', collection: 'copy', field: added } });
    const fields = CollectionSchema.decode((await collectionRecord(world, targetCollectionId)).schema).fields;
    expect(fields.map((one) => Number(one.fieldID))).toEqual([100, 103, 104, 109, 121]);
  });

  test('consistency level, time to live, mmap, description and every property of a user', async () => {
    const properties = [
      { key: 'collection.ttl.seconds', value: '86400' },
      { key: 'collection.autocompaction.enabled', value: 'false' },
      { key: 'mmap.enabled', value: 'true' },
      { key: 'partitionkey.isolation', value: 'false' },
      { key: 'mine', value: 'ünï = "code"' },
    ];
    for (const consistencyLevel of [0, 1, 2, 3]) {
      const name = `books${consistencyLevel}`;
      const source = await make(name, { consistencyLevel, properties });
      await snapshotOf(name);
      // What is altered after the snapshot is not of it.
      await world.submit('a', {
        $case: 'alterCollection',
        value: { database: '', name, properties: [{ key: 'mine', value: 'later' }], deleteKeys: ['mmap.enabled'] },
      });
      const { targetCollectionId } = await ended(await started(name, `${name}_copy`, { mode }));
      const target = await collectionRecord(world, targetCollectionId);
      const { id, name: _name, schema, shards, createdTs, updatedTs, ...kept } = source.record;
      expect(target).toMatchObject({ ...kept, shards: [{ index: 0 }, { index: 1 }] });
    }
  });

  test('indexes with all their parameters as they are stored, a JSON path too; nothing is read into them again', async () => {
    const { id } = await make('books');
    const made = [
      {
        fieldId: 103,
        name: 'by_vector',
        auto: true,
        indexParams: [
          { key: 'index_type', value: 'AUTOINDEX' },
          { key: 'metric_type', value: 'COSINE' },
          { key: 'mmap.enabled', value: 'false' },
        ],
        userParams: [{ key: 'mmap.enabled', value: 'false' }],
        typeParams: [{ key: 'dim', value: '8' }],
      },
      {
        fieldId: 109,
        name: 'by_path',
        indexParams: [
          { key: 'index_type', value: 'INVERTED' },
          { key: 'json_path', value: '/a~1b/0/c' },
          { key: 'json_cast_type', value: 'DOUBLE' },
        ],
        userParams: [{ key: 'json_path', value: 'meta["a/b"][0]["c"]' }],
      },
    ];
    for (const index of made)
      await world.submit('a', {
        $case: 'createIndex',
        value: { database: '', collection: 'books', index: IndexRecord.fromPartial(index), field: '', restoreJobId: 0 },
      });
    await snapshotOf('books');
    const { targetCollectionId } = await ended(await started('books', 'copy', { mode }));
    const plain = (list: IndexRecord[]) =>
      list.map(({ id: _id, collectionId, createdTs, ...kept }) => kept).sort((a, b) => a.fieldId - b.fieldId);
    const target = await indexesOf(targetCollectionId);
    expect(plain(target)).toEqual(plain(await indexesOf(id)));
    expect(plain(target)).toMatchObject(made);
    expect(new Set(target.map((index) => index.collectionId))).toEqual(new Set([targetCollectionId]));
  });

  test('partitions of a partition key: as many, of the same names, and none to choose', async () => {
    const fields = FIELDS.map((one) => (one.name === 'tenant' ? { ...one, isPartitionKey: true } : one));
    const names = Array.from({ length: 4 }, (_, n) => `_default_${n}`);
    const source = await make('books', { numPartitions: 4 }, fields, names);
    await snapshotOf('books');
    await expect(started('books', 'part', { mode, partitions: [names[0]] })).rejects.toMatchObject({
      code: 1100,
      message: expect.stringContaining('has a partition key'),
    });
    const { targetCollectionId } = await ended(await started('books', 'copy', { mode }));
    const target = await collectionRecord(world, targetCollectionId);
    expect(target.numPartitions).toBe(4);
    const of = async (id: number) => (await partitionsOf(id)).map((partition) => partition.name).sort();
    expect(await of(targetCollectionId)).toEqual(await of(source.id));
  });

  test('rows, deletes, delete logs and indexes may be missing: through the same states to Completed', async () => {
    const rows = [
      { what: 'nothing', segments: 0, deletes: 0, index: true },
      { what: 'deletes', segments: 0, deletes: 2, index: true },
      { what: 'rows', segments: 3, deletes: 0, index: false },
      { what: 'indexed', segments: 3, deletes: 0, index: true },
    ];
    for (const { what, segments, deletes, index } of rows) {
      const { id } = await make(what);
      if (index) await world.createIndex('a', what);
      const [partition] = await partitionsOf(id);
      for (let n = 0; n < segments; n++)
        await sealSegment(world, { collection: id, partition: partition.id, shard: n % 2, minTs: 5, maxTs: 50 });
      for (let n = 0; n < deletes; n++) await flushDeletes(world, id, 7, 70);
      await snapshotOf(what);
      const states: RestoreJobState[] = [];
      const job = await ended(await started(what, `${what}_copy`, { mode }), (seen) => states.push(seen.state));
      expect(job).toMatchObject({ state: RestoreJobState.RESTORE_COMPLETED, totalSegments: segments, reason: '' });
      expect(states).toEqual(states.toSorted((a, b) => a - b));
      expect(await recordsUnder(keys.segments(job.targetCollectionId))).toHaveLength(segments);
      expect(await recordsUnder(keys.deltas(job.targetCollectionId))).toHaveLength(deletes);
      expect(await collectionRecord(world, job.targetCollectionId)).toMatchObject({ state: 0, restoreJobId: 0 });
    }
  });
});

describe('a job tells', () => {
  test('when it began and how long it took, in every state, whatever its end', async () => {
    const { id } = await make('books');
    const [partition] = await partitionsOf(id);
    for (let n = 0; n < 6; n++) await sealSegment(world, { collection: id, partition: partition.id, minTs: 5, maxTs: 50 });
    await snapshotOf('books');
    const before = world.runtime.now();
    const watched = async (jobId: number): Promise<RestoreJobRecord> => {
      const seen: RestoreJobRecord[] = [];
      const job = await ended(jobId, (one) => seen.push(one));
      for (const one of [...seen, job]) {
        expect(one.startMs).toBeGreaterThanOrEqual(before);
        expect(one.startMs).toBe(job.startMs);
        expect(one.deadlineMs).toBeGreaterThan(one.startMs);
        expect(one.endMs).toBe(one.state >= RestoreJobState.RESTORE_COMPLETED ? job.endMs : 0);
      }
      expect(job.endMs).toBeGreaterThanOrEqual(job.startMs);
      return job;
    };
    expect((await watched(await started('books', 'copy'))).state).toBe(RestoreJobState.RESTORE_COMPLETED);
    const copy = world.objects.copy.bind(world.objects);
    world.objects.copy = () => Promise.reject(new CairnError('ObjectDamaged', 'object damaged: x'));
    expect((await watched(await started('books', 'broken'))).state).toBe(RestoreJobState.RESTORE_FAILED);
    world.objects.copy = copy;
    const jobId = await started('books', 'dropped');
    await world.client('a').cancelRestoreJob({ jobId });
    expect((await watched(jobId)).state).toBeGreaterThanOrEqual(RestoreJobState.RESTORE_COMPLETED);
  });
});

describe('the first error is told with its phase, and undoing never replaces it', () => {
  test('metadata that is damaged: reading the snapshot', async () => {
    await make('books');
    await snapshotOf('books');
    for (const { key } of (await world.objects.list('snapshots/')).objects)
      if (key.includes('/metadata/')) await world.objects.put(key, Buffer.from('{}'));
    await expect(started('books', 'copy')).rejects.toThrow(/^failed to read snapshot data: /);
    await expectNothingLeft('copy');
  });

  test('a target that lacks partitions, shards or indexes is named with what is missing and counts', async () => {
    const definition = SnapshotDefinition.fromPartial({
      collection: { schema: CollectionSchema.encode(CollectionSchema.fromPartial({ name: 'books' })).finish() },
      partitions: [{ name: '_default' }, { name: 'old' }, { name: 'older' }],
      indexes: [{ id: 5, name: 'by_vector', fieldId: 103 }],
    });
    const bundle = { definition } as unknown as SnapshotBundle;
    const intent = RestoreIntentRecord.fromPartial({ jobId: 7, targetCollectionId: 9, targetCollectionName: 'copy' });
    const rows: readonly {
      readonly partitions: string[];
      readonly shards: number;
      readonly indexes: string[];
      readonly error: RegExp | undefined;
    }[] = [
      { partitions: ['_default', 'old', 'older'], shards: 2, indexes: ['by_vector'], error: undefined },
      { partitions: ['_default'], shards: 2, indexes: ['by_vector'], error: /has 1 of 3 partitions, not old, older$/ },
      { partitions: ['_default', 'old', 'older'], shards: 1, indexes: ['by_vector'], error: /has 1 shards, the restore needs 2$/ },
      { partitions: ['_default', 'old', 'older'], shards: 2, indexes: [], error: /has no index by_vector$/ },
    ];
    for (const { partitions, shards, indexes, error } of rows) {
      const state = {
        collections: new Map([[9, { shards: Array(shards).fill({}) }]]),
        partitionsOf: () => partitions.map((name) => ({ name })),
        indexesOf: () => indexes.map((name) => ({ name })),
      };
      const control = { submit: async () => ({ id: 1 }) } as unknown as ControlChannel;
      const target = new RestoreTarget({ state } as unknown as LeaderStore, control, { allocate: async () => 100 });
      const made = target.make(intent, bundle, { noIndex: false, partitions: [], shards: 2 });
      if (error === undefined) await made;
      else {
        await expect(made).rejects.toThrow(error);
        await expect(made).rejects.toThrow(/^failed to validate the restored collection: /);
      }
    }
  });

  test('an index that cannot be made fails the restore of indexes, under its own code', async () => {
    const submit = async (id: string) => {
      if (id.includes('-index-')) throw new CairnError('TooManyRequests', 'no more indexes today');
      return { id: 1 };
    };
    const definition = SnapshotDefinition.fromPartial({ collection: {}, indexes: [{ id: 5, name: 'by_vector' }] });
    const target = new RestoreTarget({} as unknown as LeaderStore, { submit } as unknown as ControlChannel, { allocate: async () => 100 });
    const intent = RestoreIntentRecord.fromPartial({ jobId: 7 });
    const made = target.make(intent, { definition } as unknown as SnapshotBundle, { noIndex: false, partitions: [], shards: 0 });
    await expect(made).rejects.toMatchObject({
      message: 'failed to restore indexes: no more indexes today',
      codeName: 'TooManyRequests',
      retriable: true,
    });
  });

  test('an undo that fails is tried until it is done; the job keeps the first reason', async () => {
    const { id } = await make('books');
    const [partition] = await partitionsOf(id);
    await sealSegment(world, { collection: id, partition: partition.id, minTs: 5, maxTs: 50 });
    await snapshotOf('books');
    world.objects.copy = () => Promise.reject(new CairnError('ObjectDamaged', 'object damaged: the first of all'));
    const txn = world.meta.txn.bind(world.meta);
    let [undoing, refused] = [false, 0];
    world.meta.txn = async (transaction) => {
      // From the recorded reason on: the next transactions of the undo are lost.
      const text = JSON.stringify(
        (transaction.then ?? []).map((op) => ('value' in op ? Buffer.from(op.value).toString('latin1') : op.kind)),
      );
      undoing ||= text.includes('the first of all');
      if (undoing && !text.includes('the first of all') && refused < 4) {
        refused++;
        throw new CairnError('StoreUnavailable', 'the second of all');
      }
      return txn(transaction);
    };
    const job = await ended(await started('books', 'copy'));
    expect(refused).toBe(4);
    expect(job).toMatchObject({ state: RestoreJobState.RESTORE_FAILED });
    expect(job.reason).toContain('the first of all');
    expect(job.reason).not.toContain('the second of all');
    await expectNothingLeft('copy');
  });
});
