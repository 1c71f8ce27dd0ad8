import { checksum, SystemRuntime } from '@cairn/base';
import { MemoryObjectStore } from '@cairn/objects';
import { DeltaLogRecord, SegmentRecord } from '@cairn/proto/cairn/meta';
import {
  type CollectionSchema,
  type Column,
  type ColumnBatch,
  columnFromValues,
  DataType,
  defaultColumn,
  encodeSchema,
  keyColumn,
  makeBatch,
  makeSchema,
  numberColumn,
  readArrowFile,
  takeBatch,
  writeArrowFile,
} from '@cairn/schema';
import { field } from '@cairn/schema/testing';
import { afterAll, beforeEach, describe, expect, it } from 'vitest';
import {
  addHashes,
  contentHash,
  DeleteReader,
  deletesOf,
  type ExaminedSegment,
  ExaminerPool,
  examineSegment,
  formatHash,
  parseHash,
  ReadBuffers,
  writeDeltaLog,
  writeSegment,
} from '../src/index.ts';

const runtime = new SystemRuntime();
const pool = new ExaminerPool(runtime, 1);
const inline = new ExaminerPool(Object.assign(Object.create(runtime), { inline: true }), 1);
afterAll(() => pool.stop());

const fields = [
  field(DataType.Int64, { id: 100, name: 'pk', isPrimaryKey: true }),
  field(DataType.VarChar, { id: 101, name: 'title', nullable: true }),
  field(DataType.FloatVector, { id: 102, name: 'v', dim: 8 }),
];
const schemaOf = (more: typeof fields = []): CollectionSchema =>
  makeSchema({ name: 'c', description: '', fields: [...fields, ...more], enableDynamicField: false, properties: {} });

function rowsOf(keys: readonly number[], ts: (row: number) => number): ColumnBatch {
  const columns = new Map<number, Column>([
    [0, numberColumn(Float64Array.from(keys.keys()))],
    [1, numberColumn(Float64Array.from(keys, (_, row) => ts(row)))],
    [100, keyColumn(keys.map(BigInt))],
    [
      101,
      columnFromValues(
        fields[1] ?? fields[0],
        keys.map((key) => (key % 5 === 0 ? null : `title ${key}`)),
      ),
    ],
  ]);
  const data = new Uint8Array(Float32Array.from({ length: keys.length * 8 }, (_, i) => Math.sin(i) * (keys[i >> 3] ?? 0)).buffer);
  columns.set(102, { kind: 'vector', type: DataType.FloatVector, length: keys.length, dim: 8, bytesPerRow: 32, data, validity: null });
  return makeBatch(columns);
}

let objects: MemoryObjectStore;
beforeEach(() => {
  objects = new MemoryObjectStore(runtime);
});

async function segmentOf(batch: ColumnBatch, asOf = 0, schema = schemaOf()): Promise<SegmentRecord> {
  const prefix = `segments/7/8/${batch.length}/g${Math.random()}/`;
  const { objects: refs, ...written } = await writeSegment({ objects, runtime, prefix, schema, batch });
  return SegmentRecord.fromPartial({ id: 5, partitionId: 8, prefix, sorted: true, asOf, objects: refs, ...written });
}

async function logOf(id: number, keys: readonly number[], ts: number, readTs = 0, asOf = 180): Promise<DeltaLogRecord> {
  const { object, ...written } = await writeDeltaLog(objects, `deltas/${id}`, deletesOf(keyColumn(keys.map(BigInt)), ts, readTs));
  return DeltaLogRecord.fromPartial({ id, object, asOf, ...written });
}

const examine = (record: SegmentRecord, logs: DeltaLogRecord[] = [], schema = schemaOf(), by = pool): Promise<ExaminedSegment> =>
  examineSegment({ objects, pool: by, schema: encodeSchema(schema), deletes: new DeleteReader(objects, logs) }, record);

/** What a reader of docs/format.md sees at `asOf`: row by row. */
function seen(batch: ColumnBatch, asOf: number, deletes: readonly { keys: readonly number[]; ts: number; readTs: number }[]): ColumnBatch {
  const [ts, keys] = [batch.columns.get(1), batch.columns.get(100)];
  if (ts?.kind !== 'fixed' || keys?.kind !== 'fixed') throw new Error('no rows');
  const alive = Array.from({ length: batch.length }, (_, row) => row).filter((row) => {
    const rowTs = Number(ts.values[row]);
    const hit = (one: { keys: readonly number[]; ts: number; readTs: number }) =>
      one.ts <= asOf && one.keys.includes(Number(keys.values[row])) && (one.readTs > 0 ? rowTs <= one.readTs : rowTs < one.ts);
    return rowTs <= asOf && !deletes.some(hit);
  });
  return takeBatch(batch, Int32Array.from(alive));
}

describe('an examined segment', () => {
  const keys = Array.from({ length: 400 }, (_, i) => (i * 37) % 211);
  const batch = rowsOf(keys, (row) => 100 + (row % 90));
  const deletes = [
    { keys: [3, 40, 41, 200], ts: 150, readTs: 0 },
    { keys: [7, 8, 9], ts: 170, readTs: 120 },
    { keys: [10, 11], ts: 185, readTs: 0 },
  ];
  const logs = () => Promise.all(deletes.map((one, i) => logOf(i + 1, one.keys, one.ts, one.readTs)));

  it('is read through buffers that are used again: a few for many objects, and what is left in one of a longer object does not matter', async () => {
    const wide = (count: number) =>
      rowsOf(
        Array.from({ length: count }, (_, i) => i),
        () => 100,
      );
    const segments = [
      await segmentOf(wide(6_000)),
      await segmentOf(wide(5_500)),
      await segmentOf(wide(3_000)),
      await segmentOf(wide(6_000)),
    ];
    const buffers = new ReadBuffers(4 << 20);
    const used: ArrayBufferLike[] = [];
    const giveBack = buffers.giveBack.bind(buffers);
    buffers.giveBack = (bytes) => {
      if (bytes.buffer instanceof SharedArrayBuffer) used.push(bytes.buffer);
      giveBack(bytes);
    };
    for (const by of [pool, inline]) {
      const parts = { objects, pool: by, schema: encodeSchema(schemaOf()), deletes: new DeleteReader(objects, []), buffers };
      for (const segment of [...segments, ...segments]) expect((await examineSegment(parts, segment)).stored.rows).toBe(segment.rows);
    }
    expect(used.length).toBeGreaterThanOrEqual(24);
    expect(new Set(used).size).toBeLessThanOrEqual(4);
  });

  it('hashes to what its writer recorded, in a worker thread and here', async () => {
    const record = await segmentOf(batch);
    for (const by of [pool, inline]) {
      const { stored, visible } = await examine(record, [], schemaOf(), by);
      expect([formatHash(stored.hash), stored.rows, visible]).toEqual([record.contentHash, 400, stored]);
    }
  });

  it('has as visible rows those at its as_of, with the deletes up to it, one by one and by filter', async () => {
    const record = await segmentOf(batch, 180);
    const { visible } = await examine(record, await logs());
    const expected = seen(batch, 180, deletes);
    expect(expected.length).toBeLessThan(395);
    expect(visible).toEqual({ rows: expected.length, hash: parseHash(await contentHash(expected, runtime)) });
  });

  it('rows that a clone got at its as_of may be deleted later: the mask of a log is its own', async () => {
    const record = await segmentOf(batch, 180);
    const later = await logOf(9, [20, 21], 400, 0, 500);
    const expected = seen(batch, 180, [...deletes, { keys: [20, 21], ts: 180, readTs: 0 }]);
    const { visible } = await examine(record, [...(await logs()), later]);
    expect(visible).toEqual({ rows: expected.length, hash: parseHash(await contentHash(expected, runtime)) });
    expect(visible.rows).toBeLessThan(seen(batch, 180, deletes).length);
  });

  it('visible rows hash the same after compaction and over another number of shards', async () => {
    const expected = await examine(await segmentOf(batch, 180), await logs());
    const purged = seen(batch, 180, deletes);
    const compacted = await examine(await segmentOf(purged));
    expect(compacted.visible).toEqual(expected.visible);
    const halves = [0, 1].map((shard) => Int32Array.from({ length: purged.length >> 1 }, (_, i) => 2 * i + shard));
    const rest = Int32Array.from({ length: purged.length % 2 }, () => purged.length - 1);
    const parts = await Promise.all(
      [...halves, rest].filter((rows) => rows.length > 0).map(async (rows) => examine(await segmentOf(takeBatch(purged, rows)))),
    );
    expect(addHashes(parts.map((part) => part.visible.hash))).toBe(expected.visible.hash);
  });

  it('visible rows hash the same whether a default that came later is stored or not', async () => {
    const later = field(DataType.Int32, { id: 103, name: 'n', defaultValue: 7 });
    const schema = schemaOf([later, field(DataType.Int32, { id: 104, name: 'm', nullable: true })]);
    const filled: ColumnBatch = { ...batch, columns: new Map([...batch.columns, [103, defaultColumn(later, 400)]]) };
    const before = await examine(await segmentOf(batch), [], schema);
    const after = await examine(await segmentOf(filled, 0, schema), [], schema);
    expect(before.visible).toEqual(after.visible);
    expect(before.stored).not.toEqual(after.stored);
    expect(before.visible).not.toEqual(before.stored);
  });

  it('a flipped value is caught by the content hash when length and checksum are right', async () => {
    const record = await segmentOf(batch);
    for (const ref of record.objects) {
      const file = readArrowFile(await objects.get(ref.key));
      const columns = new Map(
        [...file.columns].map(([id, column]) => {
          const copy = structuredClone(column);
          if (copy.kind === 'vector') copy.data[9] ^= 1;
          if (id === 100 && copy.kind === 'fixed' && copy.values instanceof BigInt64Array) copy.values[399] += 1n;
          return [id, copy];
        }),
      );
      const bytes = Buffer.concat(await writeArrowFile({ length: 400, columns }, schemaOf()));
      const forged = { ...ref, key: `${ref.key}.forged`, size: bytes.byteLength, crc32c: checksum(bytes) };
      await objects.put(forged.key, bytes);
      const changed = { ...record, objects: record.objects.map((one) => (one === ref ? forged : one)) };
      await expect(examine(changed)).rejects.toThrow(/segment 5 \(segments\/.*\): content hash [0-9a-f]{32}, recorded [0-9a-f]{32}/);
      // Without a recorded hash nobody can tell.
      await expect(examine({ ...changed, contentHash: '' })).resolves.toBeDefined();
    }
  });

  it('names the object that is missing, short or flipped, and the next segment is read as if nothing had been', async () => {
    const record = await segmentOf(batch);
    const [scalars, vector] = record.objects;
    const bytes = Buffer.from(await objects.get(vector?.key ?? ''));
    bytes[700] ^= 4;
    await objects.delete([vector?.key ?? '']);
    await expect(examine(record)).rejects.toThrow(vector?.key);
    await objects.put(vector?.key ?? '', bytes);
    await expect(examine(record)).rejects.toThrow(`object ${vector?.key}: checksum`);
    const short = { ...record, objects: record.objects.map((one) => (one === scalars ? { ...one, size: one.size + 1 } : one)) };
    await expect(examine(short)).rejects.toThrow(`object ${scalars?.key}: `);
    bytes[700] ^= 4;
    await objects.delete([vector?.key ?? '']);
    await objects.put(vector?.key ?? '', bytes);
    await expect(examine(record)).resolves.toMatchObject({ stored: { rows: 400 } });
  });
});
