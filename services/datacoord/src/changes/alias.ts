import { CairnError } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { AliasRecord, type CollectionRecord, type DatabaseRecord } from '@cairn/proto/cairn/meta';
import type { AlterAlias, CreateAlias, DropAlias } from '@cairn/proto/cairn/wal';
import type { CatalogState } from '../catalog-state.ts';
import { aliasConflict, type ChangeHandler, checkName, effects, putRecord } from './change.ts';

/** Aliases of one collection at most: dropping it removes them in one transaction. */
export const MAX_ALIASES = 64;

function target(state: CatalogState, database: DatabaseRecord, name: string): CollectionRecord {
  if (!state.collectionNamed(database, name))
    throw new CairnError('CollectionNotFound', `collection not found[database=${database.name}][collection=${name}]`);
  return state.resolveLive(database.name, name).collection;
}

function point(state: CatalogState, database: DatabaseRecord, alias: string, collection: CollectionRecord, ts: number) {
  if (state.aliasesOf(collection.id).length >= MAX_ALIASES) {
    throw new CairnError('InvalidParameter', `collection ${collection.name} has ${MAX_ALIASES} aliases already`);
  }
  const record: AliasRecord = { databaseId: database.id, alias, collectionId: collection.id, createdTs: ts };
  return effects(collection.id, { puts: [putRecord(keys.alias(database.id, alias), AliasRecord, record)] });
}

function refuseNameOfCollection(state: CatalogState, database: DatabaseRecord, alias: string): void {
  if (state.collectionNamed(database, alias)) throw aliasConflict(database, alias);
}

export const createAlias: ChangeHandler<CreateAlias> = (state, change, { ts }) => {
  checkName('collection alias', change.alias);
  checkName('collection name', change.collection);
  const database = state.database(change.database);
  refuseNameOfCollection(state, database, change.alias);
  const collection = target(state, database, change.collection);
  const existing = state.alias(database, change.alias);
  if (existing?.collectionId === collection.id) return effects(collection.id);
  if (existing) {
    const owner = state.collections.get(existing.collectionId)?.name ?? existing.collectionId;
    throw new CairnError(
      'AliasExists',
      `${change.alias} is alias to another collection: ${owner}: alias already exist[database=${database.name}][alias=${change.alias}]`,
    );
  }
  return point(state, database, change.alias, collection, ts);
};

export const alterAlias: ChangeHandler<AlterAlias> = (state, change, { ts }) => {
  checkName('collection alias', change.alias);
  checkName('collection name', change.collection);
  const database = state.database(change.database);
  refuseNameOfCollection(state, database, change.alias);
  const existing = state.alias(database, change.alias);
  if (!existing) throw new CairnError('AliasNotFound', `alias not found[database=${database.name}][alias=${change.alias}]`);
  const collection = target(state, database, change.collection);
  if (existing.collectionId === collection.id) return effects(collection.id);
  return point(state, database, change.alias, collection, ts);
};

/** A missing alias is success. */
export const dropAlias: ChangeHandler<DropAlias> = (state, change) => {
  const database = state.database(change.database);
  const existing = state.alias(database, change.alias);
  return existing ? effects(existing.collectionId, { deletes: [keys.alias(database.id, change.alias)] }) : effects(0);
};
