import { CairnError } from '@cairn/base';
import { keys } from '@cairn/catalog';
import {
  DeltaLogRecord,
  type RestoreJobRecord,
  RestoreJobState,
  SegmentIndexRecord,
  SegmentRecord,
  ShardRecord,
} from '@cairn/proto/cairn/meta';
import { ListRestoreJobsRequest, type RestoreSnapshotRequest } from '@cairn/proto/cairn/services';
import type { CallContext } from '@cairn/rpc';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { DataCoordSettings } from '../src/index.ts';
import { flushDeletes, sealSegment } from './contents.ts';
import { World } from './world.ts';

let world: World;
let source: number;
let segments: SegmentRecord[];
let copied: number;
afterEach(() => world.stop());

beforeEach(() => begin());

async function begin(settings: Partial<DataCoordSettings> = {}): Promise<void> {
  world = new World({ settings: { copyTaskItems: 2, ...settings } });
  copied = 0;
  const copy = world.objects.copy.bind(world.objects);
  world.objects.copy = (...args) => {
    copied++;
    return copy(...args);
  };
  await world.node('streaming', 's1');
  await world.node('datanode', 'd1');
  await world.coordinator('a');
  source = (await world.createCollection('a', 'books')).id;
  await world.submit('a', { $case: 'createPartition', value: { database: '', collection: 'books', name: 'old', id: 0 } });
  const indexId = (await world.createIndex('a', 'books')).id;
  const partitions = (await world.meta.range({ prefix: keys.partitions(source) })).entries.map((entry) =>
    Number(entry.key.split('/').at(-1)),
  );
  segments = [];
  for (let n = 0; n < 5; n++)
    segments.push(
      await sealSegment(world, { collection: source, partition: partitions[n % 2], shard: n % 2, minTs: 5, maxTs: 50, indexId }),
    );
  await flushDeletes(world, source, 7, 70);
  await takeSnapshot('books', 's1');
}

const takeSnapshot = (collection: string, name: string) =>
  world.client('a').createSnapshot({ requestId: '', database: '', collection, name, description: '', compactionProtectionSeconds: 0 });

function requestOf(target: string, more: Partial<RestoreSnapshotRequest> = {}, collection = 'books', name = 's1'): RestoreSnapshotRequest {
  return {
    snapshot: { database: '', collection, name, id: 0 },
    targetDatabase: '',
    targetCollection: target,
    noIndex: false,
    shards: 0,
    rewriteData: false,
    mode: '',
    requestId: '',
    partitions: [],
    ...more,
  };
}
const restore = (target: string, more: Partial<RestoreSnapshotRequest> = {}, node = 'a') =>
  world.client(node).restoreSnapshot(requestOf(target, more));

async function ended(jobId: number, node = 'a'): Promise<RestoreJobRecord> {
  await world.until(
    async () => (await world.client(node).getRestoreJob({ jobId })).state >= RestoreJobState.RESTORE_COMPLETED,
    'the job ends',
  );
  return world.client(node).getRestoreJob({ jobId });
}

async function segmentsOf(collection: number): Promise<SegmentRecord[]> {
  return (await world.meta.range({ prefix: keys.segments(collection) })).entries.map((entry) => SegmentRecord.decode(entry.value));
}
async function buildsOf(collection: number): Promise<SegmentIndexRecord[]> {
  return (await world.meta.range({ prefix: keys.segmentIndexes(collection) })).entries.map((entry) =>
    SegmentIndexRecord.decode(entry.value),
  );
}
async function logsOf(collection: number): Promise<DeltaLogRecord[]> {
  return (await world.meta.range({ prefix: keys.deltas(collection) })).entries.map((entry) => DeltaLogRecord.decode(entry.value));
}
const crcs = (list: readonly SegmentRecord[]) => list.flatMap((segment) => segment.objects.map((object) => object.crc32c)).sort();

/** A datanode that holds every task until its caller goes. */
function hold(): void {
  world.task = async function* (_request, { signal }: CallContext) {
    await new Promise((_, reject) => {
      const gone = () => reject(new Error('gone'));
      if (signal.aborted) gone();
      else signal.addEventListener('abort', gone);
    });
    yield { doneBytes: 0, doneObjects: 0, finished: true, objects: [], rows: 0, compacted: undefined, rewritten: [] };
  };
}

describe('clone by reference', () => {
  test('the clone has every segment, delete log and index under its own ids, refers to the objects of the snapshot, and copies none', async () => {
    const job = await ended((await restore('clone', { mode: 'reference' })).jobId);
    expect(job).toMatchObject({
      state: RestoreJobState.RESTORE_COMPLETED,
      mode: 'reference',
      totalSegments: 5,
      copiedSegments: 5,
      totalBytes: 0,
      copiedBytes: 0,
      totalRows: 50,
    });
    expect(copied).toBe(0);
    expect((await world.objects.list(`segments/${job.targetCollectionId}/`)).objects).toEqual([]);
    const clones = await segmentsOf(job.targetCollectionId);
    expect(new Set(clones.map((segment) => segment.prefix))).toEqual(new Set(segments.map((segment) => segment.prefix)));
    expect(clones.flatMap((segment) => segment.objects.map((object) => object.key)).sort()).toEqual(
      segments.flatMap((segment) => segment.objects.map((object) => object.key)).sort(),
    );
    for (const clone of clones) {
      expect(clone).toMatchObject({ collectionId: job.targetCollectionId, group: job.group, firstSequence: 0, lastSequence: 0 });
      expect(clone.asOf).toBeGreaterThan(0);
      expect(segments.map((segment) => segment.id)).not.toContain(clone.id);
      expect(segments.map((segment) => segment.partitionId)).not.toContain(clone.partitionId);
    }
    expect(await logsOf(job.targetCollectionId)).toMatchObject([{ shard: 0, rows: 2, firstSequence: 0 }]);
    const builds = await buildsOf(job.targetCollectionId);
    expect(new Set(builds.map((build) => build.segmentId))).toEqual(new Set(clones.map((segment) => segment.id)));
    expect((await world.meta.range({ prefix: keys.pins })).entries).toEqual([]);
    expect((await world.client('a').listSegments({ collectionId: job.targetCollectionId })).segments).toHaveLength(5);
  });

  test('a snapshot of a clone restores by copy and by reference; source, snapshot and clone are dropped in any order', async () => {
    const clone = await ended((await restore('clone', { mode: 'reference' })).jobId);
    await takeSnapshot('clone', 's2');
    await world.client('a').dropSnapshot({ database: '', collection: 'books', name: 's1', id: 0 });
    await world.submit('a', { $case: 'dropCollection', value: { database: '', name: 'books', collectionId: 0 } });
    for (const mode of ['copy', 'reference']) {
      const { jobId } = await world.client('a').restoreSnapshot(requestOf(`again_${mode}`, { mode }, 'clone', 's2'));
      const job = await ended(jobId);
      expect(job).toMatchObject({ state: RestoreJobState.RESTORE_COMPLETED, reason: '' });
      expect(crcs(await segmentsOf(job.targetCollectionId))).toEqual(crcs(segments));
    }
    await world.client('a').dropSnapshot({ database: '', collection: 'clone', name: 's2', id: 0 });
    await world.submit('a', { $case: 'dropCollection', value: { database: '', name: 'clone', collectionId: 0 } });
    // Well over the grace time and the sweep's period of this world: the last clone's objects are all there.
    await world.runtime.sleep(600);
    const again = (
      await world.client('a').listRestoreJobs(ListRestoreJobsRequest.fromPartial({ database: '', collection: 'again_reference' }))
    ).jobs[0];
    for (const segment of await segmentsOf(again.targetCollectionId))
      for (const object of segment.objects) expect((await world.objects.get(object.key)).length).toBe(object.size);
    expect(clone.targetCollectionId).not.toBe(again.targetCollectionId);
  });

  test('a leader that ends anywhere while a clone is made leaves a clone that is whole, or nothing, and never a record twice', async () => {
    for (let steps = 0; steps < 8; steps++) {
      const name = `clone${steps}`;
      const started = restore(name, { mode: 'reference' }, steps === 0 ? 'a' : `n${steps - 1}`).catch((error: unknown) => error);
      for (let step = 0; step < steps * 4; step++) await Promise.resolve();
      if (steps % 2 === 1) await world.runtime.sleep(steps / 2);
      await world.stopCoordinators();
      await started;
      const node = `n${steps}`;
      await world.coordinator(node);
      await world.until(async () => {
        const { jobs } = await world.client(node).listRestoreJobs(ListRestoreJobsRequest.fromPartial({ database: '', collection: name }));
        const intents = (await world.meta.range({ prefix: keys.restoreIntents })).entries;
        return intents.length === 0 && jobs.every((job) => job.state === RestoreJobState.RESTORE_COMPLETED);
      }, `clone ${steps} is done or absent`);
      const { jobs } = await world.client(node).listRestoreJobs(ListRestoreJobsRequest.fromPartial({ database: '', collection: name }));
      for (const job of jobs) expect(crcs(await segmentsOf(job.targetCollectionId))).toEqual(crcs(segments));
      expect((await world.meta.range({ prefix: keys.pins })).entries).toEqual([]);
    }
  });

  test('an unknown mode is refused by name', async () => {
    await expect(restore('clone', { mode: 'move' })).rejects.toMatchObject({ code: 1100, message: expect.stringContaining("'move'") });
  });
});

describe('what is restored', () => {
  test.each(['copy', 'reference'])('only chosen partitions (%s): their segments, and the delete logs of whole shards', async (mode) => {
    const job = await ended((await restore('part', { mode, partitions: ['old'] })).jobId);
    expect(job).toMatchObject({ state: RestoreJobState.RESTORE_COMPLETED, totalSegments: 2, totalRows: 20, partitions: ['old'] });
    expect(crcs(await segmentsOf(job.targetCollectionId))).toEqual(crcs(segments.filter((_, at) => at % 2 === 1)));
    expect(await logsOf(job.targetCollectionId)).toHaveLength(1);
    expect((await buildsOf(job.targetCollectionId)).length).toBe(2);
  });

  test.each(['copy', 'reference'])('segments of a partition dropped from a restored collection are dropped (%s)', async (mode) => {
    const job = await ended((await restore('less', { mode })).jobId);
    await world.submit('a', { $case: 'dropPartition', value: { database: '', collection: 'less', name: 'old' } });
    const dropped = async () => (await segmentsOf(job.targetCollectionId)).filter((segment) => segment.droppedTs > 0);
    await world.until(async () => (await dropped()).length > 0, 'its segments are dropped');
    expect((await dropped()).length).toBe(2);
    await world.submit('a', { $case: 'dropCollection', value: { database: '', name: 'less', collectionId: 0 } });
    await world.until(async () => (await dropped()).length === 5, 'all are dropped with the collection');
  });

  test('an unknown partition is refused by name and nothing is left', async () => {
    await expect(restore('part', { partitions: ['old', 'new', 'newer'] })).rejects.toMatchObject({
      code: 1100,
      message: 'snapshot s1 has no partition new, newer',
    });
    for (const prefix of [keys.restoreIntents, keys.pins, keys.groups, keys.copyTasks])
      expect((await world.meta.range({ prefix })).entries).toEqual([]);
    expect((await ended((await restore('part')).jobId)).state).toBe(RestoreJobState.RESTORE_COMPLETED);
  });

  test.each(['copy', 'reference'])('without indexes (%s) the target has none, neither their records nor their objects', async (mode) => {
    const job = await ended((await restore('plain', { mode, noIndex: true })).jobId);
    expect(job.state).toBe(RestoreJobState.RESTORE_COMPLETED);
    expect((await world.meta.range({ prefix: keys.indexes(job.targetCollectionId) })).entries).toEqual([]);
    expect(await buildsOf(job.targetCollectionId)).toEqual([]);
    expect(await segmentsOf(job.targetCollectionId)).toHaveLength(5);
  });

  test('shards of the target begin at the start of its own log', async () => {
    const job = await ended((await restore('clone', { mode: 'reference' })).jobId);
    const shards = (await world.meta.range({ prefix: keys.shards(job.targetCollectionId) })).entries;
    expect(shards.map((entry) => ShardRecord.decode(entry.value).shard)).toEqual([0, 1]);
  });
});

describe('plan, repeat, cancel', () => {
  test('a dry run says what would be copied and what stands in its way, and changes nothing', async () => {
    const before = (await world.meta.range({ prefix: '' })).entries.length;
    const plan = await world.client('a').planRestore(requestOf('copy'));
    const bytes = segments.flatMap((segment) => segment.objects).reduce((sum, object) => sum + object.size, 0);
    expect(plan).toMatchObject({ segments: 5, deltaLogs: 1, objects: 16, rows: 50, mode: 'copy', conflicts: [], estimateMs: 0 });
    expect(plan.bytes).toBeGreaterThan(bytes);
    expect(plan.partitions).toEqual(['_default', 'old']);
    expect(plan.indexes).toHaveLength(1);
    expect((await world.client('a').planRestore(requestOf('copy', { mode: 'reference' }))).bytes).toBe(0);
    const bad = await world.client('a').planRestore(requestOf('books', { partitions: ['new'] }));
    expect(bad.conflicts).toEqual([
      'target collection books already exists in database default (duplicate collection)',
      'snapshot s1 has no partition new',
    ]);
    expect((await world.meta.range({ prefix: '' })).entries.length).toBe(before);
  });

  test('a repeated restore under one request id gets the first job, at once, later, and from the next leader', async () => {
    const more = { requestId: 'r1' };
    const [first, second] = await Promise.all([restore('copy', more), restore('copy', more)]);
    expect(second.jobId).toBe(first.jobId);
    await ended(first.jobId);
    expect((await restore('copy', more)).jobId).toBe(first.jobId);
    await world.stopCoordinators();
    await world.coordinator('b');
    expect((await restore('copy', more, 'b')).jobId).toBe(first.jobId);
    await expect(restore('copy', { requestId: 'r2' }, 'b')).rejects.toMatchObject({ code: 1100 });
  });

  test('a repeated pin under one request id gets the first pin', async () => {
    const snapshot = { database: '', collection: 'books', name: 's1', id: 0 };
    const pin = (requestId: string, node = 'a') => world.client(node).pinSnapshot({ snapshot, ttlSeconds: 0, requestId });
    const pins = await Promise.all([pin('p1'), pin('p1'), pin('p2'), pin(''), pin('')]);
    expect(new Set(pins.map(({ pinId }) => pinId)).size).toBe(4);
    expect(pins[1]).toEqual(pins[0]);
    await world.stopCoordinators();
    await world.coordinator('b');
    expect(await pin('p1', 'b')).toEqual(pins[0]);
  });

  test('a cancelled job answers when nothing of it is left; its name is free at once; a job that is over is answered as it is', async () => {
    hold();
    const { jobId } = await restore('copy');
    await world.until(async () => (await world.meta.range({ prefix: keys.copyTasks })).entries.length > 0, 'tasks are planned');
    const job = await world.client('a').cancelRestoreJob({ jobId });
    expect(job).toMatchObject({ state: RestoreJobState.RESTORE_CANCELLED, reason: 'cancelled' });
    expect(job.endMs).toBeGreaterThan(0);
    for (const prefix of [keys.pins, keys.groups, keys.copyTasks, keys.segments(job.targetCollectionId)])
      expect((await world.meta.range({ prefix })).entries).toEqual([]);
    world.task = (request) => world.copyForReal(request);
    const again = await ended((await restore('copy')).jobId);
    expect(again.state).toBe(RestoreJobState.RESTORE_COMPLETED);
    expect(await world.client('a').cancelRestoreJob({ jobId: again.id })).toEqual(again);
    await expect(world.client('a').cancelRestoreJob({ jobId: 42 })).rejects.toMatchObject({ code: 2100 });
  });

  test('cancelled at any moment a job ends Cancelled and gone, or Completed and whole', async () => {
    for (let round = 0; round < 12; round++) {
      const mode = round % 2 === 0 ? 'copy' : 'reference';
      const { jobId } = await restore(`copy${round}`, { mode });
      await world.runtime.sleep(round / 2);
      const job = await world.client('a').cancelRestoreJob({ jobId });
      const left = await segmentsOf(job.targetCollectionId);
      if (job.state === RestoreJobState.RESTORE_CANCELLED) expect(left).toEqual([]);
      else {
        expect(job.state).toBe(RestoreJobState.RESTORE_COMPLETED);
        expect(crcs(left)).toEqual(crcs(segments));
      }
    }
    expect((await world.meta.range({ prefix: keys.pins })).entries).toEqual([]);
  });
});

describe('admission and lists', () => {
  const listed = async (filter: Partial<ListRestoreJobsRequest>) =>
    (await world.client('a').listRestoreJobs(ListRestoreJobsRequest.fromPartial(filter))).jobs
      .map((job) => job.targetCollectionName)
      .sort();

  test('restore jobs of one collection above its limit, and in all above theirs, are refused with code 4, retriable, and admitted when others end', async () => {
    await world.stop();
    await begin({ restoreMaxJobs: 3, restoreMaxJobsPerCollection: 2 });
    await world.createCollection('a', 'maps');
    await takeSnapshot('maps', 's1');
    hold();
    const first = await restore('one');
    const tries = await Promise.allSettled([restore('two'), restore('three'), restore('four')]);
    expect(tries.map((one) => one.status).sort()).toEqual(['fulfilled', 'rejected', 'rejected']);
    for (const one of tries)
      if (one.status === 'rejected')
        expect(one.reason).toMatchObject({ code: 4, retriable: true, message: expect.stringContaining('maxJobsPerCollection') });
    world.task = (request) => world.copyForReal(request);
    expect((await ended((await world.client('a').restoreSnapshot(requestOf('map', {}, 'maps'))).jobId)).state).toBe(
      RestoreJobState.RESTORE_COMPLETED,
    );
    await world.client('a').cancelRestoreJob(first);
    expect((await ended((await restore('five')).jobId)).state).toBe(RestoreJobState.RESTORE_COMPLETED);
  });

  test('jobs are listed by either side, by source and by target, by old names, new ones and aliases, also of collections that are gone', async () => {
    await ended((await restore('one')).jobId);
    await takeSnapshot('one', 's1');
    await ended((await world.client('a').restoreSnapshot(requestOf('two', {}, 'one'))).jobId);
    await world.submit('a', { $case: 'renameCollection', value: { database: '', name: 'one', newName: 'uno', newDatabase: '' } });
    await world.submit('a', { $case: 'dropCollection', value: { database: '', name: 'two', collectionId: 0 } });
    await world.submit('a', { $case: 'createAlias', value: { database: '', collection: 'uno', alias: 'ein' } });
    for (const name of ['one', 'uno', 'ein']) {
      expect(await listed({ collection: name })).toEqual(['one', 'two']);
      expect(await listed({ sourceCollection: name, sourceDatabase: 'default' })).toEqual(['two']);
      expect(await listed({ targetCollection: name })).toEqual(['one']);
    }
    expect(await listed({ targetCollection: 'two' })).toEqual(['two']);
    expect(await listed({ sourceCollection: 'books', targetCollection: 'two' })).toEqual([]);
    expect(await listed({ targetDatabase: 'other' })).toEqual([]);
  });

  test('progress never goes back, has a rate and a time, and is whole only at Completed', async () => {
    const { jobId } = await restore('one');
    const seen: RestoreJobRecord[] = [];
    for (;;) {
      const job = await world.client('a').getRestoreJob({ jobId });
      seen.push(job);
      if (job.state === RestoreJobState.RESTORE_COMPLETED) break;
      await world.runtime.sleep(1);
    }
    const bytes = seen.map((job) => job.copiedBytes);
    expect(bytes).toEqual([...bytes].sort((a, b) => a - b));
    const last = seen.at(-1);
    expect(last).toMatchObject({ copiedBytes: last?.totalBytes, timeCostMs: (last?.endMs ?? 0) - (last?.startMs ?? 0), etaMs: 0 });
    expect(seen.every((job) => job.timeCostMs >= 0 && job.startMs > 0)).toBe(true);
  });

  test('rows written anew go as tasks of one partition to one segment a shard, with indexes, and a lost task writes elsewhere', async () => {
    await world.stop();
    await begin({ indexMinRows: 1 });
    const prefixes: string[][] = [];
    let lost = 0;
    world.task = async function* (request) {
      const done = { doneBytes: 0, doneObjects: 0, finished: true, objects: [], rows: 0, compacted: undefined, rewritten: [] };
      if (request.task?.$case === 'rewrite') {
        prefixes.push(request.task.value.prefixes);
        if (lost++ === 0) throw new CairnError('Unavailable', 'lost');
        const [only] = new Set(request.task.value.segments.map((segment) => segment.partitionId));
        expect(request.task.value.segments.every((segment) => segment.partitionId === only)).toBe(true);
        const objects = [await world.objects.put(`${request.task.value.prefixes[2]}scalars.arrow`, Buffer.from('rows'))];
        const refs = objects.map(({ key, size, etag }) => ({ key, size, etag, crc32c: 0, role: 'scalars', fieldId: 0 }));
        const segment = { shard: 2, rows: 4, minTs: 5, maxTs: 50, bytes: 4, contentHash: '', objects: refs, purgedTs: 7 };
        yield { ...done, rewritten: [segment] };
      } else if (request.task?.$case === 'buildIndex') {
        const { key } = request.task.value;
        const { size, etag } = await world.objects.put(key, Buffer.from('index'));
        yield { ...done, rows: 4, objects: [{ key, size, etag, crc32c: 0, role: 'index', fieldId: 101 }] };
      }
    };
    const job = await ended((await restore('anew', { shards: 4 })).jobId);
    expect(job).toMatchObject({ state: RestoreJobState.RESTORE_COMPLETED, shards: 4, rewriteData: true, mode: 'copy' });
    expect(prefixes.length).toBe(new Set(prefixes.flat()).size / 4);
    const made = await segmentsOf(job.targetCollectionId);
    expect(made.map((segment) => [segment.shard, segment.rows, segment.asOf])).toEqual(made.map(() => [2, 4, 0]));
    expect((await buildsOf(job.targetCollectionId)).map((build) => build.segmentId).sort()).toEqual(
      made.map((segment) => segment.id).sort(),
    );
    expect(await logsOf(job.targetCollectionId)).toEqual([]);
    expect((await world.meta.range({ prefix: keys.shards(job.targetCollectionId) })).entries).toHaveLength(4);
  });
});
