import { readSync } from 'node:fs';
import { mkdtemp, readdir, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SystemRuntime } from '@cairn/base';
import { DiskObjectStore, MemoryObjectStore, type ObjectStore } from '@cairn/objects';
import { SegmentRecord } from '@cairn/proto/cairn/meta';
import {
  type CollectionSchema,
  type Column,
  type ColumnBatch,
  columnFromValues,
  concatBatches,
  DataType,
  type Field,
  keyColumn,
  makeBatch,
  makeSchema,
  numberColumn,
  type PlainValue,
  sortOrder,
  takeBatch,
  valueAt,
} from '@cairn/schema';
import { field, readable, samples } from '@cairn/schema/testing';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  DeleteBuffer,
  deletesAsOf,
  deletesOf,
  GrowingSegment,
  openSegment,
  type ReadableSegment,
  readDeltaLog,
  type SealedSegment,
  VectorMemory,
  writeDeltaLog,
  writeSegment,
} from '../src/index.ts';

const runtime = new SystemRuntime();

/** A field of every type, key first. */
const allFields: Field[] = [
  field(DataType.Int64, { id: 100, name: 'pk', isPrimaryKey: true }),
  ...samples.map(([of], i) => ({ ...of, id: 101 + i, name: `f${i}`, nullable: true })),
];
const schemaOf = (fields: Field[]): CollectionSchema =>
  makeSchema({ name: 'c', description: '', fields, enableDynamicField: false, properties: {} });
const allTypes = schemaOf(allFields);

/** Rows of every type with nulls, the same for the same seed. */
function rowsOfAll(rows: number, seed: number): ColumnBatch {
  const columns = new Map<number, Column>([[100, keyColumn(Array.from({ length: rows }, (_, i) => BigInt((i * 7919 + seed) % 1009)))]]);
  for (const [i, [, values]] of samples.entries()) {
    const list = fc.sample(fc.option(values, { nil: null, freq: 5 }), { numRuns: rows, seed: seed + i }) as PlainValue[];
    columns.set(101 + i, columnFromValues(allFields[i + 1], list));
  }
  return makeBatch(columns);
}

const record = (more: Partial<SegmentRecord>): SegmentRecord => ({
  ...SegmentRecord.fromPartial({}),
  id: 1,
  partitionId: 2,
  sorted: true,
  ...more,
});
const values = (column: Column): unknown[] => Array.from({ length: column.length }, (_, row) => readable(valueAt(column, row)));
const bits = (segment: ReadableSegment, readTs: number): number[] => {
  const visible = segment.visible(readTs);
  return Array.from({ length: segment.rows }, (_, row) => row).filter(
    (row) => visible === undefined || (visible[row >> 3] >> (row & 7)) & 1,
  );
};

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'segment-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

const stores: [string, () => Promise<ObjectStore>, boolean][] = [
  ['on disk', async () => new DiskObjectStore(join(directory, 'store'), runtime), false],
  ['in memory', async () => new MemoryObjectStore(runtime), false],
  ['remote, with a cache', async () => new MemoryObjectStore(runtime), true],
];

describe.each(stores)('a sealed segment %s', (_name, makeStore, cached) => {
  it('has every row and field of the growing one it came from, in key order', async () => {
    const objects = await makeStore();
    const growing = new GrowingSegment({ id: 1, partitionId: 2, schema: allTypes, initialRows: 8 });
    growing.append(rowsOfAll(150, 1), 10, 1000);
    growing.append(rowsOfAll(3, 2), 11, 1150);
    growing.append(rowsOfAll(200, 3), 12, 1153);
    const batch = growing.freeze();
    expect([growing.rows, growing.minTs, growing.maxTs, batch.columns.size]).toEqual([353, 10, 12, allFields.length + 2]);
    const written = await writeSegment({ objects, runtime, prefix: 'segments/1/', schema: allTypes, batch });
    const cacheDir = cached ? join(directory, 'cache') : undefined;
    const segment = await openSegment({
      objects,
      runtime,
      schema: allTypes,
      record: record({ ...written, prefix: 'segments/1/' }),
      cacheDir,
    });
    const order = sortOrder(keyColumn(values(batch.columns.get(100) as Column) as bigint[]), growing.timestamps.slice(0, 353));
    const expected = takeBatch(batch, order);
    const some = Int32Array.of(5, 352, 0, 5, 17);
    for (const [id, column] of expected.columns) {
      expect(values(await segment.gather(id, some))).toEqual([...some].map((row) => values(column)[row]));
      expect(values(await segment.column(id))).toEqual(values(column));
      expect(values(await segment.gather(id, some))).toEqual([...some].map((row) => values(column)[row]));
    }
    for (const of of allTypes.vectorFields) {
      if (of.type === DataType.SparseFloatVector || of.type === DataType.ArrayOfVector) continue;
      expect((await segment.vectors(of.id)).data.buffer).toBeInstanceOf(SharedArrayBuffer);
      expect((await growing.vectors(of.id)).data.buffer).toBeInstanceOf(SharedArrayBuffer);
    }
    await segment.close();
    if (cached) expect(await readdir(join(directory, 'cache'))).toEqual([]);
  });
});

const small = schemaOf([
  field(DataType.Int64, { id: 100, name: 'pk', isPrimaryKey: true }),
  field(DataType.FloatVector, { id: 101, name: 'vec', dim: 2 }),
]);
const smallRows = (keys: bigint[], ts: number[]): ColumnBatch =>
  makeBatch([
    [0, numberColumn(Float64Array.from(keys, Number))],
    [1, numberColumn(Float64Array.from(ts))],
    [100, keyColumn(keys)],
    [
      101,
      columnFromValues(
        small.vectorFields[0],
        keys.map((key) => new Uint8Array(Float32Array.of(Number(key), 1).buffer)),
      ),
    ],
  ]);

/** The same rows sealed and growing. */
async function both(keys: bigint[], ts: number[], more: Partial<SegmentRecord> = {}): Promise<[SealedSegment, GrowingSegment]> {
  const objects = new MemoryObjectStore(runtime);
  const written = await writeSegment({ objects, runtime, prefix: 'p/', schema: small, batch: smallRows(keys, ts) });
  const sealed = await openSegment({ objects, runtime, schema: small, record: record({ ...written, ...more }) });
  const growing = new GrowingSegment({ id: 2, partitionId: 2, schema: small });
  for (const [i, key] of keys.entries()) growing.append(smallRows([key], [ts[i]]), ts[i], i);
  return [sealed, growing];
}

describe('visibility', () => {
  // Rows: key 1 at ts 10, key 2 at ts 20, key 2 again at ts 30.
  it.each<[string, [bigint, number, number][], number, number[]]>([
    ['everything at the end', [], 99, [0, 1, 2]],
    ['rows after the read timestamp are not seen', [], 20, [0, 1]],
    ['a row at the read timestamp is seen', [], 10, [0]],
    ['nothing before the first row', [], 9, []],
    ['a delete hides older rows of its key', [[2n, 31, 0]], 99, [0]],
    ['not before it happened', [[2n, 31, 0]], 30, [0, 1, 2]],
    ['from its timestamp on', [[2n, 31, 0]], 31, [0]],
    ['rows of the same timestamp live: an upsert', [[2n, 30, 0]], 99, [0, 2]],
    ['and later rows too', [[2n, 25, 0]], 99, [0, 2]],
    ['a delete by filter hits what its query read', [[2n, 50, 30]], 99, [0]],
    ['and not what came after its query', [[2n, 50, 29]], 99, [0, 2]],
    [
      'the earliest delete counts',
      [
        [1n, 60, 0],
        [1n, 40, 0],
        [1n, 50, 0],
      ],
      45,
      [1, 2],
    ],
    ['a key that is not there', [[7n, 60, 0]], 99, [0, 1, 2]],
  ])('%s', async (_name, deletes, readTs, expected) => {
    for (const segment of await both([1n, 2n, 2n], [10, 20, 30])) {
      for (const [key, ts, read] of deletes) segment.applyDeletes(deletesOf(keyColumn([key]), ts, read));
      expect(bits(segment, readTs)).toEqual(expected);
      expect(bits(segment, readTs)).toEqual(expected);
    }
  });

  it('costs nothing when every row is seen, and is the caller’s own bitmap when not', async () => {
    for (const segment of await both([1n, 2n], [10, 20])) {
      expect(segment.visible(20)).toBeUndefined();
      segment.applyDeletes(deletesOf(keyColumn([1n]), 30));
      expect(segment.visible(29)).toBeUndefined();
      segment.visible(40)?.fill(0);
      expect(bits(segment, 40)).toEqual([1]);
    }
  });

  it('of a snapshot’s segment ends at as_of', async () => {
    const [sealed] = await both([1n, 2n, 3n], [10, 20, 30], { asOf: 20 });
    expect(bits(sealed, 99)).toEqual([0, 1]);
    sealed.applyDeletes(deletesOf(keyColumn([1n]), 50));
    expect(bits(sealed, 99)).toEqual([1]);
  });

  it('of rows from ahead of now begins at commit_ts', async () => {
    const [sealed] = await both([1n, 2n], [1000, 2000], { commitTs: 50 });
    expect([bits(sealed, 49), bits(sealed, 50)]).toEqual([[], [0, 1]]);
    sealed.applyDeletes(deletesOf(keyColumn([1n]), 60));
    sealed.applyDeletes(deletesOf(keyColumn([2n]), 1500), { original: true });
    expect(bits(sealed, 5000)).toEqual([1]);
  });

  it('agrees with a plain list of rows and deletes, sealed and growing', async () => {
    const rows = fc.array(fc.record({ key: fc.bigInt({ min: 0n, max: 5n }), ts: fc.integer({ min: 1, max: 50 }) }), {
      minLength: 1,
      maxLength: 40,
    });
    const deletes = fc.array(
      fc.record({ key: fc.bigInt({ min: 0n, max: 6n }), ts: fc.integer({ min: 1, max: 50 }), byFilter: fc.boolean() }),
      { maxLength: 30 },
    );
    await fc.assert(
      fc.asyncProperty(rows, deletes, fc.integer({ min: 0, max: 51 }), async (some, gone, readTs) => {
        // The segment's order, so that row numbers of the model and both segments agree.
        const sorted = [...some].sort((a, b) => Number(a.key - b.key) || a.ts - b.ts);
        const segments = await both(
          sorted.map((row) => row.key),
          sorted.map((row) => row.ts),
        );
        const hits = (row: (typeof some)[number], of: (typeof gone)[number]): boolean =>
          of.key === row.key && of.ts <= readTs && (of.byFilter ? row.ts <= of.ts - 2 : row.ts < of.ts);
        const expected = sorted.flatMap((row, i) => (row.ts <= readTs && !gone.some((of) => hits(row, of)) ? [i] : []));
        for (const segment of segments) {
          for (const of of gone) segment.applyDeletes(deletesOf(keyColumn([of.key]), of.ts, of.byFilter ? Math.max(0.5, of.ts - 2) : 0));
          expect(bits(segment, readTs)).toEqual(expected);
          expect([...segment.rowsOfKeys(keyColumn([3n, 0n, 3n]))]).toEqual(
            sorted.flatMap((row, i) => (row.key === 3n || row.key === 0n ? [i] : [])),
          );
        }
      }),
      { numRuns: 60 },
    );
  });
});

describe('a growing segment', () => {
  it('is read as of the capture while it grows', async () => {
    const growing = new GrowingSegment({ id: 1, partitionId: 2, schema: small, initialRows: 2 });
    growing.append(smallRows([1n, 2n], [5, 5]), 5, 0);
    const captured = growing.capture();
    const before = await captured.column(100);
    for (let i = 0; i < 50; i++) growing.append(smallRows([BigInt(i)], [6]), 6, 100 + i);
    expect([captured.rows, growing.rows, values(before)]).toEqual([2, 52, [1n, 2n]]);
    expect(values(await captured.column(101))).toEqual(values(await growing.gather(101, Int32Array.of(0, 1))));
    expect([...captured.rowsOfKeys(keyColumn([1n]))]).toEqual([0]);
    expect(bits(captured, 5)).toEqual([0, 1]);
  });

  it('gives rows written before a field was added its default', async () => {
    const growing = new GrowingSegment({ id: 1, partitionId: 2, schema: small });
    growing.append(smallRows([1n], [5]), 5, 0);
    const added = field(DataType.Int32, { id: 102, name: 'n', nullable: true, defaultValue: 7 });
    const newer = growing.capture(schemaOf([...small.fields, added]));
    expect(values(await newer.column(102))).toEqual([7]);
    expect(values(await newer.gather(102, Int32Array.of(0)))).toEqual([7]);
    growing.updateSchema(schemaOf([...small.fields, added]));
    const [sealed] = await both([1n], [5]);
    await expect(sealed.column(102)).rejects.toMatchObject({ codeName: 'FieldNotFound' });
    sealed.updateSchema(schemaOf([...small.fields, added]));
    expect(values(await sealed.column(102))).toEqual([7]);
    growing.append(concatBatches([smallRows([2n], [6])]), 6, 1);
    expect(values(await growing.column(102))).toEqual([7, 7]);
  });

  it('takes no rows once frozen', () => {
    const growing = new GrowingSegment({ id: 1, partitionId: 2, schema: small });
    growing.freeze();
    expect(() => growing.append(smallRows([1n], [5]), 5, 0)).toThrow('frozen');
  });
});

describe('memory for vectors', () => {
  it('holds whole columns up to its limit; what is beyond stays in its file, and closing gives it back', async () => {
    const objects = new DiskObjectStore(join(directory, 'store'), runtime);
    const written = await writeSegment({ objects, runtime, prefix: 'p/', schema: small, batch: smallRows([1n, 2n, 3n], [1, 2, 3]) });
    const bytes = written.objects.find((object) => object.role === 'vector')?.size ?? 0;
    const memory = new VectorMemory(bytes * 1.5);
    const open = () => openSegment({ objects, runtime, schema: small, record: record(written), memory });
    const [one, other] = [await open(), await open()];
    expect((await one.vectorsInPlace(101)).kind).toBe('vector');
    expect(memory.usedBytes).toBe(bytes);
    const stored = await other.vectorsInPlace(101);
    if (stored.kind !== 'stored') throw new Error('the vectors are in memory');
    const row = new Uint8Array(stored.bytesPerRow);
    readSync(stored.fd, row, 0, row.length, stored.offset + 2 * row.length);
    const column = await one.vectors(101);
    expect(row).toEqual(Uint8Array.from(column.data.subarray(2 * row.length)));
    expect(memory.usedBytes).toBe(bytes);
    expect(values(await other.gather(101, Int32Array.of(2)))).toEqual([values(await one.vectors(101))[2]]);
    // An exact search has the column whatever the limit, and then everybody has.
    await other.vectors(101);
    expect((await other.vectorsInPlace(101)).kind).toBe('vector');
    expect(memory.usedBytes).toBe(2 * bytes);
    await one.close();
    other.unload(101);
    expect(memory.usedBytes).toBe(0);
    await other.close();
    expect(memory.usedBytes).toBe(0);
  });
});

describe('a damaged object', () => {
  const disk = (): DiskObjectStore => new DiskObjectStore(join(directory, 'store'), runtime);

  it.each(['scalars.arrow', 'vector.101.arrow'])('%s is refused by name: missing, cut, flipped, foreign', async (file) => {
    const objects = disk();
    const written = await writeSegment({ objects, runtime, prefix: 'p/', schema: small, batch: smallRows([1n, 2n, 3n], [1, 2, 3]) });
    const path = objects.localPath(`p/${file}`);
    const whole = await objects.get(`p/${file}`);
    const open = (memory?: VectorMemory): Promise<SealedSegment> =>
      openSegment({ objects, runtime, schema: small, record: record(written), memory });
    const read = async (): Promise<unknown> => {
      const segment = await open();
      await segment.vectors(101).finally(() => segment.close());
      // Vectors that stay in their file are looked at as well.
      const other = await open(new VectorMemory(0));
      return other.vectorsInPlace(101).finally(() => other.close());
    };
    const inFile = async (): Promise<unknown> => {
      const segment = await open(new VectorMemory(0));
      return segment.vectorsInPlace(101).finally(() => segment.close());
    };
    await read();
    const flipped = Uint8Array.from(whole);
    flipped[whole.byteLength >> 1] ^= 1;
    await writeFile(path, flipped);
    for (const way of [read, inFile])
      await expect(way()).rejects.toMatchObject({ codeName: 'ObjectDamaged', message: expect.stringContaining(`p/${file}`) });
    await truncate(path, whole.byteLength - 8);
    await expect(read()).rejects.toMatchObject({ codeName: 'ObjectDamaged', message: expect.stringContaining(`p/${file}`) });
    await writeFile(path, new Uint8Array(whole.byteLength));
    await expect(read()).rejects.toMatchObject({ codeName: 'ObjectDamaged', message: expect.stringContaining(`p/${file}`) });
    await rm(path);
    await expect(read()).rejects.toMatchObject({ codeName: 'ObjectNotFound', message: expect.stringContaining(`p/${file}`) });
  });

  it('of another segment is refused though it is whole', async () => {
    const objects = disk();
    const one = await writeSegment({ objects, runtime, prefix: 'a/', schema: small, batch: smallRows([1n], [1]) });
    await expect(openSegment({ objects, runtime, schema: small, record: record({ ...one, rows: 2 }) })).rejects.toMatchObject({
      codeName: 'ObjectDamaged',
    });
  });
});

describe('delta logs', () => {
  it('give back keys of both types with their timestamps', async () => {
    const objects = new MemoryObjectStore(runtime);
    for (const keys of [keyColumn([1n, -5n]), keyColumn(['a', 'ß'])]) {
      const deletes = { keys, ts: Float64Array.of(7, 9), readTs: Float64Array.of(0, 8) };
      const written = await writeDeltaLog(objects, `deltas/${keys.type}`, deletes);
      expect([written.rows, written.minTs, written.maxTs]).toEqual([2, 7, 9]);
      const back = await readDeltaLog(objects, written.object);
      expect([values(back.keys), [...back.ts], [...back.readTs]]).toEqual([values(keys), [7, 9], [0, 8]]);
      expect(values(deletesAsOf(back, 8).keys)).toEqual([values(keys)[0]]);
      await expect(readDeltaLog(objects, { ...written.object, crc32c: 1 })).rejects.toMatchObject({ codeName: 'ObjectDamaged' });
    }
  });

  it('are filled from the buffer by sequence', () => {
    const buffer = new DeleteBuffer();
    for (const sequence of [3, 5, 5, 9]) buffer.add(sequence, deletesOf(keyColumn([BigInt(sequence)]), sequence * 10));
    const of = (after: number, upTo: number): number[] => [...(buffer.between(after, upTo)?.ts ?? [])];
    expect([of(0, 9), of(3, 5), of(5, 8), of(4, 4)]).toEqual([[30, 50, 50, 90], [50, 50], [], []]);
    buffer.trim(5);
    expect([buffer.rows, buffer.lastSequence, of(0, 99)]).toEqual([1, 9, [90]]);
  });
});
