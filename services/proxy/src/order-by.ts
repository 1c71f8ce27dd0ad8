import { CairnError, type Runtime, Stretch } from '@cairn/base';
import { type ColumnRef, columnReader, type ListItem, parseColumn } from '@cairn/expr';
import { type CollectionSchema, type Column, type ColumnBatch, DataType, type Field, isValid, valueAt } from '@cairn/schema';

/** What results are sorted by: a field, or a path into JSON. */
export interface OrderTerm {
  readonly field: Field;
  /** Set for a path into a JSON field or a key of the dynamic one. */
  readonly path: ColumnRef | undefined;
  readonly descending: boolean;
}

/** Fields of one order. */
const MAX_TERMS = 8;
/** Rows that one query sorts: all matches are needed before the first is known. */
export const MAX_ORDERED_ROWS = 100_000;
const ORDERED_TYPES: ReadonlySet<DataType> = new Set<DataType>([
  DataType.Bool,
  DataType.Int8,
  DataType.Int16,
  DataType.Int32,
  DataType.Int64,
  DataType.Float,
  DataType.Double,
  DataType.Timestamptz,
  DataType.VarChar,
]);

/** `price:desc,id`, `meta["age"]`, a key of the dynamic field, as terms; empty: none. InvalidParameter for unknown fields and directions, NotSupported for types without an order here. */
export function readOrderBy(text: string, schema: CollectionSchema): OrderTerm[] {
  if (text.trim() === '') return [];
  const items = text.match(OUTSIDE_QUOTES.item) ?? [];
  if (items.length > MAX_TERMS)
    throw new CairnError('InvalidParameter', `order_by has ${items.length} fields, at most ${MAX_TERMS} are allowed`);
  return items.map((item) => {
    const [name = '', direction = 'asc', ...more] = (item.match(OUTSIDE_QUOTES.part) ?? []).map((part) => part.trim());
    const wanted = direction.toLowerCase();
    if (more.length > 0 || (wanted !== 'asc' && wanted !== 'desc'))
      throw new CairnError('InvalidParameter', `order_by [${item}] is invalid, it should be field, field:asc or field:desc`);
    const descending = wanted === 'desc';
    const plain = schema.byName.get(name);
    if (plain && ORDERED_TYPES.has(plain.type)) return { field: plain, path: undefined, descending };
    const isPath = !plain && (name.includes('[') || schema.dynamicField !== undefined);
    if (!plain && !isPath) throw new CairnError('InvalidParameter', `order_by field ${name} does not exist in collection ${schema.name}`);
    const path = plain ? undefined : parseColumn(name, schema);
    const field = path && schema.byId.get(path.fieldId);
    if (!field || field.type !== DataType.Json || path.path.length === 0)
      throw new CairnError('NotSupported', `not supported: order_by field ${name} of its type`);
    return { field, path, descending };
  });
}

/** Items between commas, parts between colons; neither counts inside of quotes. */
const OUTSIDE_QUOTES = { item: /(?:[^,"']|"[^"]*"|'[^']*')+/g, part: /(?:[^:"']|"[^"]*"|'[^']*')+/g };

/** Keys of the dynamic field that results are ordered by. */
export const orderKeys = (orderBy: readonly OrderTerm[]): string[] =>
  orderBy.flatMap(({ field, path }) => (field.isDynamic && path ? [String(path.path[0])] : []));

/** Rows sorted in one go, and steps of a merge between two looks at the clock. */
const BLOCK_ROWS = 512;
const STEPS_BETWEEN = 512;

/**
 * Rows [start, end) of a batch in the order asked for; equal ones stay as they were. Nulls are larger than every value. Many rows are sorted in
 * slices: blocks first, then merged two by two, giving way to the event loop.
 */
export async function orderedRows(
  batch: ColumnBatch,
  terms: readonly OrderTerm[],
  start: number,
  end: number,
  runtime: Runtime,
): Promise<Int32Array> {
  const stretch = new Stretch(runtime);
  const keys: SortKeys[] = [];
  for (const { field, path, descending } of terms) {
    const column = batch.columns.get(field.id);
    if (!column) throw new CairnError('Internal', `result has no column of field ${field.name} to order by`);
    const sign = descending ? -1 : 1;
    keys.push(path ? await jsonSortKeys(column, path, start, end, sign, stretch) : await sortKeys(column, start, end, sign, stretch));
  }
  const compare = (a: number, b: number): number => {
    for (const { ranks, exact, sign } of keys) {
      const left = ranks[a - start];
      const right = ranks[b - start];
      const order = left < right ? -1 : left > right ? 1 : exact(a, b);
      if (order !== 0) return order * sign;
    }
    return a - b;
  };
  let rows = Int32Array.from({ length: end - start }, (_, i) => start + i);
  for (let at = 0; at < rows.length; at += BLOCK_ROWS) {
    rows.subarray(at, at + BLOCK_ROWS).sort(compare);
    await stretch.pause();
  }
  for (let width = BLOCK_ROWS; width < rows.length; width *= 2) rows = await mergedBlocks(rows, width, compare, stretch);
  return rows;
}

/** Sorted blocks of `width` rows, merged two by two. */
async function mergedBlocks(
  rows: Int32Array,
  width: number,
  compare: (a: number, b: number) => number,
  stretch: Stretch,
): Promise<Int32Array<ArrayBuffer>> {
  const merged = new Int32Array(rows.length);
  for (let at = 0; at < rows.length; at += 2 * width) {
    const middle = Math.min(at + width, rows.length);
    const last = Math.min(at + 2 * width, rows.length);
    let left = at;
    let right = middle;
    for (let to = at; to < last; to++) {
      const fromLeft = left < middle && (right === last || compare(rows[left], rows[right]) <= 0);
      merged[to] = fromLeft ? rows[left++] : rows[right++];
      if (to % STEPS_BETWEEN === 0) await stretch.pause();
    }
  }
  return merged;
}

/** One term's keys: numbers that put most rows in order, and what decides where those are equal. */
interface SortKeys {
  readonly ranks: Float64Array;
  /** Of two rows of the batch with equal ranks. */
  exact(a: number, b: number): number;
  readonly sign: number;
}

const same = (): number => 0;

async function sortKeys(column: Column, start: number, end: number, sign: number, stretch: Stretch): Promise<SortKeys> {
  const ranks = new Float64Array(end - start);
  const rankAt = rankOf(column);
  for (let row = start; row < end; row++) {
    ranks[row - start] = isValid(column.validity, row) ? rankAt(row) : Number.POSITIVE_INFINITY;
    if (row % STEPS_BETWEEN === 0) await stretch.pause();
  }
  const values = exactOf(column);
  const { validity } = column;
  if (validity === null) return { ranks, exact: values, sign };
  const exact = (a: number, b: number): number => {
    const left = isValid(validity, a);
    const right = isValid(validity, b);
    return left && right ? values(a, b) : left ? -1 : right ? 1 : 0;
  };
  return { ranks, exact, sign };
}

/** Texts by their first bytes, as a number; everything else by its value. */
function rankOf(column: Column): (row: number) => number {
  if (column.kind !== 'bytes') return (row) => Number(valueAt(column, row));
  const { data, offsets } = column;
  return (row) => {
    let rank = 0;
    for (let i = 0, at = offsets[row]; i < RANK_BYTES; i++, at++) rank = rank * 256 + (at < offsets[row + 1] ? data[at] : 0);
    return rank;
  };
}

/** Bytes of a text that fit a number exactly. */
const RANK_BYTES = 6;

/** Texts are compared by their bytes, which is the order of code points; large integers may share a rank. */
function exactOf(column: Column): (a: number, b: number) => number {
  if (column.kind === 'bytes') {
    const { data, offsets } = column;
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    return (a, b) => bytes.compare(bytes, offsets[b], offsets[b + 1], offsets[a], offsets[a + 1]);
  }
  if (column.kind === 'fixed' && column.values instanceof BigInt64Array) {
    const { values } = column;
    return (a, b) => (values[a] < values[b] ? -1 : values[a] > values[b] ? 1 : 0);
  }
  return same;
}

/** Of a JSON value: numbers, then texts, then false and true; what has none of these there is larger than all, as null is. */
async function jsonSortKeys(
  column: Column,
  path: ColumnRef,
  start: number,
  end: number,
  sign: number,
  stretch: Stretch,
): Promise<SortKeys> {
  const read = columnReader(path, () => column);
  const values: (ListItem | undefined)[] = [];
  for (let row = start; row < end; row++) {
    values.push(isValid(column.validity, row) ? read(row) : undefined);
    if (row % STEPS_BETWEEN === 0) await stretch.pause();
  }
  const ranks = Float64Array.from(values, rankOfItem);
  const exact = (a: number, b: number): number => {
    const [left, right] = [values[a - start], values[b - start]];
    if (typeof left === 'bigint' && typeof right === 'bigint') return left < right ? -1 : left > right ? 1 : 0;
    return typeof left === 'string' && typeof right === 'string' ? Buffer.compare(Buffer.from(left), Buffer.from(right)) : 0;
  };
  return { ranks, exact, sign };
}

/** Texts share one rank above all numbers that JSON has. */
const TEXT_RANK = 1e308;

function rankOfItem(item: ListItem | undefined): number {
  if (typeof item === 'number' || typeof item === 'bigint') return Math.min(Number(item), TEXT_RANK / 2);
  if (typeof item === 'string') return TEXT_RANK;
  return typeof item === 'boolean' ? TEXT_RANK * (item ? 1.2 : 1.1) : Number.POSITIVE_INFINITY;
}
