import { CairnError } from '@cairn/base';
import { DataType, type Field } from '@cairn/schema';
import type { IndexSpec } from './search-types.ts';

/** What goes with what: index types of each kind of field, their metrics, and the ranges of their parameters. */
type Kind = 'float' | 'binary' | 'sparse' | 'scalar' | 'none';

const KIND_OF_TYPE: ReadonlyMap<DataType, Kind> = new Map<DataType, Kind>([
  [DataType.FloatVector, 'float'],
  [DataType.Float16Vector, 'float'],
  [DataType.BFloat16Vector, 'float'],
  [DataType.Int8Vector, 'float'],
  [DataType.BinaryVector, 'binary'],
  [DataType.SparseFloatVector, 'sparse'],
  [DataType.ArrayOfVector, 'none'],
  [DataType.ArrayOfStruct, 'none'],
  [DataType.Struct, 'none'],
]);
const METRICS: Readonly<Record<Kind, readonly string[]>> = {
  float: ['COSINE', 'L2', 'IP'],
  binary: ['HAMMING', 'JACCARD'],
  sparse: ['IP'],
  scalar: [],
  none: [],
};
/** Built types. Sparse ones are scanned exactly whatever their name: their names differ in speed, not in answers. */
const BUILT: Readonly<Record<Kind, readonly string[]>> = {
  float: ['AUTOINDEX', 'FLAT', 'HNSW'],
  binary: ['AUTOINDEX', 'BIN_FLAT'],
  sparse: ['AUTOINDEX', 'SPARSE_INVERTED_INDEX', 'SPARSE_WAND'],
  scalar: [],
  none: [],
};
/** Types that Milvus has for the kind and that are not built here. */
const KNOWN: Readonly<Record<Kind, readonly string[]>> = {
  float: [
    'IVF_FLAT',
    'IVF_SQ8',
    'IVF_PQ',
    'IVF_RABITQ',
    'SCANN',
    'HNSW_SQ',
    'HNSW_PQ',
    'HNSW_PRQ',
    'DISKANN',
    'GPU_CAGRA',
    'GPU_IVF_FLAT',
    'GPU_IVF_PQ',
    'GPU_BRUTE_FORCE',
  ],
  binary: ['BIN_IVF_FLAT', 'MINHASH_LSH'],
  sparse: [],
  scalar: ['AUTOINDEX', 'INVERTED', 'BITMAP', 'STL_SORT', 'TRIE', 'NGRAM', 'RTREE'],
  none: ['AUTOINDEX', 'HNSW'],
};
/** Scalar types that only some fields can have. */
const STL_SORT_TYPES: ReadonlySet<DataType> = new Set<DataType>([
  DataType.Int8,
  DataType.Int16,
  DataType.Int32,
  DataType.Int64,
  DataType.Float,
  DataType.Double,
]);

export interface ParamRange {
  readonly name: string;
  readonly least: number;
  readonly most: number;
  readonly fallback: number;
}
const HNSW_PARAMS: readonly ParamRange[] = [
  { name: 'M', least: 2, most: 2_048, fallback: 16 },
  { name: 'efConstruction', least: 1, most: 65_536, fallback: 160 },
];
/** Breadth of a graph search when none is asked for; at least 1.5 times the number of hits is used. */
export const DEFAULT_EF = 64;
export const MAX_EF = 32_768;

const kindOf = (field: Field): Kind => KIND_OF_TYPE.get(field.type) ?? 'scalar';
const typeName = (type: DataType): string => Object.entries(DataType).find(([, value]) => value === type)?.[0] ?? `type ${type}`;
const isGraphType = (indexType: string): boolean => indexType === 'HNSW' || indexType === 'AUTOINDEX';

/** Whether an index of this kind is searched as a graph; others are exact scans. */
export const isGraph = (spec: Pick<IndexSpec, 'indexType' | 'metric'>): boolean =>
  isGraphType(spec.indexType) && METRICS.float.includes(spec.metric) && spec.metric !== '';

/**
 * Checks what CreateIndex was asked for and fills in what it left out. `params` are the flattened extra_params (index_type, metric_type, M, …);
 * `params` inside them, a JSON object, is flattened too. IndexNotSupported for a metric that the field cannot have, InvalidParameter for values
 * and for types that do not go with the field (in Milvus's legacy form, UnexpectedError), NotSupported for a type that is not built.
 */
export function resolveIndex(field: Field, params: Readonly<Record<string, string>>): IndexSpec {
  const all = flatten(params);
  const { index_type: typeGiven = '', metric_type: metricGiven = '', ...rest } = all;
  const indexType = typeGiven === '' ? 'AUTOINDEX' : typeGiven.toUpperCase();
  const kind = kindOf(field);
  if (!BUILT[kind].includes(indexType)) throw wrongType(field, kind, typeGiven === '' ? 'AUTOINDEX' : typeGiven);
  const metric = metricGiven === '' ? METRICS[kind][0] : metricGiven.toUpperCase();
  if (!METRICS[kind].includes(metric)) {
    throw new CairnError(
      'InvalidParameter',
      `metric type ${metric} does not go with index ${indexType} on field ${field.name} (${typeName(field.type)}), use one of ${METRICS[kind].join(', ')}`,
      { legacy: 1 },
    );
  }
  if (kind === 'float' && indexType === 'HNSW') for (const range of HNSW_PARAMS) numberParam(rest, range);
  return { indexType, metric, params: rest };
}

function wrongType(field: Field, kind: Kind, indexType: string): CairnError {
  const upper = indexType.toUpperCase();
  const known = KNOWN[kind].includes(upper) && !(upper === 'STL_SORT' && !STL_SORT_TYPES.has(field.type));
  if (known)
    return new CairnError('NotSupported', `not supported: index type ${indexType} on field ${field.name} (${typeName(field.type)})`);
  const exists = Object.values(KNOWN)
    .concat(Object.values(BUILT))
    .some((types) => types.includes(upper));
  const message = exists
    ? `index type ${indexType} does not go with field ${field.name} (${typeName(field.type)})`
    : `invalid parameter[expected=valid index][actual=invalid index type: ${indexType}]`;
  return new CairnError('InvalidParameter', message, { legacy: 1 });
}

function flatten(params: Readonly<Record<string, string>>): Record<string, string> {
  const { params: nested, ...given } = params;
  const flat: Record<string, string> = { ...given };
  if (nested === undefined || nested === '') return flat;
  let inner: unknown;
  try {
    inner = JSON.parse(nested);
  } catch (error) {
    throw new CairnError('InvalidParameter', `index params are not JSON: ${nested.slice(0, 200)}`, { cause: error });
  }
  if (typeof inner !== 'object' || inner === null || Array.isArray(inner))
    throw new CairnError('InvalidParameter', `index params are no object: ${nested.slice(0, 200)}`);
  for (const [key, value] of Object.entries(inner)) flat[key] ??= typeof value === 'string' ? value : JSON.stringify(value);
  return flat;
}

function numberParam(params: Readonly<Record<string, string>>, range: ParamRange): number {
  const text = params[range.name];
  if (text === undefined || text === '') return range.fallback;
  const value = Number(text);
  if (!Number.isInteger(value)) throw new CairnError('InvalidParameter', `param '${range.name}' (${text}) should be an integer`);
  if (value < range.least || value > range.most)
    throw new CairnError(
      'InvalidParameter',
      `out of range in json: param '${range.name}' (${value}) should be in range [${range.least}, ${range.most}]`,
    );
  return value;
}

/** Build parameters of a graph, defaults filled in. */
export function graphParams(spec: IndexSpec): { readonly m: number; readonly efConstruction: number } {
  const [m, efConstruction] = HNSW_PARAMS.map((range) => numberParam(spec.params, range));
  return { m, efConstruction };
}

/** What DescribeIndex shows: the parameters as given, in wire form. */
export function describeIndexParams(spec: IndexSpec): { readonly key: string; readonly value: string }[] {
  const { mmap_enabled, 'mmap.enabled': mmap, ...params } = spec.params;
  const out = [
    { key: 'index_type', value: spec.indexType },
    { key: 'metric_type', value: spec.metric },
  ];
  if (Object.keys(params).length > 0) out.push({ key: 'params', value: JSON.stringify(params) });
  for (const value of [mmap_enabled, mmap]) if (value !== undefined) out.push({ key: 'mmap.enabled', value });
  return out;
}

/** Breadth that search parameters ask for; undefined when they name none. InvalidParameter outside k..MAX_EF. */
export function efOf(params: Readonly<Record<string, unknown>>, k: number): number | undefined {
  const given = params.ef;
  if (given === undefined || given === null || given === '') return undefined;
  const ef = Number(given);
  if (!Number.isInteger(ef) || ef < 1 || ef > MAX_EF)
    throw new CairnError('InvalidParameter', `out of range in json: param 'ef' (${given}) should be in range [1, ${MAX_EF}]`);
  if (ef < k) throw new CairnError('InvalidParameter', `ef(${ef}) should be larger than k(${k})`);
  return ef;
}

/** Metrics a field can be searched with, the default first. */
export const metricsOf = (field: Field): readonly string[] => METRICS[kindOf(field)];
