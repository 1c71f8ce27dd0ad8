import { rowsOfBits } from '@cairn/base';
import { DataType, type VectorColumn } from '@cairn/schema';
import { ExactScorer } from './exact-scorer.ts';
import { type Metric, metricOf } from './metric.ts';
import type { GraphCodes } from './search-types.ts';
import { type NativeVectors, usearch } from './usearch.ts';
import { gatherFloats } from './vector-floats.ts';

/**
 * Hits whose exact scores decide: at most so many, and further ones as long as they change the k best (see PATIENCE). Fewer when the distances by codes, as
 * far as they were off for the hits before, leave no room for a better one (see Nearness).
 */
export const leastRescored = (k: number): number => k + Math.max(k, 16);

/** Hits by codes in a row that, scored exactly, were none of the k best: those behind them are not scored. */
export const PATIENCE = 8;

/** Hits behind the first k that are scored in any case, and how often the largest error seen so far a further one may have. */
const SCORED_MORE = 4;
const ERROR_ROOM = 2;

/** Hits that are scored whatever their distances by codes are. */
export const surelyRescored = (k: number): number => k + SCORED_MORE;

/** Watches how far distances by codes are off, and says when no further hit can be among the best. */
export class Nearness {
  readonly #units: CodeUnits;
  readonly #k: number;
  #error = 0;
  #seen = 0;

  constructor(units: CodeUnits, k: number) {
    this.#units = units;
    this.#k = k;
  }

  /** A hit at this distance by codes has turned out to be at that one. */
  see(byCodes: number, exact: number): void {
    const { offset, factor } = this.#units;
    const error = Math.abs(offset + factor * byCodes - exact);
    if (error > this.#error) this.#error = error;
    this.#seen++;
  }

  /** Whether hits from this distance by codes on are all too far. */
  settled(byCodes: number, edge: number): boolean {
    const { offset, factor } = this.#units;
    return this.#seen >= this.#k + SCORED_MORE && offset + factor * byCodes - ERROR_ROOM * this.#error > edge;
  }
}

/** Rows that are tried as queries before a kind is chosen, hits that each should have, and the part of them that must be among those rescored. */
const TRIED = 32;
const TRIED_HITS = 10;
const LEAST_FOUND = 0.97;
/** Rows that they are compared with. Of more rows, blocks of them spread evenly. */
const COMPARED_ROWS = 200_000;
/** Floats of a block: 8 MB. */
const BLOCK_FLOATS = 2_000_000;

/** What a graph had before its file said: float32, but half floats as they are. */
export function codesBefore(dataType: number): GraphCodes {
  if (dataType === DataType.Float16Vector) return { scalar: 'f16', exact: true };
  return { scalar: dataType === DataType.BFloat16Vector ? 'bf16' : 'f32', exact: true };
}

/** The codes of a type that lose nothing. */
function exactCodes(dataType: DataType): GraphCodes {
  return dataType === DataType.Int8Vector ? { scalar: 'i8', exact: true, scale: 1, offset: 0 } : codesBefore(dataType);
}

/**
 * Chooses the smallest scalars that still tell neighbours from others in these very vectors: some rows are searched exactly and by their codes, and
 * the codes are taken when nearly all of the nearest are among the hits that a search scores again. `params.sq_type` of HNSW_SQ names the smallest to try.
 */
export function chooseCodes(column: VectorColumn, metricName: string, params: Readonly<Record<string, string>>): GraphCodes {
  const metric = metricOf(metricName);
  const exact = exactCodes(column.type);
  if (exact.scalar === 'i8') return exact;
  const least = params.sq_type?.toUpperCase();
  const sample = sampleOf(column);
  if (sample.rows.length === 0 || least === 'FP32') return exact;
  const candidates: GraphCodes[] = [];
  if (least !== 'BF16' && least !== 'FP16') candidates.push(int8Codes(sample, metric));
  if (exact.scalar === 'f32') candidates.push(least === 'FP16' ? { scalar: 'f16', exact: false } : { scalar: 'bf16', exact: false });
  return candidates.find((codes) => found(sample, metric, codes) >= LEAST_FOUND) ?? exact;
}

/** Vectors as the native library adds them. */
export function codeRows(codes: GraphCodes, floats: Float32Array, dim: number): NativeVectors {
  if (codes.scalar !== 'i8') return floats;
  const out = new Int8Array(floats.length);
  for (let at = 0; at < floats.length; at += dim)
    writeCodes(floats, at, dim, out, codes.offset ?? 0, codes.scale ?? rowScale(floats, at, dim));
  return out;
}

/** Query vectors as the native library compares them with those rows. Metrics that a factor of the query does not change give each its own scale. */
export function codeQueries(codes: GraphCodes, metric: Metric, floats: Float32Array, dim: number): NativeVectors {
  const ownScale = codes.scalar === 'i8' && !codes.exact && metric.native !== 'l2sq';
  return codeRows(ownScale ? { scalar: 'i8', exact: false } : codes, floats, dim);
}

/** Distances by codes in the units of the vectors: `offset + factor * distance`, up to what the codes have rounded away. */
export interface CodeUnits {
  readonly offset: number;
  readonly factor: number;
}

/** The units of one query's distances: `dim` floats at `at`. */
export function unitsOf(codes: GraphCodes, metric: Metric, floats: Float32Array, at: number, dim: number): CodeUnits {
  const { scale = 1 } = codes;
  if (codes.scalar !== 'i8' || codes.exact || metric.native === 'cos') return { offset: 0, factor: 1 };
  if (metric.native === 'l2sq') return { offset: 0, factor: 1 / scale ** 2 };
  // 1 - similarity, of which the similarity has both scales in it.
  const factor = 1 / (scale * rowScale(floats, at, dim) || 1);
  return { offset: 1 - factor, factor };
}

/** Part of a query's length that int8 codes may cut off before the graph is no guide any more. */
const MOST_CUT = 0.01;

/** Whether the codes hold a query: one far outside of the rows of an L2 index is cut off at their edge. */
export function holdsQuery(codes: GraphCodes, metric: Metric, floats: Float32Array, at: number, dim: number): boolean {
  if (codes.scalar !== 'i8' || codes.exact || metric.native !== 'l2sq') return true;
  const { scale = 1, offset = 0 } = codes;
  let whole = 0;
  let cut = 0;
  for (let i = at; i < at + dim; i++) {
    const value = (floats[i] - offset) * scale;
    whole += value * value;
    const over = Math.abs(value) - 127;
    if (over > 0) cut += over * over;
  }
  return cut <= MOST_CUT * whole;
}

function rowScale(floats: Float32Array, at: number, dim: number): number {
  let most = 0;
  for (let i = at; i < at + dim; i++) {
    const size = Math.abs(floats[i]);
    if (size > most) most = size;
  }
  return most > 0 ? 127 / most : 0;
}

function writeCodes(floats: Float32Array, at: number, dim: number, out: Int8Array, offset: number, scale: number): void {
  for (let i = at; i < at + dim; i++) {
    const value = (floats[i] - offset) * scale;
    out[i] = value >= 127 ? 127 : value <= -128 ? -128 : Math.round(value);
  }
}

interface Sample {
  readonly column: VectorColumn;
  readonly rows: readonly Int32Array[];
  readonly queryRows: Int32Array;
}

function sampleOf(column: VectorColumn): Sample {
  const all = column.validity ? rowsOfBits(column.validity) : Int32Array.from({ length: column.length }, (_, row) => row);
  const blockRows = Math.max(256, Math.floor(BLOCK_FLOATS / column.dim));
  const blocks: Int32Array[] = [];
  for (let at = 0; at < all.length; at += blockRows) blocks.push(all.subarray(at, at + blockRows));
  const every = Math.max(1, Math.ceil(all.length / COMPARED_ROWS));
  const rows = blocks.filter((_, i) => i % every === 0);
  const compared = rows.reduce((sum, block) => sum + block.length, 0);
  const tried = Math.min(TRIED, compared);
  const queryRows = Int32Array.from({ length: tried }, (_, i) => {
    const at = Math.floor(((i + 0.5) * compared) / tried);
    return rows[Math.floor(at / blockRows)][at % blockRows];
  });
  return { column, rows, queryRows };
}

/** One scale for all rows where the metric needs it: their range fills the codes. */
function int8Codes(sample: Sample, metric: Metric): GraphCodes {
  if (metric.native === 'cos') return { scalar: 'i8', exact: false };
  let least = Number.POSITIVE_INFINITY;
  let most = Number.NEGATIVE_INFINITY;
  for (const rows of sample.rows) {
    for (const value of floatsAt(sample.column, rows)) {
      if (value < least) least = value;
      if (value > most) most = value;
    }
  }
  // IP is not the same from another origin.
  const offset = metric.native === 'l2sq' ? (least + most) / 2 : 0;
  const reach = Math.max(most - offset, offset - least);
  return { scalar: 'i8', exact: false, offset, scale: reach > 0 && Number.isFinite(reach) ? 127 / reach : 1 };
}

function floatsAt(column: VectorColumn, rows: Int32Array): Float32Array {
  const floats = new Float32Array(rows.length * column.dim);
  gatherFloats(column, rows, floats);
  return floats;
}

/** Part of the nearest rows of the tried ones that are among the hits that would be scored again. */
function found(sample: Sample, metric: Metric, codes: GraphCodes): number {
  const { column, queryRows } = sample;
  const { dim } = column;
  const queries = floatsAt(column, queryRows);
  const coded = comparable(codes, codeQueries(codes, metric, queries, dim));
  const nearest = Array.from(queryRows, () => [] as { row: number; distance: number }[]);
  const byCodes = Array.from(queryRows, () => [] as { row: number; distance: number }[]);
  for (const rows of sample.rows) {
    const floats = floatsAt(column, rows);
    keepNearest(nearest, rows, floats, queries, dim, metric, TRIED_HITS + 1);
    keepNearest(byCodes, rows, comparable(codes, codeRows(codes, floats, dim)), coded, dim, metric, leastRescored(TRIED_HITS) + 1);
  }
  let wanted = 0;
  let hits = 0;
  queryRows.forEach((queryRow, q) => {
    const scorer = new ExactScorer(column, metric);
    scorer.ask(queries, q * dim);
    const others = nearest[q].filter(({ row }) => row !== queryRow).slice(0, TRIED_HITS);
    const edge = others.reduce((most, { row }) => Math.max(most, scorer.distance(row)), Number.NEGATIVE_INFINITY);
    const near = byCodes[q].filter(({ row }) => row !== queryRow && scorer.distance(row) <= edge + 1e-6 * Math.abs(edge));
    wanted += others.length;
    hits += Math.min(others.length, near.length);
  });
  return wanted === 0 ? 1 : hits / wanted;
}

function keepNearest(
  lists: { row: number; distance: number }[][],
  rows: Int32Array,
  vectors: NativeVectors,
  queries: NativeVectors,
  dim: number,
  metric: Metric,
  keep: number,
): void {
  const wanted = Math.min(keep, rows.length);
  const [keys, distances] = usearch().exactSearch(vectors, queries, dim, wanted, metric.native ?? 'l2sq', 1);
  lists.forEach((list, q) => {
    for (let i = q * wanted; i < (q + 1) * wanted; i++) list.push({ row: rows[Number(keys[i])], distance: distances[i] });
    list.sort((a, b) => a.distance - b.distance);
    if (list.length > keep) list.length = keep;
  });
}

/** Values as the graph will hold them, in a type that the exact search of the library takes. */
function comparable(codes: GraphCodes, vectors: NativeVectors): NativeVectors {
  if (codes.scalar === 'bf16') return roundedBfloat(vectors);
  return codes.scalar === 'f16' ? Float32Array.from(Float16Array.from(vectors)) : vectors;
}

function roundedBfloat(vectors: NativeVectors): Float32Array {
  const out = Float32Array.from(vectors);
  const words = new Uint32Array(out.buffer);
  for (let i = 0; i < words.length; i++) words[i] = (words[i] + 0x7fff + ((words[i] >>> 16) & 1)) & 0xffff0000;
  return out;
}
