import { CairnError } from '@cairn/base';
import { keys } from '@cairn/catalog';
import type { MetaEntry } from '@cairn/meta';
import {
  AliasRecord,
  CollectionRecord,
  CollectionState,
  CompactionJobRecord,
  CompactionTaskRecord,
  DatabaseRecord,
  DrillRecord,
  IndexRecord,
  LoadRecord,
  PartitionRecord,
  PinRecord,
  RestoreIntentRecord,
  RestoreJobRecord,
  SnapshotHealthRecord,
} from '@cairn/proto/cairn/meta';
import { SnapshotCodec, SnapshotIndex } from './snapshot-index.ts';

/** Database that an empty name means. */
export const DEFAULT_DATABASE = 'default';

/** A record and the mod revision of its key: what a transaction that replaces it compares. */
export interface Held<T> {
  readonly key: string;
  readonly revision: number;
  readonly record: T;
}

interface Codec<T> {
  decode(bytes: Uint8Array): T;
}

/** Records of one kind by id, as last committed. A change that is older than what is held is ignored. */
export class RecordTable<T> {
  readonly #codec: Codec<T>;
  readonly #idOf: (record: T) => number;
  readonly #byId = new Map<number, Held<T>>();
  readonly #ids = new Map<string, number>();
  readonly #changed: (before: T | undefined, after: T | undefined) => void;

  constructor(codec: Codec<T>, idOf: (record: T) => number, changed: (before: T | undefined, after: T | undefined) => void = () => {}) {
    this.#codec = codec;
    this.#idOf = idOf;
    this.#changed = changed;
  }

  get(id: number): T | undefined {
    return this.#byId.get(id)?.record;
  }

  held(id: number): Held<T> | undefined {
    return this.#byId.get(id);
  }

  *values(): IterableIterator<T> {
    for (const held of this.#byId.values()) yield held.record;
  }

  ids(): IterableIterator<number> {
    return this.#byId.keys();
  }

  get size(): number {
    return this.#byId.size;
  }

  put(key: string, value: Uint8Array, revision: number): void {
    const record = this.#codec.decode(value);
    const id = this.#idOf(record);
    const before = this.#byId.get(id);
    if (before && before.revision > revision) return;
    this.#byId.set(id, { key, revision, record });
    this.#ids.set(key, id);
    this.#changed(before?.record, record);
  }

  delete(key: string): void {
    const id = this.#ids.get(key);
    if (id === undefined) return;
    const before = this.#byId.get(id)?.record;
    this.#ids.delete(key);
    this.#byId.delete(id);
    this.#changed(before, undefined);
  }
}

const collectionName = (database: number, name: string): string => `${database}/${name}`;

/**
 * What the leader knows: catalog, snapshots, pins, restore jobs. Loaded once when leadership begins, then changed only by the leader's own
 * committed transactions (LeaderStore), so it is never behind the store. Handlers of catalog changes read it and nothing else.
 */
export class CatalogState {
  /** Mod revision of catalog/applied. */
  appliedRevision = 0;
  readonly #names = new Map<string, number>();
  readonly #databaseNames = new Map<string, number>();
  readonly #partitions = new Map<number, Map<number, PartitionRecord>>();
  readonly #indexes = new Map<number, Map<number, IndexRecord>>();
  readonly #aliases = new Map<string, AliasRecord>();

  readonly databases = new RecordTable(
    DatabaseRecord,
    (record) => record.id,
    (before, after) => {
      if (before) this.#databaseNames.delete(before.name);
      if (after) this.#databaseNames.set(after.name, after.id);
    },
  );
  readonly collections = new RecordTable(
    CollectionRecord,
    (record) => record.id,
    (before, after) => {
      if (before && this.#names.get(collectionName(before.databaseId, before.name)) === before.id) {
        this.#names.delete(collectionName(before.databaseId, before.name));
      }
      if (after && after.state !== CollectionState.COLLECTION_DROPPED)
        this.#names.set(collectionName(after.databaseId, after.name), after.id);
    },
  );
  readonly loads = new RecordTable(LoadRecord, (record) => record.collectionId);
  readonly snapshotIndex = new SnapshotIndex();
  readonly snapshots = new RecordTable(
    new SnapshotCodec(),
    (record) => record.id,
    (before, after) => this.snapshotIndex.changed(before, after),
  );
  readonly health = new RecordTable(SnapshotHealthRecord, (record) => record.snapshotId);
  readonly #pinsOf = new Map<number, Map<number, PinRecord>>();
  readonly pins = new RecordTable(
    PinRecord,
    (record) => record.id,
    (before, after) => {
      if (before) remove(this.#pinsOf, before.snapshotId, before.id);
      if (after) add(this.#pinsOf, after.snapshotId, after.id, after);
    },
  );
  readonly intents = new RecordTable(RestoreIntentRecord, (record) => record.jobId);
  readonly drills = new RecordTable(DrillRecord, (record) => record.id);
  readonly jobs = new RecordTable(RestoreJobRecord, (record) => record.id);
  readonly compactionTasks = new RecordTable(CompactionTaskRecord, (record) => record.id);
  readonly compactionJobs = new RecordTable(CompactionJobRecord, (record) => record.id);
  readonly #partitionTable = new RecordTable(
    PartitionRecord,
    (record) => record.id,
    (before, after) => group(this.#partitions, before, after),
  );
  readonly #indexTable = new RecordTable(
    IndexRecord,
    (record) => record.id,
    (before, after) => group(this.#indexes, before, after),
  );

  /** Prefixes whose records are held here: what a new leader loads. */
  static readonly prefixes = [
    'catalog/',
    keys.snapshots,
    keys.snapshotHealths,
    keys.pins,
    keys.drills,
    keys.restoreIntents,
    keys.restoreJobs,
    keys.compactionTasks,
    keys.compactionJobs,
  ] as const;

  put(entry: Pick<MetaEntry, 'key' | 'value' | 'modRevision'>): void {
    const { key, value, modRevision } = entry;
    if (key === keys.applied) this.appliedRevision = Math.max(this.appliedRevision, modRevision);
    else if (key.startsWith('catalog/alias/')) this.#aliases.set(key, AliasRecord.decode(value));
    else this.#tableOf(key)?.put(key, value, modRevision);
  }

  delete(key: string): void {
    if (key.startsWith('catalog/alias/')) this.#aliases.delete(key);
    else this.#tableOf(key)?.delete(key);
  }

  #tableOf(key: string): { put(key: string, value: Uint8Array, revision: number): void; delete(key: string): void } | undefined {
    if (key.startsWith('catalog/database/')) return this.databases;
    if (key.startsWith('catalog/collection/')) return this.collections;
    if (key.startsWith('catalog/partition/')) return this.#partitionTable;
    if (key.startsWith('catalog/index/')) return this.#indexTable;
    if (key.startsWith('catalog/load/')) return this.loads;
    if (key.startsWith(keys.snapshots)) return this.snapshots;
    if (key.startsWith(keys.snapshotHealths)) return this.health;
    if (key.startsWith(keys.pins)) return this.pins;
    if (key.startsWith(keys.drills)) return this.drills;
    if (key.startsWith(keys.restoreIntents)) return this.intents;
    if (key.startsWith(keys.restoreJobs)) return this.jobs;
    if (key.startsWith(keys.compactionTasks)) return this.compactionTasks;
    if (key.startsWith(keys.compactionJobs)) return this.compactionJobs;
    return undefined;
  }

  /** Database by name; an empty name is the default one. DatabaseNotFound names it. */
  database(name: string): DatabaseRecord {
    const wanted = name === '' ? DEFAULT_DATABASE : name;
    const id = this.#databaseNames.get(wanted);
    const record = id === undefined ? undefined : this.databases.get(id);
    if (!record) throw new CairnError('DatabaseNotFound', `database not found[database=${wanted}]`);
    return record;
  }

  hasDatabase(name: string): boolean {
    return this.#databaseNames.has(name);
  }

  /** The collection, live or restoring, that has this very name (aliases are not followed). */
  collectionNamed(database: DatabaseRecord, name: string): CollectionRecord | undefined {
    const id = this.#names.get(collectionName(database.id, name));
    return id === undefined ? undefined : this.collections.get(id);
  }

  alias(database: DatabaseRecord, alias: string): AliasRecord | undefined {
    return this.#aliases.get(keys.alias(database.id, alias));
  }

  aliasesOf(collectionId: number): AliasRecord[] {
    return [...this.#aliases.values()].filter((alias) => alias.collectionId === collectionId);
  }

  /** Name or alias → collection, restoring ones included. CollectionNotFound names it. */
  resolve(databaseName: string, name: string): { database: DatabaseRecord; collection: CollectionRecord } {
    const database = this.database(databaseName);
    const alias = this.alias(database, name);
    const collection = this.collectionNamed(database, name) ?? (alias ? this.collections.get(alias.collectionId) : undefined);
    if (!collection) throw new CairnError('CollectionNotFound', `collection not found[collection=${name}]`);
    return { database, collection };
  }

  /** As `resolve`; a collection that is being restored is refused (code 106). */
  resolveLive(databaseName: string, name: string): { database: DatabaseRecord; collection: CollectionRecord } {
    const found = this.resolve(databaseName, name);
    if (found.collection.state === CollectionState.COLLECTION_RESTORING) {
      throw new CairnError('CollectionRestoring', `collection is being restored[collection=${name}]`);
    }
    return found;
  }

  collectionsIn(databaseId: number): CollectionRecord[] {
    return [...this.collections.values()].filter(
      (record) => record.databaseId === databaseId && record.state !== CollectionState.COLLECTION_DROPPED,
    );
  }

  /** Partitions that are not dropped, by id. */
  partitionsOf(collectionId: number): PartitionRecord[] {
    return sorted(this.#partitions.get(collectionId)).filter((record) => record.droppedTs === 0);
  }

  /** Dropped ones included. */
  partition(collectionId: number, id: number): PartitionRecord | undefined {
    return this.#partitions.get(collectionId)?.get(id);
  }

  allPartitionsOf(collectionId: number): PartitionRecord[] {
    return sorted(this.#partitions.get(collectionId));
  }

  /** Pins of a snapshot, expired ones included. */
  pinsOf(snapshotId: number): Iterable<PinRecord> {
    return this.#pinsOf.get(snapshotId)?.values() ?? [];
  }

  indexesOf(collectionId: number): IndexRecord[] {
    return sorted(this.#indexes.get(collectionId)).filter((record) => record.droppedTs === 0);
  }
}

function sorted<T extends { id: number }>(records: ReadonlyMap<number, T> | undefined): T[] {
  return records ? [...records.values()].sort((a, b) => a.id - b.id) : [];
}

function group<T extends { id: number; collectionId: number }>(
  groups: Map<number, Map<number, T>>,
  before: T | undefined,
  after: T | undefined,
): void {
  if (before) remove(groups, before.collectionId, before.id);
  if (after) add(groups, after.collectionId, after.id, after);
}

function add<T>(groups: Map<number, Map<number, T>>, group: number, id: number, record: T): void {
  const existing = groups.get(group);
  if (existing) existing.set(id, record);
  else groups.set(group, new Map([[id, record]]));
}

function remove<T>(groups: Map<number, Map<number, T>>, group: number, id: number): void {
  const existing = groups.get(group);
  if (existing?.delete(id) && existing.size === 0) groups.delete(group);
}
