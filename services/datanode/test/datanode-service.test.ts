import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadConfig, SystemRuntime, silentLogger } from '@cairn/base';
import { keys, paths } from '@cairn/catalog';
import { IndexPool } from '@cairn/index';
import { DiskObjectStore, MemoryObjectStore, type ObjectStore } from '@cairn/objects';
import { IndexBuildState, IndexRecord, SegmentIndexRecord, SegmentRecord } from '@cairn/proto/cairn/meta';
import { QueryPlan, type SearchPlan, TaskRequest, type TaskUpdate } from '@cairn/proto/cairn/services';
import { decodeQueryResult, decodeSearchResult } from '@cairn/query';
import type { CallContext } from '@cairn/rpc';
import { DataType, decodeSchema, keyColumn, makeBatch, numberColumn, type VectorColumn, valueAt } from '@cairn/schema';
import { writeSegment } from '@cairn/segment';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { DataNodeService } from '../src/index.ts';
import { COLLECTION, Stage, schemaBytes, VCHANNEL } from './fakes.ts';

const runtime = new SystemRuntime();
const ROWS = 2000;
const DIM = 4;
const INSERTED = 100;
const context: CallContext = { signal: new AbortController().signal, metadata: new Map(), remaining: () => 10_000 };

/** Distinct directions, so that the nearest row is no tie. */
function vectorOf(row: number): number[] {
  return [Math.cos(row), Math.sin(row), Math.cos(row * 0.37), Math.sin(row * 0.73)];
}

async function write(objects: ObjectStore, id: number, from: number, partitionId = 1): Promise<SegmentRecord> {
  const data = new Float32Array(ROWS * DIM);
  for (let i = 0; i < ROWS; i++) data.set(vectorOf(from + i), i * DIM);
  const ids = Array.from({ length: ROWS }, (_, i) => BigInt(from + i));
  const vectors: VectorColumn = {
    ...{ kind: 'vector', type: DataType.FloatVector, length: ROWS, dim: DIM, bytesPerRow: DIM * 4, validity: null },
    data: new Uint8Array(data.buffer),
  };
  const batch = makeBatch([
    [0, numberColumn(Float64Array.from(ids, Number))],
    [1, numberColumn(new Float64Array(ROWS).fill(INSERTED))],
    [101, keyColumn(ids)],
    [102, vectors],
  ]);
  const prefix = paths.segment(COLLECTION, partitionId, id, 'g1');
  const written = await writeSegment({ objects, runtime, prefix, schema: decodeSchema(schemaBytes()), batch });
  return SegmentRecord.fromPartial({
    ...written,
    id,
    collectionId: COLLECTION,
    partitionId,
    shard: 0,
    generation: 'g1',
    prefix,
    sorted: true,
  });
}

const index = IndexRecord.fromPartial({
  ...{ id: 50, collectionId: COLLECTION, fieldId: 102, name: 'v' },
  indexParams: Object.entries({ index_type: 'HNSW', metric_type: 'COSINE', M: '16', efConstruction: '128' }).map(([key, value]) => ({
    key,
    value,
  })),
});

describe.each(['memory', 'disk'])('a datanode on a %s object store', (kind) => {
  let dir: string;
  let stage: Stage;
  let objects: ObjectStore;
  let pool: IndexPool;
  let node: DataNodeService;
  let records: SegmentRecord[];

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'cairn-datanode-'));
    stage = new Stage(runtime);
    await stage.takeOver();
    objects = kind === 'disk' ? new DiskObjectStore(join(dir, 'objects'), runtime) : new MemoryObjectStore(runtime);
    pool = new IndexPool({ runtime, threads: 1 });
    await pool.start();
    const config = loadConfig({ env: {}, sets: [`dataDir=${dir}`] });
    node = new DataNodeService({
      ...{ nodeId: 'd1', address: 'inproc:d1', meta: stage.meta, objects, wal: stage.wal, pool, config, runtime, logger: silentLogger },
    });
    await node.start();
    records = await Promise.all([write(objects, 1, 0), write(objects, 2, ROWS)]);
  });

  afterAll(async () => {
    await node.stop();
    await pool.stop();
    await rm(dir, { recursive: true });
  });

  const scope = (readTs: number, deleteSequence: number, ...segmentIds: number[]) => {
    return { vchannel: VCHANNEL, collectionId: COLLECTION, segmentIds, readTs, deleteSequence, expiredTs: 0 };
  };

  const nearest = async (row: number, readTs = 1000, deleteSequence = 0): Promise<number[]> => {
    const queries = new Uint8Array(Float32Array.from(vectorOf(row)).buffer);
    const plan: SearchPlan = {
      ...{ fieldId: 102, metric: 'COSINE', nq: 1, topK: 3, queries, filter: new Uint8Array(0), outputFieldIds: [], dynamicKeys: [] },
      ...{ params: '{"ef":64}', groupByFieldId: 0, groupSize: 0, strictGroupSize: false },
    };
    const result = decodeSearchResult(await node.handlers.search({ scope: scope(readTs, deleteSequence, 1, 2), plan }, context));
    const [found] = result.columns.columns.values();
    return Array.from({ length: found.length }, (_, i) => Number(valueAt(found, i)));
  };

  const count = async (readTs: number, deleteSequence = 0): Promise<number> => {
    const plan = QueryPlan.fromPartial({ countOnly: true });
    return decodeQueryResult(await node.handlers.query({ scope: scope(readTs, deleteSequence, 1, 2), plan }, context)).count;
  };

  const run = async (request: Parameters<typeof TaskRequest.fromPartial>[0]): Promise<TaskUpdate> => {
    let last: TaskUpdate | undefined;
    for await (const update of node.handlers.runTask(TaskRequest.fromPartial(request), context)) last = update;
    if (!last?.finished) throw new Error('the task did not finish');
    return last;
  };

  test('is registered while it runs', async () => {
    expect(await stage.meta.get(keys.node('datanode', 'd1'))).toBeDefined();
    expect(node.lost.aborted).toBe(false);
  });

  test('loads, searches and counts, and sees deletes up to what the owner says', async () => {
    await expect(nearest(5)).rejects.toMatchObject({ codeName: 'SegmentNotFound', message: expect.stringContaining('segment 1') });
    await node.handlers.loadSegments(stage.request({ segments: records }), context);
    expect((await nearest(5))[0]).toBe(5);
    expect((await nearest(ROWS + 77))[0]).toBe(ROWS + 77);
    expect(await count(1000)).toBe(2 * ROWS);
    expect(await count(INSERTED - 1)).toBe(0);
    const sequence = await stage.delete([5, ROWS + 1], 200);
    expect(await count(1000, sequence)).toBe(2 * ROWS - 2);
    expect(await count(199, sequence)).toBe(2 * ROWS);
    expect((await nearest(5, 1000, sequence))[0]).not.toBe(5);
    expect((await nearest(5, 199, sequence))[0]).toBe(5);
  });

  test('builds an index, a repeat answers with the same object, and a loaded segment takes it without being opened again', async () => {
    const key = `${records[0].prefix}index.102.9`;
    const task = {
      taskId: 1,
      epoch: 1,
      task: { $case: 'buildIndex' as const, value: { schema: schemaBytes(), segment: records[0], index, buildId: 9, key } },
    };
    const { objects: built, rows } = await run(task);
    expect(rows).toBe(ROWS);
    expect(built).toEqual([expect.objectContaining({ key, role: 'index', fieldId: 102 })]);
    expect((await run(task)).objects).toEqual(built);
    expect(await readdir(join(dir, 'cache', 'builds'))).toEqual([]);
    const build = SegmentIndexRecord.fromPartial({
      ...{ buildId: 9, indexId: 50, collectionId: COLLECTION, segmentId: 1, fieldId: 102, state: IndexBuildState.INDEX_BUILD_FINISHED },
      ...{ object: built[0], rows, indexType: 'HNSW' },
    });
    await node.handlers.loadSegments(stage.request({ segments: records, segmentIndexes: [build], indexes: [index] }), context);
    for (const row of [7, 123, 999, ROWS + 5]) expect((await nearest(row))[0]).toBe(row);
    expect((await nearest(5))[0]).not.toBe(5);
    // A damaged index costs speed, not rows.
    const damaged = { ...build, buildId: 10, object: { ...built[0], crc32c: built[0].crc32c ^ 1 } };
    await node.handlers.loadSegments(stage.request({ segments: records, segmentIndexes: [damaged], indexes: [index] }), context);
    expect((await nearest(7))[0]).toBe(7);
  });

  test('copies a segment whole, with progress', async () => {
    const copies = records[1].objects.map((source) => ({ source, targetKey: source.key.replace('segments/7', 'segments/8') }));
    const done = await run({ taskId: 2, epoch: 1, task: { $case: 'copy', value: { objects: copies, jobId: 3 } } });
    expect(done.doneObjects).toBe(copies.length);
    expect(done.doneBytes).toBe(copies.reduce((sum, copy) => sum + copy.source.size, 0));
    expect(done.objects.map((object) => object.key)).toEqual(copies.map((copy) => copy.targetKey));
  });

  test('a task whose caller goes ends', async () => {
    const gone = new AbortController();
    gone.abort();
    const updates = node.handlers.runTask(TaskRequest.fromPartial({ taskId: 3, task: { $case: 'copy', value: { objects: [] } } }), {
      ...context,
      signal: gone.signal,
    });
    await expect(updates[Symbol.asyncIterator]().next()).rejects.toMatchObject({ codeName: 'Cancelled' });
    await expect(run({ taskId: 4 })).rejects.toMatchObject({ codeName: 'NotSupported' });
  });

  test('lets go of segments, and loads them again', async () => {
    await node.handlers.releaseSegments({ vchannel: VCHANNEL, segmentIds: [2] }, context);
    await expect(nearest(5)).rejects.toMatchObject({ codeName: 'SegmentNotFound', message: expect.stringContaining('segment 2') });
    await node.handlers.releaseSegments({ vchannel: VCHANNEL, segmentIds: [] }, context);
    await node.handlers.releaseSegments({ vchannel: VCHANNEL, segmentIds: [] }, context);
    await node.handlers.loadSegments(stage.request({ segments: records, deleteSequence: 2 }), context);
    expect(await count(1000)).toBe(2 * ROWS - 2);
  });
});
