import { assert, type Runtime } from '@cairn/base';
import {
  type CollectionSchema,
  type Column,
  type ColumnBatch,
  concatColumns,
  keyRowOrder,
  ROW_ID_FIELD,
  sortOrderSliced,
  TIMESTAMP_FIELD,
  takeColumn,
  type VectorColumn,
} from '@cairn/schema';
import { pause, Stretches } from './object-bytes.ts';
import type { SealedSegment } from './sealed-segment.ts';

/** Rows gone through between two looks at the time. */
const STEP_ROWS = 512;
/** Rows of a column taken at once. */
const SLICE_ROWS = 4_096;

/** Rows of one segment that stay, in key order. */
interface KeptRows {
  readonly segment: SealedSegment;
  readonly rows: Int32Array;
}

/** What is left of some segments. */
export interface Surviving {
  readonly parts: readonly KeptRows[];
  readonly rows: number;
  readonly purgedRows: number;
  /** Largest timestamp of a delete whose row was left out; 0: none was. A reader at an earlier timestamp would miss rows. */
  readonly purgedTs: number;
}

/**
 * The rows of segments without those deleted at or before `until`, without those after a segment's as_of, which are in no state of the
 * collection, and without those written at or before `expiredUpTo`, which no reader is shown any more. The caller has applied the deletes.
 */
export async function survivingRows(
  segments: readonly SealedSegment[],
  until: number,
  runtime: Runtime,
  expiredUpTo = 0,
): Promise<Surviving> {
  const parts: KeptRows[] = [];
  let rows = 0;
  let purgedRows = 0;
  let purgedTs = 0;
  const stretches = new Stretches(runtime);
  for (const segment of segments) {
    const kept = new Int32Array(segment.rows);
    let count = 0;
    for (let row = 0; row < segment.rows; row++) {
      if (row % STEP_ROWS === 0 && stretches.due) await stretches.pause();
      const deletedAt = segment.deletedAt(row);
      if (deletedAt > until || deletedAt === Number.POSITIVE_INFINITY) {
        if (segment.timestamps[row] > expiredUpTo) kept[count++] = row;
      } else if (deletedAt > purgedTs) purgedTs = deletedAt;
    }
    rows += count;
    purgedRows += segment.rows - count;
    parts.push({ segment, rows: kept.subarray(0, count) });
  }
  return { parts, rows, purgedRows, purgedTs };
}

/** Where each kept row goes: `targets[p][i]` is the place of row i of part p in the merged order. */
type Targets = readonly Int32Array[];

/**
 * The surviving rows as one batch by primary key, then timestamp, with every field of the schema: a column that a segment does not have is filled
 * with its default. Columns are made one after another, each from one segment at a time, so that no more than the result and one column of one
 * segment is in memory.
 */
export async function mergeSegments(surviving: Surviving, schema: CollectionSchema, runtime: Runtime): Promise<ColumnBatch> {
  const parts = await Promise.all(surviving.parts.map((part) => inKeyOrder(part, schema, runtime)));
  const targets = await mergeOrder(parts, schema.primaryKey.id, runtime);
  const order = orderOf(targets, surviving.rows);
  const columns = new Map<number, Column>();
  for (const fieldId of [ROW_ID_FIELD, TIMESTAMP_FIELD, ...schema.fields.map((field) => field.id)]) {
    columns.set(fieldId, await mergeColumn(parts, fieldId, targets, order, runtime));
  }
  return { length: surviving.rows, columns };
}

async function inKeyOrder(part: KeptRows, schema: CollectionSchema, runtime: Runtime): Promise<KeptRows> {
  const { segment, rows } = part;
  if (segment.sorted) return part;
  const keys = takeColumn(await segment.column(schema.primaryKey.id), rows);
  const steps = sortOrderSliced(
    keys,
    Float64Array.from(rows, (row) => segment.timestamps[row]),
  );
  for (;;) {
    const step = steps.next();
    if (step.done) return { segment, rows: step.value.map((at) => rows[at]) };
    await pause(runtime);
  }
}

/** A k-way merge: the parts are sorted, a heap holds the next row of each. */
async function mergeOrder(parts: readonly KeptRows[], keyField: number, runtime: Runtime): Promise<Targets> {
  const keys = await Promise.all(parts.map(({ segment }) => segment.column(keyField)));
  const targets = parts.map(({ rows }) => new Int32Array(rows.length));
  const next = new Int32Array(parts.length);
  const compare = keyRowOrder(keys);
  const before = (a: number, b: number): boolean => {
    const rowA = parts[a].rows[next[a]];
    const rowB = parts[b].rows[next[b]];
    const difference = compare(a, rowA, b, rowB) || parts[a].segment.timestamps[rowA] - parts[b].segment.timestamps[rowB] || a - b;
    return difference < 0;
  };
  const heap: number[] = [];
  const sink = (from: number): void => {
    let at = from;
    for (;;) {
      const left = 2 * at + 1;
      let least = left < heap.length && before(heap[left], heap[at]) ? left : at;
      if (left + 1 < heap.length && before(heap[left + 1], heap[least])) least = left + 1;
      if (least === at) return;
      const part = heap[at];
      heap[at] = heap[least];
      heap[least] = part;
      at = least;
    }
  };
  parts.forEach(({ rows }, part) => {
    if (rows.length > 0) heap.push(part);
  });
  for (let at = heap.length >> 1; at >= 0; at--) sink(at);
  const stretches = new Stretches(runtime);
  for (let place = 0; heap.length > 0; place++) {
    if (place % STEP_ROWS === 0 && stretches.due) await stretches.pause();
    const part = heap[0];
    targets[part][next[part]++] = place;
    if (next[part] === parts[part].rows.length) {
      const last = heap.pop();
      if (heap.length > 0 && last !== undefined) heap[0] = last;
    }
    sink(0);
  }
  return targets;
}

/** The inverse: for each place the row in the parts put back to back. */
function orderOf(targets: Targets, rows: number): Int32Array {
  const order = new Int32Array(rows);
  let base = 0;
  for (const places of targets) {
    for (let i = 0; i < places.length; i++) order[places[i]] = base + i;
    base += places.length;
  }
  assert(base === rows, `${base} rows merged, expected ${rows}`);
  return order;
}

async function mergeColumn(
  parts: readonly KeptRows[],
  fieldId: number,
  targets: Targets,
  order: Int32Array,
  runtime: Runtime,
): Promise<Column> {
  const taken: Column[] = [];
  let whole: VectorColumn | undefined;
  for (const [at, { segment, rows }] of parts.entries()) {
    const column = await segment.column(fieldId);
    // Dense vectors, nearly all of the bytes, go straight to their place.
    if (column.kind === 'vector' && column.validity === null && taken.length === 0) {
      whole ??= { ...column, length: order.length, data: new Uint8Array(order.length * column.bytesPerRow) };
      await placeVectors(column, rows, targets[at], whole, runtime);
    } else {
      if (whole) taken.push(await unplaced(whole, targets.slice(0, at)));
      whole = undefined;
      taken.push(await takeSliced(column, rows, runtime));
    }
    segment.unload(fieldId);
    await pause(runtime);
  }
  return whole ?? takeSliced(concatColumns(taken), order, runtime);
}

async function placeVectors(from: VectorColumn, rows: Int32Array, places: Int32Array, into: VectorColumn, runtime: Runtime): Promise<void> {
  const width = from.bytesPerRow;
  assert(width === into.bytesPerRow, `vectors of ${from.dim} and ${into.dim} dimensions in one field`);
  const stretches = new Stretches(runtime);
  for (let i = 0; i < rows.length; i++) {
    if (i % STEP_ROWS === 0 && stretches.due) await stretches.pause();
    into.data.set(from.data.subarray(rows[i] * width, (rows[i] + 1) * width), places[i] * width);
  }
}

/** Back from their places to the order of the parts: only when a later part has nulls. */
async function unplaced(whole: VectorColumn, targets: Targets): Promise<Column> {
  return concatColumns(targets.map((places) => takeColumn(whole, places)));
}

async function takeSliced(column: Column, order: Int32Array, runtime: Runtime): Promise<Column> {
  if (order.length <= SLICE_ROWS) return takeColumn(column, order);
  const slices: Column[] = [];
  const stretches = new Stretches(runtime);
  for (let at = 0; at < order.length; at += SLICE_ROWS) {
    slices.push(takeColumn(column, order.subarray(at, at + SLICE_ROWS)));
    if (stretches.due) await stretches.pause();
  }
  return concatColumns(slices);
}
