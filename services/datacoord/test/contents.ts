import { checksum } from '@cairn/base';
import { keys, paths } from '@cairn/catalog';
import {
  CollectionRecord,
  DeltaLogRecord,
  IndexBuildState,
  type ObjectRef,
  PrefixRecord,
  SegmentIndexRecord,
  SegmentRecord,
} from '@cairn/proto/cairn/meta';
import { type Column, decodeSchema, keyColumn, makeBatch, numberColumn } from '@cairn/schema';
import { deletesOf, writeDeltaLog, writeSegment } from '@cairn/segment';
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

/** A sealed segment with real rows: keys 0 to rows - 1, vectors made of them, at timestamps from 5 on. */
export async function flushRows(world: World, collection: number, partition: number, rows: number): Promise<SegmentRecord> {
  const id = nextId++;
  const { schema: bytes } = await collectionRecord(world, collection);
  const schema = decodeSchema(bytes);
  const vector = schema.vectorFields[0];
  if (!vector) throw new Error('no vector field');
  const prefix = paths.segment(collection, partition, id, 'g1');
  const data = new Uint8Array(Float32Array.from({ length: rows * vector.dim }, (_, i) => Math.cos(i + id)).buffer);
  const batch = makeBatch(
    new Map<number, Column>([
      [0, numberColumn(Float64Array.from({ length: rows }, (_, row) => row))],
      [1, numberColumn(Float64Array.from({ length: rows }, (_, row) => 5 + row))],
      [schema.primaryKey.id, keyColumn(Array.from({ length: rows }, (_, row) => BigInt(row)))],
      [
        vector.id,
        {
          kind: 'vector',
          type: vector.type,
          length: rows,
          dim: vector.dim,
          bytesPerRow: data.byteLength / rows,
          data,
          validity: null,
        },
      ],
    ]),
  );
  const { objects, ...written } = await writeSegment({ objects: world.objects, runtime: world.runtime, prefix, schema, batch });
  const record = SegmentRecord.fromPartial({
    ...written,
    id,
    collectionId: collection,
    partitionId: partition,
    generation: 'g1',
    prefix,
    objects,
    firstSequence: 3,
    lastSequence: 9,
    sorted: true,
  });
  const recorded = PrefixRecord.fromPartial({ prefix, createdMs: world.runtime.now(), purpose: 'flush' });
  await world.meta.txn({
    then: [
      { kind: 'put', key: keys.segment(collection, id), value: SegmentRecord.encode(record).finish() },
      { kind: 'put', key: keys.prefix(prefix), value: PrefixRecord.encode(recorded).finish() },
    ],
  });
  return record;
}

/** Deletes of these keys at one timestamp, flushed. */
export async function flushRealDeletes(world: World, collection: number, deleted: readonly number[], ts: number): Promise<DeltaLogRecord> {
  const id = nextId++;
  const key = paths.delta(collection, 0, id, 'g1');
  const { object, ...written } = await writeDeltaLog(world.objects, key, deletesOf(keyColumn(deleted.map(BigInt)), ts));
  const record = DeltaLogRecord.fromPartial({ ...written, id, collectionId: collection, object, firstSequence: 4, lastSequence: 5 });
  const recorded = PrefixRecord.fromPartial({ prefix: key, createdMs: world.runtime.now(), purpose: 'flush' });
  await world.meta.txn({
    then: [
      { kind: 'put', key: keys.delta(collection, id), value: DeltaLogRecord.encode(record).finish() },
      { kind: 'put', key: keys.prefix(key), value: PrefixRecord.encode(recorded).finish() },
    ],
  });
  return record;
}
/** A request for all COMMITTED snapshots at once. */
export const EVERY = {
  database: '',
  collection: '',
  partition: '',
  pageSize: 0,
  pageToken: '',
  all: false,
  namesOnly: false,
  bareNames: false,
  sizes: false,
};
