import { asCairnError, CairnError, type Deferred, deferred, type Logger, type Runtime, type Service } from '@cairn/base';
import type { MetaEntry, MetaStore, WatchBatch } from '@cairn/meta';
import type { AliasRecord, CollectionRecord, DatabaseRecord, IndexRecord, LoadRecord, PartitionRecord } from '@cairn/proto/cairn/meta';
import { type CollectionSchema, decodeSchema } from '@cairn/schema';
import type { CatalogChange } from './catalog-change.ts';
import { CatalogMaps } from './catalog-maps.ts';
import { CATALOG, keys } from './keys.ts';

export interface ResolvedCollection {
  readonly database: DatabaseRecord;
  readonly collection: CollectionRecord;
}

export interface CatalogViewOptions {
  /** Longest wait of sync and waitFor, ms; default 10,000. */
  readonly syncTimeoutMs?: number;
}

const SYNC_TIMEOUT_MS = 10_000;
export const DEFAULT_DATABASE = 'default';

/**
 * The catalog in memory, kept current by a watch. It may lag behind the store, but shows whole transactions only; `sync` waits until it shows
 * everything that was answered before the call.
 */
export class CatalogView implements Service {
  readonly name = 'catalog-view';
  readonly #meta: MetaStore;
  readonly #runtime: Runtime;
  readonly #logger: Logger;
  readonly #syncTimeoutMs: number;
  readonly #maps = new CatalogMaps();
  readonly #schemas = new Map<number, { readonly bytes: Uint8Array; readonly schema: CollectionSchema }>();
  readonly #listeners = new Set<(changes: readonly CatalogChange[]) => void>();
  readonly #waiting = new Set<{ readonly revision: number; readonly done: Deferred<void> }>();
  readonly #stopping = new AbortController();
  #loop: Promise<void> | undefined;
  #revision = 0;

  constructor(meta: MetaStore, runtime: Runtime, logger: Logger, options: CatalogViewOptions = {}) {
    this.#meta = meta;
    this.#runtime = runtime;
    this.#logger = logger;
    this.#syncTimeoutMs = options.syncTimeoutMs ?? SYNC_TIMEOUT_MS;
  }

  /** Resolves with the first state; waits as long as the store is away. */
  async start(): Promise<void> {
    const first = deferred<void>();
    this.#loop = this.#follow(first);
    await first.promise;
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#loop;
    for (const waiter of this.#waiting) waiter.done.reject(new CairnError('Cancelled', 'catalog view is stopped'));
    this.#waiting.clear();
  }

  /** Revision of the last transaction that the view shows. */
  get revision(): number {
    return this.#revision;
  }

  get databases(): ReadonlyMap<number, DatabaseRecord> {
    return this.#maps.databases;
  }

  /** By id, dropped ones too. */
  get collections(): ReadonlyMap<number, CollectionRecord> {
    return this.#maps.collections;
  }

  /** An empty name is the default database. */
  databaseNamed(name: string): DatabaseRecord | undefined {
    return this.#maps.databaseNamed(name === '' ? DEFAULT_DATABASE : name);
  }

  /** By its own name, not by alias; not dropped. */
  collectionNamed(databaseId: number, name: string): CollectionRecord | undefined {
    return this.#maps.collectionNamed(databaseId, name);
  }

  partitionsOf(collectionId: number): readonly PartitionRecord[] {
    return this.#maps.partitionsOf(collectionId);
  }

  partition(collectionId: number, partitionId: number): PartitionRecord | undefined {
    return this.#maps.partition(collectionId, partitionId);
  }

  indexesOf(collectionId: number): readonly IndexRecord[] {
    return this.#maps.indexesOf(collectionId);
  }

  aliasesOf(collectionId: number): readonly AliasRecord[] {
    return this.#maps.aliasesOf(collectionId);
  }

  alias(databaseId: number, alias: string): AliasRecord | undefined {
    return this.#maps.alias(databaseId, alias);
  }

  loadOf(collectionId: number): LoadRecord | undefined {
    return this.#maps.loads.get(collectionId);
  }

  /** Decoded once for each version. CollectionNotFound for an unknown id. */
  schemaOf(collectionId: number): CollectionSchema {
    const record = this.#maps.collections.get(collectionId);
    if (!record) throw new CairnError('CollectionNotFound', `collection not found[collection=${collectionId}]`);
    const cached = this.#schemas.get(collectionId);
    if (cached?.bytes === record.schema) return cached.schema;
    const schema = decodeSchema(record.schema);
    this.#schemas.set(collectionId, { bytes: record.schema, schema });
    return schema;
  }

  /** A collection by name or alias, restoring ones included. DatabaseNotFound, CollectionNotFound. */
  resolve(databaseName: string, nameOrAlias: string): ResolvedCollection {
    const database = this.databaseNamed(databaseName);
    if (!database) throw new CairnError('DatabaseNotFound', `database not found[database=${databaseName}]`);
    const aliased = this.alias(database.id, nameOrAlias);
    const collection = this.collectionNamed(database.id, nameOrAlias) ?? (aliased && this.#maps.livingCollection(aliased.collectionId));
    if (!collection) throw new CairnError('CollectionNotFound', `collection not found[collection=${nameOrAlias}]`);
    return { database, collection };
  }

  /** Resolves when the view shows all changes that were answered before the call. Timeout after syncTimeoutMs, StoreUnavailable. */
  async sync(): Promise<void> {
    const applied = await this.#meta.get(keys.applied);
    if (applied) await this.waitFor(applied.modRevision);
  }

  /** Resolves when the view shows the catalog transaction of this revision. */
  async waitFor(revision: number, timeoutMs = this.#syncTimeoutMs): Promise<void> {
    if (revision <= this.#revision) return;
    const waiter = { revision, done: deferred<void>() };
    this.#waiting.add(waiter);
    const timer = this.#runtime.after(timeoutMs, () =>
      waiter.done.reject(
        new CairnError('Timeout', `catalog view is at revision ${this.#revision}, did not reach ${revision} within ${timeoutMs} ms`),
      ),
    );
    try {
      await waiter.done.promise;
    } finally {
      timer.cancel();
      this.#waiting.delete(waiter);
    }
  }

  /** Called once for each batch, when all of it is applied. */
  onChange(listener: (changes: readonly CatalogChange[]) => void): { close(): void } {
    this.#listeners.add(listener);
    return { close: () => this.#listeners.delete(listener) };
  }

  async #follow(first: Deferred<void>): Promise<void> {
    try {
      for await (const batch of this.#meta.watch(CATALOG, this.#stopping.signal)) {
        this.#apply(batch);
        first.resolve();
      }
      first.reject(new CairnError('Cancelled', 'catalog view is stopped'));
    } catch (error) {
      first.reject(error);
      if (!this.#stopping.signal.aborted) this.#logger.error({ error }, 'catalog view: its watch ended');
    }
  }

  #apply(batch: WatchBatch): void {
    const changes: CatalogChange[] = [];
    if (batch.kind === 'reset') {
      const there = new Set(batch.entries.map((entry) => entry.key));
      for (const key of this.#maps.keys()) if (!there.has(key)) this.#delete(key, changes);
      for (const entry of batch.entries) this.#put(entry, changes);
    } else {
      for (const event of batch.events) {
        if (event.kind === 'put') this.#put(event.entry, changes);
        else this.#delete(event.key, changes);
      }
    }
    this.#revision = Math.max(this.#revision, batch.revision);
    for (const waiter of this.#waiting) if (waiter.revision <= this.#revision) waiter.done.resolve();
    if (changes.length === 0) return;
    for (const listener of [...this.#listeners]) {
      try {
        listener(changes);
      } catch (error) {
        this.#logger.error({ error: asCairnError(error) }, 'listener of the catalog failed');
      }
    }
  }

  #put(entry: MetaEntry, changes: CatalogChange[]): void {
    const change = this.#maps.put(entry);
    if (change) changes.push(change);
  }

  #delete(key: string, changes: CatalogChange[]): void {
    const change = this.#maps.delete(key);
    if (!change) return;
    changes.push(change);
    if (change.kind === 'collection') this.#schemas.delete(change.collectionId);
  }
}
