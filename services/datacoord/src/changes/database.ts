import { CairnError } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { DatabaseRecord } from '@cairn/proto/cairn/meta';
import type { AlterDatabase, CreateDatabase, DropDatabase } from '@cairn/proto/cairn/wal';
import { DEFAULT_DATABASE } from '../catalog-state.ts';
import { alterProperties, type ChangeHandler, checkName, effects, putRecord } from './change.ts';

/** Databases of a cluster at most. */
export const MAX_DATABASES = 64;

export const createDatabase: ChangeHandler<CreateDatabase> = (state, change, { ts }) => {
  checkName('database name', change.name);
  if (state.hasDatabase(change.name)) throw new CairnError('InvalidParameter', `database already exist: ${change.name}`, { legacy: 1 });
  if (state.databases.size >= MAX_DATABASES)
    throw new CairnError('DatabaseLimit', `exceeded the limit number of database[limit=${MAX_DATABASES}]`);
  const record: DatabaseRecord = {
    id: change.id,
    name: change.name,
    properties: alterProperties([], change.properties, []),
    createdTs: ts,
  };
  return effects(change.id, { puts: [putRecord(keys.database(record.id), DatabaseRecord, record)] });
};

export const dropDatabase: ChangeHandler<DropDatabase> = (state, change) => {
  if (change.name === DEFAULT_DATABASE || change.name === '')
    throw new CairnError('InvalidParameter', 'can not drop default database', { legacy: 1 });
  const database = state.database(change.name);
  if (state.collectionsIn(database.id).length > 0) {
    throw new CairnError('InvalidParameter', `database:${change.name} not empty, must drop all collections before drop database`, {
      legacy: 1,
    });
  }
  return effects(database.id, { deletes: [keys.database(database.id)] });
};

export const alterDatabase: ChangeHandler<AlterDatabase> = (state, change) => {
  const database = state.database(change.name);
  const record = { ...database, properties: alterProperties(database.properties, change.properties, change.deleteKeys) };
  return effects(database.id, { puts: [putRecord(keys.database(database.id), DatabaseRecord, record)] });
};
