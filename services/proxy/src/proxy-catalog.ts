import { CairnError, hasCode } from '@cairn/base';
import type { CatalogView } from '@cairn/catalog';
import {
  type AliasRecord,
  type CollectionRecord,
  CollectionState,
  type DatabaseRecord,
  type IndexRecord,
  type LoadRecord,
  type PartitionRecord,
  type Shard,
} from '@cairn/proto/cairn/meta';
import type { CollectionSchema, Field } from '@cairn/schema';

/** A collection as the proxy works with it. */
export interface CollectionEntry {
  readonly database: DatabaseRecord;
  readonly record: CollectionRecord;
  readonly schema: CollectionSchema;
}

/**
 * The catalog as requests ask for it. The view may lag behind the store: reads for a user sync first; the data path takes the view as it is and
 * syncs once before it says that something is not there.
 */
export class ProxyCatalog {
  readonly #view: CatalogView;

  constructor(view: CatalogView) {
    this.#view = view;
  }

  /** Grows with every change that the view has seen. */
  get revision(): number {
    return this.#view.revision;
  }

  sync(): Promise<void> {
    return this.#view.sync();
  }

  /** Waits until the view shows the change that a submit answered. */
  async waitFor(revision: number): Promise<void> {
    await this.#view.waitFor(revision);
  }

  /** By name or alias, restoring ones included; DatabaseNotFound, CollectionNotFound. */
  resolve(database: string, name: string): CollectionEntry {
    const found = this.#view.resolve(database, name);
    return { database: found.database, record: found.collection, schema: this.#view.schemaOf(found.collection.id) };
  }

  byId(database: string, id: number): CollectionEntry {
    const { id: databaseId } = this.database(database);
    const record = this.#view.collections.get(id);
    if (!record || record.state === CollectionState.COLLECTION_DROPPED || record.databaseId !== databaseId) {
      throw new CairnError('CollectionNotFound', `collection not found[database=${database}][collection=${id}]`);
    }
    return { database: this.database(database), record, schema: this.#view.schemaOf(id) };
  }

  /** For the data path: live ones only, synced once before "not found". CollectionRestoring while a restore fills it. */
  async resolveLive(database: string, name: string): Promise<CollectionEntry> {
    if (name === '') throw new CairnError('InvalidParameter', 'collection name should not be empty');
    const entry = await this.retrySynced(() => this.resolve(database, name));
    if (entry.record.state === CollectionState.COLLECTION_LIVE) return entry;
    await this.sync();
    return requireLive(this.resolve(database, name));
  }

  /** `read`, and when it finds nothing, `read` again after a sync. */
  async retrySynced<T>(read: () => T): Promise<T> {
    try {
      return read();
    } catch (error) {
      if (
        !hasCode(
          error,
          'CollectionNotFound',
          'DatabaseNotFound',
          'PartitionNotFound',
          'CollectionNotLoaded',
          'PartitionNotLoaded',
          'IndexNotFound',
        )
      )
        throw error;
      await this.sync();
      return read();
    }
  }

  database(name: string): DatabaseRecord {
    const found = this.#view.databaseNamed(name);
    // Every catalog has a default database, made by the first coordinator that leads.
    if (this.#view.databases.size === 0) throw new CairnError('ServiceNotReady', 'no coordinator has made the catalog yet');
    if (!found) throw new CairnError('DatabaseNotFound', `database not found[database=${name}]`);
    return found;
  }

  databases(): DatabaseRecord[] {
    return [...this.#view.databases.values()].sort((a, b) => a.id - b.id);
  }

  /** Not dropped ones, oldest first. */
  collectionsOf(databaseId: number): CollectionRecord[] {
    const inDatabase = [...this.#view.collections.values()].filter(
      (record) => record.databaseId === databaseId && record.state !== CollectionState.COLLECTION_DROPPED,
    );
    return inDatabase.sort((a, b) => a.id - b.id);
  }

  schemaOf(collectionId: number): CollectionSchema {
    return this.#view.schemaOf(collectionId);
  }

  /** Partitions that live, in the order they were made. */
  partitionsOf(collectionId: number): PartitionRecord[] {
    return [...this.#view.partitionsOf(collectionId)].filter((partition) => partition.droppedTs === 0).sort((a, b) => a.id - b.id);
  }

  partition(entry: CollectionEntry, name: string): PartitionRecord {
    const found = this.partitionsOf(entry.record.id).find((partition) => partition.name === name);
    if (!found) throw new CairnError('PartitionNotFound', `partition not found[partition=${name}][collection=${entry.record.name}]`);
    return found;
  }

  indexesOf(collectionId: number): IndexRecord[] {
    return [...this.#view.indexesOf(collectionId)].filter((index) => index.droppedTs === 0).sort((a, b) => a.id - b.id);
  }

  aliasesOf(collectionId: number): AliasRecord[] {
    return [...this.#view.aliasesOf(collectionId)].sort((a, b) => (a.alias < b.alias ? -1 : 1));
  }

  alias(databaseId: number, name: string): AliasRecord | undefined {
    return this.#view.alias(databaseId, name);
  }

  aliasesIn(databaseId: number): AliasRecord[] {
    return this.collectionsOf(databaseId).flatMap((collection) => this.aliasesOf(collection.id));
  }

  loadOf(collectionId: number): LoadRecord | undefined {
    return this.#view.loadOf(collectionId);
  }
}

export function requireLive(entry: CollectionEntry): CollectionEntry {
  if (entry.record.state === CollectionState.COLLECTION_RESTORING) {
    throw new CairnError(
      'CollectionRestoring',
      `collection is being restored[collection=${entry.record.name}][job=${entry.record.restoreJobId}]`,
    );
  }
  return entry;
}

/** A collection's shards by index. */
export function shardsOf(record: CollectionRecord): Shard[] {
  return record.shards.toSorted((a, b) => a.index - b.index);
}

/** The field, or FieldNotFound. */
export function fieldNamed(schema: CollectionSchema, name: string): Field {
  const field = schema.byName.get(name);
  if (!field) throw new CairnError('FieldNotFound', `field not found[field=${name}][collection=${schema.name}]`);
  return field;
}
