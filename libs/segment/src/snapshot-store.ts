import { createHash } from 'node:crypto';
import { assert, CairnError, checksum, mapLimit, type Turns } from '@cairn/base';
import { ObjectExistsError, type ObjectStore } from '@cairn/objects';
import type {
  DeltaLogRecord,
  ObjectRef,
  SegmentIndexRecord,
  SegmentRecord,
  ShardRecord,
  SnapshotDefinition,
  SnapshotRecord,
} from '@cairn/proto/cairn/meta';
import type { Type } from 'avsc';
import { decodeContainer, encodeContainer } from './avro-container.ts';
import { deltaLogFromAvro, deltaLogToAvro, deltaLogType, segmentFromAvro, segmentToAvro, segmentType } from './manifest-records.ts';
import { getObject, putObject, readingObject } from './object-bytes.ts';
import { contentOf } from './snapshot-content.ts';
import {
  decodeMetadata,
  encodeMetadata,
  encodeTombstone,
  isTombstone,
  type ManifestEntry,
  type ManifestKind,
  type SnapshotContent,
  type SnapshotMetadata,
  snapshotManifestPrefix,
  snapshotMetadataKey,
  type Tombstone,
} from './snapshot-metadata.ts';

/** What capture found, as of record.ts. */
export interface SnapshotContents {
  readonly segments: readonly SegmentRecord[];
  readonly deltaLogs: readonly DeltaLogRecord[];
  /** Finished builds of those segments. */
  readonly segmentIndexes: readonly SegmentIndexRecord[];
  readonly shards: readonly ShardRecord[];
}

export interface WriteSnapshotOptions {
  readonly record: SnapshotRecord;
  readonly definition: SnapshotDefinition;
  readonly contents: SnapshotContents;
  readonly clusterId: string;
  /** Default 1000. */
  readonly segmentsPerManifest?: number;
  /** Manifest files written at once; default 8. */
  readonly parallel?: number;
  /** With it the event loop has its turn while many segments are encoded. */
  readonly turns?: Turns;
}

export interface WrittenSnapshot {
  /** 'aborted': a tombstone stood there first; the snapshot must not be committed. */
  readonly outcome: 'written' | 'aborted';
  readonly metadataKey: string;
  readonly rows: number;
  readonly bytes: number;
  readonly segments: number;
  readonly content?: SnapshotContent;
}

export interface SnapshotBundle {
  readonly formatVersion: number;
  readonly clusterId: string;
  /** As COMMITTED, with the totals of the metadata. */
  readonly record: SnapshotRecord;
  readonly definition: SnapshotDefinition;
  readonly shards: readonly ShardRecord[];
  readonly rows: number;
  readonly bytes: number;
  readonly segmentCount: number;
  /** Absent when it was written before there were content hashes. */
  readonly content?: SnapshotContent;
  /** Empty without `withSegments`. */
  readonly segments: readonly SegmentRecord[];
  readonly deltaLogs: readonly DeltaLogRecord[];
  readonly segmentIndexes: readonly SegmentIndexRecord[];
  /** The metadata and manifest objects themselves, metadata last. */
  readonly manifestObjects: readonly ObjectRef[];
}

const SEGMENTS_PER_MANIFEST = 1000;
const PARALLEL_MANIFESTS = 8;
/** Records gone through between two looks at the clock. */
const STRETCH = 1000;

/**
 * Manifests in parallel, then the metadata key by put-if-absent: whoever puts first decides (snapshots.md, one decider). Repeating it is safe: a
 * manifest's key has its checksum in it, so a repeat writes the same bytes or another object, and metadata that stands is never replaced.
 * Rows and deletes after the snapshot's timestamp are masked by as_of; the row total counts stored rows.
 */
export async function writeSnapshot(objects: ObjectStore, options: WriteSnapshotOptions): Promise<WrittenSnapshot> {
  const { record, definition, clusterId, contents, turns } = options;
  const perFile = options.segmentsPerManifest ?? SEGMENTS_PER_MANIFEST;
  const builds = await buildsBySegment(contents, turns);
  const prefix = snapshotManifestPrefix(record.collectionId, record.id);
  const sync = createHash('sha256').update(`${clusterId}/${record.collectionId}/${record.id}`).digest();
  const totals = { rows: 0, bytes: 0, segments: contents.segments.length, deltaLogs: contents.deltaLogs.length };
  const add = (object: ObjectRef | undefined): void => {
    totals.bytes += object?.size ?? 0;
  };
  const maskOf = (asOf: number): number => (asOf > 0 ? Math.min(asOf, record.ts) : record.ts);
  const segment = (of: SegmentRecord): object => {
    const indexes = builds.get(of.id) ?? [];
    totals.rows += of.rows;
    for (const object of of.objects) add(object);
    for (const index of indexes) add(index.object);
    return segmentToAvro({ ...of, asOf: maskOf(of.asOf) }, indexes);
  };
  const deltaLog = (of: DeltaLogRecord): object => {
    add(of.object);
    return deltaLogToAvro({ ...of, asOf: maskOf(of.asOf) });
  };
  const encoders = [
    ...pages(contents.segments, perFile).map((page) => ({
      kind: 'segments' as const,
      records: page.length,
      encode: () => encodeContainer(segmentType, page, segment, sync, turns),
    })),
    ...pages(contents.deltaLogs, perFile).map((page) => ({
      kind: 'delta_logs' as const,
      records: page.length,
      encode: () => encodeContainer(deltaLogType, page, deltaLog, sync, turns),
    })),
  ];
  const manifests = await mapLimit(
    encoders,
    options.parallel ?? PARALLEL_MANIFESTS,
    async ({ kind, records, encode }, index): Promise<ManifestEntry> => {
      const bytes = await encode();
      const name = `${kind}-${String(index).padStart(5, '0')}-${checksum(bytes).toString(16).padStart(8, '0')}.avro`;
      return { kind, records, object: await putObject(objects, `${prefix}${name}`, [bytes], { role: 'manifest' }) };
    },
  );
  const metadataKey = snapshotMetadataKey(record.collectionId, record.id);
  const content = await contentOf(contents, definition, record.ts, turns);
  const bytes = encodeMetadata({ clusterId, record, definition, shards: contents.shards, manifests, totals, content });
  const standing = await putFirst(objects, metadataKey, bytes);
  if (standing !== undefined && isTombstone(standing)) return { outcome: 'aborted', metadataKey, rows: 0, bytes: 0, segments: 0 };
  // An earlier try got through, perhaps of a leader before: its metadata is the snapshot.
  const { rows, bytes: size, segments } = standing?.totals ?? totals;
  const known = standing ? standing.content : content;
  return { outcome: 'written', metadataKey, rows, bytes: size, segments, ...(known ? { content: known } : {}) };
}

/** Ends a PENDING snapshot from the aborter's side. 'committed': the metadata stood there first, roll forward. */
export async function writeTombstone(
  objects: ObjectStore,
  options: { readonly collectionId: number; readonly snapshotId: number; readonly reason: string },
): Promise<'aborted' | 'committed'> {
  const key = snapshotMetadataKey(options.collectionId, options.snapshotId);
  const standing = await putFirst(objects, key, encodeTombstone(options));
  return standing === undefined || isTombstone(standing) ? 'aborted' : 'committed';
}

/** Puts if absent; else what stands there. */
async function putFirst(objects: ObjectStore, key: string, bytes: Uint8Array): Promise<SnapshotMetadata | Tombstone | undefined> {
  try {
    await objects.put(key, bytes, { ifAbsent: true });
    return undefined;
  } catch (error) {
    if (!(error instanceof ObjectExistsError)) throw error;
    return decodeMetadata(key, await objects.get(key));
  }
}

async function buildsBySegment(contents: SnapshotContents, turns: Turns | undefined): Promise<Map<number, SegmentIndexRecord[]>> {
  const builds = new Map<number, SegmentIndexRecord[]>();
  let at = 0;
  for (const build of contents.segmentIndexes) {
    const of = builds.get(build.segmentId);
    if (of === undefined) builds.set(build.segmentId, [build]);
    else of.push(build);
    if (++at % STRETCH === 0 && turns?.due) await turns.give();
  }
  let kept = 0;
  for (const { id } of contents.segments) kept += builds.get(id)?.length ?? 0;
  assert(
    kept === contents.segmentIndexes.length,
    `${contents.segmentIndexes.length - kept} segment indexes of segments that are not in the snapshot`,
  );
  return builds;
}

function pages<T>(items: readonly T[], size: number): T[][] {
  const out: T[][] = [];
  for (let at = 0; at < items.length; at += size) out.push(items.slice(at, at + size));
  return out;
}

/**
 * A snapshot from the bucket alone. Lengths and checksums of the metadata and of every manifest read are compared. ObjectNotFound, ObjectDamaged
 * name the object; a newer format is NotSupported; a tombstone is ObjectNotFound with the reason of the abort.
 */
export async function readSnapshot(
  objects: ObjectStore,
  metadataKey: string,
  options: { readonly withSegments?: boolean; readonly turns?: Turns } = {},
): Promise<SnapshotBundle> {
  const bytes = await objects.get(metadataKey);
  const found = decodeMetadata(metadataKey, bytes);
  if (isTombstone(found))
    throw new CairnError('ObjectNotFound', `snapshot ${found.snapshotId} (${metadataKey}) was aborted: ${found.reason}`);
  const { totals } = found;
  const metadataRef: ObjectRef = {
    key: metadataKey,
    size: bytes.byteLength,
    crc32c: checksum(bytes),
    etag: '',
    role: 'metadata',
    fieldId: 0,
  };
  const bundle = {
    ...found,
    rows: totals.rows,
    bytes: totals.bytes,
    segmentCount: totals.segments,
    manifestObjects: [...found.manifests.map((manifest) => manifest.object), metadataRef],
  };
  if (options.withSegments !== true) return { ...bundle, segments: [], deltaLogs: [], segmentIndexes: [] };
  const [segments, deltaLogs] = await Promise.all([
    readManifests(objects, found, { kind: 'segments', type: segmentType, of: segmentFromAvro, turns: options.turns }),
    readManifests(objects, found, { kind: 'delta_logs', type: deltaLogType, of: deltaLogFromAvro, turns: options.turns }),
  ]);
  if (segments.length !== totals.segments || deltaLogs.length !== totals.deltaLogs)
    throw new CairnError(
      'ObjectDamaged',
      `snapshot metadata ${metadataKey}: manifests hold ${segments.length} segments and ${deltaLogs.length} delta logs, expected ${totals.segments} and ${totals.deltaLogs}`,
    );
  return {
    ...bundle,
    segments: segments.map((of) => of.segment),
    deltaLogs,
    segmentIndexes: segments.flatMap((of) => of.indexes),
  };
}

interface ManifestReading<T> {
  readonly kind: ManifestKind;
  readonly type: Type;
  readonly of: (record: unknown) => T;
  readonly turns: Turns | undefined;
}

async function readManifests<T>(
  objects: ObjectStore,
  metadata: SnapshotMetadata,
  { kind, type, of, turns }: ManifestReading<T>,
): Promise<T[]> {
  const wanted = metadata.manifests.filter((manifest) => manifest.kind === kind);
  const parts = await mapLimit(wanted, PARALLEL_MANIFESTS, async ({ object, records }) => {
    const bytes = await getObject(objects, object);
    const found = await readingObject(object.key, () => decodeContainer(type, bytes, of, turns));
    if (found.length !== records)
      throw new CairnError('ObjectDamaged', `manifest ${object.key} holds ${found.length} records, expected ${records}`);
    return found;
  });
  return parts.flat();
}
