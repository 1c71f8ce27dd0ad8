import { CairnError, checksum } from '@cairn/base';
import { ObjectRef, ShardRecord, SnapshotDefinition, SnapshotRecord, SnapshotState } from '@cairn/proto/cairn/meta';
import { decodeSchema, typeName } from '@cairn/schema';
import { fromPlain, toPlain } from './manifest-records.ts';

/** The metadata object of a snapshot: JSON with a checksum over itself; docs/format.md describes it. */
export const FORMAT = 'cairn.snapshot';
/** Raised when an older reader would misread; added fields do not raise it. */
export const FORMAT_VERSION = 1;

export type ManifestKind = 'segments' | 'delta_logs';

export interface ManifestEntry {
  readonly kind: ManifestKind;
  readonly object: ObjectRef;
  /** Records in it. */
  readonly records: number;
}

export interface SnapshotTotals {
  readonly rows: number;
  readonly bytes: number;
  readonly segments: number;
  readonly deltaLogs: number;
}

/** Content hashes of a snapshot, as far as they were known without reading rows when it was made. */
export interface SnapshotContent {
  /** Sum of the segments' content hashes: all stored rows. Empty: a segment was written before there were content hashes. */
  readonly stored: string;
  /** Of the rows that readers of the snapshot see: -1 and empty when deletes, the mask or a late default concern some of them. */
  readonly visibleRows: number;
  readonly visible: string;
}

export interface SnapshotMetadata {
  readonly formatVersion: number;
  readonly clusterId: string;
  readonly record: SnapshotRecord;
  readonly definition: SnapshotDefinition;
  readonly shards: readonly ShardRecord[];
  readonly manifests: readonly ManifestEntry[];
  readonly totals: SnapshotTotals;
  /** Absent in snapshots that were written before there were content hashes. */
  readonly content?: SnapshotContent;
}

export interface Tombstone {
  readonly snapshotId: number;
  readonly reason: string;
}

/** `snapshots/<collection id>/metadata/<snapshot id>.json` */
export function snapshotMetadataKey(collectionId: number, snapshotId: number): string {
  return `snapshots/${collectionId}/metadata/${snapshotId}.json`;
}

/** `snapshots/<collection id>/manifests/<snapshot id>/` */
export function snapshotManifestPrefix(collectionId: number, snapshotId: number): string {
  return `snapshots/${collectionId}/manifests/${snapshotId}/`;
}

/** Body and a checksum over its compact JSON text. */
function seal(body: Readonly<Record<string, unknown>>): Uint8Array {
  return Buffer.from(`${JSON.stringify({ ...body, checksum: bodyChecksum(body) }, null, 1)}\n`, 'utf8');
}

function bodyChecksum(body: Readonly<Record<string, unknown>>): string {
  return checksum(Buffer.from(JSON.stringify(body), 'utf8'))
    .toString(16)
    .padStart(8, '0');
}

export function encodeMetadata(metadata: Omit<SnapshotMetadata, 'formatVersion'>): Uint8Array {
  const { record, definition } = metadata;
  return seal({
    format: FORMAT,
    format_version: FORMAT_VERSION,
    cluster_id: metadata.clusterId,
    snapshot: {
      id: record.id,
      name: record.name,
      description: record.description,
      collection_id: record.collectionId,
      ts: record.ts,
      created_ms: record.createdMs,
      compaction_protection_seconds: record.compactionProtectionSeconds,
    },
    definition: toPlain(definition),
    // For people and other programs; this house reads the schema inside the definition.
    fields: readableFields(definition),
    shards: metadata.shards.map(toPlain),
    manifests: metadata.manifests.map(({ kind, object, records }) => ({ kind, object: toPlain(object), records })),
    totals: toPlain(metadata.totals),
    ...(metadata.content === undefined ? {} : { content: toPlain(metadata.content) }),
  });
}

function readableFields(definition: SnapshotDefinition): readonly object[] {
  const bytes = definition.collection?.schema;
  if (bytes === undefined || bytes.byteLength === 0) return [];
  return decodeSchema(bytes).fields.map((field) => ({
    field_id: field.id,
    name: field.name,
    type: typeName(field.type),
    ...(field.elementType === 0 ? {} : { element_type: typeName(field.elementType) }),
    ...(field.dim === 0 ? {} : { dim: field.dim }),
    ...(field.nullable ? { nullable: true } : {}),
    ...(field.isPrimaryKey ? { primary_key: true } : {}),
  }));
}

export function encodeTombstone(tombstone: Tombstone): Uint8Array {
  return seal({
    format: FORMAT,
    format_version: FORMAT_VERSION,
    tombstone: { snapshot_id: tombstone.snapshotId, reason: tombstone.reason },
  });
}

/** What stands at a metadata key. ObjectDamaged names the key; a newer format is NotSupported and says so. */
export function decodeMetadata(key: string, bytes: Uint8Array): SnapshotMetadata | Tombstone {
  const body = open(key, bytes);
  const tombstone = body['tombstone'];
  if (tombstone !== undefined) return fromPlain(tombstone) as Tombstone;
  try {
    return metadataOf(key, body);
  } catch (error) {
    if (error instanceof CairnError) throw error;
    throw damaged(key, 'its parts are not those of a snapshot', error);
  }
}

export function isTombstone(found: SnapshotMetadata | Tombstone): found is Tombstone {
  return 'snapshotId' in found;
}

function damaged(key: string, reason: string, cause?: unknown): CairnError {
  return new CairnError('ObjectDamaged', `snapshot metadata ${key} is damaged: ${reason}`, { cause });
}

function open(key: string, bytes: Uint8Array): Record<string, unknown> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8'));
  } catch (error) {
    throw damaged(key, `${bytes.byteLength} bytes that are no JSON`, error);
  }
  if (typeof parsed !== 'object' || parsed === null || !('format' in parsed) || parsed.format !== FORMAT)
    throw damaged(key, `it is no ${FORMAT}`);
  const { checksum: found, ...body } = parsed as Record<string, unknown>;
  const version = body['format_version'];
  // Before the checksum: a newer version may compute it in another way.
  if (typeof version === 'number' && version > FORMAT_VERSION)
    throw new CairnError(
      'NotSupported',
      `snapshot metadata ${key} was written by a newer version of Cairn: format ${version}, this one reads up to ${FORMAT_VERSION}`,
    );
  const expected = bodyChecksum(body);
  if (found !== expected) throw damaged(key, `its checksum is ${String(found)}, its content's ${expected}`);
  return body;
}

interface PlainMetadata {
  readonly formatVersion: number;
  readonly clusterId: string;
  readonly snapshot: Partial<SnapshotRecord>;
  readonly definition: { readonly collection?: { readonly schema?: string } };
  readonly shards: readonly Partial<ShardRecord>[];
  readonly manifests: readonly { readonly kind: ManifestKind; readonly object: Partial<ObjectRef>; readonly records: number }[];
  readonly totals: SnapshotTotals;
  readonly content?: SnapshotContent;
}

function metadataOf(key: string, body: Record<string, unknown>): SnapshotMetadata {
  const plain = fromPlain(body) as PlainMetadata;
  const { collection } = plain.definition;
  const definition = SnapshotDefinition.fromPartial({
    ...plain.definition,
    collection: collection && { ...collection, schema: Buffer.from(collection.schema ?? '', 'base64') },
  });
  const record = SnapshotRecord.fromPartial({
    ...plain.snapshot,
    state: SnapshotState.SNAPSHOT_COMMITTED,
    definition: SnapshotDefinition.encode(definition).finish(),
    metadataKey: key,
    rows: plain.totals.rows,
    bytes: plain.totals.bytes,
    segments: plain.totals.segments,
  });
  if (!key.endsWith(`/${record.id}.json`)) throw damaged(key, `it is of snapshot ${record.id}`);
  return {
    formatVersion: plain.formatVersion,
    clusterId: plain.clusterId,
    record,
    definition,
    shards: plain.shards.map((shard) => ShardRecord.fromPartial(shard)),
    manifests: plain.manifests.map(({ kind, object, records }) => ({ kind, object: ObjectRef.fromPartial(object), records })),
    totals: plain.totals,
    ...(plain.content === undefined ? {} : { content: plain.content }),
  };
}
