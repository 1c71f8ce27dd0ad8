import { CairnError } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { type CollectionRecord, CollectionState, IndexRecord } from '@cairn/proto/cairn/meta';
import type { AlterIndex, CreateIndex, DropIndex } from '@cairn/proto/cairn/wal';
import { decodeSchema } from '@cairn/schema';
import type { CatalogState } from '../catalog-state.ts';
import { alterProperties, type ChangeHandler, checkName, effects, putRecord, sameProperties } from './change.ts';

/** Parameters of an index that may change after it was made. */
const ALTERABLE = new Set(['mmap.enabled', 'indexoffsetcache.enabled']);

/**
 * One index a field, of JSON one a path. The same again is success; its default name is the field's, of JSON with the path behind it. A restore's own
 * goes to its restoring target.
 */
export const createIndex: ChangeHandler<CreateIndex> = (state, change, { ts }) => {
  const { index } = change;
  if (!index) throw new CairnError('InvalidParameter', 'create index without an index');
  const collection = targetOf(state, change);
  const schema = decodeSchema(collection.schema);
  const field = change.field === '' ? schema.byId.get(index.fieldId) : schema.byName.get(change.field);
  if (!field) {
    throw new CairnError(
      'FieldNotFound',
      `cannot create index on non-exist field: ${change.field === '' ? index.fieldId : change.field}[collection=${collection.name}]`,
    );
  }
  const path = jsonPathOf(index);
  const ownName = [field.name, ...stepsOf(path)].join('/');
  const name = index.name === '' ? ownName : index.name;
  // The name of a struct's member, or of a path, is none that a user could give.
  if (name !== field.name && name !== ownName) checkName('index name', name);
  for (const other of state.indexesOf(collection.id)) {
    if (other.fieldId === field.id && path === jsonPathOf(other)) {
      // The same again without a name means the one that is there.
      if ((index.name === '' || other.name === name) && sameProperties(other.indexParams, index.indexParams)) return effects(other.id);
      throw new CairnError(
        'InvalidParameter',
        `at most one distinct index is allowed per field: ${ownName} of collection ${collection.name} has index ${other.name}`,
        {
          legacy: 1,
        },
      );
    }
    if (other.name === name) {
      throw new CairnError(
        'InvalidParameter',
        `index name ${name} of collection ${collection.name} is taken by the index of another ${path === '' ? 'field' : 'path'}`,
        { legacy: 1 },
      );
    }
  }
  const record: IndexRecord = { ...index, collectionId: collection.id, fieldId: field.id, name, createdTs: ts, droppedTs: 0 };
  return effects(record.id, { puts: [putRecord(keys.index(collection.id, record.id), IndexRecord, record)] });
};

/** Where in a JSON field an index looks, in the one form that the proxy gives it: `doc["a"][0]`; empty: it is no index of JSON. */
const jsonPathOf = ({ indexParams }: IndexRecord): string => indexParams.find(({ key }) => key === 'json_path')?.value ?? '';

const stepsOf = (path: string): string[] => [...path.matchAll(/\[("(?:[^"\\]|\\.)*"|\d+)\]/g)].map(([, step]) => String(JSON.parse(step)));

function targetOf(state: CatalogState, change: CreateIndex): CollectionRecord {
  if (change.restoreJobId === 0) return state.resolveLive(change.database, change.collection).collection;
  const { collection } = state.resolve(change.database, change.collection);
  if (collection.state !== CollectionState.COLLECTION_RESTORING || collection.restoreJobId !== change.restoreJobId) {
    throw new CairnError('InvalidParameter', `collection ${change.collection} is not the target of restore job ${change.restoreJobId}`);
  }
  return collection;
}

/** By index name or, with an empty one, by field; a missing index is success. An index of a vector field needs the collection released. */
export const dropIndex: ChangeHandler<DropIndex> = (state, change) => {
  const { collection } = state.resolveLive(change.database, change.collection);
  const schema = decodeSchema(collection.schema);
  const fieldId = change.field === '' ? undefined : schema.byName.get(change.field)?.id;
  const dropped = state
    .indexesOf(collection.id)
    .filter((index) =>
      change.name === '' ? change.field === '' || index.fieldId === fieldId : index.name === change.name || index.name === change.field,
    );
  const vectors = new Set(schema.vectorFields.map((field) => field.id));
  if (state.loads.get(collection.id) && dropped.some((index) => vectors.has(index.fieldId))) {
    throw new CairnError('InvalidParameter', `vector index cannot be dropped on loaded collection: ${collection.name}`, { legacy: 1 });
  }
  return effects(dropped[0]?.id ?? 0, { deletes: dropped.map((index) => keys.index(collection.id, index.id)) });
};

export const alterIndex: ChangeHandler<AlterIndex> = (state, change) => {
  const { collection } = state.resolveLive(change.database, change.collection);
  for (const key of [...change.params.map((param) => param.key), ...change.deleteKeys]) {
    if (!ALTERABLE.has(key)) throw new CairnError('InvalidParameter', `${key} is not a configable index property`);
  }
  const index = state.indexesOf(collection.id).find((candidate) => candidate.name === change.name);
  if (!index) throw new CairnError('IndexNotFound', `index not found[indexName=${change.name}]`);
  if (state.loads.get(collection.id)) {
    throw new CairnError(
      'CollectionLoaded',
      `can't alter index on loaded collection, please release the collection first[collection=${collection.name}]`,
    );
  }
  const record = { ...index, userParams: alterProperties(index.userParams, change.params, change.deleteKeys) };
  return effects(index.id, { puts: [putRecord(keys.index(collection.id, index.id), IndexRecord, record)] });
};
