import { CairnError } from '@cairn/base';
import { type FunctionScore, FunctionType } from '@cairn/proto/milvus/schema';
import type { SearchHits } from '@cairn/query';
import { type CollectionSchema, type Column, DataType, type Field, takeBatch, valueAt } from '@cairn/schema';
import { normalizedScore, type RankStrategy, readRankStrategy } from './hybrid-rank.ts';
import { fieldNamed } from './proxy-catalog.ts';
import { notSupported } from './status.ts';

/** Scores that fade with the distance of a field from a point: a search's own score, made comparable, times `factor(value)`. */
export interface Decay {
  readonly field: Field;
  /** 1 at the origin and within `offset` of it, `decay` at a distance of `scale` beyond, never below 0. */
  readonly factor: (value: number) => number;
  readonly normalize: boolean;
}

const NUMBERS: ReadonlySet<DataType> = new Set<DataType>([
  ...[DataType.Int8, DataType.Int16, DataType.Int32, DataType.Int64, DataType.Float, DataType.Double],
]);
const DEFAULT_DECAY = 0.5;

/** The one function of a function score, its parameters by name. Several at once are not built. */
function onlyFunction(
  score: FunctionScore,
  rpc: string,
): { readonly inputs: readonly string[]; readonly params: ReadonlyMap<string, string> } {
  const [only, ...others] = score.functions;
  if (!only || others.length > 0) throw notSupported(`function_score of ${score.functions.length} functions in ${rpc}`);
  if (only.type !== FunctionType.Rerank)
    throw new CairnError('InvalidParameter', `function ${only.name} of a ${rpc} is of type ${only.type}, only rerank functions rank hits`);
  return { inputs: only.inputFieldNames, params: new Map(only.params.map(({ key, value }) => [key.toLowerCase(), value])) };
}

/** How the parts of a hybrid search become one list: the functions `rrf` and `weighted`, which need no field. */
export function readRankFunction(score: FunctionScore, searches: number): RankStrategy {
  const { inputs, params } = onlyFunction(score, 'HybridSearch');
  const reranker = (params.get('reranker') ?? '').toLowerCase();
  if (reranker !== 'rrf' && reranker !== 'weighted') throw notSupported(`reranker ${reranker || 'without a name'} in HybridSearch`);
  if (inputs.length > 0) throw new CairnError('InvalidParameter', `reranker ${reranker} takes no input fields, got ${inputs.join(', ')}`);
  // A text of the wire: numbers and lists as JSON says them.
  const values = [...params].flatMap(([key, value]) =>
    ['k', 'weights', 'norm_score'].includes(key) ? [`${JSON.stringify(key)}:${value}`] : [],
  );
  const text = `{${values.join(',')}}`;
  return readRankStrategy(reranker, params.has('norm_score') ? text.toLowerCase() : withoutNorm(text), searches);
}

/** Functions take scores as they are unless they are told to make them comparable; strategies of old do it by themselves. */
const withoutNorm = (text: string): string => (text === '{}' ? '{"norm_score":false}' : `${text.slice(0, -1)},"norm_score":false}`);

/** The function `decay` of a search: `function` gauss, exp or linear, `origin`, `scale`, `offset`, `decay`, over one number field without nulls. */
export function readDecay(score: FunctionScore, schema: CollectionSchema): Decay {
  const { inputs, params } = onlyFunction(score, 'Search');
  const reranker = (params.get('reranker') ?? '').toLowerCase();
  if (reranker !== 'decay') throw notSupported(`reranker ${reranker || 'without a name'} in Search`);
  if (inputs.length !== 1) throw new CairnError('InvalidParameter', `reranker decay takes one input field, got ${inputs.length}`);
  const field = fieldNamed(schema, inputs[0]);
  if (!NUMBERS.has(field.type) || field.nullable)
    throw new CairnError('InvalidParameter', `reranker decay takes a number field without nulls, got ${field.name}`);
  const number = (name: string, fallback?: number): number => {
    const text = params.get(name);
    const value = text === undefined ? fallback : Number(text);
    if (value === undefined) throw new CairnError('InvalidParameter', `reranker decay needs the parameter ${name}`);
    if (text?.trim() === '' || !Number.isFinite(value))
      throw new CairnError('InvalidParameter', `parameter ${name} of reranker decay must be a number, got ${text}`);
    return value;
  };
  const [origin, scale, offset, decay] = [number('origin'), number('scale'), number('offset', 0), number('decay', DEFAULT_DECAY)];
  if (scale <= 0) throw new CairnError('InvalidParameter', `parameter scale of reranker decay must be above 0, got ${scale}`);
  if (offset < 0) throw new CairnError('InvalidParameter', `parameter offset of reranker decay must be at least 0, got ${offset}`);
  if (decay <= 0 || decay >= 1)
    throw new CairnError('InvalidParameter', `parameter decay of reranker decay must be in (0, 1), got ${decay}`);
  const curve = curveOf((params.get('function') ?? '').toLowerCase(), decay);
  const factor = (value: number): number => curve(Math.max(0, Math.abs(value - origin) - offset) / scale);
  return { field, factor, normalize: params.get('norm_score')?.toLowerCase() === 'true' };
}

/** Factor by distance in units of `scale`: 1 at 0, `decay` at 1. */
function curveOf(name: string, decay: number): (distance: number) => number {
  switch (name) {
    case 'gauss':
      return (distance) => decay ** (distance * distance);
    case 'exp':
      return (distance) => decay ** distance;
    case 'linear':
      return (distance) => Math.max(0, 1 - (1 - decay) * distance);
    default:
      throw new CairnError('InvalidParameter', `parameter function of reranker decay must be gauss, exp or linear, got '${name}'`);
  }
}

/** The hits of each query with their new scores, best first; bigger is better, whatever the metric was. Ties stay as they were. */
export function decayed(hits: SearchHits, decay: Decay, metric: string): SearchHits {
  if (hits.scores.length === 0) return hits;
  const values = hits.columns.columns.get(decay.field.id);
  if (!values) throw new CairnError('Internal', `hits came without field ${decay.field.name}`);
  const scores = hits.scores.map((score, row) => comparable(score, metric, decay.normalize) * decay.factor(numberAt(values, row)));
  const order: number[] = [];
  let start = 0;
  for (const count of hits.counts) {
    order.push(...Array.from({ length: count }, (_, i) => start + i).sort((a, b) => scores[b] - scores[a] || a - b));
    start += count;
  }
  const rows = Int32Array.from(order);
  return { ...hits, columns: takeBatch(hits.columns, rows), scores: Float32Array.from(rows, (row) => scores[row]) };
}

const numberAt = (column: Column, row: number): number => Number(valueAt(column, row));

/** Scores that grow with nearness stay as they are unless told otherwise; distances are always turned round. */
function comparable(score: number, metric: string, normalize: boolean): number {
  return !normalize && (metric === 'COSINE' || metric === 'IP' || metric === 'BM25') ? score : normalizedScore(score, metric);
}
