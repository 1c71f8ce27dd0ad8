import type { MetaEntry } from '@cairn/meta';
import {
  AliasRecord,
  CollectionRecord,
  CollectionState,
  DatabaseRecord,
  IndexRecord,
  LoadRecord,
  PartitionRecord,
} from '@cairn/proto/cairn/meta';
import type { CatalogChange, CatalogKind } from './catalog-change.ts';
import { CATALOG } from './keys.ts';
import { decodeRecord } from './records.ts';

type Held =
  | { readonly kind: 'database'; readonly record: DatabaseRecord }
  | { readonly kind: 'collection'; readonly record: CollectionRecord }
  | { readonly kind: 'partition'; readonly record: PartitionRecord }
  | { readonly kind: 'index'; readonly record: IndexRecord }
  | { readonly kind: 'alias'; readonly record: AliasRecord }
  | { readonly kind: 'load'; readonly record: LoadRecord };

/** Records of `catalog/` by key, with the ways in that requests use. */
export class CatalogMaps {
  readonly databases = new Map<number, DatabaseRecord>();
  readonly collections = new Map<number, CollectionRecord>();
  readonly loads = new Map<number, LoadRecord>();
  readonly #held = new Map<string, { readonly held: Held; readonly modRevision: number }>();
  readonly #databaseNames = new Map<string, DatabaseRecord>();
  readonly #collectionNames = new Map<string, CollectionRecord>();
  readonly #partitions = new Map<number, Map<number, PartitionRecord>>();
  readonly #indexes = new Map<number, Map<number, IndexRecord>>();
  readonly #aliases = new Map<string, AliasRecord>();
  readonly #aliasesOf = new Map<number, Map<string, AliasRecord>>();

  keys(): string[] {
    return [...this.#held.keys()];
  }

  databaseNamed(name: string): DatabaseRecord | undefined {
    return this.#databaseNames.get(name);
  }

  collectionNamed(databaseId: number, name: string): CollectionRecord | undefined {
    return this.#collectionNames.get(nameIn(databaseId, name));
  }

  livingCollection(id: number): CollectionRecord | undefined {
    const record = this.collections.get(id);
    return record && named(record) ? record : undefined;
  }

  partitionsOf(collectionId: number): readonly PartitionRecord[] {
    return [...(this.#partitions.get(collectionId)?.values() ?? [])];
  }

  partition(collectionId: number, partitionId: number): PartitionRecord | undefined {
    return this.#partitions.get(collectionId)?.get(partitionId);
  }

  indexesOf(collectionId: number): readonly IndexRecord[] {
    return [...(this.#indexes.get(collectionId)?.values() ?? [])];
  }

  alias(databaseId: number, alias: string): AliasRecord | undefined {
    return this.#aliases.get(nameIn(databaseId, alias));
  }

  aliasesOf(collectionId: number): readonly AliasRecord[] {
    return [...(this.#aliasesOf.get(collectionId)?.values() ?? [])];
  }

  /** Takes in an entry; undefined when it is known already or of no kind that the view holds (catalog/applied). */
  put(entry: MetaEntry): CatalogChange | undefined {
    const before = this.#held.get(entry.key);
    if (before && before.modRevision >= entry.modRevision) return undefined;
    const held = decodeHeld(entry);
    if (!held) return undefined;
    if (before) this.#unlink(before.held);
    this.#held.set(entry.key, { held, modRevision: entry.modRevision });
    this.#link(held);
    return changeOf(entry.key, held);
  }

  delete(key: string): CatalogChange | undefined {
    const before = this.#held.get(key);
    if (!before) return undefined;
    this.#held.delete(key);
    this.#unlink(before.held);
    return changeOf(key, before.held);
  }

  #link({ kind, record }: Held): void {
    switch (kind) {
      case 'database':
        this.databases.set(record.id, record);
        this.#databaseNames.set(record.name, record);
        return;
      case 'collection':
        this.collections.set(record.id, record);
        if (named(record)) this.#collectionNames.set(nameIn(record.databaseId, record.name), record);
        return;
      case 'partition':
        within(this.#partitions, record.collectionId).set(record.id, record);
        return;
      case 'index':
        within(this.#indexes, record.collectionId).set(record.id, record);
        return;
      case 'alias':
        this.#aliases.set(nameIn(record.databaseId, record.alias), record);
        within(this.#aliasesOf, record.collectionId).set(nameIn(record.databaseId, record.alias), record);
        return;
      case 'load':
        this.loads.set(record.collectionId, record);
        return;
    }
  }

  /** A name that has gone to another record in the same transaction stays with that one: only what is this record's own is taken away. */
  #unlink({ kind, record }: Held): void {
    switch (kind) {
      case 'database':
        this.databases.delete(record.id);
        forget(this.#databaseNames, record.name, record);
        return;
      case 'collection':
        this.collections.delete(record.id);
        forget(this.#collectionNames, nameIn(record.databaseId, record.name), record);
        return;
      case 'partition':
        forgetWithin(this.#partitions, record.collectionId, record.id);
        return;
      case 'index':
        forgetWithin(this.#indexes, record.collectionId, record.id);
        return;
      case 'alias':
        forget(this.#aliases, nameIn(record.databaseId, record.alias), record);
        forgetWithin(this.#aliasesOf, record.collectionId, nameIn(record.databaseId, record.alias));
        return;
      case 'load':
        this.loads.delete(record.collectionId);
        return;
    }
  }
}

function decodeHeld(entry: MetaEntry): Held | undefined {
  const { key, value } = entry;
  const kind = key.slice(CATALOG.length, key.indexOf('/', CATALOG.length)) as CatalogKind;
  switch (kind) {
    case 'database':
      return { kind, record: decodeRecord(DatabaseRecord, key, value) };
    case 'collection':
      return { kind, record: decodeRecord(CollectionRecord, key, value) };
    case 'partition':
      return { kind, record: decodeRecord(PartitionRecord, key, value) };
    case 'index':
      return { kind, record: decodeRecord(IndexRecord, key, value) };
    case 'alias':
      return { kind, record: decodeRecord(AliasRecord, key, value) };
    case 'load':
      return { kind, record: decodeRecord(LoadRecord, key, value) };
    default:
      return undefined;
  }
}

function changeOf(key: string, held: Held): CatalogChange {
  const collectionId = held.kind === 'database' ? 0 : held.kind === 'collection' ? held.record.id : held.record.collectionId;
  return { kind: held.kind, collectionId, key };
}

function named(record: CollectionRecord): boolean {
  return record.state !== CollectionState.COLLECTION_DROPPED;
}

function nameIn(databaseId: number, name: string): string {
  return `${databaseId}/${name}`;
}

function within<K, V>(maps: Map<number, Map<K, V>>, id: number): Map<K, V> {
  let inner = maps.get(id);
  if (!inner) {
    inner = new Map();
    maps.set(id, inner);
  }
  return inner;
}

function forget<V>(map: Map<string, V>, key: string, value: V): void {
  if (map.get(key) === value) map.delete(key);
}

function forgetWithin<K, V>(maps: Map<number, Map<K, V>>, id: number, key: K): void {
  const inner = maps.get(id);
  inner?.delete(key);
  if (inner?.size === 0) maps.delete(id);
}
