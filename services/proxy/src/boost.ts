import { bitAt, CairnError } from '@cairn/base';
import { type Expr, evaluate, parseFilter, visitColumns } from '@cairn/expr';
import type { KeyValuePair } from '@cairn/proto/milvus/common';
import type { CollectionSchema, ColumnBatch, TimeZone } from '@cairn/schema';
import type { RankFunction } from './rank-function.ts';
import { notSupported } from './status.ts';

type Combine = (a: number, b: number) => number;

/** Scores of rows that match a filter, times a weight. */
export interface Boosts {
  readonly parts: readonly { readonly filter: Expr; readonly weight: number }[];
  /** How the weights of several that a row matches become one. */
  readonly combine: Combine;
  /** How that and the row's score become its new score. */
  readonly apply: Combine;
}

/**
 * Rerankers `boost`: `weight`, and a `filter` that says whose score it changes (without one: everybody's). `function_mode` and `boost_mode` of the function
 * score: multiply (as it comes) or sum. Under a metric where small is near a weight below 1 lifts a row, as in Milvus.
 */
export function readBoosts(
  functions: readonly RankFunction[],
  scoreParams: readonly KeyValuePair[],
  schema: CollectionSchema,
  zone: TimeZone,
): Boosts {
  const parts = functions.map(({ inputs, params }) => {
    if (inputs.length > 0) throw new CairnError('InvalidParameter', `reranker boost takes no input fields, got ${inputs.join(', ')}`);
    if (params.has('random_score')) throw notSupported('random_score of reranker boost');
    const text = params.get('weight');
    const weight = Number(text);
    if (text === undefined) throw new CairnError('InvalidParameter', 'reranker boost must set weight params');
    if (text.trim() === '' || !Number.isFinite(weight))
      throw new CairnError('InvalidParameter', `parameter weight of reranker boost must be a number, got ${text}`);
    return { filter: parseFilter(params.get('filter') ?? '', schema, {}, { zone }), weight };
  });
  const mode = (name: string): Combine => combineOf(name, scoreParams.find(({ key }) => key.toLowerCase() === name)?.value ?? 'multiply');
  return { parts, combine: mode('function_mode'), apply: mode('boost_mode') };
}

function combineOf(name: string, text: string): Combine {
  const mode = text.toLowerCase();
  if (mode === 'multiply') return (a, b) => a * b;
  if (mode === 'sum') return (a, b) => a + b;
  throw new CairnError('InvalidParameter', `${name} of a function score must be multiply or sum, got ${text}`);
}

/** What the filters read: fields, and keys of the dynamic one. */
export function readOf(
  { parts }: Boosts,
  schema: CollectionSchema,
): { readonly fieldIds: readonly number[]; readonly dynamicKeys: readonly string[] } {
  const fieldIds = new Set<number>();
  const dynamicKeys = new Set<string>();
  for (const { filter } of parts)
    visitColumns(filter, (column) => {
      fieldIds.add(column.fieldId);
      if (column.fieldId === schema.dynamicField?.id) dynamicKeys.add(String(column.path[0]));
    });
  return { fieldIds: [...fieldIds], dynamicKeys: [...dynamicKeys] };
}

/** New scores of hits. `sign` -1: small is near, and a weight works on the score with its sign turned round. */
export function boostedScores({ parts, combine, apply }: Boosts, scores: Float32Array, columns: ColumnBatch, sign: 1 | -1): Float32Array {
  const column = (id: number) => {
    const found = columns.columns.get(id);
    if (!found) throw new CairnError('Internal', `hits came without field ${id} of a boost`);
    return found;
  };
  const matches = parts.map(({ filter }) => evaluate(filter, column, scores.length));
  return scores.map((score, row) => {
    let weight: number | undefined;
    for (const [at, part] of parts.entries()) {
      if (!bitAt(matches[at], row)) continue;
      weight = weight === undefined ? part.weight : combine(weight, part.weight);
    }
    return weight === undefined ? score : sign * apply(sign * score, weight);
  });
}
