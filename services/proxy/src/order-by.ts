import { CairnError } from '@cairn/base';
import { type CollectionSchema, type Column, type ColumnBatch, DataType, type Field, isValid, valueAt } from '@cairn/schema';

/** One field that results are sorted by. */
export interface OrderTerm {
  readonly field: Field;
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

/** `price:desc,id` as terms; empty: none. InvalidParameter for unknown fields and directions, NotSupported for types without an order here. */
export function readOrderBy(text: string, schema: CollectionSchema): OrderTerm[] {
  if (text.trim() === '') return [];
  const items = text.split(',');
  if (items.length > MAX_TERMS)
    throw new CairnError('InvalidParameter', `order_by has ${items.length} fields, at most ${MAX_TERMS} are allowed`);
  return items.map((item) => {
    const [name = '', direction = 'asc', ...more] = item.split(':').map((part) => part.trim());
    const wanted = direction.toLowerCase();
    if (more.length > 0 || (wanted !== 'asc' && wanted !== 'desc'))
      throw new CairnError('InvalidParameter', `order_by [${item}] is invalid, it should be field, field:asc or field:desc`);
    const field = schema.byName.get(name);
    if (!field) throw new CairnError('InvalidParameter', `order_by field ${name} does not exist in collection ${schema.name}`);
    if (!ORDERED_TYPES.has(field.type)) throw new CairnError('NotSupported', `not supported: order_by field ${name} of its type`);
    return { field, descending: wanted === 'desc' };
  });
}

/** Rows [start, end) of a batch in the order asked for; equal ones stay as they were. Nulls are larger than every value. */
export function orderedRows(batch: ColumnBatch, terms: readonly OrderTerm[], start: number, end: number): Int32Array {
  const keys = terms.map(({ field, descending }) => {
    const column = batch.columns.get(field.id);
    if (!column) throw new CairnError('Internal', `result has no column of field ${field.name} to order by`);
    return { values: sortKeys(column, start, end), sign: descending ? -1 : 1 };
  });
  const rows = Int32Array.from({ length: end - start }, (_, i) => start + i);
  return rows.sort((a, b) => {
    for (const { values, sign } of keys) {
      const order = compare(values[a - start], values[b - start]);
      if (order !== 0) return order * sign;
    }
    return a - b;
  });
}

type SortKey = boolean | number | bigint | Uint8Array | undefined;

/** Texts are compared by their bytes, which is the order of code points. */
function sortKeys(column: Column, start: number, end: number): SortKey[] {
  const keys: SortKey[] = [];
  for (let row = start; row < end; row++) {
    if (!isValid(column.validity, row)) keys.push(undefined);
    else if (column.kind === 'bytes') keys.push(column.data.subarray(column.offsets[row], column.offsets[row + 1]));
    else keys.push(valueAt(column, row) as boolean | number | bigint);
  }
  return keys;
}

function compare(a: SortKey, b: SortKey): number {
  if (a === undefined || b === undefined) return a === b ? 0 : a === undefined ? 1 : -1;
  if (a instanceof Uint8Array && b instanceof Uint8Array) return Buffer.compare(a, b);
  return a < b ? -1 : a > b ? 1 : 0;
}
