import { CairnError } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { CollectionRecord, CollectionState, type DatabaseRecord, PartitionRecord, ShardRecord } from '@cairn/proto/cairn/meta';
import type { AlterCollection, CreateCollection, DropCollection, RenameCollection } from '@cairn/proto/cairn/wal';
import { decodeSchema, dynamicField, encodeSchema, makeSchema } from '@cairn/schema';
import type { CatalogState } from '../catalog-state.ts';
import { aliasConflict, alterProperties, type ChangeHandler, checkName, effects, putRecord, sameProperties } from './change.ts';

/** Collections of a database, and partitions of a collection, at most (Milvus's defaults). */
export const MAX_COLLECTIONS = 65_536;
export const MAX_PARTITIONS = 1_024;
/** Shards of a collection at most: their records are written in the transaction that makes the collection. */
export const MAX_SHARDS = 64;

/**
 * Makes a collection with its shards and partitions. The same again (same name, schema, shards, partitions, properties) is success; a different
 * one under a name that is taken, by a restoring collection too, is refused.
 */
export const createCollection: ChangeHandler<CreateCollection> = (state, change, { ts }) => {
  const { collection, partitions, checkpoints } = change;
  if (!collection) throw new CairnError('InvalidParameter', 'create collection without a collection');
  const { name } = collection;
  checkName('collection name', name);
  const database = state.database(change.database);
  const existing = state.collectionNamed(database, name);
  if (existing) {
    if (isSame(existing, collection)) return effects(existing.id);
    throw new CairnError('InvalidParameter', `create duplicate collection with different parameters, collection: ${name}`);
  }
  if (state.alias(database, name)) {
    throw aliasConflict(database, name, `collection name ${name} conflicts with an existing alias, please choose a unique name`);
  }
  if (state.collectionsIn(database.id).length >= MAX_COLLECTIONS) {
    throw new CairnError(
      'CollectionLimit',
      `exceeded the limit number of collections[database=${database.name}][limit=${MAX_COLLECTIONS}]`,
    );
  }
  if (collection.shards.length < 1 || collection.shards.length > MAX_SHARDS) {
    throw new CairnError(
      'InvalidParameter',
      `shards num ${collection.shards.length} of collection ${name} is out of range 1..${MAX_SHARDS}`,
    );
  }
  const record: CollectionRecord = { ...collection, databaseId: database.id, createdTs: ts, updatedTs: ts };
  const shards = record.shards.map((shard, position): ShardRecord => {
    const checkpoint = checkpoints[position] ?? 0;
    return { collectionId: record.id, shard: shard.index, vchannel: shard.vchannel, channel: shard.channel, checkpoint, checkpointTs: ts };
  });
  return effects(record.id, {
    staged: partitions.map((partition) => {
      const staged: PartitionRecord = { ...partition, collectionId: record.id, createdTs: ts, droppedTs: 0 };
      return putRecord(keys.partition(record.id, staged.id), PartitionRecord, staged);
    }),
    puts: [
      putRecord(keys.collection(record.id), CollectionRecord, record),
      ...shards.map((shard) => putRecord(keys.shard(record.id, shard.shard), ShardRecord, shard)),
    ],
  });
};

function isSame(existing: CollectionRecord, wanted: CollectionRecord): boolean {
  return (
    existing.state === CollectionState.COLLECTION_LIVE &&
    wanted.state === CollectionState.COLLECTION_LIVE &&
    Buffer.compare(existing.schema, wanted.schema) === 0 &&
    existing.shards.length === wanted.shards.length &&
    existing.numPartitions === wanted.numPartitions &&
    existing.consistencyLevel === wanted.consistencyLevel &&
    sameProperties(existing.properties, wanted.properties)
  );
}

/**
 * Marks it dropped: its name is free at once, its aliases and its load are gone; segments, snapshots and restore jobs follow (see DropFollower).
 * A missing one is success, as in Milvus. With a collection id only that one is meant (undo of a restore).
 */
export const dropCollection: ChangeHandler<DropCollection> = (state, change, { ts }) => {
  const collection = change.collectionId === 0 ? namedToDrop(state, change) : state.collections.get(change.collectionId);
  if (!collection || collection.state === CollectionState.COLLECTION_DROPPED) return effects(0);
  const record: CollectionRecord = { ...collection, state: CollectionState.COLLECTION_DROPPED, droppedTs: ts, updatedTs: ts };
  return effects(collection.id, {
    puts: [putRecord(keys.collection(record.id), CollectionRecord, record)],
    deletes: [
      ...state.aliasesOf(record.id).map((alias) => keys.alias(alias.databaseId, alias.alias)),
      ...(state.loads.get(record.id) ? [keys.load(record.id)] : []),
    ],
  });
};

function namedToDrop(state: CatalogState, change: DropCollection): CollectionRecord | undefined {
  const database = state.database(change.database);
  const collection = state.collectionNamed(database, change.name);
  if (!collection && state.alias(database, change.name)) {
    throw new CairnError('InvalidParameter', `cannot drop the collection via alias = ${change.name}`, { legacy: 1 });
  }
  return collection;
}

export const renameCollection: ChangeHandler<RenameCollection> = (state, change, { ts }) => {
  checkName('collection name', change.newName);
  const database = state.database(change.database);
  const target = change.newDatabase === '' ? database : state.database(change.newDatabase);
  const collection = liveByName(state, database, change.name);
  const taken = state.collectionNamed(target, change.newName);
  if (taken) {
    throw new CairnError(
      'InvalidParameter',
      `duplicated new collection name ${change.newName} in database ${target.name} with other collection name or alias`,
      {
        legacy: 1,
      },
    );
  }
  if (state.alias(target, change.newName)) {
    throw aliasConflict(target, change.newName, `cannot rename collection to an existing alias: ${change.newName}`);
  }
  if (target.id !== database.id && state.aliasesOf(collection.id).length > 0) {
    throw new CairnError('InvalidParameter', 'fail to rename db name, must drop all aliases of this collection before rename', {
      legacy: 1,
    });
  }
  const record: CollectionRecord = { ...collection, databaseId: target.id, name: change.newName, updatedTs: ts };
  return effects(collection.id, { puts: [putRecord(keys.collection(collection.id), CollectionRecord, record)] });
};

/** By name alone: Milvus renames no alias. */
function liveByName(state: CatalogState, database: DatabaseRecord, name: string): CollectionRecord {
  if (state.alias(database, name) && !state.collectionNamed(database, name)) {
    throw new CairnError('InvalidParameter', `unsupported use an alias to rename collection, alias:${name}`, { legacy: 1 });
  }
  return state.resolveLive(database.name, name).collection;
}

/** No property of the record: it says whether the schema has a dynamic field. */
const DYNAMIC_PROPERTY = 'dynamicfield.enabled';

/** Switches the dynamic field on; rows written before have `{}`. It cannot be switched off: its keys would be lost. */
function withDynamicField(collection: CollectionRecord, { value }: { readonly value: string }): CollectionRecord {
  const wanted = value.toLowerCase();
  if (wanted !== 'true' && wanted !== 'false')
    throw new CairnError('InvalidParameter', `invalid ${DYNAMIC_PROPERTY} value: ${value}, expected true or false`);
  const schema = decodeSchema(collection.schema);
  if (schema.enableDynamicField === (wanted === 'true')) return collection;
  if (schema.enableDynamicField)
    throw new CairnError('InvalidParameter', `the dynamic field of collection ${collection.name} cannot be disabled`);
  const id = collection.maxFieldId + 1;
  const fields = [...schema.fields, dynamicField(id)];
  return {
    ...collection,
    schema: encodeSchema(makeSchema({ ...schema, fields, enableDynamicField: true })),
    maxFieldId: id,
    schemaVersion: collection.schemaVersion + 1,
  };
}

export const alterCollection: ChangeHandler<AlterCollection> = (state, change, { ts }) => {
  const { collection } = state.resolveLive(change.database, change.name);
  const switches = change.properties.filter(({ key }) => key === DYNAMIC_PROPERTY);
  const others = change.properties.filter(({ key }) => key !== DYNAMIC_PROPERTY);
  if (change.deleteKeys.includes(DYNAMIC_PROPERTY)) throw new CairnError('InvalidParameter', `${DYNAMIC_PROPERTY} cannot be deleted`);
  const properties = alterProperties(collection.properties, others, change.deleteKeys);
  const record = { ...switches.reduce(withDynamicField, collection), properties, updatedTs: ts };
  return effects(collection.id, { puts: [putRecord(keys.collection(collection.id), CollectionRecord, record)] });
};
