import { CairnError, type Deferred, deferred, timestampMs } from '@cairn/base';
import { keys } from '@cairn/catalog';
import {
  CompactionTaskState,
  DeltaLogRecord,
  IndexBuildState,
  PrefixRecord,
  SegmentIndexRecord,
  SegmentRecord,
  SegmentState,
} from '@cairn/proto/cairn/meta';
import { CompactResult, type CompactTask, type TaskUpdate } from '@cairn/proto/cairn/services';
import type { CheckResponse, GcReport } from '@cairn/proto/cairn/upkeep';
import { readSnapshot } from '@cairn/segment';
import { afterEach, describe, expect, test } from 'vitest';
import type { DataCoordService } from '../src/index.ts';
import { flushDeletes, sealSegment } from './contents.ts';
import { World, type WorldOptions } from './world.ts';

let world: World;
let coordinator: DataCoordService;
let collection: number;
let partition: number;
/** What datanodes were asked to compact, and with which answer; the default writes one object. */
let asked: CompactTask[];
let onCompact: (task: CompactTask) => Promise<Partial<CompactResult> | undefined>;
afterEach(() => world.stop());

async function begin(options: WorldOptions = {}): Promise<void> {
  asked = [];
  onCompact = async () => undefined;
  world = new World({ ...options, settings: { gcGraceMs: 100, gcIntervalMs: 3_600_000, compactionIntervalMs: 20, ...options.settings } });
  world.task = async function* (request): AsyncGenerator<TaskUpdate> {
    const { task } = request;
    const update = { doneBytes: 0, doneObjects: 0, finished: true, objects: [], rows: 0, compacted: undefined, rewritten: [] };
    if (task?.$case === 'buildIndex') {
      const { key, segment } = task.value;
      const { etag } = await world.objects.put(key, Buffer.from('index'));
      yield { ...update, objects: [{ key, size: 5, crc32c: 1, etag, role: 'index', fieldId: 101 }], rows: segment?.rows ?? 0 };
    }
    if (task?.$case !== 'compact') return;
    asked.push(task.value);
    const { prefix, segments } = task.value;
    const rows = segments.reduce((sum, segment) => sum + segment.rows, 0);
    const key = `${prefix}scalars.arrow`;
    const { etag, size } = await world.objects.put(key, Buffer.from(`compacted ${rows}`));
    const compacted = CompactResult.fromPartial({
      rows,
      minTs: 1,
      maxTs: 9,
      bytes: size,
      deletesFrom: 100,
      ...(await onCompact(task.value)),
    });
    const objects = compacted.rows === 0 || compacted.kept ? [] : [{ key, size, crc32c: 1, etag, role: 'scalars', fieldId: 0 }];
    yield { ...update, objects, rows: compacted.rows, compacted };
  };
  await world.node('streaming', 's1');
  await world.node('datanode', 'd1');
  await world.node('datanode', 'd2');
  coordinator = await world.coordinator('a');
  collection = (await world.createCollection('a', 'books')).id;
  const page = await world.meta.range({ prefix: keys.partitions(collection) });
  partition = Number(page.entries[0]?.key.split('/').at(-1));
  // Behind the coordinator's own first round; later ones only when a test asks.
  await gc();
}

/** Segments as an owner flushes them, their prefixes recorded. */
async function flushed(count: number, rows = 10): Promise<SegmentRecord[]> {
  const records: SegmentRecord[] = [];
  for (let i = 0; i < count; i++) {
    const record = await sealSegment(world, { collection, partition, minTs: 5, maxTs: 50, rows });
    const prefix: PrefixRecord = { prefix: record.prefix, dead: false, createdMs: world.runtime.now(), deadMs: 0, purpose: 'flush' };
    await world.meta.txn({ then: [{ kind: 'put', key: keys.prefix(record.prefix), value: PrefixRecord.encode(prefix).finish() }] });
    records.push(record);
  }
  return records;
}

const segments = async () =>
  (await world.meta.range({ prefix: keys.segments(collection) })).entries.map((entry) => SegmentRecord.decode(entry.value));
const sealed = async () => (await segments()).filter((segment) => segment.state === SegmentState.SEGMENT_SEALED);
const segment = async (id: number) => (await segments()).find((one) => one.id === id);
const prefixes = async (purpose: string) =>
  (await world.meta.range({ prefix: keys.prefixes })).entries
    .map((entry) => PrefixRecord.decode(entry.value))
    .filter((record) => record.purpose.startsWith(purpose));
const compact = (node = 'a') =>
  world.client(node).compact({ collectionId: collection, partitionId: 0, vchannel: '', segmentIds: [], targetBytes: 0 });
const job = (jobId: number, node = 'a') => world.client(node).getCompaction({ jobId });
const ended = (jobId: number, node = 'a') =>
  world.until(
    async () => (await job(jobId, node)).tasks.every((task) => task.state >= CompactionTaskState.COMPACTION_COMPLETED),
    'the compaction ended',
  );
const create = (name: string, compactionProtectionSeconds = 0) =>
  world
    .client('a')
    .createSnapshot({ requestId: '', database: '', collection: 'books', name, description: '', compactionProtectionSeconds });
const gc = (): Promise<GcReport> => coordinator.upkeep.gcRun({ limit: 0 }, undefined as never) as Promise<GcReport>;
const check = (): Promise<CheckResponse> => coordinator.upkeep.check({ deep: false }, undefined as never) as Promise<CheckResponse>;
const exists = async (key: string) => (await world.objects.head(key)) !== undefined;
/** Compactions wait for it. */
function gate(): Deferred<void> {
  const gated = deferred<void>();
  onCompact = async () => {
    await gated.promise;
    return undefined;
  };
  return gated;
}

describe('a compaction', () => {
  test('of small segments makes one of them, with its indexes, and drops them in the same step', async () => {
    await begin({ settings: { compactionEnabled: true } });
    const inputs = await flushed(3, 600);
    await world.createIndex('a', 'books');
    await world.runtime.sleep(60);
    expect(asked).toEqual([]);
    inputs.push(...(await flushed(1, 600)));
    await world.until(async () => (await sealed()).length === 1, 'merged');
    const [result] = await sealed();
    expect(result).toMatchObject({ rows: 2400, level: 1, compactedFrom: inputs.map((one) => one.id), asOf: 0, deletesFrom: 100 });
    for (const { id } of inputs)
      expect(await segment(id)).toMatchObject({ state: SegmentState.SEGMENT_DROPPED, compactedInto: result?.id });
    const dropped = await Promise.all(inputs.map(async ({ id }) => (await segment(id))?.droppedTs));
    expect(new Set(dropped).size).toBe(1);
    const builds = (await world.meta.range({ prefix: keys.segmentIndexes(collection) })).entries
      .map((entry) => ({ revision: entry.modRevision, ...SegmentIndexRecord.decode(entry.value) }))
      .filter((build) => build.segmentId === result?.id);
    const entry = await world.meta.get(keys.segment(collection, result?.id ?? 0));
    expect(builds).toMatchObject([{ state: IndexBuildState.INDEX_BUILD_FINISHED, rows: 2400, revision: entry?.modRevision }]);
    expect((await world.meta.range({ prefix: keys.compactionTasks })).entries).toEqual([]);
    expect((await check()).findings).toEqual([]);
  });

  test('leaves large segments, those of another partition or shard, and collections that opted out, as they are', async () => {
    await begin({ settings: { compactionEnabled: true, compactionMinSegments: 2, compactionTargetBytes: 1000 } });
    for (const [shard, bytes] of [
      [0, 100],
      [1, 100],
      [0, 900],
      [0, 900],
    ] as const) {
      const record = { ...(await sealSegment(world, { collection, partition, shard, minTs: 5, maxTs: 50 })), bytes };
      await world.meta.txn({
        then: [{ kind: 'put', key: keys.segment(collection, record.id), value: SegmentRecord.encode(record).finish() }],
      });
    }
    await world.runtime.sleep(100);
    expect(asked).toEqual([]);
    const properties = [{ key: 'collection.autocompaction.enabled', value: 'false' }];
    await world.submit('a', { $case: 'alterCollection', value: { database: '', name: 'books', properties, deleteKeys: [] } });
    await flushed(2);
    await world.runtime.sleep(100);
    expect(asked).toEqual([]);
    expect((await compact()).tasks).toBe(1);
  });

  test('is held while a snapshot is between its T and its commit, whose segments are the inputs; then it commits', async () => {
    await begin();
    const inputs = await flushed(2);
    const barrier = deferred<void>();
    world.onBarrier = () => barrier.promise;
    const gated = gate();
    const { jobId, tasks } = await compact();
    expect(tasks).toBe(1);
    await world.until(() => asked.length === 1, 'it runs');
    const creating = create('s1');
    await world.until(() => world.barriers.length > 0, 'T is taken');
    gated.resolve();
    await world.runtime.sleep(150);
    expect((await sealed()).map((one) => one.id)).toEqual(inputs.map((one) => one.id));
    barrier.resolve();
    const { id } = await creating;
    await ended(jobId);
    expect((await sealed()).map((one) => one.compactedFrom)).toEqual([inputs.map((one) => one.id)]);
    const bundle = await readSnapshot(world.objects, `snapshots/${collection}/metadata/${id}.json`, { withSegments: true });
    expect(bundle.segments.map((one) => one.id).sort()).toEqual(inputs.map((one) => one.id));
    // Its segments stay when nothing else needs them.
    await gc();
    await world.runtime.sleep(150);
    await gc();
    for (const { objects } of inputs) for (const { key } of objects) expect(await exists(key)).toBe(true);
    await world.client('a').dropSnapshot({ database: '', collection: 'books', name: 's1', id: 0 });
    await gc();
    await world.runtime.sleep(150);
    await gc();
    for (const { objects } of inputs) for (const { key } of objects) expect(await exists(key)).toBe(false);
  });

  test('lets segments be that a snapshot protects, also when the snapshot came while it ran, until its time is over', async () => {
    await begin();
    const inputs = await flushed(2);
    const gated = gate();
    const { jobId } = await compact();
    await world.until(() => asked.length === 1, 'it runs');
    await create('s1', 2);
    gated.resolve();
    await ended(jobId);
    expect((await job(jobId)).tasks).toMatchObject([
      { state: CompactionTaskState.COMPACTION_FAILED, reason: expect.stringContaining('protected from compaction by snapshot s1') },
    ]);
    expect((await sealed()).map((one) => one.id)).toEqual(inputs.map((one) => one.id));
    expect((await prefixes('compaction')).every((prefix) => prefix.dead)).toBe(true);
    expect((await compact()).tasks).toBe(0);
    await world.runtime.sleep(2_000);
    expect((await compact()).tasks).toBe(1);
  });

  test('of a partition that is dropped meanwhile is refused, and what it wrote goes', async () => {
    await begin();
    await world.submit('a', { $case: 'createPartition', value: { database: '', collection: 'books', name: 'p1', id: 0 } });
    const page = await world.meta.range({ prefix: keys.partitions(collection) });
    partition = Math.max(...page.entries.map((entry) => Number(entry.key.split('/').at(-1))));
    await flushed(2);
    const gated = gate();
    const { jobId } = await compact();
    await world.until(() => asked.length === 1, 'it runs');
    await world.submit('a', { $case: 'dropPartition', value: { database: '', collection: 'books', name: 'p1' } });
    gated.resolve();
    await ended(jobId);
    expect((await job(jobId)).tasks[0]).toMatchObject({ state: CompactionTaskState.COMPACTION_FAILED, reason: /dropped/ });
    expect(await sealed()).toEqual([]);
    expect((await prefixes('compaction')).map((prefix) => prefix.dead)).toEqual([true]);
  });

  test('whose inputs changed under it commits nothing', async () => {
    await begin();
    const [first] = await flushed(2);
    const gated = gate();
    const { jobId } = await compact();
    await world.until(() => asked.length === 1, 'it runs');
    const value = SegmentRecord.encode({ ...(first as SegmentRecord), state: SegmentState.SEGMENT_DROPPED, droppedTs: 7 }).finish();
    await world.meta.txn({ then: [{ kind: 'put', key: keys.segment(collection, first?.id ?? 0), value }] });
    gated.resolve();
    await ended(jobId);
    expect((await sealed()).map((one) => one.level)).toEqual([0]);
  });

  test('that lost its worker is tried under another epoch and place, and what the lost one wrote goes', async () => {
    await begin();
    await flushed(2);
    let failures = 2;
    onCompact = async () => {
      if (failures-- > 0) throw new CairnError('Unavailable', 'gone');
      return undefined;
    };
    const { jobId } = await compact();
    await ended(jobId);
    expect(new Set(asked.map((task) => task.prefix)).size).toBe(3);
    const [result] = await sealed();
    const alive = (await prefixes('compaction')).filter((prefix) => !prefix.dead).map((prefix) => prefix.prefix);
    expect(alive).toEqual([result?.prefix]);
    expect(asked[2]?.prefix).toBe(result?.prefix);
  });

  test('goes on under a new leader, which answers for it', async () => {
    await begin();
    await flushed(2);
    const never = gate();
    const { jobId } = await compact();
    await world.until(() => asked.length === 1, 'it runs');
    onCompact = async () => undefined;
    await world.stopCoordinators();
    coordinator = await world.coordinator('b');
    await ended(jobId, 'b');
    never.resolve();
    expect((await job(jobId, 'b')).tasks).toMatchObject([{ state: CompactionTaskState.COMPACTION_COMPLETED, epoch: 2 }]);
    await world.runtime.sleep(50);
    expect(await sealed()).toHaveLength(1);
    expect((await sealed())[0]?.prefix).toBe(asked[1]?.prefix);
  });

  test('of rows that are all deleted leaves no segment and tells up to when', async () => {
    await begin();
    const inputs = await flushed(2);
    onCompact = async () => ({ rows: 0, purgedTs: 77, purgedRows: 20 });
    await ended((await compact()).jobId);
    expect(await sealed()).toEqual([]);
    for (const { id } of inputs)
      expect(await segment(id)).toMatchObject({ state: SegmentState.SEGMENT_DROPPED, compactedInto: 0, purgedTs: 77 });
    expect((await prefixes('compaction')).map((prefix) => prefix.dead)).toEqual([true]);
  });

  test('for deleted rows alone begins when deletes may hit enough rows, and is not tried again when they did not', async () => {
    await begin({ settings: { compactionEnabled: true, compactionRetentionMs: 0, compactionDeletedPercent: 20 } });
    await flushed(1, 10);
    await flushDeletes(world, collection, 10, 40);
    onCompact = async (task) => ({ kept: true, rows: task.segments[0]?.rows ?? 0, deletesFrom: 6 });
    await world.until(() => asked.length === 1, 'counted');
    expect(asked[0]).toMatchObject({ minPurgedPercent: 20 });
    await world.runtime.sleep(100);
    expect(asked).toHaveLength(1);
    expect((await prefixes('compaction')).every((prefix) => prefix.dead)).toBe(true);
  });

  test('of rows that outlived their time begins after the grace, and commits nothing when the time was raised meanwhile', async () => {
    await begin({ settings: { compactionEnabled: true, compactionTtlGraceMs: 0 } });
    const inputs = await flushed(2);
    const setTtl = (seconds: number) => {
      const properties = [{ key: 'collection.ttl.seconds', value: `${seconds}` }];
      return world.submit('a', { $case: 'alterCollection', value: { database: '', name: 'books', properties, deleteKeys: [] } });
    };
    await world.runtime.sleep(100);
    expect(asked).toEqual([]);
    const gated = gate();
    await setTtl(1);
    await world.until(() => asked.length === 1, 'planned');
    expect(asked[0]?.segments.map((one) => one.id)).toEqual(inputs.map((one) => one.id));
    expect(asked[0]?.expiredUpTo).toBeGreaterThan(50);
    await setTtl(3_600 * 24 * 365 * 90);
    gated.resolve();
    await world.until(async () => (await prefixes('compaction')).every((prefix) => prefix.dead), 'given up');
    expect((await sealed()).map((one) => one.id)).toEqual(inputs.map((one) => one.id));
  });

  test('keeps its objects from the garbage while it runs, also the indexes that have no record yet', async () => {
    await begin({ settings: { gcOrphanMs: 1 } });
    await flushed(2, 600);
    await world.createIndex('a', 'books');
    const gated = deferred<void>();
    const inner = world.task;
    let built = '';
    world.task = async function* (request, context) {
      yield* inner(request, context);
      if (request.task?.$case === 'buildIndex') built = request.task.value.key;
    };
    const withoutEnd = world.task;
    world.task = async function* (request, context) {
      if (request.task?.$case !== 'buildIndex') return yield* inner(request, context);
      const updates = [];
      for await (const update of withoutEnd(request, context)) updates.push(update);
      await gated.promise;
      yield* updates;
    };
    const { jobId } = await compact();
    await world.until(() => built !== '', 'the index is written');
    await gc();
    await world.runtime.sleep(150);
    await gc();
    expect(await exists(built)).toBe(true);
    gated.resolve();
    await ended(jobId);
    expect((await sealed()).map((one) => one.rows)).toEqual([1200]);
    expect(await exists(built)).toBe(true);
  });

  test('asked for with nothing to do is a job that is completed; an unknown one is told', async () => {
    await begin();
    const { jobId, tasks } = await compact();
    expect(tasks).toBe(0);
    expect((await job(jobId)).tasks).toEqual([]);
    await expect(job(1)).rejects.toThrow(/compaction not found/);
  });
});

describe('delta logs', () => {
  const logs = async () =>
    (await world.meta.range({ prefix: keys.deltas(collection) })).entries.map((entry) => DeltaLogRecord.decode(entry.value));

  test('go when every segment that they may hit was compacted with them, some time after; others stay', async () => {
    await begin({ settings: { compactionDeltaKeepMs: 200 } });
    await flushed(2);
    const applied = await flushDeletes(world, collection, 10, 40);
    const late = { ...(await flushDeletes(world, collection, 10, 40)), lastSequence: 100 };
    await world.meta.txn({ then: [{ kind: 'put', key: keys.delta(collection, late.id), value: DeltaLogRecord.encode(late).finish() }] });
    const { jobId } = await compact();
    await ended(jobId);
    expect((await logs()).map((log) => log.droppedTs)).toEqual([0, 0]);
    const [result] = await sealed();
    const inputDropped = timestampMs((await segment(result?.compactedFrom[0] ?? 0))?.droppedTs ?? 0);
    await world.until(async () => (await logs()).some((log) => log.droppedTs > 0), 'retired');
    expect(world.runtime.now()).toBeGreaterThanOrEqual(inputDropped + 200);
    await world.runtime.sleep(1_100);
    const retired = new Set((await logs()).filter((log) => log.droppedTs > 0).map((log) => log.id));
    expect(retired).toEqual(new Set([applied.id]));
  });
});
