import type { Change } from '../coordinator-client.ts';
import type { Area } from '../milvus-methods.ts';
import type { ProxyParts } from '../parts.ts';
import type { RequestContext } from '../request-context.ts';
import { OK } from '../status.ts';
import { checkTimeZone } from '../time-zones.ts';
import { toPairs, toProperties, wireTimestamp } from './wire-forms.ts';

type DatabaseMethods = 'createDatabase' | 'dropDatabase' | 'listDatabases' | 'alterDatabase' | 'describeDatabase';

/** Databases: spaces of collection names. Here the request's own name counts, never the header. */
export function databaseArea({ catalog, coordinator }: ProxyParts): Area<DatabaseMethods> {
  const submit = async (context: RequestContext, change: Change) => {
    const { revision } = await coordinator.submit(context, change);
    await catalog.waitFor(revision);
    return OK;
  };
  return {
    createDatabase: async (request, context) => {
      const properties = toProperties(request.properties);
      checkTimeZone(properties);
      return submit(context, { $case: 'createDatabase', value: { name: request.dbName, id: 0, properties } });
    },

    dropDatabase: (request, context) => submit(context, { $case: 'dropDatabase', value: { name: request.dbName } }),

    listDatabases: async () => {
      await catalog.sync();
      const databases = catalog.databases();
      return {
        status: OK,
        dbNames: databases.map((database) => database.name),
        createdTimestamp: databases.map((database) => wireTimestamp(database.createdTs)),
        dbIds: databases.map((database) => BigInt(database.id)),
      };
    },

    alterDatabase: async (request, context) => {
      const properties = toProperties(request.properties);
      checkTimeZone(properties);
      const name = context.database(request.dbName);
      return submit(context, { $case: 'alterDatabase', value: { name, properties, deleteKeys: request.deleteKeys } });
    },

    describeDatabase: async (request, context) => {
      await catalog.sync();
      const database = catalog.database(context.database(request.dbName));
      return {
        status: OK,
        dbName: database.name,
        dbID: BigInt(database.id),
        createdTimestamp: wireTimestamp(database.createdTs),
        properties: toPairs(database.properties),
      };
    },
  };
}
