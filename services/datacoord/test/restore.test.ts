import { CairnError } from '@cairn/base';
import { keys } from '@cairn/catalog';
import type { MetaEntry } from '@cairn/meta';
import {
  DeltaLogRecord,
  GroupRecord,
  type RestoreJobRecord,
  RestoreJobState,
  SegmentIndexRecord,
  SegmentRecord,
  ShardRecord,
} from '@cairn/proto/cairn/meta';
import { ListRestoreJobsRequest } from '@cairn/proto/cairn/services';
import type { CallContext } from '@cairn/rpc';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { collectionRecord, flushDeletes, sealSegment } from './contents.ts';
import { World, type WorldOptions } from './world.ts';

let world: World;
let source: number;
let segments: SegmentRecord[];
afterEach(() => world.stop());

async function begin(options: WorldOptions = {}): Promise<void> {
  world = new World(options);
  await world.node('streaming', 's1');
  await world.node('datanode', 'd1');
  await world.coordinator('a');
  source = (await world.createCollection('a', 'books')).id;
  await world.submit('a', { $case: 'createPartition', value: { database: '', collection: 'books', name: 'old', id: 0 } });
  const indexId = (await world.createIndex('a', 'books')).id;
  const partitions = (await entries(keys.partitions(source))).map((entry) => Number(entry.key.split('/').at(-1)));
  segments = [];
  for (let n = 0; n < 5; n++)
    segments.push(
      await sealSegment(world, { collection: source, partition: partitions[n % 2], shard: n % 2, minTs: 5, maxTs: 50, indexId }),
    );
  await flushDeletes(world, source, 7, 70);
  await world
    .client('a')
    .createSnapshot({ requestId: '', database: '', collection: 'books', name: 's1', description: '', compactionProtectionSeconds: 0 });
}
beforeEach(() => begin({ settings: { copyTaskItems: 2 } }));

async function entries(prefix: string): Promise<readonly MetaEntry[]> {
  return (await world.meta.range({ prefix })).entries;
}
const restore = (target: string, node = 'a') =>
  world.client(node).restoreSnapshot({
    snapshot: { database: '', collection: 'books', name: 's1', id: 0 },
    targetDatabase: '',
    targetCollection: target,
    noIndex: false,
    shards: 0,
    rewriteData: false,
    mode: '',
    requestId: '',
    partitions: [],
  });

/** Rejects when the caller has gone; a task that never ends by itself. */
function left({ signal }: CallContext): Promise<never> {
  return new Promise((_, reject) => {
    const gone = () => reject(new Error('gone'));
    if (signal.aborted) gone();
    else signal.addEventListener('abort', gone);
  });
}

async function ended(jobId: number, node = 'a'): Promise<RestoreJobRecord> {
  let job: RestoreJobRecord | undefined;
  await world.until(async () => {
    job = await world.client(node).getRestoreJob({ jobId });
    return job.state >= RestoreJobState.RESTORE_COMPLETED;
  }, 'the job ends');
  return job as RestoreJobRecord;
}

/** Nothing of a restore is left but its job. */
async function expectUndone(targetId?: number): Promise<void> {
  expect(await entries(keys.restoreIntents)).toEqual([]);
  expect(await entries(keys.copyTasks)).toEqual([]);
  expect(await entries(keys.pins)).toEqual([]);
  expect(await entries(keys.groups)).toEqual([]);
  expect((await entries(keys.allSegments)).length).toBe(segments.length);
  expect((await entries(keys.allDeltas)).length).toBe(1);
  if (targetId !== undefined) {
    await world.until(
      async () => (await world.objects.list(`segments/${targetId}/`)).objects.length === 0,
      'objects of the target are gone',
    );
    await world.until(async () => (await entries(keys.shards(targetId))).length === 0, 'shards of the target are gone');
  }
}

describe('restore', () => {
  test('the target is complete, under its own ids, and visible only when the job is Completed', async () => {
    const { jobId } = await restore('copy');
    const job = await ended(jobId);
    expect(job).toMatchObject({
      state: RestoreJobState.RESTORE_COMPLETED,
      totalSegments: 5,
      copiedSegments: 5,
      totalObjects: 16,
      copiedObjects: 16,
      totalRows: 50,
    });
    expect(job.copiedBytes).toBe(job.totalBytes);
    const target = await collectionRecord(world, job.targetCollectionId);
    expect(target).toMatchObject({ name: 'copy', state: 0, restoreJobId: 0 });
    const group = (await entries(keys.groups)).map((entry) => GroupRecord.decode(entry.value));
    expect(group).toMatchObject([{ group: job.group, published: true }]);
    const copies = (await entries(keys.segments(target.id))).map((entry) => SegmentRecord.decode(entry.value));
    expect(copies).toHaveLength(5);
    const partitionName = new Map<number, string>();
    for (const id of [source, target.id])
      for (const entry of await entries(keys.partitions(id)))
        partitionName.set(
          Number(entry.key.split('/').at(-1)),
          Buffer.from(entry.value)
            .toString('latin1')
            .match(/_default|old/)?.[0] ?? '',
        );
    const shape = (list: readonly SegmentRecord[]) =>
      list
        .map((segment) =>
          [partitionName.get(segment.partitionId), segment.shard, segment.rows, segment.objects.map((object) => object.crc32c)].join(),
        )
        .sort();
    expect(shape(copies)).toEqual(shape(segments));
    for (const copy of copies) {
      expect(copy).toMatchObject({ firstSequence: 0, lastSequence: 0, group: job.group });
      expect(copy.asOf).toBeGreaterThan(0);
      for (const object of copy.objects) expect((await world.objects.get(object.key)).length).toBe(object.size);
    }
    const logs = (await entries(keys.deltas(target.id))).map((entry) => DeltaLogRecord.decode(entry.value));
    expect(logs).toMatchObject([{ shard: 0, rows: 2, firstSequence: 0 }]);
    const builds = (await entries(keys.segmentIndexes(target.id))).map((entry) => SegmentIndexRecord.decode(entry.value));
    const [index] = await entries(keys.indexes(target.id));
    expect(new Set(builds.map((build) => build.indexId))).toEqual(new Set([Number(index?.key.split('/').at(-1))]));
    expect(builds).toHaveLength(5);
    expect((await entries(keys.shards(target.id))).map((entry) => ShardRecord.decode(entry.value).shard)).toEqual([0, 1]);
    expect(await entries(keys.pins)).toEqual([]);
    expect((await world.client('a').listSegments({ collectionId: target.id })).segments).toHaveLength(5);
    const progress = await world.client('a').getIndexProgress({ collectionId: target.id });
    expect(progress.indexes).toMatchObject([{ totalRows: 50, indexedRows: 50, failure: '' }]);
    expect(
      (await world.client('a').listRestoreJobs(ListRestoreJobsRequest.fromPartial({ database: '', collection: 'copy' }))).jobs,
    ).toHaveLength(1);
    expect(
      (await world.client('a').listRestoreJobs(ListRestoreJobsRequest.fromPartial({ database: '', collection: 'books' }))).jobs,
    ).toHaveLength(1);
    expect(
      (await world.client('a').listRestoreJobs(ListRestoreJobsRequest.fromPartial({ database: '', collection: 'other' }))).jobs,
    ).toHaveLength(0);
  });

  test('of two restores to one target one wins; taken names, aliases, unknown snapshots and jobs are refused in the words of the wire', async () => {
    const outcomes = await Promise.allSettled([restore('copy'), restore('copy')]);
    expect(outcomes.map((outcome) => outcome.status).sort()).toEqual(['fulfilled', 'rejected']);
    await expect(restore('copy')).rejects.toMatchObject({
      code: 1100,
      message: 'target collection copy already exists in database default (duplicate collection)',
    });
    await world.submit('a', { $case: 'createAlias', value: { database: '', collection: 'books', alias: 'shelf' } });
    await expect(restore('shelf')).rejects.toThrow('conflicts with an existing alias');
    await expect(restore(' ')).rejects.toMatchObject({ code: 1101, message: 'target_collection_name is required for restore snapshot' });
    await expect(world.client('a').getRestoreJob({ jobId: 42 })).rejects.toMatchObject({
      code: 2100,
      message: 'restore job not found: jobID=42',
    });
  });

  test('a snapshot that is being restored is not dropped, and the target is refused (106) until then', async () => {
    let open = (): void => {};
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    world.task = async function* (request) {
      await gate;
      yield* world.copyForReal(request);
    };
    const { jobId } = await restore('copy');
    await expect(world.client('a').dropSnapshot({ database: '', collection: 'books', name: 's1', id: 0 })).rejects.toMatchObject({
      code: 2601,
    });
    await expect(world.createIndex('a', 'copy')).rejects.toMatchObject({ code: 106 });
    await expect(world.createCollection('a', 'copy')).rejects.toThrow('create duplicate collection');
    // Half of it is in nobody's snapshot, and in no list of segments.
    const ofTarget = { requestId: '', database: '', collection: 'copy', name: 's2', description: '', compactionProtectionSeconds: 0 };
    await expect(world.client('a').createSnapshot(ofTarget)).rejects.toMatchObject({ code: 106, retriable: false });
    const { targetCollectionId: collectionId } = await world.client('a').getRestoreJob({ jobId });
    expect((await world.client('a').listSegments({ collectionId })).segments).toEqual([]);
    open();
    await ended(jobId);
    expect((await world.client('a').listSegments({ collectionId })).segments).toHaveLength(5);
    await world.client('a').createSnapshot(ofTarget);
    await world.client('a').dropSnapshot({ database: '', collection: 'books', name: 's1', id: 0 });
  });
});

describe('what goes wrong', () => {
  test('a damaged object fails the job by name; nothing is left behind and the name is free at once', async () => {
    const bad = segments[3].objects[0].key;
    world.task = async function* (request) {
      const task = request.task;
      if (task?.$case === 'copy' && task.value.objects.some((object) => object.source?.key === bad))
        throw new CairnError('ObjectDamaged', `object ${bad} is damaged`);
      yield* world.copyForReal(request);
    };
    const { jobId } = await restore('copy');
    const job = await ended(jobId);
    expect(job).toMatchObject({ state: RestoreJobState.RESTORE_FAILED, reason: `object ${bad} is damaged` });
    expect(job.endMs).toBeGreaterThan(0);
    await expectUndone(job.targetCollectionId);
    world.task = (request) => world.copyForReal(request);
    await ended((await restore('copy')).jobId);
  });

  test('the task of a lost node goes to another under a new epoch', async () => {
    const second = await world.node('datanode', 'd2');
    const epochs: number[] = [];
    world.task = async function* (request, context) {
      epochs.push(request.epoch);
      if (epochs.length === 1) throw new CairnError('Unavailable', 'lost');
      if (epochs.length === 2) {
        await left(context);
      }
      yield* world.copyForReal(request);
    };
    const { jobId } = await restore('copy');
    await world.until(() => epochs.length >= 2, 'the second dispatch hangs');
    await second.leave();
    const third = await world.node('datanode', 'd3');
    const job = await ended(jobId);
    expect(job.state).toBe(RestoreJobState.RESTORE_COMPLETED);
    expect(Math.max(...epochs)).toBeGreaterThanOrEqual(2);
    await third.leave();
  });

  test('a snapshot whose metadata is damaged leaves neither target nor pin nor intent', async () => {
    const [metadata] = (await world.objects.list(`snapshots/${source}/metadata/`)).objects;
    await world.objects.delete([metadata.key]);
    await expect(restore('copy')).rejects.toThrow(metadata.key);
    await expectUndone();
    expect(await entries('catalog/collection/')).toHaveLength(1);
  });

  test('dropping the target cancels its job', async () => {
    world.task = async function* (_request, context) {
      await left(context);
      yield { doneBytes: 0, doneObjects: 0, finished: true, objects: [], rows: 0, compacted: undefined, rewritten: [] };
    };
    const { jobId } = await restore('copy');
    await world.submit('a', { $case: 'dropCollection', value: { database: '', name: 'copy', collectionId: 0 } });
    const job = await ended(jobId);
    expect(job).toMatchObject({ state: RestoreJobState.RESTORE_CANCELLED, reason: expect.stringContaining('cancelled') });
    await expectUndone(job.targetCollectionId);
  });

  test('a new leader goes on with a job', async () => {
    let hang = true;
    world.task = async function* (request, context) {
      if (hang) await left(context);
      yield* world.copyForReal(request);
    };
    const { jobId } = await restore('copy');
    await world.until(async () => (await entries(keys.copyTasks)).length > 0, 'tasks are planned');
    await world.stopCoordinators();
    hang = false;
    await world.coordinator('b');
    expect((await ended(jobId, 'b')).state).toBe(RestoreJobState.RESTORE_COMPLETED);
  });

  test('a leader that ends anywhere while a restore begins leaves a job that completes, or nothing', async () => {
    for (let steps = 0; steps < 8; steps++) {
      const name = `copy${steps}`;
      const started = restore(name, steps === 0 ? 'a' : `n${steps - 1}`).catch((error: unknown) => error);
      for (let step = 0; step < steps * 3; step++) await Promise.resolve();
      if (steps % 2 === 1) await world.runtime.sleep(steps / 2);
      await world.stopCoordinators();
      await started;
      const node = `n${steps}`;
      await world.coordinator(node);
      await world.until(async () => {
        const { jobs } = await world.client(node).listRestoreJobs(ListRestoreJobsRequest.fromPartial({ database: '', collection: name }));
        return (await entries(keys.restoreIntents)).length === 0 && jobs.every((job) => job.state === RestoreJobState.RESTORE_COMPLETED);
      }, `restore ${steps} is done or absent`);
      expect(await entries(keys.pins)).toEqual([]);
    }
  });
});
