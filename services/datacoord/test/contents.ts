import { checksum } from '@cairn/base';
import { keys, paths } from '@cairn/catalog';
import {
  CollectionRecord,
  DeltaLogRecord,
  IndexBuildState,
  type ObjectRef,
  SegmentIndexRecord,
  SegmentRecord,
} from '@cairn/proto/cairn/meta';
import type { World } from './world.ts';

let nextId = 900_000;

async function putObject(world: World, key: string, text: string, role: string, fieldId = 0): Promise<ObjectRef> {
  const bytes = Buffer.from(text);
  const info = await world.objects.put(key, bytes);
  return { key, size: bytes.length, crc32c: checksum(bytes), etag: info.etag, role, fieldId };
}

export async function collectionRecord(world: World, id: number): Promise<CollectionRecord> {
  const entry = await world.meta.get(keys.collection(id));
  if (!entry) throw new Error(`no collection ${id}`);
  return CollectionRecord.decode(entry.value);
}

/** A sealed segment with three objects, as an owner would have flushed it. */
export async function sealSegment(
  world: World,
  options: { collection: number; partition: number; shard?: number; minTs: number; maxTs: number; rows?: number; indexId?: number },
): Promise<SegmentRecord> {
  const id = nextId++;
  const prefix = paths.segment(options.collection, options.partition, id, 'g1');
  const record = SegmentRecord.fromPartial({
    id,
    collectionId: options.collection,
    partitionId: options.partition,
    shard: options.shard ?? 0,
    generation: 'g1',
    prefix,
    rows: options.rows ?? 10,
    minTs: options.minTs,
    maxTs: options.maxTs,
    objects: [
      await putObject(world, `${prefix}scalars.arrow`, `scalars of ${id}`, 'scalars'),
      await putObject(world, `${prefix}vector.101.arrow`, `vectors of ${id}`, 'vector', 101),
    ],
    firstSequence: 3,
    lastSequence: 9,
    sorted: true,
  });
  const puts = [{ kind: 'put', key: keys.segment(options.collection, id), value: SegmentRecord.encode(record).finish() } as const];
  if (options.indexId !== undefined) {
    const object = await putObject(world, `${prefix}index.101.7`, `index of ${id}`, 'index', 101);
    const build = SegmentIndexRecord.fromPartial({
      buildId: 7,
      indexId: options.indexId,
      collectionId: options.collection,
      segmentId: id,
      fieldId: 101,
      state: IndexBuildState.INDEX_BUILD_FINISHED,
      object,
      rows: 10,
      indexType: 'HNSW',
    });
    puts.push({
      kind: 'put',
      key: keys.segmentIndex(options.collection, id, options.indexId),
      value: SegmentIndexRecord.encode(build).finish(),
    });
  }
  await world.meta.txn({ then: puts });
  return record;
}

export async function flushDeletes(world: World, collection: number, minTs: number, maxTs: number): Promise<DeltaLogRecord> {
  const id = nextId++;
  const object = await putObject(world, paths.delta(collection, 0, id, 'g1'), `deletes ${id}`, 'delta');
  const record = DeltaLogRecord.fromPartial({
    id,
    collectionId: collection,
    shard: 0,
    rows: 2,
    minTs,
    maxTs,
    object,
    firstSequence: 4,
    lastSequence: 5,
  });
  await world.meta.txn({ then: [{ kind: 'put', key: keys.delta(collection, id), value: DeltaLogRecord.encode(record).finish() }] });
  return record;
}
