import { CairnError } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { CollectionRecord } from '@cairn/proto/cairn/meta';
import type { AddField, AlterField } from '@cairn/proto/cairn/wal';
import { FieldSchema } from '@cairn/proto/milvus/schema';
import { decodeSchema, encodeSchema, addField as extendSchema, type Field, makeSchema } from '@cairn/schema';
import { type ChangeHandler, effects, putRecord } from './change.ts';

/** Adds a nullable or defaulted field; rows written before have its default. */
export const addField: ChangeHandler<AddField> = (state, change, { ts }) => {
  const { collection } = state.resolveLive(change.database, change.collection);
  const id = collection.maxFieldId + 1;
  const schema = extendSchema(decodeSchema(collection.schema), FieldSchema.decode(change.field), id);
  const record: CollectionRecord = {
    ...collection,
    schema: encodeSchema(schema),
    maxFieldId: id,
    schemaVersion: collection.schemaVersion + 1,
    updatedTs: ts,
  };
  return effects(id, { puts: [putRecord(keys.collection(collection.id), CollectionRecord, record)] });
};

const MAX_VARCHAR_LENGTH = 65_535;
const MAX_ARRAY_CAPACITY = 4_096;

/** Changes type parameters of a field that Milvus lets change: max_length, max_capacity, mmap.enabled. */
export const alterField: ChangeHandler<AlterField> = (state, change, { ts }) => {
  const { collection } = state.resolveLive(change.database, change.collection);
  const schema = decodeSchema(collection.schema);
  const field = schema.byName.get(change.field);
  if (!field) throw new CairnError('FieldNotFound', `field not found[field=${change.field}]`);
  let altered: Field = field;
  for (const { key, value } of change.properties) altered = withParam(altered, key, value);
  for (const key of change.deleteKeys) {
    if (key !== 'mmap.enabled') throw new CairnError('InvalidParameter', `${key} of field ${field.name} cannot be deleted`);
    const { [key]: _gone, ...rest } = altered.typeParams;
    altered = { ...altered, typeParams: rest };
  }
  const fields = schema.fields.map((candidate) => (candidate.id === field.id ? altered : candidate));
  const record: CollectionRecord = {
    ...collection,
    schema: encodeSchema(makeSchema({ ...schema, fields })),
    schemaVersion: collection.schemaVersion + 1,
    updatedTs: ts,
  };
  return effects(field.id, { puts: [putRecord(keys.collection(collection.id), CollectionRecord, record)] });
};

function withParam(field: Field, key: string, value: string): Field {
  const typeParams = { ...field.typeParams, [key]: value };
  switch (key) {
    case 'mmap.enabled':
      return { ...field, typeParams };
    case 'max_length':
      if (field.maxLength === 0) throw new CairnError('InvalidParameter', `field ${field.name} has no max_length to alter`);
      return { ...field, typeParams, maxLength: bounded(field, key, value, MAX_VARCHAR_LENGTH) };
    case 'max_capacity':
      if (field.maxCapacity === 0) throw new CairnError('InvalidParameter', `field ${field.name} has no max_capacity to alter`);
      return { ...field, typeParams, maxCapacity: bounded(field, key, value, MAX_ARRAY_CAPACITY) };
    default:
      throw new CairnError('InvalidParameter', `${key} does not allow update in collection field param`);
  }
}

function bounded(field: Field, key: string, value: string, limit: number): number {
  const number = Number(value);
  if (!Number.isInteger(number) || number < 1 || number > limit) {
    throw new CairnError('InvalidParameter', `${key} ${value} of field ${field.name} is out of range 1..${limit}`);
  }
  return number;
}
