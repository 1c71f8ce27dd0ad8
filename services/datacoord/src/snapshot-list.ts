import { CairnError, type Runtime } from '@cairn/base';
import type { ObjectStore } from '@cairn/objects';
import { type CollectionRecord, CollectionState, SnapshotDefinition, type SnapshotRecord, SnapshotState } from '@cairn/proto/cairn/meta';
import { type ListSnapshotsRequest, type ListSnapshotsResponse, SnapshotInfo } from '@cairn/proto/cairn/services';
import type { CatalogState } from './catalog-state.ts';
import type { PinBoard } from './pin-board.ts';
import type { Place } from './snapshot-index.ts';

/** Bytes of a snapshot by who else keeps them. */
export interface KeptBytes {
  readonly exclusive: number;
  readonly shared: number;
}

export interface SnapshotListParts {
  readonly state: CatalogState;
  readonly objects: ObjectStore;
  readonly pins: PinBoard;
  readonly runtime: Runtime;
}

/** Definitions decoded and kept, each shared by the snapshots that have it. */
const MAX_DEFINITIONS = 1_024;

/** What lists and descriptions say of snapshots. Answered from memory alone. */
export class SnapshotList {
  readonly #parts: SnapshotListParts;
  readonly #definitions = new Map<Uint8Array, SnapshotDefinition>();

  constructor(parts: SnapshotListParts) {
    this.#parts = parts;
  }

  /**
   * Snapshots of a collection, of a database, or all; oldest first, in pages when a size is given. Without `all` only COMMITTED ones of living
   * collections. `sizes`: what each keeps, by id.
   */
  list(request: ListSnapshotsRequest, sizes?: ReadonlyMap<number, KeptBytes>): ListSnapshotsResponse {
    const { state } = this.#parts;
    const only = this.#collection(request);
    if (request.bareNames) return this.#names(request, only);
    const database = request.database === '' ? undefined : state.database(request.database).id;
    const after = placeOf(request.pageToken);
    const pageSize = request.pageSize === 0 ? Number.POSITIVE_INFINITY : request.pageSize;
    const snapshots: SnapshotInfo[] = [];
    let last: Place | undefined;
    let more = false;
    let total = 0;
    for (const record of state.snapshotIndex.after(undefined, only)) {
      if (!this.#wanted(record, request, only === undefined ? database : undefined)) continue;
      total++;
      if (after && (record.ts < after.ts || (record.ts === after.ts && record.id <= after.id))) continue;
      if (snapshots.length >= pageSize) {
        more = true;
        continue;
      }
      snapshots.push(request.namesOnly ? nameOf(record) : this.describe(record, sizes?.get(record.id)));
      last = record;
    }
    return { snapshots, nextPageToken: more && last ? `${last.ts}-${last.id}` : '', total, names: [], nowMs: this.#parts.runtime.now() };
  }

  /** Names of 10,000 snapshots, many times a second, with nothing made for each. */
  #names(request: ListSnapshotsRequest, collection: number | undefined): ListSnapshotsResponse {
    if (collection === undefined || request.all || request.partition !== '' || request.pageSize !== 0)
      throw new CairnError('InvalidParameter', 'bare names are those of one living collection, all at once');
    const names = this.#parts.state.snapshotIndex.committedNames(collection);
    return { snapshots: [], names, nextPageToken: '', total: names.length, nowMs: this.#parts.runtime.now() };
  }

  /** Id of the one collection that is asked for; with `all` a dropped one's too, by the name it had. */
  #collection({ database, collection, all }: ListSnapshotsRequest): number | undefined {
    if (collection === '') return undefined;
    const { state } = this.#parts;
    try {
      return state.resolve(database, collection).collection.id;
    } catch (error) {
      if (!all) throw error;
      for (const id of state.snapshotIndex.collections()) {
        const [first] = state.snapshotIndex.of(id);
        if (!first || !this.retained(first)) continue;
        const definition = this.definition(first);
        const name = state.collections.get(id)?.name ?? definition.collection?.name;
        if (name === collection && (database === '' || database === definition.databaseName)) return id;
      }
      throw error;
    }
  }

  #wanted(record: SnapshotRecord, request: ListSnapshotsRequest, database: number | undefined): boolean {
    const { state } = this.#parts;
    if (!request.all && (record.state !== SnapshotState.SNAPSHOT_COMMITTED || this.retained(record))) return false;
    if (database !== undefined) {
      const current = state.collections.get(record.collectionId) ?? this.definition(record).collection;
      if (current?.databaseId !== database) return false;
    }
    return request.partition === '' || this.definition(record).partitions.some((partition) => partition.name === request.partition);
  }

  /** True when its collection was dropped: its name leads nowhere. */
  retained({ collectionId }: SnapshotRecord): boolean {
    const collection = this.#parts.state.collections.get(collectionId);
    return !collection || collection.state === CollectionState.COLLECTION_DROPPED;
  }

  /** Its definition, decoded once for all that share it. */
  definition({ definition }: SnapshotRecord): SnapshotDefinition {
    const known = this.#definitions.get(definition);
    if (known) return known;
    if (this.#definitions.size >= MAX_DEFINITIONS) this.#definitions.clear();
    const decoded = SnapshotDefinition.decode(definition);
    this.#definitions.set(definition, decoded);
    return decoded;
  }

  /** Its collection as it is, or as it was when the snapshot was taken. */
  collection(record: SnapshotRecord): CollectionRecord {
    const found = this.#parts.state.collections.get(record.collectionId) ?? this.definition(record).collection;
    if (!found) throw new CairnError('Internal', `snapshot ${record.id} has no definition of its collection`);
    return found;
  }

  /** Present name of the database of its collection; the one it had when that is gone. */
  databaseName(record: SnapshotRecord): string {
    const { state } = this.#parts;
    return state.databases.get(this.collection(record).databaseId)?.name ?? this.definition(record).databaseName;
  }

  describe(record: SnapshotRecord, kept?: KeptBytes): SnapshotInfo {
    const { state, objects, pins } = this.#parts;
    const definition = this.definition(record);
    const health = state.health.get(record.id);
    return {
      id: record.id,
      name: record.name,
      description: record.description,
      collectionId: record.collectionId,
      collection: this.collection(record).name,
      database: this.databaseName(record),
      partitions: definition.partitions.map((partition) => partition.name),
      ts: record.ts,
      location: `${objects.uri.replace(/\/$/, '')}/${record.metadataKey}`,
      rows: record.rows,
      bytes: record.bytes,
      segments: record.segments,
      pins: pins.of(record.id).length,
      createdMs: record.createdMs,
      state: record.state,
      retained: this.retained(record),
      exclusiveBytes: kept?.exclusive ?? 0,
      sharedBytes: kept?.shared ?? 0,
      sizesKnown: kept !== undefined,
      reason: record.reason,
      contentHash: record.contentHash,
      visibleRows: record.visibleHash === '' ? (health?.visibleRows ?? 0) : record.visibleRows,
      visibleHash: record.visibleHash === '' ? (health?.visibleHash ?? '') : record.visibleHash,
      verifiedMs: health?.verifiedMs ?? 0,
      damage: health?.damage ?? '',
    };
  }
}

const NOTHING = SnapshotInfo.fromPartial({});

function nameOf({ id, name, ts, collectionId, state }: SnapshotRecord): SnapshotInfo {
  return { ...NOTHING, id, name, ts, collectionId, state };
}

function placeOf(token: string): Place | undefined {
  if (token === '') return undefined;
  const [ts, id] = token.split('-').map(Number);
  if (ts === undefined || id === undefined || !Number.isSafeInteger(ts) || !Number.isSafeInteger(id))
    throw new CairnError('InvalidParameter', `page token '${token}' is not one of ours`);
  return { ts, id };
}
