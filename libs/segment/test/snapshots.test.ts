import { SystemRuntime } from '@cairn/base';
import { MemoryObjectStore } from '@cairn/objects';
import {
  DeltaLogRecord,
  type ObjectRef,
  SegmentIndexRecord,
  SegmentRecord,
  ShardRecord,
  SnapshotDefinition,
  SnapshotRecord,
} from '@cairn/proto/cairn/meta';
import { DataType, encodeSchema, makeSchema } from '@cairn/schema';
import { field } from '@cairn/schema/testing';
import { beforeEach, describe, expect, it } from 'vitest';
import {
  readSnapshot,
  type SnapshotContents,
  snapshotMetadataKey,
  type WriteSnapshotOptions,
  writeSnapshot,
  writeTombstone,
} from '../src/index.ts';

const big = Number.MAX_SAFE_INTEGER - 1;
const schema = makeSchema({
  name: 'books',
  description: '',
  fields: [
    field(DataType.Int64, { isPrimaryKey: true }),
    field(DataType.FloatVector, { id: 101, name: 'v', dim: 4, typeParams: { dim: '4' } }),
  ],
  enableDynamicField: false,
  properties: {},
});
const ref = (key: string, role: string): ObjectRef => ({ key, size: 10, crc32c: 0xfedcba98, etag: '"tag"', role, fieldId: 0 });
const contents: SnapshotContents = {
  segments: [1, 2, 3, 4, 5].map((id) =>
    SegmentRecord.fromPartial({
      id,
      collectionId: 7,
      partitionId: 8,
      generation: 'g1',
      prefix: `segments/7/8/${id}/g1/`,
      rows: 100 + id,
      minTs: 5,
      maxTs: big,
      objects: [ref(`segments/7/8/${id}/g1/scalars.arrow`, 'scalars'), ref(`segments/7/8/${id}/g1/vector.101.arrow`, 'vector')],
      sorted: true,
      contentHash: 'ab'.repeat(16),
      bytes: 20,
      asOf: id === 1 ? 500 : 0,
    }),
  ),
  deltaLogs: [DeltaLogRecord.fromPartial({ id: 9, collectionId: 7, rows: 2, minTs: 1, maxTs: 3000, object: ref('deltas/7/0/9', 'delta') })],
  segmentIndexes: [
    SegmentIndexRecord.fromPartial({
      buildId: 3,
      indexId: 4,
      collectionId: 7,
      segmentId: 2,
      fieldId: 101,
      state: 1,
      object: ref('i', 'index'),
    }),
  ],
  shards: [ShardRecord.fromPartial({ collectionId: 7, vchannel: 'ch0_7v0', channel: 'ch0', checkpoint: 12, checkpointTs: 34 })],
};
const definition = SnapshotDefinition.fromPartial({
  collection: { id: 7, name: 'books', schema: encodeSchema(schema), properties: [{ key: 'a', value: 'b' }], createdTs: 3 },
  databaseName: 'default',
  partitions: [{ id: 8, collectionId: 7, name: '_default' }],
  indexes: [{ id: 4, fieldId: 101, name: 'v', indexParams: [{ key: 'index_type', value: 'HNSW' }] }],
});
const record = SnapshotRecord.fromPartial({
  id: 42,
  collectionId: 7,
  name: 's',
  description: 'täglich',
  ts: 1000,
  createdMs: 1_700_000_000_000,
});
const options: WriteSnapshotOptions = { record, definition, contents, clusterId: 'cluster-1', segmentsPerManifest: 2 };
const key = snapshotMetadataKey(7, 42);

let objects: MemoryObjectStore;
beforeEach(() => {
  objects = new MemoryObjectStore(new SystemRuntime());
});
const replace = async (name: string, bytes: Uint8Array): Promise<void> => {
  await objects.delete([name]);
  await objects.put(name, bytes);
};

describe('a snapshot in the bucket', () => {
  it('gives back everything, every reference masked at its timestamp', async () => {
    const written = await writeSnapshot(objects, options);
    expect(written).toMatchObject({ outcome: 'written', metadataKey: 'snapshots/7/metadata/42.json', rows: 515, bytes: 120, segments: 5 });
    const bundle = await readSnapshot(objects, key, { withSegments: true });
    expect(bundle.segments).toEqual(contents.segments.map((segment) => ({ ...segment, asOf: segment.id === 1 ? 500 : 1000 })));
    expect(bundle.deltaLogs).toEqual(contents.deltaLogs.map((log) => ({ ...log, asOf: 1000 })));
    expect(bundle.segmentIndexes).toEqual(contents.segmentIndexes);
    expect(bundle.shards).toEqual(contents.shards);
    expect(SnapshotDefinition.encode(bundle.definition).finish()).toEqual(SnapshotDefinition.encode(definition).finish());
    expect(bundle.record).toMatchObject({ id: 42, name: 's', description: 'täglich', ts: 1000, rows: 515, metadataKey: key });
    // Three manifests of segments, one of delta logs, the metadata.
    const found = await objects.list('snapshots/');
    expect(bundle.manifestObjects.map((object) => object.key).sort()).toEqual(found.objects.map((object) => object.key));
    expect(found.objects).toHaveLength(5);
  });

  it('is read without its manifests when only the metadata is asked', async () => {
    await writeSnapshot(objects, options);
    await objects.delete((await objects.list('snapshots/7/manifests/')).objects.map((object) => object.key));
    expect(await readSnapshot(objects, key)).toMatchObject({ rows: 515, segmentCount: 5, segments: [] });
    await expect(readSnapshot(objects, key, { withSegments: true })).rejects.toMatchObject({
      codeName: 'ObjectNotFound',
      message: expect.stringContaining('.avro'),
    });
  });

  it('can be empty', async () => {
    await writeSnapshot(objects, { ...options, contents: { segments: [], deltaLogs: [], segmentIndexes: [], shards: [] } });
    expect(await readSnapshot(objects, key, { withSegments: true })).toMatchObject({ rows: 0, segments: [] });
  });
});

describe('of committer and aborter the first decides', () => {
  it('the committer: the tombstone comes too late, a repeat finds the first metadata', async () => {
    await writeSnapshot(objects, options);
    const before = await objects.get(key);
    expect(await writeTombstone(objects, { collectionId: 7, snapshotId: 42, reason: 'timeout' })).toBe('committed');
    const again = await writeSnapshot(objects, { ...options, contents: { ...contents, segments: contents.segments.slice(1) } });
    expect(again).toMatchObject({ outcome: 'written', segments: 5, rows: 515 });
    expect(await objects.get(key)).toEqual(before);
    expect((await readSnapshot(objects, key, { withSegments: true })).segments).toHaveLength(5);
  });

  it('the aborter: the snapshot is never written, and reading it tells why', async () => {
    const abort = { collectionId: 7, snapshotId: 42, reason: 'the collection was dropped' };
    expect(await writeTombstone(objects, abort)).toBe('aborted');
    expect(await writeTombstone(objects, abort)).toBe('aborted');
    expect(await writeSnapshot(objects, options)).toMatchObject({ outcome: 'aborted' });
    await expect(readSnapshot(objects, key)).rejects.toMatchObject({
      codeName: 'ObjectNotFound',
      message: expect.stringContaining('the collection was dropped'),
    });
  });
});

describe('damage is found and named', () => {
  it('in a manifest: flipped, cut, another one', async () => {
    await writeSnapshot(objects, options);
    const [first, second] = (await objects.list('snapshots/7/manifests/')).objects;
    const whole = await objects.get(second.key);
    const flipped = Uint8Array.from(whole);
    flipped[whole.byteLength >> 1] ^= 4;
    for (const bytes of [flipped, whole.slice(0, -1), await objects.get(first.key)]) {
      await replace(second.key, bytes);
      await expect(readSnapshot(objects, key, { withSegments: true })).rejects.toMatchObject({
        codeName: 'ObjectDamaged',
        message: expect.stringContaining(second.key),
      });
    }
  });

  it('in the metadata: changed, cut, of another snapshot, something else', async () => {
    await writeSnapshot(objects, options);
    const text = Buffer.from(await objects.get(key)).toString();
    const moved = snapshotMetadataKey(7, 43);
    await objects.put(moved, Buffer.from(text));
    await expect(readSnapshot(objects, moved)).rejects.toMatchObject({
      codeName: 'ObjectDamaged',
      message: expect.stringContaining('snapshot 42'),
    });
    for (const bad of [text.replace('"rows": 515', '"rows": 516'), text.slice(0, -20), '{}', 'x', '[1]']) {
      expect(bad).not.toBe(text);
      await replace(key, Buffer.from(bad));
      await expect(readSnapshot(objects, key)).rejects.toMatchObject({ codeName: 'ObjectDamaged', message: expect.stringContaining(key) });
    }
    await objects.delete([key]);
    await expect(readSnapshot(objects, key)).rejects.toMatchObject({ codeName: 'ObjectNotFound' });
  });

  it('a newer format says so', async () => {
    await writeSnapshot(objects, options);
    const text = Buffer.from(await objects.get(key)).toString();
    await replace(key, Buffer.from(text.replace('"format_version": 1', '"format_version": 2')));
    await expect(readSnapshot(objects, key)).rejects.toMatchObject({ message: expect.stringContaining('written by a newer version') });
  });
});
