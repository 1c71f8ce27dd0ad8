import { CairnError } from '@cairn/base';
import { efOf, metricsOf, type ScoreRange } from '@cairn/index';
import type { SearchPlan } from '@cairn/proto/cairn/services';
import { type CollectionSchema, DataType, type Field } from '@cairn/schema';

/** Hits of one query, offset included: Milvus's bound. */
export const MAX_TOP_K = 16_384;
/** Queries of one request: Milvus's bound. */
export const MAX_NQ = 16_384;

export interface SearchParams {
  readonly field: Field;
  readonly ef: number | undefined;
  readonly range: ScoreRange | undefined;
}

/** Checks a plan against the schema and reads its parameters. InvalidParameter names what is wrong; usable before the plan is sent. */
export function readSearchPlan(plan: SearchPlan, schema: CollectionSchema): SearchParams {
  const field = schema.byId.get(plan.fieldId);
  if (!field) throw new CairnError('FieldNotFound', `field ${plan.fieldId} is not in the schema of collection ${schema.name}`);
  const metrics = metricsOf(field);
  if (!metrics.includes(plan.metric))
    throw new CairnError(
      'InvalidParameter',
      `metric type ${plan.metric} does not go with field ${field.name}, use one of ${metrics.join(', ')}`,
    );
  if (field.type === DataType.ArrayOfVector && !plan.metric.startsWith('MAX_SIM'))
    throw new CairnError(
      'NotSupported',
      `not supported: search of single elements of field ${field.name} by ${plan.metric}; an index of a MAX_SIM metric is searched by lists of vectors`,
    );
  if (plan.topK < 1 || plan.topK > MAX_TOP_K)
    throw new CairnError('InvalidParameter', `limit (${plan.topK}) must be in range [1, ${MAX_TOP_K}]`);
  checkQueries(plan, field);
  const params = parseParams(plan.params);
  return { field, ef: efOf(params, plan.topK), range: rangeOf(params) };
}

const BITS_OF_COMPONENT: ReadonlyMap<DataType, number> = new Map<DataType, number>([
  [DataType.FloatVector, 32],
  [DataType.Float16Vector, 16],
  [DataType.BFloat16Vector, 16],
  [DataType.Int8Vector, 8],
  [DataType.BinaryVector, 1],
]);

function checkQueries(plan: SearchPlan, field: Field): void {
  if (plan.nq < 1 || plan.nq > MAX_NQ) throw new CairnError('InvalidParameter', `nq (${plan.nq}) must be in range [1, ${MAX_NQ}]`);
  const bits = BITS_OF_COMPONENT.get(field.type);
  const expected = bits === undefined ? undefined : (plan.nq * field.dim * bits) / 8;
  if (expected !== undefined && plan.queries.length !== expected)
    throw new CairnError(
      'InvalidParameter',
      `vector dimension mismatch: ${plan.nq} queries of field ${field.name} (dim ${field.dim}) are ${expected} bytes, got ${plan.queries.length}`,
    );
}

/** The text that was read last, and what it says: most requests say the same. */
let last: { readonly text: string; readonly params: Readonly<Record<string, unknown>> } = { text: '', params: {} };

function parseParams(text: string): Readonly<Record<string, unknown>> {
  if (text !== last.text) last = { text, params: readParams(text) };
  return last.params;
}

function readParams(text: string): Record<string, unknown> {
  if (text === '') return {};
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new CairnError('InvalidParameter', `search params are not JSON: ${text.slice(0, 200)}`, { cause: error });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new CairnError('InvalidParameter', `search params are no object: ${text.slice(0, 200)}`);
  return Object.freeze({ ...value });
}

function rangeOf(params: Readonly<Record<string, unknown>>): ScoreRange | undefined {
  const radius = numberOf(params, 'radius');
  const rangeFilter = numberOf(params, 'range_filter');
  if (radius === undefined) {
    if (rangeFilter !== undefined) throw new CairnError('InvalidParameter', `range_filter(${rangeFilter}) needs a radius`);
    return undefined;
  }
  return { radius, rangeFilter };
}

function numberOf(params: Readonly<Record<string, unknown>>, name: string): number | undefined {
  const given = params[name];
  if (given === undefined || given === null || given === '') return undefined;
  const value = Number(given);
  if (Number.isNaN(value)) throw new CairnError('InvalidParameter', `search param '${name}' (${given}) should be a number`);
  return value;
}
