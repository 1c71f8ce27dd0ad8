import type { ObjectStore } from '@cairn/objects';
import type {
  DeltaLogRecord,
  ObjectRef,
  SegmentIndexRecord,
  SegmentRecord,
  ShardRecord,
  SnapshotDefinition,
  SnapshotRecord,
} from '@cairn/proto/cairn/meta';

/** Signatures that are not implemented yet; this file shrinks to nothing. */

// ---- snapshot manifests

/** What capture found, as of record.ts. */
export interface SnapshotContents {
  readonly segments: readonly SegmentRecord[];
  readonly deltaLogs: readonly DeltaLogRecord[];
  /** Finished builds of those segments. */
  readonly segmentIndexes: readonly SegmentIndexRecord[];
  readonly shards: readonly ShardRecord[];
}
/** `snapshots/<collection id>/metadata/<snapshot id>.json` */
export declare function snapshotMetadataKey(collectionId: number, snapshotId: number): string;
/** `snapshots/<collection id>/manifests/<snapshot id>/` */
export declare function snapshotManifestPrefix(collectionId: number, snapshotId: number): string;

export interface WrittenSnapshot {
  /** 'aborted': a tombstone stood there first; the snapshot must not be committed. */
  readonly outcome: 'written' | 'aborted';
  readonly metadataKey: string;
  readonly rows: number;
  readonly bytes: number;
  readonly segments: number;
}
/** Manifests in parallel, then the metadata key by put-if-absent. Repeating it is safe. */
export declare function writeSnapshot(
  objects: ObjectStore,
  options: {
    readonly record: SnapshotRecord;
    readonly definition: SnapshotDefinition;
    readonly contents: SnapshotContents;
    readonly clusterId: string;
    readonly segmentsPerManifest?: number;
  },
): Promise<WrittenSnapshot>;
/** Ends a PENDING snapshot from the aborter's side. 'committed': the metadata stood there first, roll forward. */
export declare function writeTombstone(
  objects: ObjectStore,
  options: { readonly collectionId: number; readonly snapshotId: number; readonly reason: string },
): Promise<'aborted' | 'committed'>;

export interface SnapshotBundle {
  readonly formatVersion: number;
  readonly clusterId: string;
  readonly record: SnapshotRecord;
  readonly definition: SnapshotDefinition;
  readonly shards: readonly ShardRecord[];
  readonly rows: number;
  readonly bytes: number;
  readonly segmentCount: number;
  /** Empty without `withSegments`. */
  readonly segments: readonly SegmentRecord[];
  readonly deltaLogs: readonly DeltaLogRecord[];
  readonly segmentIndexes: readonly SegmentIndexRecord[];
  /** The metadata and manifest objects themselves. */
  readonly manifestObjects: readonly ObjectRef[];
}
/** Verifies lengths and checksums of manifests. ObjectNotFound, ObjectDamaged name the object; a newer format and a tombstone have clear errors. */
export declare function readSnapshot(
  objects: ObjectStore,
  metadataKey: string,
  options?: { readonly withSegments?: boolean },
): Promise<SnapshotBundle>;
