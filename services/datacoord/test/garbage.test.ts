import { CairnError } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { FaultyMetaStore } from '@cairn/meta/testing';
import type { ObjectStore } from '@cairn/objects';
import { PrefixRecord, SegmentIndexRecord, SegmentRecord, SegmentState } from '@cairn/proto/cairn/meta';
import type { GcReport } from '@cairn/proto/cairn/upkeep';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { DataCoordService } from '../src/index.ts';
import { EVERY, sealSegment } from './contents.ts';
import { World, type WorldOptions } from './world.ts';

let world: World;
let coordinator: DataCoordService;
let collection: number;
let partition: number;
afterEach(() => world.stop());

/** Rounds only when the test asks for one. */
/** The coordinator sweeps and collects when a test asks for it, not by itself: what is seen between two calls depends on no clock then. */
const settings = { gcGraceMs: 400, gcOrphanMs: 300, gcIntervalMs: 3_600_000, sweepPeriodMs: 3_600_000 };

async function begin(options: WorldOptions = {}): Promise<void> {
  world = new World({ ...options, settings: { ...settings, ...options.settings } });
  await world.node('streaming', 's1');
  coordinator = await world.coordinator('a');
  collection = (await world.createCollection('a', 'books')).id;
  const page = await world.meta.range({ prefix: keys.partitions(collection) });
  partition = Number(page.entries[0]?.key.split('/').at(-1));
  // The round at the start is over when this one is.
  await run();
}
beforeEach(() => begin());

const run = (): Promise<GcReport> => coordinator.upkeep.gcRun({ limit: 0 }, undefined as never) as Promise<GcReport>;
const plan = (): Promise<GcReport> => coordinator.upkeep.gcPlan({ limit: 0 }, undefined as never) as Promise<GcReport>;
const exists = async (key: string) => (await world.objects.head(key)) !== undefined;
const snapshot = (name: string) => ({ database: '', collection: 'books', name, id: 0 });
const create = (name: string) =>
  world
    .client('a')
    .createSnapshot({ requestId: '', database: '', collection: 'books', name, description: '', compactionProtectionSeconds: 0 });

async function recordPrefix(prefix: string): Promise<void> {
  const record: PrefixRecord = { prefix, dead: false, createdMs: world.runtime.now(), deadMs: 0, purpose: 'flush' };
  await world.meta.txn({ then: [{ kind: 'put', key: keys.prefix(prefix), value: PrefixRecord.encode(record).finish() }] });
}

/** A segment as an owner flushes it, its prefix recorded. */
async function flushed(of = collection): Promise<SegmentRecord> {
  const record = await sealSegment(world, { collection: of, partition, minTs: 5, maxTs: 50 });
  await recordPrefix(record.prefix);
  return record;
}

async function replace(record: SegmentRecord, droppedTs = 99): Promise<void> {
  const dropped: SegmentRecord = { ...record, state: SegmentState.SEGMENT_DROPPED, droppedTs };
  const key = keys.segment(record.collectionId, record.id);
  await world.meta.txn({ then: [{ kind: 'put', key, value: SegmentRecord.encode(dropped).finish() }] });
}

async function collectAll(): Promise<void> {
  await run();
  await world.runtime.sleep(settings.gcGraceMs + 20);
  await run();
}

describe('what nothing refers to', () => {
  test('a replaced segment is recorded as dead, its objects go after the grace time, a live one stays', async () => {
    const [gone, stays] = [await flushed(), await flushed()];
    await replace(gone);
    const planned = await plan();
    expect(planned.items.map((item) => [item.prefix, item.objects])).toEqual([[gone.prefix, 2]]);
    expect(planned.candidateBytes).toBeGreaterThan(0);
    expect(await run()).toMatchObject({ marked: 1, deletedPrefixes: 0 });
    expect(await exists(gone.objects[0]?.key ?? '')).toBe(true);
    expect(await world.meta.get(keys.segment(collection, gone.id))).toBeUndefined();
    await world.runtime.sleep(settings.gcGraceMs + 20);
    await run();
    expect(await exists(gone.objects[0]?.key ?? '')).toBe(false);
    expect(await world.meta.get(keys.prefix(gone.prefix))).toBeUndefined();
    expect(await exists(stays.objects[0]?.key ?? '')).toBe(true);
  });

  test('a dropped collection leaves no object and no record of a segment behind', async () => {
    await flushed();
    await world.submit('a', { $case: 'dropCollection', value: { database: '', name: 'books', collectionId: 0 } });
    await collectAll();
    expect((await world.objects.list('segments/')).objects).toEqual([]);
    expect((await world.meta.range({ prefix: keys.segments(collection) })).entries).toEqual([]);
  });

  test('a flush that never committed is left to its writer for the orphan time, then goes', async () => {
    const prefix = `segments/${collection}/${partition}/777/g1/`;
    await recordPrefix(prefix);
    await world.objects.put(`${prefix}scalars.arrow`, Buffer.from('x'));
    await collectAll();
    expect(await exists(`${prefix}scalars.arrow`)).toBe(true);
    await world.runtime.sleep(settings.gcOrphanMs);
    await collectAll();
    expect(await exists(`${prefix}scalars.arrow`)).toBe(false);
  });

  test('an index object of a superseded build goes, the one that is recorded stays, also when its key begins alike', async () => {
    const record = await sealSegment(world, { collection, partition, minTs: 5, maxTs: 50, indexId: 4242 });
    await recordPrefix(record.prefix);
    const stale = `${record.prefix}index.101.7e1`;
    const current = `${record.prefix}index.101.7e10`;
    for (const key of [stale, current]) await world.objects.put(key, Buffer.from(key));
    const key = keys.segmentIndex(collection, record.id, 4242);
    const entry = await world.meta.get(key);
    const build = SegmentIndexRecord.decode(entry?.value ?? new Uint8Array());
    const next = SegmentIndexRecord.encode({
      ...build,
      object: { ...build.object, key: current } as SegmentIndexRecord['object'],
    }).finish();
    await world.meta.txn({ then: [{ kind: 'put', key, value: next }] });
    await collectAll();
    expect(await exists(stale)).toBe(false);
    expect(await exists(current)).toBe(true);
  });

  test('objects that no record of ours covers are reported and never touched', async () => {
    const foreign = ['segments/README', `segments/${collection}/1/2/g9/scalars.arrow`, 'snapshots/77/metadata/88.json'];
    for (const key of foreign) await world.objects.put(key, Buffer.from('not ours'));
    await collectAll();
    for (const key of foreign) expect(await exists(key)).toBe(true);
    expect(await plan()).toMatchObject({ unknownObjects: 3, candidateCount: 0 });
  });
});

describe('what is referred to', () => {
  test('objects of a snapshot outlive their segment, and go when the snapshot is dropped', async () => {
    const record = await flushed();
    await create('s1');
    await replace(record);
    await collectAll();
    expect(await exists(record.objects[0]?.key ?? '')).toBe(true);
    await world.client('a').dropSnapshot(snapshot('s1'));
    await collectAll();
    expect(await exists(record.objects[0]?.key ?? '')).toBe(false);
  });

  test('a pinned snapshot keeps the objects of a dropped collection until its pin ends', async () => {
    await world.stop();
    await begin({ settings: { sweepPeriodMs: 100 } });
    const record = await flushed();
    await create('s1');
    await world.client('a').pinSnapshot({ snapshot: snapshot('s1'), ttlSeconds: 1 } as never);
    await world.submit('a', { $case: 'dropCollection', value: { database: '', name: 'books', collectionId: 0 } });
    await collectAll();
    expect(await exists(record.objects[0]?.key ?? '')).toBe(true);
    await world.runtime.sleep(1_100);
    await world.until(async () => (await world.meta.range({ prefix: keys.snapshots })).entries.length === 0, 'the snapshot is gone');
    await collectAll();
    expect(await exists(record.objects[0]?.key ?? '')).toBe(false);
  });

  test('while a snapshot is being made nothing of its collection is recorded as dead', async () => {
    const record = await flushed();
    const gates: (() => void)[] = [];
    world.onBarrier = () => new Promise((resolve) => gates.push(resolve));
    const making = create('s1');
    await world.until(() => gates.length === 2, 'the barriers');
    await replace(record, 2 ** 52);
    expect((await run()).marked).toBe(0);
    for (const open of gates) open();
    await making;
    await collectAll();
    expect((await world.client('a').describeSnapshot(snapshot('s1'))).segments).toBe(1);
    expect(await exists(record.objects[0]?.key ?? '')).toBe(true);
  });

  test('a clone that refers to the objects of a dropped collection keeps them, in whatever order they are dropped', async () => {
    const record = await flushed();
    const clone = (await world.createCollection('a', 'clone')).id;
    const copy: SegmentRecord = { ...record, id: 555_555, collectionId: clone, partitionId: 0 };
    await world.meta.txn({ then: [{ kind: 'put', key: keys.segment(clone, copy.id), value: SegmentRecord.encode(copy).finish() }] });
    await world.submit('a', { $case: 'dropCollection', value: { database: '', name: 'books', collectionId: 0 } });
    await collectAll();
    expect(await exists(record.objects[0]?.key ?? '')).toBe(true);
    await world.submit('a', { $case: 'dropCollection', value: { database: '', name: 'clone', collectionId: 0 } });
    await collectAll();
    await collectAll();
    expect(await exists(record.objects[0]?.key ?? '')).toBe(false);
    expect((await world.meta.range({ prefix: keys.allSegments })).entries).toEqual([]);
  });

  test('a reference that appears after a prefix was recorded as dead keeps its objects', async () => {
    const record = await flushed();
    await replace(record);
    await run();
    await world.meta.txn({
      then: [{ kind: 'put', key: keys.segment(collection, record.id), value: SegmentRecord.encode(record).finish() }],
    });
    await world.runtime.sleep(settings.gcGraceMs + 20);
    await run();
    expect(await exists(record.objects[0]?.key ?? '')).toBe(true);
  });
});

describe('when it must not', () => {
  test('a snapshot whose references cannot be read blocks every deletion, and says which', async () => {
    const gone = await flushed();
    const { id } = await create('s1');
    await world.stopCoordinators();
    const [manifest] = (await world.objects.list(`snapshots/${collection}/manifests/${id}/`)).objects;
    const bytes = await world.objects.get(manifest?.key ?? '');
    await world.objects.delete([manifest?.key ?? '']);
    coordinator = await world.coordinator('b');
    await replace(gone);
    const refused = await run();
    expect(refused.blocked[0]).toContain(`references of snapshot s1 (${id}) are not known`);
    expect(refused.marked).toBe(0);
    await world.objects.put(manifest?.key ?? '', bytes);
    expect((await run()).blocked).toEqual([]);
  });

  test('a coordinator that begins while the bucket is away answers for its snapshots and deletes nothing', async () => {
    await world.stop();
    let away = false;
    await begin({
      settings: { sweepPeriodMs: 100 },
      objects: (inner) =>
        new Proxy(inner, {
          get(target, name) {
            const value = Reflect.get(target, name) as unknown;
            if (typeof value !== 'function') return value;
            return away ? async () => Promise.reject(new CairnError('StoreUnavailable', 'the bucket is away')) : value.bind(target);
          },
        }) as ObjectStore,
    });
    const segment = await flushed();
    await create('s1');
    await replace(segment);
    away = true;
    await world.stopCoordinators();
    const next = await world.coordinator('b');
    await world.runtime.sleep(settings.gcGraceMs + 150);
    expect((await world.client('b').describeSnapshot(snapshot('s1'))).name).toBe('s1');
    expect((await world.client('b').listSnapshots({ ...EVERY, collection: 'books' })).snapshots).toHaveLength(1);
    await expect(async () => next.upkeep.gcRun({ limit: 0 }, undefined as never)).rejects.toThrow('the bucket is away');
    away = false;
    expect(await exists(segment.objects[0]?.key ?? '')).toBe(true);
  });

  test('a bucket that names another cluster, or no longer any, is refused with words', async () => {
    await run();
    const gone = await flushed();
    await replace(gone);
    for (const body of ['{"format":"cairn.cluster","cluster_id":"other"}', undefined]) {
      await world.stopCoordinators();
      await world.objects.delete(['cluster/identity.json']);
      if (body !== undefined) await world.objects.put('cluster/identity.json', Buffer.from(body));
      coordinator = await world.coordinator(`node-${body?.length ?? 0}`);
      const refused = await run();
      expect(refused.blocked.join()).toContain(body ? 'belongs to cluster other' : 'has no cluster/identity.json');
      expect(refused.marked).toBe(0);
    }
  });

  test('what was recorded as dead before a restart is deleted after it', async () => {
    const gone = await flushed();
    await replace(gone);
    await run();
    await world.stopCoordinators();
    coordinator = await world.coordinator('b');
    await world.runtime.sleep(settings.gcGraceMs + 20);
    await run();
    expect(await exists(gone.objects[0]?.key ?? '')).toBe(false);
  });

  test('an object store that fails half-way loses nothing that is needed, and the rest goes later', async () => {
    await world.stop();
    let failing = false;
    await begin({
      objects: (inner) =>
        new Proxy(inner, {
          get(target, name) {
            if (name === 'delete' && failing) return async () => Promise.reject(new Error('the bucket is away'));
            const value = Reflect.get(target, name) as unknown;
            return typeof value === 'function' ? value.bind(target) : value;
          },
        }) as ObjectStore,
    });
    const [gone, stays] = [await flushed(), await flushed()];
    await replace(gone);
    await run();
    failing = true;
    await world.runtime.sleep(settings.gcGraceMs + 20);
    await expect(run()).rejects.toThrow('the bucket is away');
    expect(await world.meta.get(keys.prefix(gone.prefix))).toBeDefined();
    failing = false;
    await run();
    expect(await exists(gone.objects[0]?.key ?? '')).toBe(false);
    expect(await exists(stays.objects[0]?.key ?? '')).toBe(true);
  });

  test('a meta store that loses answers half-way leads to the same end', async () => {
    await world.stop();
    let calls = 0;
    await begin({
      meta: (inner) =>
        new FaultyMetaStore(inner, world.runtime, (call) =>
          call.method === 'txn' && call.keys.some((key) => key.startsWith('prefix/')) && calls++ % 2 === 0
            ? { kind: 'timeoutAfter' }
            : undefined,
        ),
    });
    const gone = [await flushed(), await flushed(), await flushed()];
    for (const record of gone) await replace(record);
    await collectAll();
    await collectAll();
    for (const record of gone) expect(await exists(record.objects[0]?.key ?? '')).toBe(false);
  });
});
