import { CairnError } from '@cairn/base';
import type { KeyValuePair } from '@cairn/proto/milvus/common';
import type { IteratorPage } from './search-iterator.ts';

/** What a search asks for beside its vectors and filter. */
export interface SearchParams {
  /** Empty: the only vector field. */
  readonly annsField: string;
  readonly limit: number;
  readonly offset: number;
  /** Empty: the index's. */
  readonly metric: string;
  /** Digits of scores after the point; -1: all. */
  readonly roundDecimal: number;
  readonly ignoreGrowing: boolean;
  readonly groupByField: string;
  readonly groupSize: number;
  readonly strictGroupSize: boolean;
  /** `field:asc` or `field:desc` with commas between; empty: by score. */
  readonly orderBy: string;
  /** Of times in the result; empty: the collection's. */
  readonly timezone: string;
  /** Fields that times are shown as; empty: as texts. */
  readonly timeFields: string;
  /** Set when the search is a page of an iterator. */
  readonly iterator: IteratorPage | undefined;
  /** Parameters of the index (ef, nprobe, radius, range_filter, …). */
  readonly index: Readonly<Record<string, unknown>>;
}

export interface SearchLimits {
  readonly maxTopK: number;
}

/** Keys that are not the index's. */
const CONTROL_KEYS = new Set([
  'anns_field',
  'params',
  'topk',
  'limit',
  'offset',
  'metric_type',
  'round_decimal',
  'ignore_growing',
  'group_by_field',
  'group_size',
  'strict_group_size',
  'hints',
  'iterator',
  'collection_id',
  'search_iter_v2',
  'search_iter_batch_size',
  'search_iter_id',
  'search_iter_last_bound',
  'guarantee_timestamp',
  'consistency_level',
  'timezone',
  'time_fields',
  'order_by_fields',
  'order_by',
]);
const MAX_ROUND_DECIMAL = 6;
/** Parts of a search that change its answer and are not built: left out silently they would answer another question. */
const UNSUPPORTED_SEARCH_KEYS = ['group_by_fields'];

/** Reads key-value pairs; parameters inside the JSON text `params` and flattened beside it mean the same, the flattened ones win. */
export function readSearchParams(pairs: readonly KeyValuePair[], limits: SearchLimits): SearchParams {
  const values = new Map(pairs.map(({ key, value }) => [key, value]));
  refuseUnsupported(values, UNSUPPORTED_SEARCH_KEYS, 'Search');
  const inner = parseObject(values.get('params') ?? '');
  const index: Record<string, unknown> = {};
  for (const [key, value] of [...Object.entries(inner), ...[...values].map(([key, value]) => [key, scalar(value)] as const)]) {
    if (!CONTROL_KEYS.has(key)) index[key] = value;
  }
  const limitText = values.get('topk') ?? values.get('limit');
  if (limitText === undefined) throw new CairnError('InvalidParameter', 'topk not found in search_params');
  const limit = integer('topk', limitText);
  const offset = integer('offset', values.get('offset') ?? textOf(inner['offset']) ?? '0');
  if (limit < 1 || limit > limits.maxTopK) {
    throw new CairnError('InvalidParameter', `topk [${limit}] is invalid, it should be in range [1, ${limits.maxTopK}]`);
  }
  if (offset < 0 || limit + offset > limits.maxTopK) {
    throw new CairnError(
      'InvalidParameter',
      `(offset+limit) [${offset + limit}] is invalid, it should be in range [1, ${limits.maxTopK}], got offset ${offset} and limit ${limit}`,
    );
  }
  const roundDecimal = integer('round_decimal', values.get('round_decimal') ?? '-1');
  if (roundDecimal < -1 || roundDecimal > MAX_ROUND_DECIMAL) {
    throw new CairnError(
      'InvalidParameter',
      `round_decimal [${roundDecimal}] is invalid, it should be -1 or an integer in range [0, ${MAX_ROUND_DECIMAL}]`,
    );
  }
  return {
    annsField: values.get('anns_field') ?? '',
    limit,
    offset,
    metric: (values.get('metric_type') || textOf(inner['metric_type']) || '').toUpperCase(),
    roundDecimal,
    ignoreGrowing: flag(values.get('ignore_growing') ?? textOf(inner['ignore_growing'])),
    groupByField: values.get('group_by_field') ?? '',
    groupSize: Math.max(1, integer('group_size', values.get('group_size') ?? '1')),
    strictGroupSize: flag(values.get('strict_group_size')),
    orderBy: orderByOf(values),
    timezone: values.get('timezone') ?? '',
    timeFields: values.get('time_fields') ?? '',
    iterator: flag(values.get('search_iter_v2')) ? readIterator(values, limit) : undefined,
    index,
  };
}

function readIterator(values: ReadonlyMap<string, string>, limit: number): IteratorPage {
  const bound = values.get('search_iter_last_bound') ?? '';
  const lastBound = bound === '' ? undefined : Math.fround(Number(bound));
  if (Number.isNaN(lastBound))
    throw new CairnError('InvalidParameter', `search_iter_last_bound [${bound}] is invalid, it should be a number`);
  const batchSize = integer('search_iter_batch_size', values.get('search_iter_batch_size') ?? String(limit));
  if (batchSize < 1 || batchSize > limit)
    throw new CairnError('InvalidParameter', `batch size [${batchSize}] is invalid, it should be in range [1, ${limit}]`);
  const readAt = values.get('guarantee_timestamp') ?? '0';
  return { batchSize, token: values.get('search_iter_id') ?? '', lastBound, readAt: /^\d{1,19}$/.test(readAt) ? BigInt(readAt) : 0n };
}

/** `limit` and `offset` of a query; undefined: not sent. */
export interface QueryParams {
  readonly limit: number | undefined;
  readonly offset: number;
  readonly ignoreGrowing: boolean;
  /** As in a search; empty: by primary key. */
  readonly orderBy: string;
  readonly timezone: string;
  readonly timeFields: string;
  /** A page of an iterator: with a guarantee timestamp it reads exactly at that. */
  readonly iterator: boolean;
}

/** Parts of a query that change its answer and are not built. */
const UNSUPPORTED_QUERY_KEYS = ['group_by_fields'];

export function readQueryParams(pairs: readonly KeyValuePair[], limits: SearchLimits): QueryParams {
  const values = new Map(pairs.map(({ key, value }) => [key, value]));
  refuseUnsupported(values, UNSUPPORTED_QUERY_KEYS, 'Query');
  const limitText = values.get('limit');
  const offset = integer('offset', values.get('offset') ?? '0');
  // -1 stands for "no limit" in some SDKs.
  const limit = limitText === undefined || limitText === '-1' ? undefined : integer('limit', limitText);
  if (limit !== undefined && (limit < 1 || limit > limits.maxTopK)) {
    throw new CairnError('InvalidParameter', `limit [${limit}] is invalid, it should be in range [1, ${limits.maxTopK}]`);
  }
  if (offset < 0 || (limit ?? 0) + offset > limits.maxTopK) {
    throw new CairnError(
      'InvalidParameter',
      `(offset+limit) [${offset + (limit ?? 0)}] is invalid, it should be in range [1, ${limits.maxTopK}], got offset ${offset}`,
    );
  }
  if (offset > 0 && limit === undefined) throw new CairnError('InvalidParameter', `offset [${offset}] needs a limit`);
  return {
    limit,
    offset,
    ignoreGrowing: flag(values.get('ignore_growing')),
    orderBy: orderByOf(values),
    timezone: values.get('timezone') ?? '',
    timeFields: values.get('time_fields') ?? '',
    iterator: flag(values.get('iterator')),
  };
}

export function parseObject(text: string): Record<string, unknown> {
  if (text === '') return {};
  try {
    const parsed: unknown = JSON.parse(text);
    if (typeof parsed === 'object' && parsed !== null && !Array.isArray(parsed)) return parsed as Record<string, unknown>;
  } catch {
    // Reported below, with the text.
  }
  throw new CairnError('InvalidParameter', `search params are not a JSON object: ${text.slice(0, 200)}`);
}

function orderByOf(values: ReadonlyMap<string, string>): string {
  return values.get('order_by_fields') || values.get('order_by') || '';
}

function refuseUnsupported(values: ReadonlyMap<string, string>, keys: readonly string[], rpc: string): void {
  const found = keys.find((key) => (values.get(key) ?? '') !== '');
  if (found) throw new CairnError('NotSupported', `not supported: ${found} in ${rpc}`);
}

function integer(name: string, text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isSafeInteger(value))
    throw new CairnError('InvalidParameter', `${name} [${text}] is invalid, it should be an integer`);
  return value;
}

function flag(text: string | undefined): boolean {
  return text?.toLowerCase() === 'true';
}

function scalar(text: string): unknown {
  if (/^-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(text)) return Number(text);
  return text === 'true' ? true : text === 'false' ? false : text;
}

function textOf(value: unknown): string | undefined {
  return value === undefined || value === null ? undefined : String(value);
}
