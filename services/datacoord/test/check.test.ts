import { keys } from '@cairn/catalog';
import {
  GroupRecord,
  IndexBuildState,
  IndexRecord,
  PinRecord,
  PrefixRecord,
  RestoreIntentRecord,
  RestoreJobRecord,
  RestoreJobState,
  SegmentIndexRecord,
  SnapshotRecord,
  SnapshotState,
} from '@cairn/proto/cairn/meta';
import type {
  CheckResponse,
  DiffSnapshotsResponse,
  FindSnapshotsResponse,
  SnapshotSizesResponse,
  VerifyReport,
} from '@cairn/proto/cairn/upkeep';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { DataCoordService } from '../src/index.ts';
import { flushDeletes, sealSegment } from './contents.ts';
import { World } from './world.ts';

let world: World;
let coordinator: DataCoordService;
let collection: number;
let partition: number;
afterEach(() => world.stop());

beforeEach(async () => {
  world = new World({ settings: { gcIntervalMs: 3_600_000 } });
  await world.node('streaming', 's1');
  coordinator = await world.coordinator('a');
  collection = (await world.createCollection('a', 'books')).id;
  const page = await world.meta.range({ prefix: keys.partitions(collection) });
  partition = Number(page.entries[0]?.key.split('/').at(-1));
});

const context = undefined as never;
const check = async (deep = false) => ((await coordinator.upkeep.check({ deep }, context)) as CheckResponse).findings;
const words = async (deep = false) => (await check(deep)).map(({ kind, subject, detail }) => `${kind} ${subject}: ${detail}`).join('\n');
const verify = async (name: string, deep: boolean) =>
  (await coordinator.upkeep.verifySnapshot(
    { database: '', collection: 'books', name, snapshotId: 0, deep, paged: false, cursor: '' },
    context,
  )) as VerifyReport;
const create = (name: string) =>
  world
    .client('a')
    .createSnapshot({ requestId: '', database: '', collection: 'books', name, description: '', compactionProtectionSeconds: 0 });

/** Its prefix is recorded, as that of any flush. */
async function flushed() {
  const record = await sealSegment(world, { collection, partition, minTs: 5, maxTs: 50 });
  await put(keys.prefix(record.prefix), prefixBytes(record.prefix));
  return record;
}

async function put(key: string, value: Uint8Array): Promise<void> {
  await world.meta.txn({ then: [{ kind: 'put', key, value }] });
}

function prefixBytes(prefix: string): Uint8Array {
  return PrefixRecord.encode({ prefix, dead: false, createdMs: world.runtime.now(), deadMs: 0, purpose: 'flush' }).finish();
}

/** What a bug would write: straight into the store, then seen by a leader that starts anew. */
async function restarted(): Promise<void> {
  await world.stopCoordinators();
  coordinator = await world.coordinator('b');
}

describe('the consistency checker', () => {
  test('finds nothing where all is well, and counts what it looked at', async () => {
    await flushed();
    await create('s1');
    const reply = (await coordinator.upkeep.check({ deep: false }, context)) as CheckResponse;
    expect(reply).toMatchObject({ findings: [], objects: 2, segments: 1, snapshots: 1 });
  });

  test('an object that is gone, or of another length, is named with who refers to it', async () => {
    const record = await flushed();
    const [scalars, vector] = record.objects;
    await world.objects.delete([scalars?.key ?? '']);
    await world.objects.put(vector?.key ?? '', Buffer.from('short'));
    const found = await words();
    expect(found).toContain(`object ${scalars?.key}: object not found`);
    expect(found).toContain(`object ${vector?.key}: 5 bytes, recorded`);
    expect(found).toContain(`segment ${record.id} of collection ${collection}`);
  });

  test('a flipped byte is found when objects are read', async () => {
    const record = await flushed();
    const key = record.objects[0]?.key ?? '';
    const bytes = Buffer.from(await world.objects.get(key));
    bytes[0] = (bytes[0] ?? 0) ^ 1;
    await world.objects.put(key, bytes);
    expect(await words(true)).toContain(`object ${key}: object ${key}: checksum`);
  });

  test('a damaged snapshot, and references in memory that are not those of its metadata', async () => {
    await flushed();
    const { id } = await create('s1');
    expect(await words()).toBe('');
    const [manifest] = (await world.objects.list(`snapshots/${collection}/manifests/${id}/`)).objects;
    await world.objects.delete([manifest?.key ?? '']);
    expect(await words()).toContain(`snapshot s1 (${id}): object not found: ${manifest?.key}`);
  });

  test('a pin, intent or group that nobody owns, and a job that ended half-way', async () => {
    const { id } = await create('s1');
    const long = world.runtime.now() - 3_600_000;
    await put(keys.pin(id, 9), PinRecord.encode(PinRecord.fromPartial({ id: 9, snapshotId: id, owner: 'restore:77' })).finish());
    await put(keys.group('restore-78'), GroupRecord.encode({ group: 'restore-78', published: false, createdMs: long }).finish());
    const job = RestoreJobRecord.fromPartial({
      id: 79,
      state: RestoreJobState.RESTORE_COMPLETED,
      startMs: world.runtime.now(),
      endMs: world.runtime.now(),
      totalBytes: 10,
      copiedBytes: 9,
    });
    await put(keys.restoreJob(79), RestoreJobRecord.encode(job).finish());
    await restarted();
    const found = await words();
    expect(found).toContain('pin 9: its owner restore:77 is gone');
    expect(found).toContain('group restore-78: it is not published');
    expect(found).toContain('job 79: Completed with 9 of 10 bytes');
  });

  test('a record that another than the leader changed, and an object that no record covers', async () => {
    const intent = RestoreIntentRecord.fromPartial({ jobId: 5, createdMs: world.runtime.now() });
    await put(keys.restoreIntent(5), RestoreIntentRecord.encode(intent).finish());
    await world.objects.put(`segments/${collection}/1/2/g/scalars.arrow`, Buffer.from('x'));
    const ghost = SnapshotRecord.fromPartial({ id: 77, collectionId: collection, name: 'ghost', state: SnapshotState.SNAPSHOT_COMMITTED });
    await put(keys.snapshot(collection, 77), SnapshotRecord.encode(ghost).finish());
    const found = await words();
    expect(found).toContain('memory restore intent 5: known at revision none');
    expect(found).toContain(`memory snapshots of collection ${collection}: known are none, stored 77`);
    expect(found).toContain(`memory snapshot name ghost of collection ${collection}: known as free, stored as 77`);
    expect(found).toContain(`prefix segments/${collection}/1/2/g/: an object that no record of ours covers`);
  });
});

describe('contents of snapshots', () => {
  test('verify names what is missing, and deep what is flipped', async () => {
    const record = await flushed();
    await create('s1');
    expect((await verify('s1', false)).findings).toEqual([]);
    const key = record.objects[1]?.key ?? '';
    await world.objects.delete([key]);
    expect((await verify('s1', false)).findings).toMatchObject([{ kind: 'object', subject: key }]);
  });

  test('diff tells segments and rows that came and went, by partition', async () => {
    await flushed();
    await create('before');
    await flushed();
    await flushDeletes(world, collection, 6, 60);
    await create('after');
    const diff = (await coordinator.upkeep.diffSnapshots(
      { database: '', collection: 'books', from: 'before', to: 'after', fromId: 0, toId: 0 },
      context,
    )) as DiffSnapshotsResponse;
    expect(diff).toEqual({
      partitions: [{ partition: '_default', segmentsAdded: 1, segmentsRemoved: 0, rowsAdded: 10, rowsRemoved: 0 }],
      segmentsShared: 1,
      deltaLogsAdded: 1,
      deltaLogsRemoved: 0,
      deletesAdded: 2,
    });
  });

  test('are found by a segment and by an index build, as a new leader reads them', async () => {
    const [first, second] = [await flushed(), await flushed()];
    const build = SegmentIndexRecord.fromPartial({
      ...{ buildId: 901, indexId: 9, collectionId: collection, segmentId: second.id, fieldId: 101, rows: second.rows },
      ...{ state: IndexBuildState.INDEX_BUILD_FINISHED, indexType: 'FLAT' },
    });
    await create('without');
    await put(keys.segmentIndex(collection, second.id, 9), SegmentIndexRecord.encode(build).finish());
    await put(
      keys.index(collection, 9),
      IndexRecord.encode(IndexRecord.fromPartial({ id: 9, collectionId: collection, fieldId: 101 })).finish(),
    );
    await restarted();
    await world
      .client('b')
      .createSnapshot({ requestId: '', database: '', collection: 'books', name: 'with', description: '', compactionProtectionSeconds: 0 });
    const find = async (wanted: { segmentId?: number; buildId?: number }) =>
      ((await coordinator.upkeep.findSnapshots({ segmentId: 0, buildId: 0, ...wanted }, context)) as FindSnapshotsResponse).snapshots.map(
        ({ name }) => name,
      );
    expect(await find({ segmentId: first.id })).toEqual(['without', 'with']);
    expect(await find({ buildId: 901 })).toEqual(['with']);
    expect(await find({ segmentId: 12_345_678 })).toEqual([]);
    await expect(find({})).rejects.toThrow('one of them');
    expect(await words()).toBe('');
  });

  test('are not searched while what one of them refers to cannot be read', async () => {
    const { id: segmentId } = await flushed();
    const { id } = await create('s1');
    await world.stopCoordinators();
    const [manifest] = (await world.objects.list(`snapshots/${collection}/manifests/${id}/`)).objects;
    await world.objects.delete([manifest?.key ?? '']);
    coordinator = await world.coordinator('b');
    await expect(coordinator.upkeep.findSnapshots({ segmentId, buildId: 0 }, context)).rejects.toThrow('are not known');
  });

  test('bytes are exclusive when no other snapshot and no live segment has them', async () => {
    const record = await flushed();
    await create('s1');
    const sizes = async () =>
      ((await coordinator.upkeep.snapshotSizes({ database: '', collection: 'books' }, context)) as SnapshotSizesResponse).snapshots;
    const [shared] = await sizes();
    expect([shared?.exclusiveBytes, shared?.sharedBytes]).toEqual([0, shared?.bytes]);
    await world.meta.txn({ then: [{ kind: 'delete', key: keys.segment(collection, record.id) }] });
    const [alone] = await sizes();
    expect([alone?.exclusiveBytes, alone?.sharedBytes]).toEqual([shared?.bytes, 0]);
  });
});
