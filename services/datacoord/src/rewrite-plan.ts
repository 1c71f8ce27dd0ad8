import type { Logger } from '@cairn/base';
import { paths } from '@cairn/catalog';
import { CopyTaskRecord, CopyTaskState, type SegmentIndexRecord, SegmentRecord, SegmentState } from '@cairn/proto/cairn/meta';
import type { RewrittenSegment, TaskUpdate } from '@cairn/proto/cairn/services';
import { mayDelete } from '@cairn/segment';
import type { Ids } from './change-preparer.ts';
import type { CopySource } from './copy-source.ts';
import type { DataCoordSettings } from './settings.ts';
import type { TaskOrder } from './task-order.ts';
import type { TaskRunner } from './task-runner.ts';
import { buildUnrecorded } from './unrecorded-builds.ts';

/** Stored bytes of the segments that one rewriting task takes at most, a larger segment alone: its datanode holds about as much in memory. */
export const REWRITE_TASK_BYTES = 64 * 1024 * 1024;

/**
 * Groups the snapshot's segments into tasks, each of one partition, whatever their shards: rows of one task go to one segment a shard of the target.
 * Takes one id a task and one a target shard. Delta logs are no task's: each takes those that hit its segments.
 */
export function planRewrites(
  source: CopySource,
  jobId: number,
  limits: { bytes: number; items: number },
  nextId: () => number,
): CopyTaskRecord[] {
  const shards = source.target.shards.length;
  const tasks: CopyTaskRecord[] = [];
  const open = new Map<number, CopyTaskRecord>();
  for (const segment of source.segments) {
    const bytes = segment.objects.reduce((sum, object) => sum + object.size, 0);
    let task = open.get(segment.partitionId);
    if (!task || task.bytes + bytes > limits.bytes || task.sourceSegmentIds.length >= limits.items) {
      const targetSegmentIds = Array.from({ length: shards }, nextId);
      task = CopyTaskRecord.fromPartial({ id: nextId(), jobId, state: CopyTaskState.COPY_PENDING, targetSegmentIds });
      tasks.push(task);
      open.set(segment.partitionId, task);
    }
    task.sourceSegmentIds.push(segment.id);
    task.bytes += bytes;
  }
  return tasks;
}

/** Ids that planRewrites takes at most. */
export function idsToRewrite(source: CopySource): number {
  return source.segments.length * (1 + source.target.shards.length);
}

export interface RewriteOptions {
  readonly ids: Ids;
  readonly tasks: TaskRunner;
  readonly settings: DataCoordSettings;
  readonly logger: Logger;
}

/** The keys carry the epoch, as those of copies do. Indexes of what was written are built before its records are staged. */
export function orderRewrite(
  options: RewriteOptions,
  source: CopySource,
  task: CopyTaskRecord,
  epoch: number,
  signal: AbortSignal,
): TaskOrder {
  const generation = `j${task.jobId}e${epoch}`;
  const segments = task.sourceSegmentIds.map((id) => source.segment(id));
  const [first] = segments;
  const partitionId = source.partitionId(first.partitionId, `segment ${first.id}`);
  const prefixes = task.targetSegmentIds.map((id) => paths.segment(source.target.id, partitionId, id, generation));
  const deltaLogs = source.deltaLogs.filter((log) => segments.some((segment) => mayDelete(log, segment)));
  const record = (written: RewrittenSegment): SegmentRecord =>
    SegmentRecord.fromPartial({
      id: task.targetSegmentIds[written.shard],
      collectionId: source.target.id,
      partitionId,
      shard: written.shard,
      generation,
      prefix: prefixes[written.shard],
      rows: written.rows,
      minTs: written.minTs,
      maxTs: written.maxTs,
      objects: written.objects,
      state: SegmentState.SEGMENT_SEALED,
      group: source.group,
      sorted: true,
      contentHash: written.contentHash,
      schemaVersion: source.target.schemaVersion,
      bytes: written.bytes,
      purgedTs: Math.max(written.purgedTs, ...segments.map((segment) => segment.purgedTs)),
    });
  return {
    work: { $case: 'rewrite', value: { schema: source.target.schema, segments, deltaLogs, prefixes } },
    prefixes,
    objects: segments.reduce((sum, segment) => sum + segment.objects.length, 0),
    records: async (update: TaskUpdate) => {
      const made = update.rewritten.map(record);
      const builds: SegmentIndexRecord[] = [];
      const { target: collection, indexes, group } = source;
      for (const segment of made) builds.push(...(await buildUnrecorded(options, { collection, indexes, segment, epoch, group }, signal)));
      return { segments: made, deltaLogs: [], builds };
    },
  };
}
