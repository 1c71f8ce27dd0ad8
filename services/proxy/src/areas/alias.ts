import { CairnError } from '@cairn/base';
import type { Change } from '../coordinator-client.ts';
import type { Area } from '../milvus-methods.ts';
import type { ProxyParts } from '../parts.ts';
import type { RequestContext } from '../request-context.ts';
import { OK } from '../status.ts';

type AliasMethods = 'createAlias' | 'dropAlias' | 'alterAlias' | 'describeAlias' | 'listAliases';

/** Aliases: other names of collections. */
export function aliasArea({ catalog, coordinator }: ProxyParts): Area<AliasMethods> {
  const submit = async (context: RequestContext, change: Change) => {
    const { revision } = await coordinator.submit(context, change);
    await catalog.waitFor(revision);
    return OK;
  };
  return {
    createAlias: (request, context) =>
      submit(context, {
        $case: 'createAlias',
        value: { database: context.database(request.dbName), collection: request.collectionName, alias: request.alias },
      }),

    dropAlias: (request, context) =>
      submit(context, { $case: 'dropAlias', value: { database: context.database(request.dbName), alias: request.alias } }),

    alterAlias: (request, context) =>
      submit(context, {
        $case: 'alterAlias',
        value: { database: context.database(request.dbName), collection: request.collectionName, alias: request.alias },
      }),

    describeAlias: async (request, context) => {
      await catalog.sync();
      const database = catalog.database(context.database(request.dbName));
      const alias = catalog.alias(database.id, request.alias);
      if (!alias) throw new CairnError('AliasNotFound', `alias not found[database=${database.name}][alias=${request.alias}]`);
      return {
        status: OK,
        dbName: database.name,
        alias: alias.alias,
        collection: catalog.byId(database.name, alias.collectionId).record.name,
      };
    },

    listAliases: async (request, context) => {
      await catalog.sync();
      const database = catalog.database(context.database(request.dbName));
      const aliases =
        request.collectionName === ''
          ? catalog.aliasesIn(database.id)
          : catalog.aliasesOf(catalog.resolve(database.name, request.collectionName).record.id);
      return {
        status: OK,
        dbName: database.name,
        collectionName: request.collectionName,
        aliases: aliases.map((alias) => alias.alias),
      };
    },
  };
}
