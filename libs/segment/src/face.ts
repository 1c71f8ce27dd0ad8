import type { Runtime } from '@cairn/base';
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
import type { CollectionSchema, Column, ColumnBatch, VectorColumn } from '@cairn/schema';
import type { Bitmap, LoadedVectorIndex, ReadableSegment } from './readable-segment.ts';

/** Signatures that are not implemented yet; this file shrinks to nothing. */

/** Deletes of one shard in order of arrival. All columns have one length. */
export interface Deletes {
  readonly keys: Column;
  /** A row is deleted when its timestamp is smaller than this, from this timestamp on. */
  readonly ts: Float64Array;
  /** Above 0: a delete by filter; deletes rows with timestamp <= readTs instead. */
  readonly readTs: Float64Array;
}

export interface WrittenSegment {
  readonly objects: ObjectRef[];
  readonly rows: number;
  readonly minTs: number;
  readonly maxTs: number;
  readonly bytes: number;
}

/** Batch with fields 0 (row id) and 1 (timestamp); sorted here by key, then timestamp. Prefix ends with '/'. */
export declare function writeSegment(options: {
  readonly objects: ObjectStore;
  readonly runtime: Runtime;
  readonly prefix: string;
  readonly schema: CollectionSchema;
  readonly batch: ColumnBatch;
}): Promise<WrittenSegment>;

export interface OpenSegmentOptions {
  readonly objects: ObjectStore;
  readonly runtime: Runtime;
  readonly record: SegmentRecord;
  readonly schema: CollectionSchema;
  /** Where vector files are kept when the store is not the local disk; absent: in memory. */
  readonly cacheDir?: string | undefined;
}
/** Reads and verifies keys and timestamps; the rest on first use. ObjectNotFound, ObjectDamaged name the key. */
export declare function openSegment(options: OpenSegmentOptions): Promise<SealedSegment>;

export declare class SealedSegment implements ReadableSegment {
  readonly id: number;
  readonly partitionId: number;
  readonly rows: number;
  readonly sorted: boolean;
  readonly timestamps: Float64Array;
  visible(readTs: number): Bitmap | undefined;
  column(fieldId: number): Promise<Column>;
  gather(fieldId: number, rows: Int32Array): Promise<Column>;
  vectors(fieldId: number): Promise<VectorColumn>;
  rowsOfKeys(keys: Column): Int32Array;
  vectorIndex(fieldId: number): LoadedVectorIndex | undefined;
  /** Number of rows newly marked or marked earlier in time. */
  applyDeletes(deletes: Deletes): number;
  attachIndex(fieldId: number, index: LoadedVectorIndex): void;
  close(): Promise<void>;
}

export declare class GrowingSegment implements ReadableSegment {
  constructor(options: {
    readonly id: number;
    readonly partitionId: number;
    readonly schema: CollectionSchema;
    readonly initialRows?: number;
  });
  readonly id: number;
  readonly partitionId: number;
  readonly rows: number;
  readonly sorted: boolean;
  readonly timestamps: Float64Array;
  /** Bytes of its columns. */
  readonly bytes: number;
  readonly minTs: number;
  readonly maxTs: number;
  visible(readTs: number): Bitmap | undefined;
  column(fieldId: number): Promise<Column>;
  gather(fieldId: number, rows: Int32Array): Promise<Column>;
  vectors(fieldId: number): Promise<VectorColumn>;
  rowsOfKeys(keys: Column): Int32Array;
  vectorIndex(fieldId: number): LoadedVectorIndex | undefined;
  /** Rows of one write, all with timestamp ts; row ids from firstRowId up, unless the batch has column 0. */
  append(batch: ColumnBatch, ts: number, firstRowId: number): void;
  applyDeletes(deletes: Deletes): number;
  /** No more appends; all rows (deleted ones too) with row ids and timestamps, in order of arrival. */
  freeze(): ColumnBatch;
}

export interface WrittenDeltaLog {
  readonly object: ObjectRef;
  readonly rows: number;
  readonly minTs: number;
  readonly maxTs: number;
}
export declare function writeDeltaLog(objects: ObjectStore, key: string, deletes: Deletes): Promise<WrittenDeltaLog>;
export declare function readDeltaLog(objects: ObjectStore, object: ObjectRef): Promise<Deletes>;

/** Deletes of a shard in WAL order, kept between flushes. */
export declare class DeleteBuffer {
  readonly rows: number;
  /** Sequence of the last delete record, 0 when none. */
  readonly lastSequence: number;
  add(sequence: number, deletes: Deletes): void;
  /** Deletes with after < sequence <= upTo. undefined when none. */
  between(after: number, upTo: number): Deletes | undefined;
  /** Forgets what is at or before the sequence. */
  trim(upTo: number): void;
}
/** Deletes of keys at one timestamp. */
export declare function deletesOf(keys: Column, ts: number, readTs?: number): Deletes;

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
