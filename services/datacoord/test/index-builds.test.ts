import { CairnError } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { IndexBuildState, SegmentIndexRecord, SegmentRecord, SegmentState } from '@cairn/proto/cairn/meta';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { sealSegment } from './contents.ts';
import { World } from './world.ts';

let world: World;
let collection: number;
let partition: number;
afterEach(() => world.stop());
beforeEach(async () => {
  world = new World();
  await world.node('datanode', 'd1');
  await world.node('datanode', 'd2');
  await world.coordinator('a');
  collection = (await world.createCollection('a', 'books')).id;
  partition = Number((await world.meta.range({ prefix: keys.partitions(collection) })).entries[0].key.split('/').at(-1));
});

const builds = async () =>
  (await world.meta.range({ prefix: keys.segmentIndexes(collection) })).entries.map((entry) => SegmentIndexRecord.decode(entry.value));
const progress = async () => (await world.client('a').getIndexProgress({ collectionId: collection })).indexes;

function buildWith(work: (key: string, epoch: number) => Promise<void>): string[] {
  const built: string[] = [];
  world.task = async function* (request) {
    if (request.task?.$case !== 'buildIndex') return;
    const { key, segment } = request.task.value;
    await work(key, request.epoch);
    const info = await world.objects.put(key, Buffer.from('index'));
    built.push(key);
    yield {
      doneBytes: 0,
      doneObjects: 1,
      finished: true,
      objects: [{ key, size: 5, crc32c: 1, etag: info.etag, role: 'index', fieldId: 101 }],
      rows: segment?.rows ?? 0,
      compacted: undefined,
      rewritten: [],
    };
  };
  return built;
}

describe('index builds', () => {
  test('every sealed segment is indexed: large ones by a datanode, small ones without an object; progress counts rows', async () => {
    const built = buildWith(async () => {});
    await sealSegment(world, { collection, partition, minTs: 1, maxTs: 2, rows: 5_000 });
    await sealSegment(world, { collection, partition, minTs: 1, maxTs: 2, rows: 100 });
    await world.createIndex('a', 'books');
    await world.until(async () => (await progress())[0]?.indexedRows === 5_100, 'all rows are indexed');
    expect(await progress()).toMatchObject([{ totalRows: 5_100, indexedRows: 5_100, failure: '' }]);
    expect(built).toHaveLength(1);
    const later = await sealSegment(world, { collection, partition, minTs: 3, maxTs: 4, rows: 2_000 });
    await world.until(async () => (await progress())[0]?.indexedRows === 7_100, 'the new one too');
    const record = (await builds()).find((build) => build.segmentId === later.id);
    expect(record).toMatchObject({
      state: IndexBuildState.INDEX_BUILD_FINISHED,
      rows: 2_000,
      object: { key: expect.stringContaining(`${later.prefix}index.101.`) },
    });
  });

  test('a lost node is no failure: another try has another epoch and key', async () => {
    let failures = 2;
    const keysTried: string[] = [];
    buildWith(async (key) => {
      keysTried.push(key);
      if (failures-- > 0) throw new CairnError('Unavailable', 'gone');
    });
    await sealSegment(world, { collection, partition, minTs: 1, maxTs: 2, rows: 5_000 });
    await world.createIndex('a', 'books');
    await world.until(async () => (await progress())[0]?.indexedRows === 5_000, 'indexed');
    expect(new Set(keysTried).size).toBe(3);
  });

  test('a permanent failure is told with its reason; dropping the index forgets its builds', async () => {
    buildWith(async () => {
      throw new CairnError('ObjectDamaged', 'object x is damaged');
    });
    await sealSegment(world, { collection, partition, minTs: 1, maxTs: 2, rows: 5_000 });
    await world.createIndex('a', 'books');
    await world.until(async () => (await progress())[0]?.failure === 'object x is damaged', 'failed');
    await world.submit('a', { $case: 'dropIndex', value: { database: '', collection: 'books', field: '', name: 'vector' } });
    await world.until(async () => (await builds()).length === 0, 'builds are forgotten');
  });

  test('a build ends when its segment is replaced meanwhile', async () => {
    let ended = false;
    world.task = async function* (_request, { signal }) {
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
      ended = true;
      yield { doneBytes: 0, doneObjects: 0, finished: false, objects: [], rows: 0, compacted: undefined, rewritten: [] };
    };
    const segment = await sealSegment(world, { collection, partition, minTs: 1, maxTs: 2, rows: 5_000 });
    await world.createIndex('a', 'books');
    await world.until(async () => (await builds())[0]?.epoch === 1, 'it runs');
    const value = SegmentRecord.encode({ ...segment, state: SegmentState.SEGMENT_DROPPED, droppedTs: 9 }).finish();
    await world.meta.txn({ then: [{ kind: 'put', key: keys.segment(collection, segment.id), value }] });
    await world.until(() => ended, 'the worker was told');
  });
});
