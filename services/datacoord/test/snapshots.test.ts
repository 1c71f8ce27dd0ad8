import { CairnError, hasCode, REQUEST_ENDED } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { FaultyMetaStore } from '@cairn/meta/testing';
import { SnapshotRecord } from '@cairn/proto/cairn/meta';
import { readSnapshot } from '@cairn/segment';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { EVERY, flushDeletes, sealSegment } from './contents.ts';
import { World, type WorldOptions } from './world.ts';

let world: World;
let collection: number;
let partition: number;
afterEach(() => world.stop());

async function begin(options: WorldOptions = {}): Promise<void> {
  world = new World(options);
  await world.node('streaming', 's1');
  await world.coordinator('a');
  collection = (await world.createCollection('a', 'books')).id;
  const page = await world.meta.range({ prefix: keys.partitions(collection) });
  partition = Number(page.entries[0]?.key.split('/').at(-1));
}
beforeEach(() => begin());

const create = (name: string, node = 'a', requestId = '') =>
  world
    .client(node)
    .createSnapshot({ requestId, database: '', collection: 'books', name, description: 'd', compactionProtectionSeconds: 0 });
const snapshot = (name: string) => ({ database: '', collection: 'books', name, id: 0 });
const list = async (node = 'a') =>
  (await world.client(node).listSnapshots({ ...EVERY, collection: 'books' })).snapshots.map((info) => info.name);
const leftObjects = async () => (await world.objects.list('snapshots/')).objects.map((object) => object.key);

describe('create', () => {
  test('a barrier at T reaches every shard, and the metadata names what was there at T, masked by as_of', async () => {
    const early = await sealSegment(world, { collection, partition, minTs: 5, maxTs: 50 });
    const straddles = await sealSegment(world, { collection, partition, minTs: 60, maxTs: 2 ** 51 });
    await sealSegment(world, { collection, partition, minTs: 2 ** 51, maxTs: 2 ** 51 });
    const log = await flushDeletes(world, collection, 7, 70);
    const { id, ts } = await create('s1');
    expect(world.barriers.map((barrier) => [barrier.vchannel, barrier.ts, barrier.snapshotId]).sort()).toEqual([
      [`dml_0_${collection}v0`, ts, id],
      [`dml_1_${collection}v1`, ts, id],
    ]);
    const entry = await world.meta.get(keys.snapshot(collection, id));
    const record = entry && SnapshotRecord.decode(entry.value);
    expect(record).toMatchObject({ segments: 2, rows: 20, ts });
    const bundle = await readSnapshot(world.objects, record?.metadataKey ?? '', { withSegments: true });
    expect(bundle.segments.map((segment) => [segment.id, segment.asOf]).sort()).toEqual([
      [early.id, ts],
      [straddles.id, ts],
    ]);
    expect(bundle.deltaLogs.map((captured) => [captured.id, captured.asOf])).toEqual([[log.id, ts]]);
    expect(await world.client('a').describeSnapshot(snapshot('s1'))).toMatchObject({
      collection: 'books',
      database: 'default',
      partitions: ['_default'],
      ts,
      description: 'd',
    });
  });

  test('of 50 creates of one name one wins and 49 hear "already exists"', async () => {
    const outcomes = await Promise.allSettled(Array.from({ length: 50 }, () => create('same')));
    const refused = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason as CairnError] : []));
    expect(refused).toHaveLength(49);
    for (const error of refused) expect([error.code, error.message]).toEqual([1100, 'snapshot name same already exists']);
    expect(await list()).toEqual(['same']);
  });

  test('a repeat under the same request id waits for the same snapshot', async () => {
    let open = (): void => {};
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    world.onBarrier = () => gate;
    const first = create('s1', 'a', 'request-1');
    const second = create('s1', 'a', 'request-1');
    open();
    expect(await first).toEqual(await second);
    expect(await create('s1', 'a', 'request-1')).toEqual(await first);
  });

  test('a repeat gets the outcome of the first call when the snapshot was dropped since', async () => {
    await world.stop();
    await begin({ settings: { gcGraceMs: 50 } });
    const first = await create('s1', 'a', 'request-1');
    await world.client('a').dropSnapshot(snapshot('s1'));
    await world.until(async () => (await world.meta.range({ prefix: keys.snapshots })).entries.length === 0, 'the record is gone');
    expect(await create('s1', 'a', 'request-1')).toEqual(first);
    expect(await list()).toEqual([]);
  });

  test('a repeat gets the failure of the first call when the failed record is gone, from the next leader too', async () => {
    await world.stop();
    await begin({ settings: { gcGraceMs: 50 } });
    world.onBarrier = async () => {
      throw new CairnError('Internal', 'the shard is broken');
    };
    const failed = { message: 'snapshot s1 failed: the shard is broken', codeName: 'Internal', extraInfo: REQUEST_ENDED };
    await expect(create('s1', 'a', 'request-1')).rejects.toMatchObject(failed);
    world.onBarrier = async () => {};
    await world.until(async () => (await world.meta.range({ prefix: keys.snapshots })).entries.length === 0, 'the record is gone');
    await expect(create('s1', 'a', 'request-1')).rejects.toMatchObject(failed);
    const next = await world.coordinator('b', false);
    await world.meta.txn({ then: [{ kind: 'delete', key: keys.leader }] });
    await world.until(() => next.leading, 'the next leads');
    await expect(create('s1', 'b', 'request-1')).rejects.toMatchObject(failed);
    await create('s1', 'b', 'request-2');
    expect(await list('b')).toEqual(['s1']);
  });

  test('a barrier is asked for again when the owner changes', async () => {
    let refusals = 3;
    world.onBarrier = async () => {
      if (refusals-- > 0) throw new CairnError('ChannelNotAvailable', 'moved');
    };
    await create('s1');
    expect(await list()).toEqual(['s1']);
  });

  test('names follow the rules', async () => {
    await expect(create('  ')).rejects.toMatchObject({ code: 1100, message: 'snapshot name should be not empty' });
    await expect(create('1x')).rejects.toMatchObject({ code: 1100 });
    await expect(create('x'.repeat(256))).rejects.toThrow('too long');
    await create(' padded ');
    expect(await list()).toEqual(['padded']);
  });
});

describe('failure', () => {
  test('a permanent refusal ends in FAILED with the reason, the name is free, and nothing is left after the grace time', async () => {
    world.onBarrier = async () => {
      throw new CairnError('Internal', 'the shard is broken');
    };
    await expect(create('s1')).rejects.toThrow('snapshot s1 failed: the shard is broken');
    world.onBarrier = async () => {};
    const { id } = await create('s1');
    await world.until(async () => (await world.meta.range({ prefix: keys.snapshots })).entries.length === 1, 'the failed record is gone');
    expect((await leftObjects()).every((key) => key.includes(`${id}`))).toBe(true);
  });

  test('a snapshot whose shard has no owner fails at its time limit and blocks nothing else', async () => {
    await world.stop();
    await begin({ settings: { snapshotTimeoutMs: 200 } });
    world.onBarrier = (request) => (request.vchannel.startsWith('dml_0') ? new Promise(() => {}) : Promise.resolve());
    const stuck = create('stuck').catch((error: unknown) => error);
    await world.createIndex('a', 'books');
    expect(hasCode(await stuck, 'Timeout')).toBe(true);
    expect(await list()).toEqual([]);
  });

  test('a drop of the collection fails its pending snapshot and drops its unpinned ones', async () => {
    await create('done');
    world.onBarrier = () => new Promise(() => {});
    const pending = create('pending').catch((error: unknown) => error);
    await world.until(() => world.barriers.length > 2, 'the barrier of the second');
    await world.submit('a', { $case: 'dropCollection', value: { database: '', name: 'books', collectionId: 0 } });
    expect(await pending).toMatchObject({ message: expect.stringContaining('its collection was dropped') });
    await world.until(async () => (await world.meta.range({ prefix: keys.snapshots })).entries.length === 0, 'no record is left');
    await world.until(async () => (await leftObjects()).length === 0, 'no object is left');
  });

  test('a new leader rolls a pending snapshot forward when its metadata is there, and aborts it when not', async () => {
    await world.stop();
    let cut = false;
    await begin({
      meta: (inner) =>
        new FaultyMetaStore(inner, world.runtime, (call) =>
          cut && call.method === 'txn' && call.keys.some((key) => key.startsWith(keys.snapshots)) ? { kind: 'failBefore' } : undefined,
        ),
    });
    // 'written' gets as far as its metadata; the record cannot become COMMITTED.
    world.onBarrier = async () => {
      cut = true;
    };
    const written = create('written').catch((error: unknown) => error);
    await world.until(async () => (await leftObjects()).some((key) => key.includes('/metadata/')), 'the metadata is written');
    cut = false;
    await world.stopCoordinators();
    await written;
    await world.coordinator('b');
    await world.until(async () => (await list('b')).includes('written'), 'rolled forward');
    world.onBarrier = () => new Promise(() => {});
    const hanging = create('hanging', 'b').catch((error: unknown) => error);
    await world.until(async () => (await world.meta.range({ prefix: keys.snapshots })).entries.length === 2, 'recorded');
    await world.stopCoordinators();
    await hanging;
    world.onBarrier = async () => {};
    await world.coordinator('c');
    await world.until(async () => (await world.meta.range({ prefix: keys.snapshots })).entries.length === 1, 'the other is gone');
    expect(await list('c')).toEqual(['written']);
    await create('hanging', 'c');
  });
});

describe('pins and drop', () => {
  test('a pinned snapshot is not dropped; unpinned it goes, objects and all; a missing one is fine', async () => {
    await sealSegment(world, { collection, partition, minTs: 5, maxTs: 50 });
    await create('s1');
    const { pinId } = await world.client('a').pinSnapshot({ snapshot: snapshot('s1'), ttlSeconds: 0, requestId: '' });
    await expect(world.client('a').dropSnapshot(snapshot('s1'))).rejects.toMatchObject({
      code: 2601,
      message: expect.stringContaining('active pins exist, unpin before dropping'),
    });
    expect((await world.client('a').describeSnapshot(snapshot('s1'))).pins).toBe(1);
    await world.client('a').unpinSnapshot({ pinId });
    await world.client('a').unpinSnapshot({ pinId: 123456 });
    await world.client('a').dropSnapshot(snapshot('s1'));
    await world.client('a').dropSnapshot(snapshot('s1'));
    expect(await list()).toEqual([]);
    await expect(world.client('a').describeSnapshot(snapshot('s1'))).rejects.toThrow('snapshot not found');
    await world.until(async () => (await leftObjects()).length === 0, 'the objects are gone');
    await world.until(
      async () =>
        (await world.meta.range({ prefix: 'snapshot/' })).entries.length +
          (await world.meta.range({ prefix: 'prefix/' })).entries.length ===
        0,
      'the records are gone',
    );
    await create('s1');
  });

  test('pins end with their ttl, are kept over a change of leader, and have bounds', async () => {
    await create('s1');
    const pin = (ttlSeconds: number) => world.client('a').pinSnapshot({ snapshot: snapshot('s1'), ttlSeconds, requestId: '' });
    await expect(pin(2_592_001)).rejects.toThrow('ttl_seconds exceeds maximum');
    await expect(pin(-1)).rejects.toThrow('must be non-negative');
    await expect(world.client('a').unpinSnapshot({ pinId: 0 })).rejects.toMatchObject({ code: 1101 });
    await pin(1);
    await world.stopCoordinators();
    await world.coordinator('b');
    await expect(world.client('b').dropSnapshot(snapshot('s1'))).rejects.toMatchObject({ code: 2601 });
    await world.runtime.sleep(1_050);
    await world.client('b').dropSnapshot(snapshot('s1'));
  });
});
