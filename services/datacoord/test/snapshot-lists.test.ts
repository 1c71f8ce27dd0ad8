import { keys } from '@cairn/catalog';
import { PrefixRecord, type RestoreJobRecord, RestoreJobState, SnapshotRecord, SnapshotState } from '@cairn/proto/cairn/meta';
import type { ListSnapshotsRequest } from '@cairn/proto/cairn/services';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { SnapshotCodec, SnapshotIndex } from '../src/snapshot-index.ts';
import { EVERY, sealSegment } from './contents.ts';
import { World, type WorldOptions } from './world.ts';

let world: World;
let collection: number;
let partition: number;
let node: string;
afterEach(() => world.stop());

const settings = { gcGraceMs: 60, gcOrphanMs: 60, gcIntervalMs: 50, sweepPeriodMs: 30 };

async function begin(options: WorldOptions = {}): Promise<void> {
  world = new World({ ...options, settings: { ...settings, ...options.settings } });
  await world.node('streaming', 's1');
  await world.node('datanode', 'd1');
  node = 'a';
  await world.coordinator(node);
  ({ collection, partition } = await make('books'));
}
beforeEach(() => begin());

async function make(name: string): Promise<{ collection: number; partition: number }> {
  const { id } = await world.createCollection(node, name);
  const page = await world.meta.range({ prefix: keys.partitions(id) });
  return { collection: id, partition: Number(page.entries[0]?.key.split('/').at(-1)) };
}

/** A segment as an owner flushes it, its prefix recorded. */
async function flushed(of = collection, into = partition) {
  const record = await sealSegment(world, { collection: of, partition: into, minTs: 5, maxTs: 50 });
  const prefix: PrefixRecord = { prefix: record.prefix, dead: false, createdMs: world.runtime.now(), deadMs: 0, purpose: 'flush' };
  await world.meta.txn({ then: [{ kind: 'put', key: keys.prefix(record.prefix), value: PrefixRecord.encode(prefix).finish() }] });
  return record;
}

const create = async (name: string, of = 'books') =>
  (
    await world
      .client(node)
      .createSnapshot({ requestId: '', database: '', collection: of, name, description: '', compactionProtectionSeconds: 0 })
  ).id;
const list = (more: Partial<ListSnapshotsRequest> = {}) => world.client(node).listSnapshots({ ...EVERY, ...more });
const names = async (more: Partial<ListSnapshotsRequest> = {}) => (await list(more)).snapshots.map((info) => info.name);
const byId = (id: number) => ({ database: '', collection: '', name: '', id });
const describeId = (id: number) => world.client(node).describeSnapshot(byId(id));
const dropCollection = (name: string) => world.submit(node, { $case: 'dropCollection', value: { database: '', name, collectionId: 0 } });
const restart = async (next: string) => {
  await world.stopCoordinators();
  node = next;
  await world.coordinator(node);
};
const restore = (id: number, target: string, mode = '') =>
  world.client(node).restoreSnapshot({
    snapshot: byId(id),
    targetDatabase: '',
    targetCollection: target,
    noIndex: false,
    shards: 0,
    rewriteData: false,
    mode,
    requestId: '',
    partitions: [],
  });
async function ended(jobId: number): Promise<RestoreJobRecord> {
  const job = () => world.client(node).getRestoreJob({ jobId });
  await world.until(async () => (await job()).state >= RestoreJobState.RESTORE_COMPLETED, 'the job ends');
  return job();
}
const gone = (id: number) =>
  world.until(async () => (await list({ all: true })).snapshots.every((info) => info.id !== id), `snapshot ${id} is gone`);

describe('lists', () => {
  test('pages hold every snapshot once, oldest first, also when one of them is dropped in between', async () => {
    for (let i = 0; i < 7; i++) await create(`s${i}`);
    const first = await list({ collection: 'books', pageSize: 3 });
    expect(first).toMatchObject({ total: 7 });
    await world.client(node).dropSnapshot({ database: '', collection: 'books', name: 's2', id: 0 });
    const second = await list({ collection: 'books', pageSize: 3, pageToken: first.nextPageToken });
    const third = await list({ collection: 'books', pageSize: 3, pageToken: second.nextPageToken });
    const all = [first, second, third].map((page) => page.snapshots.map((info) => info.name));
    expect(all).toEqual([['s0', 's1', 's2'], ['s3', 's4', 's5'], ['s6']]);
    expect(third.nextPageToken).toBe('');
    await expect(list({ pageToken: 'nonsense' })).rejects.toThrow("page token 'nonsense'");
  });

  test('by database and by collection they hold exactly what lies there; no database sees names of another', async () => {
    await create('of_books');
    await world.submit(node, { $case: 'createDatabase', value: { name: 'other', id: 0, properties: [] } });
    await make('more');
    await create('of_more', 'more');
    expect(await names({ database: 'default' })).toEqual(['of_books', 'of_more']);
    expect(await names({ database: 'other' })).toEqual([]);
    expect(await names({ collection: 'more' })).toEqual(['of_more']);
    await expect(names({ database: 'other', collection: 'books' })).rejects.toMatchObject({ codeName: 'CollectionNotFound' });
    await expect(names({ database: 'none' })).rejects.toMatchObject({ codeName: 'DatabaseNotFound' });
  });

  test('the bare names of a collection are those of its committed snapshots, as they are now', async () => {
    const bare = async (of = 'books') => (await list({ collection: of, namesOnly: true, bareNames: true })).names;
    expect(await bare()).toEqual([]);
    await flushed();
    await create('first');
    await create('second');
    expect(await bare()).toEqual(['first', 'second']);
    await world.client(node).dropSnapshot({ database: '', collection: 'books', name: 'first', id: 0 });
    await create('third');
    expect(await bare()).toEqual(['second', 'third']);
    await make('others');
    expect(await bare('others')).toEqual([]);
    await expect(bare('nowhere')).rejects.toMatchObject({ codeName: 'CollectionNotFound' });
    await expect(bare('')).rejects.toMatchObject({ codeName: 'InvalidParameter' });
  });

  test('by partition they hold the snapshots that have it', async () => {
    await create('before');
    await world.submit(node, { $case: 'createPartition', value: { database: '', collection: 'books', name: 'old', id: 0 } });
    await create('after');
    expect(await names({ partition: 'old' })).toEqual(['after']);
    expect(await names({ partition: '_default' })).toEqual(['before', 'after']);
  });

  test('each says rows, bytes, what only it keeps and what it shares, age, pins, state', async () => {
    await flushed();
    const id = await create('s1');
    await world.client(node).pinSnapshot({ snapshot: byId(id), ttlSeconds: 60, requestId: '' });
    const { snapshots, nowMs } = await list({ sizes: true });
    const [info] = snapshots;
    expect(info).toMatchObject({
      id,
      rows: 10,
      segments: 1,
      pins: 1,
      state: SnapshotState.SNAPSHOT_COMMITTED,
      sizesKnown: true,
      exclusiveBytes: 0,
      retained: false,
    });
    expect(info?.sharedBytes).toBe(info?.bytes);
    expect(nowMs).toBeGreaterThanOrEqual(info?.createdMs ?? Number.POSITIVE_INFINITY);
    expect((await list()).snapshots[0]?.sizesKnown).toBe(false);
  });

  test('with all of them, one that is still pending is listed as such', async () => {
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    world.onBarrier = () => held;
    const creating = create('slow');
    await world.until(() => world.barriers.length > 0, 'the barrier is asked for');
    expect(await names()).toEqual([]);
    expect((await list({ all: true })).snapshots).toMatchObject([{ name: 'slow', state: SnapshotState.SNAPSHOT_PENDING }]);
    release();
    await creating;
  });

  test('records are found by id, by collection and name, and by time, whatever came and went', () => {
    const kinds = fc.constantFrom('PENDING', 'COMMITTED', 'DELETING', 'FAILED', undefined);
    const steps = fc.array(fc.record({ id: fc.integer({ min: 1, max: 8 }), to: kinds, collectionId: fc.integer({ min: 1, max: 2 }) }));
    fc.assert(
      fc.property(steps, (moves) => {
        const index = new SnapshotIndex();
        const codec = new SnapshotCodec();
        const records = new Map<number, SnapshotRecord>();
        const listed = () => [1, 2].map((collectionId) => index.committedNames(collectionId));
        for (const { id, to, collectionId } of moves) {
          const before = records.get(id);
          const state = to === undefined ? undefined : SnapshotState[`SNAPSHOT_${to}`];
          const fields = {
            id,
            collectionId: before?.collectionId ?? collectionId,
            name: `s${id}`,
            ts: id * 10,
            definition: Buffer.from('d'),
          };
          const after =
            state === undefined
              ? undefined
              : codec.decode(SnapshotRecord.encode(SnapshotRecord.fromPartial({ ...fields, state })).finish());
          index.changed(before, after);
          if (after) records.set(id, after);
          else records.delete(id);
          // Kept until a change: asked for between all of them.
          expect(listed()).toEqual([1, 2].map((collectionId) => committedOf([...records.values()], collectionId)));
        }
        const all = [...records.values()].sort((a, b) => a.ts - b.ts);
        expect([...index.after(undefined)]).toEqual(all);
        expect([...index.after({ ts: 30, id: 3 })]).toEqual(all.filter((record) => record.ts > 30));
        for (const collectionId of [1, 2])
          expect(index.of(collectionId)).toEqual(all.filter((record) => record.collectionId === collectionId));
        for (const record of all) {
          const holds = record.state === SnapshotState.SNAPSHOT_PENDING || record.state === SnapshotState.SNAPSHOT_COMMITTED;
          expect(index.named(record.collectionId, record.name)).toEqual(holds ? record : undefined);
        }
        const unsettled = all.filter((record) => record.state !== SnapshotState.SNAPSHOT_COMMITTED);
        expect([...index.unsettled()].sort((a, b) => a.ts - b.ts)).toEqual(unsettled);
      }),
    );
  });
});

function committedOf(records: readonly SnapshotRecord[], collectionId: number): string[] {
  const committed = records.filter((record) => record.collectionId === collectionId && record.state === SnapshotState.SNAPSHOT_COMMITTED);
  return committed.sort((a, b) => a.ts - b.ts).map((record) => record.name);
}

describe('when the collection is dropped', () => {
  test('a retained snapshot is listed, described, verified and restored by id, also after a restart, until it is dropped by id', async () => {
    await world.stop();
    await begin({ settings: { snapshotOnCollectionDrop: 'retain' } });
    await flushed();
    const id = await create('kept');
    await dropCollection('books');
    await world.runtime.sleep(200);
    expect(await names()).toEqual([]);
    expect((await list({ all: true, collection: 'books' })).snapshots).toMatchObject([
      { id, name: 'kept', retained: true, collection: 'books' },
    ]);
    expect(await describeId(id)).toMatchObject({ name: 'kept', database: 'default', rows: 10, retained: true });
    expect(await ended((await restore(id, 'back')).jobId)).toMatchObject({ state: RestoreJobState.RESTORE_COMPLETED, totalRows: 10 });
    await restart('b');
    await world.runtime.sleep(200);
    expect(await ended((await restore(id, 'again', 'reference')).jobId)).toMatchObject({ state: RestoreJobState.RESTORE_COMPLETED });
    await world.client(node).dropSnapshot(byId(id));
    await expect(describeId(id)).rejects.toThrow(`snapshot not found[id=${id}]`);
    await gone(id);
  });

  test('the name is free for a new collection, whose snapshots are its own', async () => {
    await world.stop();
    await begin({ settings: { snapshotOnCollectionDrop: 'retain' } });
    const first = await create('s1');
    await dropCollection('books');
    await make('books');
    const second = await create('s1');
    expect(await names({ collection: 'books' })).toEqual(['s1']);
    expect((await list({ all: true })).snapshots.map((info) => [info.id, info.retained])).toEqual([
      [first, true],
      [second, false],
    ]);
    await world.client(node).dropSnapshot({ database: '', collection: 'books', name: 's1', id: 0 });
    expect((await describeId(first)).name).toBe('s1');
  });

  test('under cascade a pinned one is reachable by id until its last pin ends, over a restart, and then goes with its objects', async () => {
    const segment = await flushed();
    const id = await create('s1');
    const pin = () => world.client(node).pinSnapshot({ snapshot: byId(id), ttlSeconds: 0, requestId: '' });
    const pins = [(await pin()).pinId, (await pin()).pinId];
    await dropCollection('books');
    await restart('b');
    await world.client(node).unpinSnapshot({ pinId: pins[0] ?? 0 });
    await world.runtime.sleep(200);
    expect(await describeId(id)).toMatchObject({ retained: true, pins: 1 });
    expect((await world.objects.list(segment.prefix)).objects).not.toEqual([]);
    expect(await ended((await restore(id, 'back')).jobId)).toMatchObject({ state: RestoreJobState.RESTORE_COMPLETED });
    await world.client(node).unpinSnapshot({ pinId: pins[1] ?? 0 });
    await gone(id);
    await world.until(async () => (await world.objects.list(segment.prefix)).objects.length === 0, 'its objects are gone');
  });

  test('a snapshot that is being restored outlives its collection; the restore completes and the snapshot goes after it', async () => {
    await flushed();
    const id = await create('s1');
    let release = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    world.task = async function* (request) {
      await held;
      yield* world.copyForReal(request);
    };
    const { jobId } = await restore(id, 'back');
    await dropCollection('books');
    await world.runtime.sleep(200);
    expect(await describeId(id)).toMatchObject({ name: 's1', retained: true });
    release();
    expect(await ended(jobId)).toMatchObject({ state: RestoreJobState.RESTORE_COMPLETED, totalRows: 10 });
    await gone(id);
  });

  test('its catalog records go when nothing refers to it any more, and not before', async () => {
    await flushed();
    const id = await create('s1');
    const { pinId } = await world.client(node).pinSnapshot({ snapshot: byId(id), ttlSeconds: 0, requestId: '' });
    await dropCollection('books');
    await world.runtime.sleep(300);
    expect(await world.meta.get(keys.collection(collection))).toBeDefined();
    await world.client(node).unpinSnapshot({ pinId });
    await world.until(async () => (await world.meta.get(keys.collection(collection))) === undefined, 'the record is gone');
    expect((await world.meta.range({ prefix: keys.partitions(collection) })).entries).toEqual([]);
    expect((await world.meta.range({ prefix: 'segment/' })).entries).toEqual([]);
    await restart('b');
    expect(await world.createCollection(node, 'books')).toBeDefined();
  });
});
