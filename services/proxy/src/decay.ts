import { CairnError } from '@cairn/base';
import { type CollectionSchema, type Column, type ColumnBatch, DataType, type Field, valueAt } from '@cairn/schema';
import { fieldNamed } from './proxy-catalog.ts';
import type { RankFunction } from './rank-function.ts';

/** Scores that fade with the distance of a field from a point: a hit's own score, made comparable, times the factor of its row. */
export interface Decay {
  readonly field: Field;
  /** 1 at the origin and within `offset` of it, `decay` at a distance of `scale` beyond. */
  readonly factor: (value: number) => number;
  readonly normalize: boolean;
  /** How the scores that several searches give a row become one, before they fade. */
  readonly mode: ScoreMode;
}

export type ScoreMode = 'max' | 'sum' | 'avg';

const NUMBERS: ReadonlySet<DataType> = new Set<DataType>([
  ...[DataType.Int8, DataType.Int16, DataType.Int32, DataType.Int64, DataType.Float, DataType.Double],
]);
const DEFAULT_DECAY = 0.5;

/** The reranker `decay`: `function` gauss, exp or linear, `origin`, `scale`, `offset`, `decay`, `norm_score`, `score_mode`, over one number field without nulls. */
export function readDecay({ inputs, params }: RankFunction, schema: CollectionSchema): Decay {
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
  return {
    field,
    factor,
    normalize: params.get('norm_score')?.toLowerCase() === 'true',
    mode: scoreModeOf(params.get('score_mode') ?? 'max'),
  };
}

function scoreModeOf(text: string): ScoreMode {
  const mode = text.toLowerCase();
  if (mode === 'max' || mode === 'sum' || mode === 'avg') return mode;
  throw new CairnError('InvalidParameter', `parameter score_mode must be max, sum or avg, got ${text}`);
}

/** Factor by distance in units of `scale`: 1 at 0, `decay` at 1. A linear one stays there; the others go on towards 0 (as in Milvus). */
function curveOf(name: string, decay: number): (distance: number) => number {
  switch (name) {
    case 'gauss':
      return (distance) => decay ** (distance * distance);
    case 'exp':
      return (distance) => decay ** distance;
    case 'linear':
      return (distance) => Math.max(decay, 1 - (1 - decay) * distance);
    default:
      throw new CairnError('InvalidParameter', `parameter function of reranker decay must be gauss, exp or linear, got '${name}'`);
  }
}

/** The factor of a row of hits. */
export function factorsOf({ field, factor }: Decay, columns: ColumnBatch): (row: number) => number {
  const values: Column | undefined = columns.columns.get(field.id);
  if (!values) throw new CairnError('Internal', `hits came without field ${field.name}`);
  return (row) => factor(Number(valueAt(values, row)));
}
