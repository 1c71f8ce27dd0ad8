import { SystemRuntime } from '@cairn/base';
import { MemoryObjectStore } from '@cairn/objects';
import { SegmentRecord } from '@cairn/proto/cairn/meta';
import { DataType } from '@cairn/proto/milvus/schema';
import { type Column, decodeSchema, keyColumn, makeBatch, numberColumn } from '@cairn/schema';
import { writeSegment } from '@cairn/segment';
import { beforeEach, expect, test } from 'vitest';
import { segmentOpener } from '../src/held-shard.ts';
import { schemaBytes } from './fakes.ts';

const runtime = new SystemRuntime();
let objects: MemoryObjectStore;
let record: SegmentRecord;
const schema = decodeSchema(schemaBytes());

beforeEach(async () => {
  objects = new MemoryObjectStore(runtime);
  const [vector] = schema.vectorFields;
  if (!vector) throw new Error('no vector field');
  const data = new Uint8Array(Float32Array.from({ length: 3 * vector.dim }, (_, i) => i).buffer);
  const column: Column = {
    kind: 'vector',
    type: DataType.FloatVector,
    length: 3,
    dim: vector.dim,
    bytesPerRow: 4 * vector.dim,
    data,
    validity: null,
  };
  const batch = makeBatch(
    new Map<number, Column>([
      [0, numberColumn(Float64Array.of(0, 1, 2))],
      [1, numberColumn(Float64Array.of(5, 6, 7))],
      [schema.primaryKey.id, keyColumn([1n, 2n, 3n])],
      [vector.id, column],
    ]),
  );
  const written = await writeSegment({ objects, runtime, prefix: 'segments/1/2/3/g1/', schema, batch });
  record = SegmentRecord.fromPartial({
    id: 3,
    collectionId: 1,
    partitionId: 2,
    prefix: 'segments/1/2/3/g1/',
    rows: 3,
    objects: written.objects,
    sorted: true,
  });
});

test.each(['scalars', 'vector'])('a segment whose %s are missing or cut is not opened, and the error names the object', async (role) => {
  const open = segmentOpener(objects, runtime, undefined);
  const ref = record.objects.find((object) => object.role === role);
  if (!ref) throw new Error(`no ${role}`);
  await (await open(record, schema)).close();
  const bytes = await objects.get(ref.key);
  await objects.put(ref.key, bytes.subarray(0, bytes.length - 1));
  await expect(open(record, schema)).rejects.toMatchObject({ codeName: 'ObjectDamaged', message: expect.stringContaining(ref.key) });
  await objects.delete([ref.key]);
  await expect(open(record, schema)).rejects.toMatchObject({ codeName: 'ObjectNotFound', message: expect.stringContaining(ref.key) });
});
