import { CairnError, fromWireTimestamp, type Runtime, randomId } from '@cairn/base';
import { parseFilter, serializeExpr } from '@cairn/expr';
import type { ConsistencyLevel } from '@cairn/proto/milvus/common';
import type { SearchRequest } from '@cairn/proto/milvus/milvus';
import { decodeQueryResult, mergeRows } from '@cairn/query';
import { type ColumnBatch, columnToRaw, DataType, sliceBatch, takeBatch } from '@cairn/schema';
import type { ResultField } from '../codec/field-data-encoder.ts';
import type { QueryReply, ResultIds, SearchReply, SearchReplyData } from '../codec/results.ts';
import { readRankFunction } from '../function-score.ts';
import { guaranteeOf } from '../guarantee.ts';
import { rankHits, readGroupScorer, readRankStrategy } from '../hybrid-rank.ts';
import type { Area } from '../milvus-methods.ts';
import { MAX_ORDERED_ROWS, type OrderTerm, orderedRows, orderKeys, readOrderBy } from '../order-by.ts';
import { keysToRead, resolveOutputFields, resultField, resultFields, withoutNeededKeys } from '../output-fields.ts';
import type { ProxyParts } from '../parts.ts';
import { type CollectionEntry, fieldNamed } from '../proxy-catalog.ts';
import { checkResultBytes, requireLoadedFor, shardsFor } from '../read-scope.ts';
import type { RequestContext } from '../request-context.ts';
import { readQueryParams, readSearchParams } from '../search-params.ts';
import { type PlannedSearch, planSearch, type SearchInput } from '../search-plan.ts';
import { rounded, runIteratorPage, runSearch, type SearchOutcome } from '../search-runner.ts';
import { notSupported, OK } from '../status.ts';
import { templateValues } from '../templates.ts';
import { timeForm } from '../time-zones.ts';
import { vectorsOfKeys } from '../vectors-of-keys.ts';
import { partitionIds } from './partition.ts';
import { wireTimestamp } from './wire-forms.ts';

type ReadMethods = 'search' | 'hybridSearch' | 'query';

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
  const guarantee = (request: ReadRequest, entry: CollectionEntry, paged = false): Promise<number> =>
    guaranteeOf(parts, entry, {
      level: request.consistencyLevel,
      guaranteeTimestamp: request.guaranteeTimestamp,
      useDefault: request.useDefaultConsistency,
      paged,
    });

  const inputOf = (
    request: SearchRequest,
    context: RequestContext,
    entry: CollectionEntry,
    guaranteeTs: () => Promise<number>,
  ): SearchInput => {
    if (request.subReqs.length > 0) throw notSupported('sub_reqs in Search');
    const { searchInput } = request;
    if (!searchInput) throw new CairnError('InvalidParameter', 'a search needs query vectors or ids');
    return {
      filter: request.dsl,
      templates: request.exprTemplateValues,
      vectors:
        searchInput.$case === 'ids'
          ? async (field) => vectorsOfKeys(parts, context, entry, searchInput.value, field, await guaranteeTs())
          : searchInput.value,
      searchParams: request.searchParams,
      functionScore: request.functionScore,
      outputFields: request.outputFields,
    };
  };

  return {
    search: async (request, context) => {
      const { entry, ids } = await open(request, context, 1);
      const guaranteeTs = () => guarantee(request, entry);
      const search = await planSearch(parts, entry, inputOf(request, context, entry, guaranteeTs));
      await requireLoadedFor(parts, entry, ids);
      const { iterator } = search.params;
      if (!iterator)
        return searchReply(
          search,
          await runSearch(parts, context, search, { partitionIds: ids, guaranteeTs: await guaranteeTs(), readTs: 0 }),
        );
      // Pages after the first read at the first one's time, so that together they are one answer.
      const readTs = iterator.token === '' ? 0 : fromWireTimestamp(iterator.readAt || request.guaranteeTimestamp);
      const scope = { partitionIds: ids, guaranteeTs: readTs > 0 ? readTs : await guarantee(request, entry, true), readTs };
      const outcome = await runIteratorPage(parts, context, search, iterator, scope);
      const lastBound = outcome.hits.scores.at(-1) ?? iterator.lastBound ?? 0;
      return searchReply(search, outcome, { token: iterator.token || randomId(parts.runtime), lastBound });
    },

    hybridSearch: async (request, context) => {
      if (request.requests.length === 0) throw new CairnError('InvalidParameter', 'hybrid search needs at least one search request');
      const { entry, ids } = await open(request, context, 1);
      const rank = new Map(request.rankParams.map(({ key, value }) => [key, value]));
      const { functionScore } = request;
      if (functionScore && request.requests.some((part) => part.functionScore))
        throw notSupported('function_score in parts of a HybridSearch');
      const strategy = functionScore
        ? readRankFunction(functionScore, request.requests.length, entry.schema)
        : readRankStrategy(rank.get('strategy') ?? '', rank.get('params') ?? '', request.requests.length);
      // The page and the digits are read as those of a search are.
      const page = readSearchParams([...request.rankParams.filter(({ key }) => key !== 'params')], parts.config.limits);
      if (page.orderBy !== '') throw notSupported('order_by in HybridSearch');
      const groupBy = page.groupByField === '' ? undefined : fieldNamed(entry.schema, page.groupByField);
      const groups = groupBy && {
        fieldId: groupBy.id,
        size: page.groupSize,
        strict: page.strictGroupSize,
        scorer: readGroupScorer(rank.get('rank_group_scorer') ?? ''),
      };
      await requireLoadedFor(parts, entry, ids);
      const guaranteeTs = () => guarantee(request, entry);
      // Rows are left out of the list that the parts make together, of no part (SDKs send the offset with each); a part without a limit finds as many.
      const topK = { key: 'topk', value: String(page.limit + page.offset) };
      // Each part finds as many groups of that size as are asked for; whether one is complete shows when they are together.
      const grouping = groups
        ? [
            { key: 'group_by_field', value: page.groupByField },
            { key: 'group_size', value: String(groups.size) },
            { key: 'strict_group_size', value: 'false' },
          ]
        : [];
      const wholePart = (part: SearchRequest): SearchRequest => ({
        ...part,
        searchParams: [topK, ...part.searchParams, { key: 'offset', value: '0' }, ...grouping],
      });
      const ranked = strategy.kind === 'decay' ? [strategy.decay.field.name] : [];
      const searches = await Promise.all(
        request.requests.map((part) =>
          planSearch(parts, entry, {
            ...inputOf(wholePart(part), context, entry, guaranteeTs),
            outputFields: [...request.outputFields, ...ranked],
          }),
        ),
      );
      const [first] = searches;
      const odd = searches.find((search) => search.plan.nq !== first.plan.nq);
      if (odd)
        throw new CairnError(
          'InvalidParameter',
          `nq of the parts of a hybrid search must be the same, got ${first.plan.nq} and ${odd.plan.nq}`,
        );
      const scope = { partitionIds: ids, guaranteeTs: await guaranteeTs(), readTs: 0 };
      const outcomes = await Promise.all(searches.map((search) => runSearch(parts, context, search, scope)));
      const best = rankHits(
        outcomes.map((outcome, i) => ({ hits: outcome.hits, metric: searches[i].plan.metric })),
        strategy,
        entry.schema.primaryKey.id,
        { nq: first.plan.nq, limit: page.limit, offset: page.offset, groups },
      );
      const hits = rounded(best, page.roundDecimal);
      const ts = Math.max(...outcomes.map((outcome) => outcome.ts));
      const output = resolveOutputFields(entry.schema, request.outputFields, first.output.times);
      return searchReply({ ...first, output, params: { ...first.params, limit: page.limit } }, { hits, ts });
    },

    query: async (request, context) => {
      const { entry, ids } = await open(request, context, 5);
      parts.quota.read(entry, 'query', 1);
      const { primaryKey } = entry.schema;
      const { limit, offset, ignoreGrowing, iterator, ...params } = readQueryParams(request.queryParams, parts.config.limits);
      const counting = request.outputFields.length === 1 && request.outputFields[0].trim().toLowerCase() === COUNT;
      if (counting && limit !== undefined) throw new CairnError('InvalidParameter', 'count entities with pagination is not allowed');
      if (!counting && request.expr.trim() === '' && limit === undefined)
        throw new CairnError('InvalidParameter', 'empty expression should be used with limit');
      const times = timeForm(entry.record, params);
      const expr = parseFilter(request.expr, entry.schema, templateValues(request.exprTemplateValues), { zone: times.zone });
      const output = resolveOutputFields(entry.schema, counting ? [] : [primaryKey.name, ...request.outputFields], times);
      const orderBy = counting ? [] : readOrderBy(params.orderBy, entry.schema);
      if (orderBy.length > 0 && iterator) throw notSupported('order_by together with a query iterator');
      await requireLoadedFor(parts, entry, ids);
      const readTs = iterator ? fromWireTimestamp(request.guaranteeTimestamp) : 0;
      const guaranteeTs = readTs > 0 ? readTs : await guarantee(request, entry, iterator);
      const plan = {
        filter: expr.kind === 'true' ? new Uint8Array() : serializeExpr(expr),
        outputFieldIds: [...new Set([...output.fields, ...orderBy.map((term) => term.field)].map((field) => field.id))],
        dynamicKeys: keysToRead(output, orderKeys(orderBy)),
        limit: orderBy.length > 0 ? MAX_ORDERED_ROWS + 1 : limit === undefined ? 0 : limit + offset,
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
            readTs,
            ignoreGrowing,
          };
          return parts.owners.call(context, shard, (owner, options) => owner.query({ scope, plan }, options));
        }),
      );
      checkResultBytes(parts, entry, results);
      const sessionTs = wireTimestamp(Math.max(0, ...results.map((result) => result.ts)));
      const reply = { status: OK, collectionName: entry.record.name, sessionTs, primaryFieldName: primaryKey.name };
      if (counting)
        return { ...reply, fields: [countField(results.reduce((sum, result) => sum + result.count, 0))], outputFields: [COUNT] };
      const { columns: merged } = await mergeRows(results.map(decodeQueryResult), primaryKey, plan.limit, parts.runtime);
      const wanted = limit === undefined ? undefined : limit + offset;
      const columns =
        orderBy.length > 0
          ? withoutNeededKeys(await orderedPage(merged, orderBy, wanted, parts.runtime), output, orderKeys(orderBy))
          : merged;
      const page = offset === 0 ? columns : sliceBatch(columns, Math.min(offset, columns.length), columns.length);
      return { ...reply, fields: resultFields(output, page), outputFields: output.names } satisfies QueryReply;
    },
  };
}

/** The first rows of a query's matches in the order asked for. */
async function orderedPage(
  matches: ColumnBatch,
  orderBy: readonly OrderTerm[],
  limit: number | undefined,
  runtime: Runtime,
): Promise<ColumnBatch> {
  if (matches.length > MAX_ORDERED_ROWS)
    throw new CairnError('InvalidParameter', `order_by over more than ${MAX_ORDERED_ROWS} matching rows, narrow the filter`);
  if (matches.length === 0) return matches;
  const rows = await orderedRows(matches, orderBy, 0, matches.length, runtime);
  return takeBatch(matches, rows.subarray(0, limit));
}

function countField(count: number): ResultField {
  return {
    fieldId: 0,
    raw: { name: COUNT, type: DataType.Int64, isDynamic: false, payload: { kind: 'long', values: BigInt64Array.of(BigInt(count)) } },
  };
}

/** A search's outcome as the wire has it. */
export function searchReply(
  { entry, plan, params, output, groupBy }: PlannedSearch,
  { hits, ts }: SearchOutcome,
  iterator?: SearchReplyData['iterator'],
): SearchReply {
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
      groupBy: groupBy && groups ? resultField(groupBy, groups, output.times) : undefined,
      iterator,
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
