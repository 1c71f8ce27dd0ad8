import { paths } from '@cairn/catalog';
import {
  CopyTaskRecord,
  CopyTaskState,
  type DeltaLogRecord,
  type ObjectRef,
  type SegmentIndexRecord,
  type SegmentRecord,
} from '@cairn/proto/cairn/meta';
import type { CopyObject } from '@cairn/proto/cairn/services';
import { targetBuild, targetDeltaLog, targetSegment } from './copy-records.ts';
import type { CopySource } from './copy-source.ts';

/** Splits the snapshot into tasks of bounded bytes and items. `ids`: one for each task, segment and delta log, in that order of use. */
export function planTasks(
  source: CopySource,
  jobId: number,
  limits: { bytes: number; items: number },
  nextId: () => number,
): CopyTaskRecord[] {
  const tasks: CopyTaskRecord[] = [];
  const open = (): CopyTaskRecord => {
    const last = tasks.at(-1);
    if (last && last.bytes < limits.bytes && last.sourceSegmentIds.length + last.sourceDeltaIds.length < limits.items) return last;
    const task = CopyTaskRecord.fromPartial({ id: nextId(), jobId, state: CopyTaskState.COPY_PENDING });
    tasks.push(task);
    return task;
  };
  for (const segment of source.segments) {
    const task = open();
    task.sourceSegmentIds.push(segment.id);
    task.targetSegmentIds.push(nextId());
    task.bytes += source.objectsOf(segment).reduce((sum, object) => sum + object.size, 0);
  }
  for (const log of source.deltaLogs) {
    const task = open();
    task.sourceDeltaIds.push(log.id);
    task.targetDeltaIds.push(nextId());
    task.bytes += log.object?.size ?? 0;
  }
  return tasks;
}

/** Ids that planTasks takes at most. */
export function idsToPlan(source: CopySource): number {
  return 2 * (source.segments.length + source.deltaLogs.length);
}

/** One dispatch of a task: what to copy where, and the records that make the copies part of the target once all is there. */
export interface CopyOrder {
  readonly objects: CopyObject[];
  /** Prefixes of the object store that it writes. */
  readonly prefixes: string[];
  /** Records of the copies; `copied` are the targets' object references in the order of `objects`. */
  records(copied: readonly ObjectRef[]): { segments: SegmentRecord[]; deltaLogs: DeltaLogRecord[]; builds: SegmentIndexRecord[] };
}

/**
 * The keys carry the epoch (generation `j<job>e<epoch>`), so a late worker of an earlier dispatch writes elsewhere. `buildId` is for the target's
 * index builds.
 */
export function orderCopies(source: CopySource, task: CopyTaskRecord, epoch: number, buildId: () => number): CopyOrder {
  const generation = `j${task.jobId}e${epoch}`;
  const objects: CopyObject[] = [];
  const prefixes: string[] = [];
  const copy = (from: ObjectRef, targetKey: string): number => objects.push({ source: from, targetKey }) - 1;
  type Make<T> = (copied: readonly ObjectRef[]) => T;
  const segments: Make<SegmentRecord>[] = [];
  const deltaLogs: Make<DeltaLogRecord>[] = [];
  const builds: Make<SegmentIndexRecord>[] = [];

  task.sourceSegmentIds.forEach((sourceId, at) => {
    const segment = source.segment(sourceId);
    const record = targetSegment(source, segment, task.targetSegmentIds[at]);
    const prefix = paths.segment(record.collectionId, record.partitionId, record.id, generation);
    prefixes.push(prefix);
    const own = segment.objects.map((object) => copy(object, prefix + nameIn(segment.prefix, object.key)));
    segments.push((copied) => ({ ...record, generation, prefix, objects: own.map((position) => copied[position]) }));
    for (const build of source.buildsOf(sourceId)) {
      const made = targetBuild(source, build, record.id, buildId());
      const position = build.object ? copy(build.object, `${prefix}index.${build.fieldId}.${made.buildId}`) : undefined;
      builds.push((copied) => ({ ...made, object: position === undefined ? undefined : copied[position] }));
    }
  });
  task.sourceDeltaIds.forEach((sourceId, at) => {
    const log = source.deltaLog(sourceId);
    const id = task.targetDeltaIds[at];
    const key = paths.delta(source.target.id, log.shard, id, generation);
    prefixes.push(key);
    const position = log.object ? copy(log.object, key) : undefined;
    deltaLogs.push((copied) => targetDeltaLog(source, log, id, position === undefined ? undefined : copied[position]));
  });
  return {
    objects,
    prefixes,
    records: (copied) => ({
      segments: segments.map((make) => make(copied)),
      deltaLogs: deltaLogs.map((make) => make(copied)),
      builds: builds.map((make) => make(copied)),
    }),
  };
}

/** Name of an object inside its segment. */
function nameIn(prefix: string, key: string): string {
  return key.startsWith(prefix) ? key.slice(prefix.length) : key.slice(key.lastIndexOf('/') + 1);
}
