import { CairnError } from '@cairn/base';
import { isValid, validityOf } from './bitmap.ts';
import type { BytesColumn, Column, ColumnBatch, ListColumn } from './column.ts';
import { concatColumns, makeBatch, takeColumn } from './column-ops.ts';
import { mergeDynamic } from './dynamic-field.ts';
import { compareKeyRows, hashKeys } from './keys.ts';
import { defaultColumn, valueAt } from './plain-values.ts';
import type { CollectionSchema, Field } from './types.ts';

export type ListOp = 'append' | 'remove';

export interface PartialRows {
  /** The primary key that each row gets, and the fields that were sent. */
  readonly sent: ColumnBatch;
  /** The key that each row has now. */
  readonly keys: Column;
  /** Rows as they are stored, each key at most once, in any order; their keys under the primary key's id. */
  readonly stored: ColumnBatch;
  /** By field id: arrays that are changed, not replaced. */
  readonly ops: ReadonlyMap<number, ListOp>;
}

/** For each key its row in `stored`, or -1. */
export function rowsOfKeys(keys: Column, stored: Column): Int32Array {
  const byHash = new Map<number, number[]>();
  hashKeys(stored).forEach((hash, row) => {
    const rows = byHash.get(hash);
    if (rows) rows.push(row);
    else byHash.set(hash, [row]);
  });
  return Int32Array.from(
    hashKeys(keys),
    (hash, row) => (byHash.get(hash) ?? []).find((at) => compareKeyRows(keys, row, stored, at) === 0) ?? -1,
  );
}

/**
 * Whole rows of a partial update, in the order sent: fields that were not sent keep what is stored, keys of the dynamic field are merged, arrays
 * grow or shrink by their operation. A key that is not stored makes a new row, which needs every required field. InvalidParameter names the
 * field; a result above max_capacity is refused too.
 */
export function mergePartialRows(schema: CollectionSchema, rows: PartialRows): ColumnBatch {
  const { sent, stored } = rows;
  const storedKeys = stored.columns.get(schema.primaryKey.id);
  if (!storedKeys) throw new CairnError('Internal', 'stored rows without their keys');
  const from = rowsOfKeys(rows.keys, storedKeys);
  const columns = schema.fields.map((field) => {
    const update = sent.columns.get(field.id);
    const op = rows.ops.get(field.id);
    if (update && !field.isDynamic && op === undefined) return [field.id, update] as const;
    const base = baseColumn(schema, field, stored, from, update === undefined ? rows.keys : undefined);
    if (update === undefined) return [field.id, base] as const;
    if (field.isDynamic) return [field.id, mergeDynamic(base as BytesColumn, update as BytesColumn)] as const;
    return [field.id, changeLists(field, base as ListColumn, update as ListColumn, from, op ?? 'append')] as const;
  });
  return makeBatch(columns);
}

/** The stored values in the order of the update; new rows get the default. `keys` given: the field was not sent, so a new row may lack it. */
function baseColumn(schema: CollectionSchema, field: Field, stored: ColumnBatch, from: Int32Array, keys: Column | undefined): Column {
  const column = stored.columns.get(field.id);
  if (!column) throw new CairnError('Internal', `stored rows without field "${field.name}"`);
  const fresh = from.indexOf(-1);
  if (fresh < 0) return takeColumn(column, from);
  if (keys && !field.nullable && field.defaultValue === undefined && !field.isDynamic) {
    throw new CairnError(
      'InvalidParameter',
      `no data for field "${field.name}" of collection ${schema.name}: key ${valueAt(keys, fresh)} is not stored, so its row is new and needs every field that is not nullable and has no default`,
    );
  }
  const padded = concatColumns([column, defaultColumn(field, 1)]);
  return takeColumn(
    padded,
    from.map((row) => (row < 0 ? column.length : row)),
  );
}

/** A null that was sent changes nothing; appending to a null makes a list, taking from it leaves it null. */
function changeLists(field: Field, base: ListColumn, update: ListColumn, from: Int32Array, op: ListOp): ListColumn {
  const children = concatColumns([base.child, update.child]);
  const kept: number[] = [];
  const offsets = new Int32Array(update.length + 1);
  const valid = new Uint8Array(update.length);
  for (let row = 0; row < update.length; row++) {
    const [oldStart, oldEnd] = [base.offsets[row], base.offsets[row + 1]];
    const [newStart, newEnd] = [update.offsets[row], update.offsets[row + 1]];
    const changes = isValid(update.validity, row);
    const isNew = from[row] < 0;
    valid[row] = isValid(base.validity, row) || (changes && (op === 'append' || isNew)) ? 1 : 0;
    const gone = op === 'remove' && changes ? new Set(valueRange(update.child, newStart, newEnd)) : undefined;
    for (let at = oldStart; at < oldEnd; at++) if (!gone?.has(valueAt(base.child, at))) kept.push(at);
    if (op === 'append' && changes) for (let at = newStart; at < newEnd; at++) kept.push(base.child.length + at);
    offsets[row + 1] = kept.length;
    const length = kept.length - offsets[row];
    if (length > field.maxCapacity) {
      throw new CairnError(
        'InvalidParameter',
        `field "${field.name}": row ${row} would have ${length} elements, max_capacity is ${field.maxCapacity}`,
      );
    }
  }
  const child = takeColumn(children, Int32Array.from(kept));
  return { ...update, offsets, child, validity: validityOf(update.length, (row) => valid[row] === 1) };
}

function valueRange(child: Column, start: number, end: number): unknown[] {
  return Array.from({ length: end - start }, (_, i) => valueAt(child, start + i));
}
