import { CairnError } from '@cairn/base';
import { DataType, type Field } from '@cairn/schema';
import type { IndexSpec } from './search-types.ts';

/** What goes with what: index types of each kind of field, their metrics, and the ranges of their parameters. */
type Kind = 'float' | 'binary' | 'sparse' | 'lists' | 'binaryLists' | 'scalar' | 'none';

const KIND_OF_TYPE: ReadonlyMap<DataType, Kind> = new Map<DataType, Kind>([
  [DataType.FloatVector, 'float'],
  [DataType.Float16Vector, 'float'],
  [DataType.BFloat16Vector, 'float'],
  [DataType.Int8Vector, 'float'],
  [DataType.BinaryVector, 'binary'],
  [DataType.SparseFloatVector, 'sparse'],
  [DataType.ArrayOfStruct, 'none'],
  [DataType.Struct, 'none'],
]);
const METRICS: Readonly<Record<Kind, readonly string[]>> = {
  float: ['COSINE', 'L2', 'IP'],
  binary: ['HAMMING', 'JACCARD'],
  sparse: ['IP'],
  lists: ['MAX_SIM', 'MAX_SIM_COSINE', 'MAX_SIM_IP', 'MAX_SIM_L2', 'COSINE', 'L2', 'IP'],
  binaryLists: ['MAX_SIM_HAMMING', 'MAX_SIM_JACCARD', 'HAMMING', 'JACCARD'],
  scalar: [],
  none: [],
};
/**
 * Types that CreateIndex accepts. Several names are served by one engine (docs/indexes.md): every dense type but FLAT by the graph over the vectors
 * as they are, so the names that would compress lose no recall; binary and sparse ones and lists of vectors by an exact scan; scalar ones by the scan of the column.
 */
const BUILT: Readonly<Record<Kind, readonly string[]>> = {
  float: ['AUTOINDEX', 'FLAT', 'HNSW', 'HNSW_SQ', 'HNSW_PQ', 'HNSW_PRQ', 'IVF_FLAT', 'IVF_SQ8', 'IVF_PQ', 'IVF_RABITQ', 'SCANN', 'DISKANN'],
  binary: ['AUTOINDEX', 'BIN_FLAT', 'BIN_IVF_FLAT'],
  sparse: ['AUTOINDEX', 'SPARSE_INVERTED_INDEX', 'SPARSE_WAND'],
  lists: ['AUTOINDEX', 'FLAT', 'HNSW', 'HNSW_SQ', 'HNSW_PQ', 'HNSW_PRQ', 'IVF_FLAT', 'IVF_SQ8', 'IVF_PQ', 'SCANN', 'DISKANN'],
  binaryLists: ['AUTOINDEX', 'BIN_FLAT', 'BIN_IVF_FLAT', 'HNSW'],
  scalar: ['AUTOINDEX', 'INVERTED', 'BITMAP', 'STL_SORT', 'TRIE', 'NGRAM'],
  none: [],
};
/** Types that Milvus has for the kind and that are not built here. */
const KNOWN: Readonly<Record<Kind, readonly string[]>> = {
  float: ['GPU_CAGRA', 'GPU_IVF_FLAT', 'GPU_IVF_PQ', 'GPU_BRUTE_FORCE'],
  binary: ['MINHASH_LSH'],
  sparse: [],
  lists: [],
  binaryLists: [],
  scalar: ['RTREE'],
  none: ['AUTOINDEX', 'HNSW'],
};
const NUMBERS: readonly DataType[] = [
  DataType.Int8,
  DataType.Int16,
  DataType.Int32,
  DataType.Int64,
  DataType.Float,
  DataType.Double,
  DataType.Timestamptz,
];
const WHOLE: readonly DataType[] = [DataType.Bool, DataType.Int8, DataType.Int16, DataType.Int32, DataType.Int64];
/** Fields that each scalar type goes with; `element` where arrays of such elements do too. */
const SCALAR_FIELDS: ReadonlyMap<string, { readonly types: ReadonlySet<DataType>; readonly element: boolean }> = new Map([
  ['AUTOINDEX', { types: new Set<DataType>([...NUMBERS, DataType.Bool, DataType.VarChar, DataType.Json]), element: true }],
  ['INVERTED', { types: new Set<DataType>([...NUMBERS, DataType.Bool, DataType.VarChar, DataType.Json]), element: true }],
  ['BITMAP', { types: new Set<DataType>([...WHOLE, DataType.VarChar]), element: true }],
  ['STL_SORT', { types: new Set<DataType>([...NUMBERS, DataType.VarChar]), element: false }],
  ['TRIE', { types: new Set<DataType>([DataType.VarChar]), element: false }],
  ['NGRAM', { types: new Set<DataType>([DataType.VarChar, DataType.Json]), element: false }],
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
const NLIST: ParamRange = { name: 'nlist', least: 1, most: 65_536, fallback: 128 };
/** Parameters of a type, checked whether the engine behind it needs them or not: a wrong one is a mistake of the caller everywhere. */
const PARAMS: ReadonlyMap<string, readonly ParamRange[]> = new Map<string, readonly ParamRange[]>([
  ['HNSW', HNSW_PARAMS],
  ['HNSW_SQ', HNSW_PARAMS],
  ['HNSW_PQ', [...HNSW_PARAMS, { name: 'm', least: 1, most: 65_536, fallback: 32 }, { name: 'nbits', least: 1, most: 24, fallback: 8 }]],
  ['HNSW_PRQ', [...HNSW_PARAMS, { name: 'm', least: 1, most: 65_536, fallback: 2 }, { name: 'nbits', least: 1, most: 24, fallback: 8 }]],
  ['IVF_FLAT', [NLIST]],
  ['IVF_SQ8', [NLIST]],
  ['IVF_PQ', [NLIST, { name: 'm', least: 1, most: 65_536, fallback: 32 }, { name: 'nbits', least: 1, most: 24, fallback: 8 }]],
  ['IVF_RABITQ', [NLIST]],
  ['SCANN', [NLIST]],
  ['BIN_IVF_FLAT', [NLIST]],
]);
/** Parameters that are one of a few words. */
const WORDS: ReadonlyMap<string, { readonly name: string; readonly words: readonly string[] }> = new Map([
  ['HNSW_SQ', { name: 'sq_type', words: ['SQ6', 'SQ8', 'BF16', 'FP16', 'FP32'] }],
  ['SPARSE_INVERTED_INDEX', { name: 'inverted_index_algo', words: ['TAAT_NAIVE', 'DAAT_WAND', 'DAAT_MAXSCORE'] }],
]);
/** Types whose codes cut a vector into `m` equal parts. */
const CUT_VECTORS: readonly string[] = ['HNSW_PQ', 'IVF_PQ'];
/** Sparse searches are exact: what may be left out is not, and a part that cannot be is an error. */
const SPARSE_RATIO = 'drop_ratio_search';

/** Breadth of a graph search when none is asked for; at least 1.5 times the number of hits is used. */
export const DEFAULT_EF = 64;
export const MAX_EF = 32_768;

const kindOf = (field: Field): Kind => {
  if (field.type === DataType.ArrayOfVector) return field.elementType === DataType.BinaryVector ? 'binaryLists' : 'lists';
  return KIND_OF_TYPE.get(field.type) ?? 'scalar';
};
const typeName = (type: DataType): string => Object.entries(DataType).find(([, value]) => value === type)?.[0] ?? `type ${type}`;
const isGraphType = (indexType: string): boolean => indexType !== 'FLAT' && BUILT.float.includes(indexType);

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
  if (!BUILT[kind].includes(indexType) || (kind === 'scalar' && !goesWithScalar(indexType, field)))
    throw wrongType(field, kind, typeGiven === '' ? 'AUTOINDEX' : typeGiven);
  if (kind === 'scalar') return scalarIndex(field, indexType, rest);
  const metric = metricGiven === '' ? METRICS[kind][0] : metricGiven.toUpperCase();
  if (!METRICS[kind].includes(metric)) {
    throw new CairnError(
      'InvalidParameter',
      `metric type ${metric} does not go with index ${indexType} on field ${field.name} (${typeName(field.type)}), use one of ${METRICS[kind].join(', ')}`,
      { legacy: 1 },
    );
  }
  for (const range of PARAMS.get(indexType) ?? []) numberParam(rest, range);
  checkWords(indexType, rest);
  if (kind === 'sparse') ratioParam(rest, 'drop_ratio_build');
  if (kind === 'float') checkParts(field, indexType, rest);
  return { indexType, metric, params: rest };
}

function checkWords(indexType: string, params: Readonly<Record<string, string>>): void {
  const known = WORDS.get(indexType);
  const given = known && params[known.name];
  if (known && given !== undefined && !known.words.includes(given.toUpperCase()))
    throw invalid(`param '${known.name}' (${given}) of index ${indexType} is none of ${known.words.join(', ')}`);
}

function checkParts(field: Field, indexType: string, params: Readonly<Record<string, string>>): void {
  if (!CUT_VECTORS.includes(indexType) || params.m === undefined) return;
  if (field.dim % Number(params.m) !== 0)
    throw invalid(`the dimension of the vector (${field.dim}) should be a multiple of the number of subquantizers m (${params.m})`);
}

/** A part below one of the values that may be left out. */
function ratioParam(params: Readonly<Record<string, unknown>>, name: string): void {
  const given = params[name];
  if (given === undefined || given === null || given === '') return;
  const value = Number(given);
  if (!(value >= 0 && value < 1))
    throw new CairnError('InvalidParameter', `out of range in json: param '${name}' (${given}) should be in range [0.000000, 1.000000)`);
}

function goesWithScalar(indexType: string, field: Field): boolean {
  const fields = SCALAR_FIELDS.get(indexType);
  if (fields === undefined) return false;
  return field.type === DataType.Array ? fields.element && fields.types.has(field.elementType) : fields.types.has(field.type);
}

/** Indexes of scalar fields have no metric; one that is sent is not looked at. */
function scalarIndex(field: Field, indexType: string, params: Readonly<Record<string, string>>): IndexSpec {
  if (field.isPrimaryKey && indexType === 'BITMAP') throw invalid(`index type BITMAP does not go with the primary key ${field.name}`);
  if (field.type === DataType.Json && (params.json_path === undefined || params.json_cast_type === undefined))
    throw invalid(`an index on JSON field ${field.name} needs json_path and json_cast_type`);
  if (indexType === 'NGRAM') checkGrams(field, params);
  return { indexType, metric: '', params };
}

function checkGrams(field: Field, params: Readonly<Record<string, string>>): void {
  const range = { least: 1, most: 65_535, fallback: 0 };
  const [least, most] = ['min_gram', 'max_gram'].map((name) => numberParam(params, { ...range, name }));
  if (least === 0 || most === 0 || least > most)
    throw invalid(`index type NGRAM on field ${field.name} needs 1 <= min_gram <= max_gram, got ${params.min_gram} and ${params.max_gram}`);
}

/** In the form that createIndex errors have on the wire: code 1100, legacy UnexpectedError. */
function invalid(message: string): CairnError {
  return new CairnError('InvalidParameter', message, { legacy: 1 });
}

function wrongType(field: Field, kind: Kind, indexType: string): CairnError {
  const upper = indexType.toUpperCase();
  if (KNOWN[kind].includes(upper))
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

/** Graph candidates that stand for one probed cell of an IVF index: cells hold tens of vectors, of which few are near. */
const CANDIDATES_PER_PROBE = 8;

/** Breadth for the search parameters of the index types that the graph serves under their names; wider than the default or not at all. */
function widerBreadth(params: Readonly<Record<string, unknown>>): number | undefined {
  const wanted = Math.max(
    positive(params, 'nprobe') * CANDIDATES_PER_PROBE,
    positive(params, 'search_list'),
    positive(params, 'reorder_k'),
  );
  return wanted > DEFAULT_EF ? Math.min(wanted, MAX_EF) : undefined;
}

/** 0 when it is not given; InvalidParameter when it is no whole number above 0. */
function positive(params: Readonly<Record<string, unknown>>, name: string): number {
  const given = params[name];
  if (given === undefined || given === null || given === '') return 0;
  const value = Number(given);
  if (!Number.isInteger(value) || value < 1 || value > 65_536)
    throw new CairnError('InvalidParameter', `out of range in json: param '${name}' (${given}) should be in range [1, 65536]`);
  return value;
}

/** Breadth that search parameters ask for; undefined when they name none. InvalidParameter outside k..MAX_EF. */
export function efOf(params: Readonly<Record<string, unknown>>, k: number): number | undefined {
  ratioParam(params, SPARSE_RATIO);
  const given = params.ef;
  if (given === undefined || given === null || given === '') return widerBreadth(params);
  const ef = Number(given);
  if (!Number.isInteger(ef) || ef < 1 || ef > MAX_EF)
    throw new CairnError('InvalidParameter', `out of range in json: param 'ef' (${given}) should be in range [1, ${MAX_EF}]`);
  if (ef < k) throw new CairnError('InvalidParameter', `ef(${ef}) should be larger than k(${k})`);
  return ef;
}

/** Metrics a field can be searched with, the default first. */
export const metricsOf = (field: Field): readonly string[] => METRICS[kindOf(field)];
