import { CairnError, hasCode } from '@cairn/base';
import { type Expr, parseFilter, serializeExpr } from '@cairn/expr';
import type { IndexRecord, Shard } from '@cairn/proto/cairn/meta';
import type { SearchPlan } from '@cairn/proto/cairn/services';
import type { KeyValuePair } from '@cairn/proto/milvus/common';
import type { FunctionScore, TemplateValue } from '@cairn/proto/milvus/schema';
import { readSearchPlan } from '@cairn/query';
import type { Field } from '@cairn/schema';
import { decodePlaceholderGroup, type QueryVectors } from './codec/placeholder-group.ts';
import { type Rescore, readRescore } from './function-score.ts';
import { type OrderTerm, orderKeys, readOrderBy } from './order-by.ts';
import { keysToRead, type OutputFields, resolveOutputFields } from './output-fields.ts';
import type { ProxyParts } from './parts.ts';
import { type CollectionEntry, fieldNamed } from './proxy-catalog.ts';
import { requireLoadedFor, shardsFor } from './read-scope.ts';
import { rangeOfPage } from './search-iterator.ts';
import { readSearchParams, type SearchParams } from './search-params.ts';
import { SearchShapes } from './search-shapes.ts';
import { templateValues } from './templates.ts';
import { timeForm } from './time-zones.ts';

/** A search as one field, one metric, one filter; what the shards run and how their parts are put together. */
export interface PlannedSearch {
  readonly entry: CollectionEntry;
  readonly shards: readonly Shard[];
  readonly plan: SearchPlan;
  readonly params: SearchParams;
  readonly output: OutputFields;
  readonly groupBy: Field | undefined;
  readonly orderBy: readonly OrderTerm[];
  readonly rescore: Rescore | undefined;
  /** Groups of each query where the shards are asked for more: for those of all queries. */
  readonly mergedGroups?: number;
}

export interface SearchInput {
  readonly filter: string;
  readonly templates: Readonly<Record<string, TemplateValue>>;
  /** A serialized placeholder group, or where the vectors come from otherwise. */
  readonly vectors: Uint8Array | ((field: Field) => Promise<QueryVectors>);
  readonly searchParams: readonly KeyValuePair[];
  /** Ranks the hits anew; of a whole search, not of a part of a hybrid one. */
  readonly functionScore?: FunctionScore | undefined;
  readonly outputFields: readonly string[];
}

/** All of a search but its vectors. */
type SearchShape = Omit<PlannedSearch, 'plan' | 'entry' | 'rescore'> & {
  readonly field: Field;
  readonly plan: Omit<SearchPlan, 'nq' | 'queries'>;
};

const shapes = new WeakMap<ProxyParts, SearchShapes<SearchShape>>();

/** InvalidParameter for whatever of the request does not fit the collection. */
export async function planSearch(parts: ProxyParts, entry: CollectionEntry, input: SearchInput): Promise<PlannedSearch> {
  const shape = await shapeOf(parts, entry, input);
  const { params, groupBy, field } = shape;
  const rescore = input.functionScore && readRescore(input.functionScore, entry.schema, shape.output.times.zone);
  if (rescore && (groupBy || params.iterator || shape.orderBy.length > 0))
    throw new CairnError('NotSupported', 'not supported: function_score together with grouping, order_by or a search iterator');
  const { nq, bytes } =
    typeof input.vectors === 'function' ? await input.vectors(field) : decodePlaceholderGroup(input.vectors, field, parts.config.limits);
  if (params.iterator && (nq !== 1 || groupBy || params.offset > 0)) {
    throw new CairnError(
      'InvalidParameter',
      `a search iterator takes one query vector, no offset and no grouping, got nq ${nq} and offset ${params.offset}`,
    );
  }
  const read = rescore
    ? {
        outputFieldIds: [...new Set([...shape.plan.outputFieldIds, ...rescore.fieldIds])],
        dynamicKeys: keysToRead(shape.output, rescore.dynamicKeys),
      }
    : undefined;
  const plan: SearchPlan = { ...shape.plan, ...read, nq, queries: bytes };
  // Whatever of it does not fit is told here, with nothing asked of any shard.
  readSearchPlan(plan, entry.schema);
  return { ...shape, entry, plan, rescore };
}

/** Read once for all requests that differ in their vectors only. */
async function shapeOf(parts: ProxyParts, entry: CollectionEntry, input: SearchInput): Promise<SearchShape> {
  for (const _ in input.templates) return readShape(parts, entry, input);
  let known = shapes.get(parts);
  if (!known) {
    known = new SearchShapes();
    shapes.set(parts, known);
  }
  const { revision } = parts.catalog;
  const key = keyOf(entry, input);
  const found = known.find(revision, entry.record, key);
  if (found) return found;
  const shape = await readShape(parts, entry, input);
  // Each page of an iterator is a shape of its own.
  if (!shape.params.iterator) known.keep(revision, entry.record, key, shape);
  return shape;
}

/** Different for requests of different shape: every part stands with its length. */
function keyOf({ record }: CollectionEntry, { filter, searchParams, outputFields }: SearchInput): string {
  let key = `${record.id} ${filter.length} ${filter}`;
  for (const { key: name, value } of searchParams) key += ` ${name.length} ${value.length} ${name}${value}`;
  key += ' ;';
  for (const name of outputFields) key += ` ${name.length} ${name}`;
  return key;
}

async function readShape(parts: ProxyParts, entry: CollectionEntry, input: SearchInput): Promise<SearchShape> {
  const { limits } = parts.config;
  const { schema } = entry;
  const params = readSearchParams(input.searchParams, limits);
  const field = searchedField(entry, params.annsField);
  const metric = await metricFor(parts, entry, field, params.metric);
  const times = timeForm(entry.record, params);
  const expr: Expr = parseFilter(input.filter, schema, templateValues(input.templates), { zone: times.zone });
  const output = resolveOutputFields(schema, input.outputFields, times);
  const groupBy = params.groupByField === '' ? undefined : fieldNamed(schema, params.groupByField);
  if (groupBy && params.offset > 0 && params.groupSize > 1)
    throw new CairnError('NotSupported', 'not supported: offset together with group_size above 1');
  const orderBy = readOrderBy(params.orderBy, schema);
  if (orderBy.length > 0 && (groupBy || params.iterator))
    throw new CairnError('NotSupported', 'not supported: order_by together with grouping or a search iterator');
  const { iterator } = params;
  const range = iterator && rangeOfPage(metric, params.index, iterator.lastBound);
  const plan = {
    fieldId: field.id,
    metric,
    // One hit more than a page of an iterator has tells whether its last score goes on behind it.
    topK: iterator ? Math.min(iterator.batchSize + 1, limits.maxTopK) : params.limit + params.offset,
    filter: expr.kind === 'true' ? new Uint8Array() : serializeExpr(expr),
    outputFieldIds: [...new Set([...output.fields, ...orderBy.map((term) => term.field)].map((column) => column.id))],
    dynamicKeys: keysToRead(output, orderKeys(orderBy)),
    params: JSON.stringify({ ...params.index, ...range }),
    groupByFieldId: groupBy?.id ?? 0,
    groupSize: groupBy ? params.groupSize : 0,
    strictGroupSize: params.strictGroupSize,
  };
  return { shards: shardsFor(entry, expr), field, plan, params, output, groupBy, orderBy };
}

function searchedField({ schema, record }: CollectionEntry, name: string): Field {
  if (name !== '') {
    const field = schema.byName.get(name);
    if (!field)
      throw new CairnError(
        'InvalidParameter',
        `failed to get field schema by name: field not found[field=${name}][collection=${record.name}]`,
      );
    if (!schema.vectorFields.includes(field))
      throw new CairnError('InvalidParameter', `field ${name} of collection ${record.name} is not a vector field: it cannot be searched`);
    return field;
  }
  const [only, ...others] = schema.vectorFields;
  if (others.length > 0)
    throw new CairnError(
      'InvalidParameter',
      `multiple anns_fields exist in collection ${record.name}, please specify a anns_field in search_params`,
    );
  return only;
}

/** A collection that is not loaded says so (code 101) before it says that an index is missing, as Milvus does; a view that lags is synced once. */
async function metricFor(parts: ProxyParts, entry: CollectionEntry, field: Field, asked: string): Promise<string> {
  const { catalog } = parts;
  try {
    return await catalog.retrySynced(() => metricOf(entry, field, catalog.indexesOf(entry.record.id), asked));
  } catch (error) {
    if (hasCode(error, 'IndexNotFound')) await requireLoadedFor(parts, entry, []);
    throw error;
  }
}

/** The metric that the field's index was built for; another one in the request is refused, as graph and scores would not fit. */
function metricOf({ record }: CollectionEntry, field: Field, indexes: readonly IndexRecord[], asked: string): string {
  const index = indexes.find((candidate) => candidate.fieldId === field.id);
  const built = index?.indexParams.find(({ key }) => key === 'metric_type')?.value ?? '';
  if (built !== '' && asked !== '' && asked !== built) {
    throw new CairnError('InvalidParameter', `metric type not match: invalid parameter[expected=${built}][actual=${asked}]`);
  }
  const metric = built || asked;
  if (metric === '')
    throw new CairnError(
      'IndexNotFound',
      `index not found[collection=${record.name}][field=${field.name}]: no metric is known for the search`,
    );
  return metric;
}
