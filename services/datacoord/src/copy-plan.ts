import { CairnError } from '@cairn/base';
import { paths } from '@cairn/catalog';
import {
  type CollectionRecord,
  CopyTaskRecord,
  CopyTaskState,
  type DeltaLogRecord,
  type IndexRecord,
  type ObjectRef,
  type PartitionRecord,
  type SegmentIndexRecord,
  type SegmentRecord,
  SegmentState,
} from '@cairn/proto/cairn/meta';
import type { CopyObject } from '@cairn/proto/cairn/services';
import type { SnapshotBundle } from '@cairn/segment';

/** What a restore copies: the snapshot's contents, and how names and ids of the source become those of the target. */
export interface CopySource {
  readonly bundle: SnapshotBundle;
  readonly target: CollectionRecord;
  /** Partitions and indexes of the target. */
  readonly partitions: readonly PartitionRecord[];
  readonly indexes: readonly IndexRecord[];
  readonly withIndexes: boolean;
  readonly group: string;
}

export interface CopyTotals {
  readonly segments: number;
  readonly objects: number;
  readonly bytes: number;
  readonly rows: number;
}

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
  for (const segment of source.bundle.segments) {
    const task = open();
    task.sourceSegmentIds.push(segment.id);
    task.targetSegmentIds.push(nextId());
    task.bytes += objectsOfSegment(source, segment).reduce((sum, object) => sum + object.size, 0);
  }
  for (const log of source.bundle.deltaLogs) {
    const task = open();
    task.sourceDeltaIds.push(log.id);
    task.targetDeltaIds.push(nextId());
    task.bytes += log.object?.size ?? 0;
  }
  return tasks;
}

/** Ids that planTasks takes at most. */
export function idsToPlan(source: CopySource): number {
  return 2 * (source.bundle.segments.length + source.bundle.deltaLogs.length);
}

export function totalsOf(source: CopySource): CopyTotals {
  const { segments, deltaLogs } = source.bundle;
  const objects = [
    ...segments.flatMap((segment) => objectsOfSegment(source, segment)),
    ...deltaLogs.flatMap((log) => (log.object ? [log.object] : [])),
  ];
  return {
    segments: segments.length,
    objects: objects.length,
    bytes: objects.reduce((sum, object) => sum + object.size, 0),
    rows: segments.reduce((sum, segment) => sum + segment.rows, 0),
  };
}

function buildsOfSegment(source: CopySource, segmentId: number): SegmentIndexRecord[] {
  return source.withIndexes
    ? source.bundle.segmentIndexes.filter((build) => build.segmentId === segmentId && targetIndex(source, build))
    : [];
}

function objectsOfSegment(source: CopySource, segment: SegmentRecord): ObjectRef[] {
  return [...segment.objects, ...buildsOfSegment(source, segment.id).flatMap((build) => (build.object ? [build.object] : []))];
}

/** Partitions map by name, never by order. */
function targetPartition(source: CopySource, segment: SegmentRecord): PartitionRecord {
  const from = source.bundle.definition.partitions.find((partition) => partition.id === segment.partitionId);
  const to = from && source.partitions.find((partition) => partition.name === from.name);
  if (!to)
    throw new CairnError(
      'ObjectDamaged',
      `segment ${segment.id} of the snapshot is in partition ${segment.partitionId}, which the snapshot does not name`,
    );
  return to;
}

function targetIndex(source: CopySource, build: SegmentIndexRecord): IndexRecord | undefined {
  const from = source.bundle.definition.indexes.find((index) => index.id === build.indexId);
  return from && source.indexes.find((index) => index.name === from.name && index.fieldId === from.fieldId);
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
 * The keys carry the epoch (generation `j<job>e<epoch>`), so a late worker of an earlier dispatch writes elsewhere. Row timestamps, row ids and as_of
 * are kept; WAL sequences are 0, for none of it is in the target's WAL. `buildId` is for the target's index builds.
 */
export function orderCopies(source: CopySource, task: CopyTaskRecord, epoch: number, buildId: () => number): CopyOrder {
  const { bundle, target, group } = source;
  const generation = `j${task.jobId}e${epoch}`;
  const objects: CopyObject[] = [];
  const prefixes: string[] = [];
  const copy = (from: ObjectRef, targetKey: string): number => objects.push({ source: from, targetKey }) - 1;
  type Make<T> = (copied: readonly ObjectRef[]) => T;
  const segments: Make<SegmentRecord>[] = [];
  const deltaLogs: Make<DeltaLogRecord>[] = [];
  const builds: Make<SegmentIndexRecord>[] = [];

  task.sourceSegmentIds.forEach((sourceId, at) => {
    const segment = itemOf(bundle.segments, sourceId, 'segment');
    const id = task.targetSegmentIds[at];
    const partitionId = targetPartition(source, segment).id;
    const prefix = paths.segment(target.id, partitionId, id, generation);
    prefixes.push(prefix);
    const own = segment.objects.map((object) => copy(object, prefix + nameIn(segment.prefix, object.key)));
    segments.push((copied) => ({
      ...segment,
      id,
      collectionId: target.id,
      partitionId,
      generation,
      prefix,
      objects: own.map((position) => copied[position]),
      state: SegmentState.SEGMENT_SEALED,
      droppedTs: 0,
      firstSequence: 0,
      lastSequence: 0,
      group,
      compactedFrom: [],
    }));
    for (const build of buildsOfSegment(source, sourceId)) {
      const index = targetIndex(source, build);
      if (!index) continue;
      const newBuild = buildId();
      const position = build.object ? copy(build.object, `${prefix}index.${build.fieldId}.${newBuild}`) : undefined;
      builds.push((copied) => ({
        ...build,
        buildId: newBuild,
        indexId: index.id,
        collectionId: target.id,
        segmentId: id,
        object: position === undefined ? undefined : copied[position],
        group,
        epoch: 0,
      }));
    }
  });
  task.sourceDeltaIds.forEach((sourceId, at) => {
    const log = itemOf(bundle.deltaLogs, sourceId, 'delta log');
    const id = task.targetDeltaIds[at];
    const key = paths.delta(target.id, log.shard, id, generation);
    prefixes.push(key);
    const position = log.object ? copy(log.object, key) : undefined;
    const partitionId = log.partitionId === 0 ? 0 : deltaPartition(source, log.partitionId);
    deltaLogs.push((copied) => ({
      ...log,
      id,
      collectionId: target.id,
      partitionId,
      object: position === undefined ? undefined : copied[position],
      firstSequence: 0,
      lastSequence: 0,
      droppedTs: 0,
      group,
    }));
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

function deltaPartition(source: CopySource, partitionId: number): number {
  const from = source.bundle.definition.partitions.find((partition) => partition.id === partitionId);
  return source.partitions.find((partition) => partition.name === from?.name)?.id ?? 0;
}

function itemOf<T extends { id: number }>(items: readonly T[], id: number, what: string): T {
  const found = items.find((item) => item.id === id);
  if (!found) throw new CairnError('ObjectDamaged', `${what} ${id} of a copy task is not in the snapshot`);
  return found;
}

/** Name of an object inside its segment. */
function nameIn(prefix: string, key: string): string {
  return key.startsWith(prefix) ? key.slice(prefix.length) : key.slice(key.lastIndexOf('/') + 1);
}
