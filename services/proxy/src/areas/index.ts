import { CairnError } from '@cairn/base';
import { resolveIndex } from '@cairn/index';
import { IndexRecord } from '@cairn/proto/cairn/meta';
import type { IndexProgress } from '@cairn/proto/cairn/services';
import { IndexState, type KeyValuePair } from '@cairn/proto/milvus/common';
import type { IndexDescription } from '@cairn/proto/milvus/milvus';
import { checkScalarIndex } from '@cairn/query';
import type { CollectionSchema, Field } from '@cairn/schema';
import type { Change } from '../coordinator-client.ts';
import type { Area } from '../milvus-methods.ts';
import type { ProxyParts } from '../parts.ts';
import type { CollectionEntry } from '../proxy-catalog.ts';
import type { RequestContext } from '../request-context.ts';
import { OK } from '../status.ts';
import { toPairs, toProperties } from './wire-forms.ts';

type IndexMethods =
  | 'createIndex'
  | 'alterIndex'
  | 'dropIndex'
  | 'describeIndex'
  | 'getIndexState'
  | 'getIndexBuildProgress'
  | 'getIndexStatistics';

/** The field of that name, or the dynamic one, whose keys go by names too. */
const indexedField = (schema: CollectionSchema, name: string): Field | undefined => schema.byName.get(name) ?? schema.dynamicField;

/** Indexes of a collection's fields. */
export function indexArea(parts: ProxyParts): Area<IndexMethods> {
  const { catalog, coordinator } = parts;

  const submit = async (context: RequestContext, change: Change) => {
    const { revision } = await coordinator.submit(context, change);
    await catalog.waitFor(revision);
    return OK;
  };
  const describe = async (
    context: RequestContext,
    dbName: string,
    collection: string,
    field: string,
    name: string,
  ): Promise<IndexDescription[]> => {
    await catalog.sync();
    const entry = catalog.resolve(context.database(dbName), collection);
    const wanted = chosen(parts, entry, field, name);
    const { indexes } = await coordinator.call(context, (leader, options) =>
      leader.getIndexProgress({ collectionId: entry.record.id }, options),
    );
    return wanted.map((index) =>
      description(
        entry,
        index,
        indexes.find((progress) => progress.indexId === index.id),
      ),
    );
  };

  return {
    createIndex: async (request, context) => {
      const database = context.database(request.dbName);
      const entry = await catalog.retrySynced(() => catalog.resolve(database, request.collectionName));
      let field = indexedField(entry.schema, request.fieldName);
      if (!field) {
        // A field that was added a moment ago, through another proxy.
        await catalog.sync();
        field = indexedField(catalog.resolve(database, request.collectionName).schema, request.fieldName);
      }
      if (!field) {
        throw new CairnError(
          'InvalidParameter',
          `cannot create index on non-exist field: ${request.fieldName}[collection=${request.collectionName}]`,
          { legacy: 1 },
        );
      }
      const sent = flatten(request.extraParams);
      // A key of the dynamic field without a path of its own is the path.
      const params = field.name === request.fieldName ? sent : { json_path: request.fieldName, ...sent };
      const spec = checkScalarIndex(field, resolveIndex(field, params), catalog.resolve(database, request.collectionName).schema);
      const auto = (params['index_type'] ?? '') === '' || params['index_type'] === 'AUTOINDEX';
      const index = IndexRecord.fromPartial({
        name: request.indexName,
        indexParams: [
          { key: 'index_type', value: spec.indexType },
          { key: 'metric_type', value: spec.metric },
          ...Object.entries(spec.params).map(([key, value]) => ({ key, value })),
        ],
        userParams: userParams(request.extraParams, spec.indexType, spec.metric, auto),
        typeParams: Object.entries(field.typeParams).map(([key, value]) => ({ key, value })),
        auto,
      });
      return submit(context, {
        $case: 'createIndex',
        value: { database, collection: request.collectionName, index, field: field.name, restoreJobId: 0 },
      });
    },

    alterIndex: (request, context) =>
      submit(context, {
        $case: 'alterIndex',
        value: {
          database: context.database(request.dbName),
          collection: request.collectionName,
          name: request.indexName,
          params: toProperties(request.extraParams),
          deleteKeys: request.deleteKeys,
        },
      }),

    dropIndex: (request, context) =>
      submit(context, {
        $case: 'dropIndex',
        value: {
          database: context.database(request.dbName),
          collection: request.collectionName,
          field: request.fieldName,
          name: request.indexName,
        },
      }),

    describeIndex: async (request, context) => {
      const indexDescriptions = await describe(context, request.dbName, request.collectionName, request.fieldName, request.indexName);
      return { status: OK, indexDescriptions };
    },

    getIndexStatistics: async (request, context) => {
      const indexDescriptions = await describe(context, request.dbName, request.collectionName, '', request.indexName);
      return { status: OK, indexDescriptions };
    },

    getIndexState: async (request, context) => {
      const [index] = await describe(context, request.dbName, request.collectionName, request.fieldName, request.indexName);
      return { status: OK, state: index.state, failReason: index.indexStateFailReason };
    },

    getIndexBuildProgress: async (request, context) => {
      const [index] = await describe(context, request.dbName, request.collectionName, request.fieldName, request.indexName);
      return { status: OK, indexedRows: index.indexedRows, totalRows: index.totalRows };
    },
  };
}

/** The indexes that a request means, at least one; IndexNotFound, on which SDKs answer "none". */
function chosen({ catalog }: ProxyParts, entry: CollectionEntry, field: string, name: string): IndexRecord[] {
  const indexes = catalog.indexesOf(entry.record.id);
  const fieldId = field === '' ? undefined : indexedField(entry.schema, field)?.id;
  const found = indexes.filter(
    (index) =>
      (name === '' || index.name === name || (field === '' && fieldName(entry, index) === name)) &&
      (field === '' || index.fieldId === fieldId),
  );
  if (found.length > 0) return found;
  const what = name !== '' ? `indexName=${name}` : field !== '' ? `fieldName=${field}` : `collection=${entry.record.name}`;
  throw new CairnError('IndexNotFound', `index not found[${what}]`);
}

function fieldName(entry: CollectionEntry, index: IndexRecord): string {
  return entry.schema.byId.get(index.fieldId)?.name ?? '';
}

function description(entry: CollectionEntry, index: IndexRecord, progress: IndexProgress | undefined): IndexDescription {
  const total = progress?.totalRows ?? 0;
  const indexed = Math.min(progress?.indexedRows ?? 0, total);
  const failure = progress?.failure ?? '';
  // Without word from the index builder nothing is known to be finished.
  const state = failure !== '' ? IndexState.Failed : progress && indexed >= total ? IndexState.Finished : IndexState.InProgress;
  return {
    indexName: index.name,
    indexID: BigInt(index.id),
    params: toPairs(index.userParams),
    fieldName: fieldName(entry, index),
    indexedRows: BigInt(indexed),
    totalRows: BigInt(total),
    state,
    indexStateFailReason: failure,
    pendingIndexRows: BigInt(total - indexed),
    minIndexVersion: 0,
    maxIndexVersion: 0,
  };
}

/** Parameters by key, with those inside the JSON text `params` taken out of it. */
function flatten(pairs: readonly KeyValuePair[]): Record<string, string> {
  const flat: Record<string, string> = {};
  for (const { key, value } of pairs) {
    if (key !== 'params') {
      flat[key] = value;
      continue;
    }
    for (const [name, inner] of Object.entries(parseParams(value))) flat[name] = typeof inner === 'string' ? inner : JSON.stringify(inner);
  }
  return flat;
}

function parseParams(text: string): Record<string, unknown> {
  if (text === '') return {};
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed)) return parsed as Record<string, unknown>;
  } catch {
    // Reported below, with the text.
  }
  throw new CairnError('InvalidParameter', `index params are not a JSON object: ${text.slice(0, 200)}`);
}

/** What DescribeIndex gives back: as sent, with the type and metric that were chosen for the user. */
function userParams(pairs: readonly KeyValuePair[], indexType: string, metric: string, auto: boolean): { key: string; value: string }[] {
  const params = toProperties(pairs).filter(({ key, value }) => value !== '' || (key !== 'index_type' && key !== 'metric_type'));
  const has = (key: string): boolean => params.some((param) => param.key === key);
  if (!has('index_type')) params.push({ key: 'index_type', value: auto ? 'AUTOINDEX' : indexType });
  if (!has('metric_type') && metric !== '') params.push({ key: 'metric_type', value: metric });
  return params;
}
