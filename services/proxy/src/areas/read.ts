import { CairnError } from '@cairn/base';
import { parseFilter, serializeExpr } from '@cairn/expr';
import type { ConsistencyLevel } from '@cairn/proto/milvus/common';
import { decodeQueryResult, mergeRows } from '@cairn/query';
import { columnToRaw, DataType, sliceBatch } from '@cairn/schema';
import type { ResultField } from '../codec/field-data-encoder.ts';
import type { QueryReply, ResultIds, SearchReply } from '../codec/results.ts';
import { guaranteeOf } from '../guarantee.ts';
import type { Area } from '../milvus-methods.ts';
import { resolveOutputFields, resultField, resultFields } from '../output-fields.ts';
import type { ProxyParts } from '../parts.ts';
import type { CollectionEntry } from '../proxy-catalog.ts';
import { requireLoadedFor, shardsFor } from '../read-scope.ts';
import type { RequestContext } from '../request-context.ts';
import { readQueryParams } from '../search-params.ts';
import { type PlannedSearch, planSearch } from '../search-plan.ts';
import { runSearch, type SearchOutcome } from '../search-runner.ts';
import { notSupported, OK } from '../status.ts';
import { templateValues } from '../templates.ts';
import { partitionIds } from './partition.ts';
import { wireTimestamp } from './wire-forms.ts';

type ReadMethods = 'search' | 'query';

const COUNT = 'count(*)';

interface ReadRequest {
  readonly dbName: string;
  readonly collectionName: string;
  readonly partitionNames: readonly string[];
  readonly guaranteeTimestamp: bigint;
  readonly consistencyLevel: ConsistencyLevel;
  readonly useDefaultConsistency: boolean;
  readonly namespace?: string | undefined;
}

/** Reads: search and query over all shards of a collection. */
export function readArea(parts: ProxyParts): Area<ReadMethods> {
  /** The collection, its partitions to read, and what the read must see. */
  const open = async (request: ReadRequest, context: RequestContext, legacyOfPartitionKey: number) => {
    if (request.namespace !== undefined) throw notSupported('namespace in reads');
    const entry = await parts.catalog.resolveLive(context.database(request.dbName), request.collectionName);
    const ids = await parts.catalog.retrySynced(() => partitionIds(parts, entry, request.partitionNames, legacyOfPartitionKey));
    return { entry, ids };
  };
  const guarantee = (request: ReadRequest, entry: CollectionEntry): Promise<number> =>
    guaranteeOf(parts, entry, {
      level: request.consistencyLevel,
      guaranteeTimestamp: request.guaranteeTimestamp,
      useDefault: request.useDefaultConsistency,
    });

  return {
    search: async (request, context) => {
      if (request.subReqs.length > 0) throw notSupported('sub_reqs in Search');
      if (request.functionScore) throw notSupported('function_score in Search');
      if (request.searchInput?.$case !== 'placeholderGroup') throw notSupported('Search by ids');
      const { entry, ids } = await open(request, context, 1);
      const search = planSearch(parts, entry, {
        filter: request.dsl,
        templates: request.exprTemplateValues,
        placeholderGroup: request.searchInput.value,
        searchParams: request.searchParams,
        outputFields: request.outputFields,
      });
      await requireLoadedFor(parts, entry, ids);
      const outcome = await runSearch(parts, context, search, { partitionIds: ids, guaranteeTs: await guarantee(request, entry) });
      return searchReply(search, outcome);
    },

    query: async (request, context) => {
      const { entry, ids } = await open(request, context, 5);
      const { primaryKey } = entry.schema;
      const { limit, offset, ignoreGrowing } = readQueryParams(request.queryParams, parts.config.limits);
      const counting = request.outputFields.length === 1 && request.outputFields[0].trim().toLowerCase() === COUNT;
      if (counting && limit !== undefined) throw new CairnError('InvalidParameter', 'count entities with pagination is not allowed');
      if (!counting && request.expr.trim() === '' && limit === undefined)
        throw new CairnError('InvalidParameter', 'empty expression should be used with limit');
      const expr = parseFilter(request.expr, entry.schema, templateValues(request.exprTemplateValues));
      const output = resolveOutputFields(entry.schema, counting ? [] : [primaryKey.name, ...request.outputFields]);
      await requireLoadedFor(parts, entry, ids);
      const guaranteeTs = await guarantee(request, entry);
      const plan = {
        filter: expr.kind === 'true' ? new Uint8Array() : serializeExpr(expr),
        outputFieldIds: output.fields.map((field) => field.id),
        dynamicKeys: [...output.dynamicKeys],
        limit: limit === undefined ? 0 : limit + offset,
        countOnly: counting,
        ordered: true,
      };
      const results = await Promise.all(
        shardsFor(entry, expr).map((shard) => {
          const scope = {
            vchannel: shard.vchannel,
            collectionId: entry.record.id,
            partitionIds: ids,
            guaranteeTs,
            readTs: 0,
            ignoreGrowing,
          };
          return parts.owners.call(context, shard, (owner, options) => owner.query({ scope, plan }, options));
        }),
      );
      const sessionTs = wireTimestamp(Math.max(0, ...results.map((result) => result.ts)));
      const reply = { status: OK, collectionName: entry.record.name, sessionTs, primaryFieldName: primaryKey.name };
      if (counting)
        return { ...reply, fields: [countField(results.reduce((sum, result) => sum + result.count, 0))], outputFields: [COUNT] };
      const { columns } = mergeRows(results.map(decodeQueryResult), primaryKey, plan.limit);
      const page = offset === 0 ? columns : sliceBatch(columns, Math.min(offset, columns.length), columns.length);
      return { ...reply, fields: resultFields(output, page), outputFields: output.names } satisfies QueryReply;
    },
  };
}

function countField(count: number): ResultField {
  return {
    fieldId: 0,
    raw: { name: COUNT, type: DataType.Int64, isDynamic: false, payload: { kind: 'long', values: BigInt64Array.of(BigInt(count)) } },
  };
}

/** A search's outcome as the wire has it. */
export function searchReply({ entry, plan, params, output, groupBy }: PlannedSearch, { hits, ts }: SearchOutcome): SearchReply {
  const { primaryKey } = entry.schema;
  const groups = groupBy ? hits.columns.columns.get(groupBy.id) : undefined;
  return {
    status: OK,
    collectionName: entry.record.name,
    sessionTs: wireTimestamp(ts),
    results: {
      numQueries: plan.nq,
      topK: params.limit,
      fields: resultFields(output, hits.columns),
      scores: hits.scores,
      ids: idsOf(entry, hits.columns),
      topks: hits.counts,
      outputFields: output.names,
      primaryFieldName: primaryKey.name,
      searchedRows: hits.searchedRows,
      groupBy: groupBy && groups ? resultField(groupBy, groups) : undefined,
    },
  };
}

function idsOf({ schema }: CollectionEntry, columns: SearchOutcome['hits']['columns']): ResultIds {
  const { primaryKey } = schema;
  const keys = columns.columns.get(primaryKey.id);
  if (!keys)
    return primaryKey.type === DataType.Int64
      ? { kind: 'long', values: new BigInt64Array() }
      : { kind: 'text', offsets: new Int32Array(1), data: new Uint8Array() };
  const { payload } = columnToRaw(primaryKey, keys);
  if (payload.kind === 'long' || payload.kind === 'text') return payload;
  throw new CairnError('Internal', `primary keys of kind ${payload.kind}`);
}
