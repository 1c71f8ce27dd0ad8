import { CairnError } from '@cairn/base';
import type {
  CollectionRecord,
  DeltaLogRecord,
  IndexRecord,
  ObjectRef,
  PartitionRecord,
  SegmentIndexRecord,
  SegmentRecord,
} from '@cairn/proto/cairn/meta';
import type { SnapshotBundle } from '@cairn/segment';

export interface CopySourceOptions {
  readonly bundle: SnapshotBundle;
  readonly target: CollectionRecord;
  /** Partitions and indexes of the target. */
  readonly partitions: readonly PartitionRecord[];
  readonly indexes: readonly IndexRecord[];
  /** Index objects are taken over. */
  readonly withIndexes: boolean;
  /** Rows are written anew: by the hash of the target's shards, without deleted ones. */
  readonly rewrite: boolean;
  readonly group: string;
  /** Names of the partitions that are wanted; empty: all. */
  readonly only: readonly string[];
}

export interface CopyTotals {
  readonly segments: number;
  readonly objects: number;
  readonly bytes: number;
  readonly rows: number;
}

/** The part of a snapshot that a restore asks for. */
export interface Wanted {
  readonly segments: readonly SegmentRecord[];
  readonly deltaLogs: readonly DeltaLogRecord[];
  readonly segmentIndexes: readonly SegmentIndexRecord[];
}

/**
 * Segments of the named partitions, and their delta logs; those that cover all partitions of a shard stay. Code 1100 with the names for a
 * partition that the snapshot does not have, and for a partition-key collection, whose partitions are nobody's to choose.
 */
export function wantedOf(bundle: SnapshotBundle, only: readonly string[], withIndexes: boolean): Wanted {
  const segmentIndexes = withIndexes ? bundle.segmentIndexes : [];
  if (only.length === 0) return { segments: bundle.segments, deltaLogs: bundle.deltaLogs, segmentIndexes };
  const { collection, partitions } = bundle.definition;
  if ((collection?.numPartitions ?? 0) > 0)
    throw new CairnError('InvalidParameter', `collection ${collection?.name} has a partition key: its partitions cannot be chosen`);
  const missing = only.filter((name) => !partitions.some((partition) => partition.name === name));
  if (missing.length > 0) throw new CairnError('InvalidParameter', `snapshot ${bundle.record.name} has no partition ${missing.join(', ')}`);
  const ids = new Set(partitions.filter((partition) => only.includes(partition.name)).map((partition) => partition.id));
  const segments = bundle.segments.filter((segment) => ids.has(segment.partitionId));
  const kept = new Set(segments.map((segment) => segment.id));
  return {
    segments,
    deltaLogs: bundle.deltaLogs.filter((log) => log.partitionId === 0 || ids.has(log.partitionId)),
    segmentIndexes: segmentIndexes.filter((build) => kept.has(build.segmentId)),
  };
}

export function totalsOf({ segments, deltaLogs, segmentIndexes }: Wanted): CopyTotals {
  let objects = 0;
  let bytes = 0;
  const add = (object: ObjectRef | undefined): void => {
    if (!object) return;
    objects++;
    bytes += object.size;
  };
  for (const segment of segments) for (const object of segment.objects) add(object);
  for (const log of deltaLogs) add(log.object);
  for (const build of segmentIndexes) add(build.object);
  return { segments: segments.length, objects, bytes, rows: segments.reduce((sum, segment) => sum + segment.rows, 0) };
}

/** What is read of it when rows are written anew: each segment's own objects once. Delta logs are read with them, index objects are not. */
export function rewriteTotals({ segments }: Wanted): CopyTotals {
  return totalsOf({ segments, deltaLogs: [], segmentIndexes: [] });
}

/** What a restore takes from a snapshot, and how names and ids of the source become those of the target. */
export class CopySource implements Wanted {
  readonly target: CollectionRecord;
  readonly group: string;
  readonly segments: readonly SegmentRecord[];
  readonly deltaLogs: readonly DeltaLogRecord[];
  readonly segmentIndexes: readonly SegmentIndexRecord[];
  readonly rewrite: boolean;
  /** Of the target. */
  readonly indexes: readonly IndexRecord[];
  readonly #segments: ReadonlyMap<number, SegmentRecord>;
  readonly #deltaLogs: ReadonlyMap<number, DeltaLogRecord>;
  readonly #builds = new Map<number, SegmentIndexRecord[]>();
  /** Partitions and indexes of the target by the source's ids. */
  readonly #partitions = new Map<number, PartitionRecord>();
  readonly #indexes = new Map<number, IndexRecord>();

  constructor({ bundle, target, partitions, indexes, withIndexes, rewrite, group, only }: CopySourceOptions) {
    this.rewrite = rewrite;
    this.indexes = indexes;
    this.target = target;
    this.group = group;
    // By name, never by order.
    for (const from of bundle.definition.partitions) {
      const to = partitions.find((partition) => partition.name === from.name);
      if (to) this.#partitions.set(from.id, to);
    }
    for (const from of bundle.definition.indexes) {
      const to = indexes.find((index) => index.name === from.name && index.fieldId === from.fieldId);
      if (to) this.#indexes.set(from.id, to);
    }
    const wanted = wantedOf(bundle, only, withIndexes && !rewrite);
    this.segments = wanted.segments;
    this.deltaLogs = wanted.deltaLogs;
    this.segmentIndexes = wanted.segmentIndexes.filter((build) => this.#indexes.has(build.indexId));
    this.#segments = new Map(this.segments.map((segment) => [segment.id, segment]));
    this.#deltaLogs = new Map(this.deltaLogs.map((log) => [log.id, log]));
    for (const build of this.segmentIndexes) {
      const of = this.#builds.get(build.segmentId);
      if (of) of.push(build);
      else this.#builds.set(build.segmentId, [build]);
    }
  }

  segment(id: number): SegmentRecord {
    return named(this.#segments.get(id), 'segment', id);
  }

  deltaLog(id: number): DeltaLogRecord {
    return named(this.#deltaLogs.get(id), 'delta log', id);
  }

  /** Index builds of a segment that the target has an index for. */
  buildsOf(segmentId: number): readonly SegmentIndexRecord[] {
    return this.#builds.get(segmentId) ?? [];
  }

  objectsOf(segment: SegmentRecord): ObjectRef[] {
    return [...segment.objects, ...this.buildsOf(segment.id).flatMap((build) => (build.object ? [build.object] : []))];
  }

  /** The target's partition for what lies in that one of the source. */
  partitionId(sourceId: number, what: string): number {
    const to = this.#partitions.get(sourceId);
    if (!to) throw new CairnError('ObjectDamaged', `${what} of the snapshot is in partition ${sourceId}, which the snapshot does not name`);
    return to.id;
  }

  indexId(sourceId: number): number {
    return named(this.#indexes.get(sourceId), 'index', sourceId).id;
  }
}

function named<T>(found: T | undefined, what: string, id: number): T {
  if (found === undefined) throw new CairnError('ObjectDamaged', `${what} ${id} of a restore is not in the snapshot`);
  return found;
}
