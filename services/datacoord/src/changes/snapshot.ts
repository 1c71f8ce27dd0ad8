import { CairnError } from '@cairn/base';
import { keys, paths } from '@cairn/catalog';
import { PrefixRecord, SnapshotDefinition, SnapshotRecord, SnapshotState } from '@cairn/proto/cairn/meta';
import type { CreateSnapshot } from '@cairn/proto/cairn/wal';
import { type ChangeHandler, effects, MAX_NAME_LENGTH, putRecord } from './change.ts';

/** Seven days, as in Milvus. */
export const MAX_PROTECTION_SECONDS = 604_800;

/** Milvus's words for snapshot names; returns the trimmed name. */
export function checkSnapshotName(name: string): string {
  const trimmed = name.trim();
  if (trimmed === '') throw new CairnError('InvalidParameter', 'snapshot name should be not empty');
  if (trimmed.length > MAX_NAME_LENGTH) {
    throw new CairnError('InvalidParameter', `snapshot name is too long: ${trimmed.length} characters, at most ${MAX_NAME_LENGTH}`);
  }
  if (!/^[A-Za-z_]/.test(trimmed)) {
    throw new CairnError('InvalidParameter', `the first character of snapshot name ${trimmed} must be an underscore or letter`);
  }
  if (!/^\w+$/.test(trimmed)) {
    throw new CairnError('InvalidParameter', `snapshot name ${trimmed} can only contain numbers, letters and underscores`);
  }
  return trimmed;
}

/**
 * The moment of a snapshot: takes T (the change's own timestamp), reserves the name among PENDING and COMMITTED ones of the collection, and
 * remembers the collection as it is now. The prefix of its manifests is recorded before anything is written there.
 */
export const createSnapshot: ChangeHandler<CreateSnapshot> = (state, change, { ts, nowMs, snapshotTimeoutMs, requestId }) => {
  const name = checkSnapshotName(change.name);
  if (change.compactionProtectionSeconds > MAX_PROTECTION_SECONDS) {
    throw new CairnError(
      'InvalidParameter',
      `compaction_protection_seconds must not exceed ${MAX_PROTECTION_SECONDS}, got ${change.compactionProtectionSeconds}`,
    );
  }
  const { database, collection } = state.resolveLive(change.database, change.collection);
  if (state.snapshotIndex.named(collection.id, name)) throw new CairnError('InvalidParameter', `snapshot name ${name} already exists`);
  const definition: SnapshotDefinition = {
    collection,
    databaseName: database.name,
    partitions: state.partitionsOf(collection.id),
    indexes: state.indexesOf(collection.id),
  };
  const record: SnapshotRecord = {
    id: change.id,
    collectionId: collection.id,
    name,
    description: change.description,
    ts,
    state: SnapshotState.SNAPSHOT_PENDING,
    createdMs: nowMs,
    compactionProtectionSeconds: change.compactionProtectionSeconds,
    definition: SnapshotDefinition.encode(definition).finish(),
    metadataKey: paths.snapshotMetadata(collection.id, change.id),
    rows: 0,
    bytes: 0,
    segments: 0,
    reason: '',
    reasonCode: 0,
    deadlineMs: nowMs + snapshotTimeoutMs,
    contentHash: '',
    visibleRows: 0,
    visibleHash: '',
    requestId,
  };
  const prefix = paths.snapshotManifests(collection.id, change.id);
  const manifests: PrefixRecord = { prefix, dead: false, createdMs: nowMs, deadMs: 0, purpose: `snapshot ${change.id}` };
  return effects(record.id, {
    puts: [
      putRecord(keys.snapshot(collection.id, record.id), SnapshotRecord, record),
      putRecord(keys.prefix(prefix), PrefixRecord, manifests),
    ],
  });
};
