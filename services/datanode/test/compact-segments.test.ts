import { SystemRuntime } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { MemoryMetaStore } from '@cairn/meta';
import { MemoryObjectStore } from '@cairn/objects';
import { DeltaLogRecord, SegmentRecord, ShardRecord } from '@cairn/proto/cairn/meta';
import { CompactTask } from '@cairn/proto/cairn/services';
import { type Column, columnFromValues, DataType, encodeSchema, keyColumn, makeBatch, makeSchema, valueAt } from '@cairn/schema';
import { field } from '@cairn/schema/testing';
import { deletesOf, GrowingSegment, openSegment, writeDeltaLog, writeSegment } from '@cairn/segment';
import { beforeEach, describe, expect, test } from 'vitest';
import { type Compacted, compactSegments } from '../src/compact-segments.ts';
import { DeltaLogs } from '../src/delta-logs.ts';

const COLLECTION = 7;
const VCHANNEL = 'dml_0_7v0';
const CHECKPOINT = 40;
const runtime = new SystemRuntime();
const schema = makeSchema({
  name: 'c',
  description: '',
  fields: [field(DataType.Int64, { id: 100, name: 'pk', isPrimaryKey: true }), field(DataType.Int32, { id: 101, name: 'v' })],
  enableDynamicField: false,
  properties: {},
});

let objects: MemoryObjectStore;
let meta: MemoryMetaStore;
beforeEach(async () => {
  objects = new MemoryObjectStore(runtime);
  meta = new MemoryMetaStore(runtime);
  const shard = ShardRecord.fromPartial({ collectionId: COLLECTION, vchannel: VCHANNEL, channel: 'dml_0', checkpoint: CHECKPOINT });
  await meta.txn({ then: [{ kind: 'put', key: keys.shard(COLLECTION, 0), value: ShardRecord.encode(shard).finish() }] });
});

/** Rows `[key, ts]`. */
async function sealed(id: number, rows: [number, number][], more: Partial<SegmentRecord> = {}): Promise<SegmentRecord> {
  const growing = new GrowingSegment({ id, partitionId: 2, schema });
  rows.forEach(([key, ts]) => {
    const columns = new Map<number, Column>([
      [100, keyColumn([BigInt(key)])],
      [101, columnFromValues(schema.fields[1] as never, [key * 10])],
    ]);
    growing.append(makeBatch(columns), ts, key);
  });
  const written = await writeSegment({ objects, runtime, prefix: `s/${id}/`, schema, batch: growing.freeze() });
  return SegmentRecord.fromPartial({ id, collectionId: COLLECTION, partitionId: 2, prefix: `s/${id}/`, sorted: true, ...written, ...more });
}

/** Deletes `[key, ts]`, flushed up to `lastSequence`. */
async function flushDeletes(
  id: number,
  deletes: [number, number][],
  lastSequence: number,
  more: Partial<DeltaLogRecord> = {},
): Promise<void> {
  const all = {
    keys: keyColumn(deletes.map(([key]) => BigInt(key))),
    ts: Float64Array.from(deletes, ([, ts]) => ts),
    readTs: deletesOf(keyColumn(deletes.map(() => 0n)), 0).readTs,
  };
  const written = await writeDeltaLog(objects, `d/${id}`, all);
  const record = DeltaLogRecord.fromPartial({ id, collectionId: COLLECTION, ...written, lastSequence, ...more });
  await meta.txn({ then: [{ kind: 'put', key: keys.delta(COLLECTION, id), value: DeltaLogRecord.encode(record).finish() }] });
}

function compact(segments: SegmentRecord[], more: Partial<CompactTask> = {}): Promise<Compacted> {
  const task = CompactTask.fromPartial({
    schema: encodeSchema(schema),
    collectionId: COLLECTION,
    vchannel: VCHANNEL,
    segments,
    prefix: 'out/',
    ...more,
  });
  const parts = {
    objects,
    runtime,
    open: (record: SegmentRecord) => openSegment({ objects, runtime, record, schema }),
    deltaLogs: new DeltaLogs(meta, objects, runtime),
  };
  return compactSegments(parts, task, new AbortController().signal);
}

async function rowsOf({ objects: written, result }: Compacted): Promise<[number, number][]> {
  const record = SegmentRecord.fromPartial({ id: 9, prefix: 'out/', sorted: true, rows: result.rows, objects: written });
  const segment = await openSegment({ objects, runtime, record, schema });
  const column = await segment.column(100);
  return Array.from({ length: segment.rows }, (_, row) => [Number(valueAt(column, row)), segment.timestamps[row] ?? 0]);
}

describe('a compaction task', () => {
  test('writes the rows that the flushed deletes of the shard leave, by key and time, and says what they left out', async () => {
    const inputs = [
      await sealed(1, [
        [1, 10],
        [3, 11],
        [5, 12],
      ]),
      await sealed(2, [
        [2, 20],
        [3, 21],
        [4, 22],
      ]),
    ];
    await flushDeletes(
      1,
      [
        [3, 21],
        [4, 30],
      ],
      35,
    );
    const done = await compact(inputs);
    expect(await rowsOf(done)).toEqual([
      [1, 10],
      [2, 20],
      [3, 21],
      [5, 12],
    ]);
    expect(done.result).toMatchObject({
      rows: 4,
      minTs: 10,
      maxTs: 21,
      purgedRows: 2,
      purgedTs: 30,
      deletesFrom: CHECKPOINT + 1,
      kept: false,
    });
  });

  test('leaves rows that were deleted after the given time, and says which logs must be applied again', async () => {
    const inputs = [
      await sealed(1, [
        [1, 10],
        [2, 11],
      ]),
      await sealed(2, [
        [3, 20],
        [4, 21],
      ]),
    ];
    await flushDeletes(1, [[1, 30]], 33);
    await flushDeletes(2, [[2, 50]], 36);
    const done = await compact(inputs, { purgeBeforeTs: 40 });
    expect(await rowsOf(done)).toEqual([
      [2, 11],
      [3, 20],
      [4, 21],
    ]);
    expect(done.result).toMatchObject({ purgedTs: 30, deletesFrom: 36 });
  });

  test('takes of a restored segment only what its snapshot held: rows and deletes after as_of are nobody’s', async () => {
    const restored = await sealed(
      1,
      [
        [1, 10],
        [2, 11],
        [3, 40],
      ],
      { asOf: 30 },
    );
    await flushDeletes(
      1,
      [
        [1, 20],
        [2, 35],
      ],
      0,
      { asOf: 30 },
    );
    const done = await compact([restored, await sealed(2, [[9, 90]])]);
    expect(await rowsOf(done)).toEqual([
      [2, 11],
      [9, 90],
    ]);
  });

  test('writes nothing when too few rows are deleted, and nothing when all are', async () => {
    const input = await sealed(1, [
      [1, 10],
      [2, 11],
      [3, 12],
    ]);
    await flushDeletes(1, [[1, 30]], 33);
    expect(await compact([input], { minPurgedPercent: 50 })).toMatchObject({ objects: [], result: { kept: true, rows: 3, purgedRows: 1 } });
    await flushDeletes(
      2,
      [
        [2, 31],
        [3, 32],
      ],
      34,
    );
    expect(await compact([input], { minPurgedPercent: 50 })).toMatchObject({ objects: [], result: { kept: false, rows: 0, purgedTs: 32 } });
    expect((await objects.list('out/')).objects).toEqual([]);
  });

  test('fails when the deletes cannot be known, rather than keep rows that are deleted', async () => {
    const inputs = [await sealed(1, [[1, 10]]), await sealed(2, [[2, 20]])];
    await flushDeletes(1, [[1, 30]], 33);
    await objects.delete(['d/1']);
    await expect(compact(inputs)).rejects.toThrow(/d\/1/);
    await meta.txn({ then: [{ kind: 'delete', key: keys.shard(COLLECTION, 0) }] });
    await expect(compact(inputs)).rejects.toThrow(/not in the catalog/);
  });

  test('fails by name for a damaged input, so that damage is never copied under a new checksum', async () => {
    const inputs = [await sealed(1, [[1, 10]]), await sealed(2, [[2, 20]])];
    const key = inputs[0]?.objects[0]?.key ?? '';
    const bytes = Uint8Array.from(await objects.get(key));
    bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
    await objects.put(key, bytes);
    await expect(compact(inputs)).rejects.toThrow(key);
  });
});
