import { CairnError, type Runtime } from '@cairn/base';
import { deserializeExpr, type Expr, parseFilter, serializeExpr } from '@cairn/expr';
import { decodeSearchResult, MAX_TOP_K, mergeHits, type SearchHits } from '@cairn/query';
import { DataType, type Field, isNull, makeBatch, type PlainValue, takeBatch, valueAt } from '@cairn/schema';
import { type Rescore, rescored } from './function-score.ts';
import { orderedRows, orderKeys } from './order-by.ts';
import { withoutNeededKeys } from './output-fields.ts';
import type { ProxyParts } from './parts.ts';
import { checkResultBytes } from './read-scope.ts';
import type { RequestContext } from './request-context.ts';
import { cutPage, type IteratorPage, rangeOfTies } from './search-iterator.ts';
import type { PlannedSearch } from './search-plan.ts';

export interface SearchScope {
  readonly partitionIds: readonly number[];
  readonly guaranteeTs: number;
  /** Read exactly then (pages of an iterator); 0: each owner picks. */
  readonly readTs: number;
}

export interface SearchOutcome {
  readonly hits: SearchHits;
  /** Largest read timestamp of the shards. */
  readonly ts: number;
}

/**
 * Asks every shard and merges; all or nothing, a shard that cannot answer fails the search. Strict groups are asked for twice: first which they are,
 * then for the rows of these alone. A part of the collection whose own best groups are others would give none of its rows otherwise.
 */
export async function runSearch(
  parts: ProxyParts,
  context: RequestContext,
  search: PlannedSearch,
  scope: SearchScope,
): Promise<SearchOutcome> {
  const { plan, params, groupBy } = search;
  if (!groupBy || params.groupSize === 1 || !params.strictGroupSize) return searchOnce(parts, context, search, scope);
  const single = { ...plan, groupSize: 1, outputFieldIds: [], dynamicKeys: [] };
  const firsts = await searchOnce(parts, context, { ...search, plan: single, params: { ...params, groupSize: 1 } }, scope);
  const values = valuesOf(firsts.hits, groupBy);
  if (values.length === 0) return firsts;
  const filter = serializeExpr({ kind: 'and', parts: [deserializeExpr(plan.filter), groupFilter(search, groupBy, values)] });
  const within = { ...search, plan: { ...plan, filter, topK: Math.min(values.length, MAX_TOP_K) }, mergedGroups: plan.topK };
  return searchOnce(parts, context, within, { ...scope, readTs: firsts.ts });
}

/** The different values of a field of the hits; null is one of them. */
function valuesOf(hits: SearchHits, field: Field): PlainValue[] {
  if (hits.scores.length === 0) return [];
  const column = hits.columns.columns.get(field.id);
  if (!column) throw new CairnError('Internal', `hits of a grouped search came without field ${field.name}`);
  return [...new Set(hits.scores.keys().map((row) => (isNull(column, row) ? null : valueAt(column, row))))];
}

function groupFilter({ entry }: PlannedSearch, field: Field, values: readonly PlainValue[]): Expr {
  // Whole numbers are bigint in a filter, whatever the width of the field.
  const whole = field.type !== DataType.Float && field.type !== DataType.Double;
  const groups = values.filter((value) => value !== null).map((value) => (whole && typeof value === 'number' ? BigInt(value) : value));
  const named = parseFilter(`${field.name} in {groups}`, entry.schema, { groups });
  const missing = parseFilter(`${field.name} is null`, entry.schema);
  if (groups.length === values.length) return named;
  return groups.length === 0 ? missing : { kind: 'or', parts: [named, missing] };
}

async function searchOnce(parts: ProxyParts, context: RequestContext, search: PlannedSearch, scope: SearchScope): Promise<SearchOutcome> {
  const { entry, plan, params, groupBy } = search;
  parts.quota.read(entry, 'search', plan.nq);
  const results = await Promise.all(
    search.shards.map((shard) => {
      const request = {
        scope: {
          vchannel: shard.vchannel,
          collectionId: entry.record.id,
          partitionIds: [...scope.partitionIds],
          guaranteeTs: scope.guaranteeTs,
          readTs: scope.readTs,
          ignoreGrowing: params.ignoreGrowing,
        },
        plan,
      };
      return parts.owners.call(context, shard, (owner, options) => owner.search(request, options));
    }),
  );
  checkResultBytes(parts, entry, results);
  const shards = results.map(decodeSearchResult);
  const [only] = shards;
  const options = {
    metric: plan.metric,
    nq: plan.nq,
    k: search.mergedGroups ?? plan.topK,
    pkField: entry.schema.primaryKey,
    ...(groupBy ? { groupByFieldId: groupBy.id, groupSize: params.groupSize } : {}),
  };
  // What one owner answers is merged already, unless it was asked for more groups than a query has.
  const merged = shards.length === 1 && search.mergedGroups === undefined ? only : mergeHits(shards, options);
  const ts = Math.max(0, ...results.map((result) => result.ts));
  const hits = search.rescore
    ? ranked(merged, search, search.rescore, entry.schema.primaryKey.id)
    : await ordered(merged, search, parts.runtime);
  return { hits: rounded(afterOffset(hits, params.offset), params.roundDecimal), ts };
}

/** The best hits of each query, with the scores that a function gives them. */
function ranked(hits: SearchHits, { output, plan }: PlannedSearch, rescore: Rescore, pk: number): SearchHits {
  const anew = rescored(hits, rescore, plan.metric, pk);
  return { ...anew, columns: withoutNeededKeys(anew.columns, output, rescore.dynamicKeys) };
}

/** The best hits of each query, in the order of their fields instead of their scores. */
async function ordered(hits: SearchHits, { orderBy, output }: PlannedSearch, runtime: Runtime): Promise<SearchHits> {
  if (orderBy.length === 0 || hits.columns.columns.size === 0) return hits;
  const rows = new Int32Array(hits.columns.length);
  let start = 0;
  for (const count of hits.counts) {
    rows.set(await orderedRows(hits.columns, orderBy, start, start + count, runtime), start);
    start += count;
  }
  const columns = withoutNeededKeys(takeBatch(hits.columns, rows), output, orderKeys(orderBy));
  return { ...hits, columns, scores: Float32Array.from(rows, (row) => hits.scores[row]) };
}

/** Drops the first `offset` hits of each query. */
export function afterOffset(hits: SearchHits, offset: number): SearchHits {
  if (offset === 0) return hits;
  const rows: number[] = [];
  const counts: number[] = [];
  let start = 0;
  for (const count of hits.counts) {
    for (let row = start + offset; row < start + count; row++) rows.push(row);
    counts.push(Math.max(0, count - offset));
    start += count;
  }
  const kept = Int32Array.from(rows);
  const columns = hits.columns.columns.size > 0 ? takeBatch(hits.columns, kept) : makeBatch([]);
  return { ...hits, counts, scores: Float32Array.from(kept, (row) => hits.scores[row]), columns };
}

export function rounded(hits: SearchHits, digits: number): SearchHits {
  if (digits < 0) return hits;
  const factor = 10 ** digits;
  return { ...hits, scores: hits.scores.map((score) => Math.round(score * factor) / factor) };
}

/** One page of an iterator; see search-iterator.ts for how pages join. */
export async function runIteratorPage(
  parts: ProxyParts,
  context: RequestContext,
  search: PlannedSearch,
  page: IteratorPage,
  scope: SearchScope,
): Promise<SearchOutcome> {
  const outcome = await runSearch(parts, context, search, scope);
  const cut = cutPage(outcome.hits, page.batchSize);
  if (cut) return { ...outcome, hits: cut };
  const { metric } = search.plan;
  const ties = { ...search.params.index, ...rangeOfTies(metric, outcome.hits.scores[0]) };
  const plan = { ...search.plan, topK: parts.config.limits.maxTopK, params: JSON.stringify(ties) };
  return runSearch(parts, context, { ...search, plan }, { ...scope, readTs: outcome.ts });
}
