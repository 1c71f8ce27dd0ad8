import { CairnError } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { LoadRecord } from '@cairn/proto/cairn/meta';
import type { Load, Release } from '@cairn/proto/cairn/wal';
import { decodeSchema } from '@cairn/schema';
import { type ChangeHandler, effects, putRecord } from './change.ts';
import { partitionNamed, withoutPartitions } from './partition.ts';

/** Records that the collection (or some partitions of it) shall be searchable. Needs an index on every vector field, as in Milvus. */
export const load: ChangeHandler<Load> = (state, change, { ts }) => {
  const { collection } = state.resolveLive(change.database, change.collection);
  const schema = decodeSchema(collection.schema);
  const indexed = new Set(state.indexesOf(collection.id).map((index) => index.fieldId));
  for (const field of schema.vectorFields) {
    if (!indexed.has(field.id)) {
      throw new CairnError(
        'IndexNotFound',
        `index not found[collection=${collection.name}]: there is no vector index on field: [${field.name}], please create index firstly`,
      );
    }
  }
  const loadFieldIds = change.loadFields.map((name) => {
    const field = schema.byName.get(name);
    if (!field) throw new CairnError('FieldNotFound', `field not found[field=${name}]`);
    return field.id;
  });
  const before = state.loads.get(collection.id);
  const asked = change.partitions.map((name) => partitionNamed(state, collection, name).id);
  // What is loaded stays loaded: some partitions and then some more, or the whole.
  const whole = asked.length === 0 || (before !== undefined && before.partitionIds.length === 0);
  const record: LoadRecord = {
    collectionId: collection.id,
    partitionIds: whole ? [] : [...new Set([...(before?.partitionIds ?? []), ...asked])],
    requestedTs: ts,
    replicas: Math.max(1, change.replicas),
    resourceGroups: change.resourceGroups,
    loadFieldIds,
  };
  return effects(collection.id, { puts: [putRecord(keys.load(collection.id), LoadRecord, record)] });
};

/** Releasing what is not loaded is success. */
export const release: ChangeHandler<Release> = (state, change) => {
  const { collection } = state.resolve(change.database, change.collection);
  const released = change.partitions.map((name) => partitionNamed(state, collection, name).id);
  const before = state.loads.get(collection.id);
  if (!before) return effects(collection.id);
  const rest = released.length === 0 ? undefined : withoutPartitions(state, collection, before, released);
  if (!rest) return effects(collection.id, { deletes: [keys.load(collection.id)] });
  return effects(collection.id, { puts: [putRecord(keys.load(collection.id), LoadRecord, rest)] });
};
