import { assert, mapLimit, type Runtime } from '@cairn/base';
import type { ObjectStore } from '@cairn/objects';
import type { ObjectRef } from '@cairn/proto/cairn/meta';
import {
  type CollectionSchema,
  type Column,
  type ColumnBatch,
  columnBytes,
  concatColumns,
  copyVectors,
  isVectorType,
  ROW_ID_FIELD,
  sortOrderSliced,
  TIMESTAMP_FIELD,
  takeColumn,
  type VectorColumn,
  writeArrowFile,
} from '@cairn/schema';
import { contentHash } from './content-hash.ts';
import { pause, putObject } from './object-bytes.ts';

export interface WriteSegmentOptions {
  readonly objects: ObjectStore;
  readonly runtime: Runtime;
  /** Ends with '/'; recorded in the MetaStore before this is called. */
  readonly prefix: string;
  readonly schema: CollectionSchema;
  /** With fields 0 (row id) and 1 (timestamp). */
  readonly batch: ColumnBatch;
}

export interface WrittenSegment {
  readonly objects: ObjectRef[];
  readonly rows: number;
  readonly minTs: number;
  readonly maxTs: number;
  readonly bytes: number;
  /** Of all rows; see content-hash.ts. */
  readonly contentHash: string;
}

/** Objects of one segment that are written at once. */
const PARALLEL_PUTS = 4;
/** Bytes of rows that are put in order in one stretch: about 1 ms. */
const ORDER_SLICE_BYTES = 1024 * 1024;

/** Writes one sealed segment: `scalars.arrow` and a `vector.<field>.arrow` per vector field, rows by primary key, then timestamp. */
export async function writeSegment(options: WriteSegmentOptions): Promise<WrittenSegment> {
  const { objects, runtime, prefix, schema, batch } = options;
  assert(batch.length > 0, `segment ${prefix} without rows`);
  const timestamps = timestampsOf(batch);
  const order = await sortedOrder(options, timestamps);
  const scalars = new Map<number, Column>();
  const vectors: [number, Column][] = [];
  for (const [id, column] of batch.columns) {
    if (isVectorType(column.type)) vectors.push([id, column]);
    else scalars.set(id, column);
  }
  const files = [
    { key: `${prefix}scalars.arrow`, role: 'scalars', fieldId: 0, columns: scalars },
    ...vectors.map(([id, column]) => ({
      key: `${prefix}vector.${id}.arrow`,
      role: 'vector',
      fieldId: id,
      columns: new Map([[id, column]]),
    })),
  ];
  // Beside the writes: the rows' order does not matter to it.
  const hash = contentHash(batch, runtime);
  hash.catch(() => undefined);
  const refs = await mapLimit(files, PARALLEL_PUTS, async ({ key, role, fieldId, columns }) => {
    const ordered = new Map<number, Column>();
    for (const [id, column] of columns) ordered.set(id, await orderColumn(column, order, runtime));
    const chunks = await writeArrowFile({ length: batch.length, columns: ordered }, schema);
    return putObject(objects, key, chunks, { role, fieldId, runtime });
  });
  let minTs = Number.POSITIVE_INFINITY;
  let maxTs = 0;
  for (const ts of timestamps) {
    if (ts < minTs) minTs = ts;
    if (ts > maxTs) maxTs = ts;
  }
  const bytes = refs.reduce((sum, ref) => sum + ref.size, 0);
  return { objects: refs, rows: batch.length, minTs, maxTs, bytes, contentHash: await hash };
}

function timestampsOf(batch: ColumnBatch): Float64Array {
  const column = batch.columns.get(TIMESTAMP_FIELD);
  assert(column?.kind === 'fixed' && column.values instanceof Float64Array, 'a segment needs its timestamp column');
  assert(batch.columns.has(ROW_ID_FIELD), 'a segment needs its row id column');
  return column.values;
}

/** Row order by key, then timestamp; undefined when the rows are in it already. */
async function sortedOrder(options: WriteSegmentOptions, timestamps: Float64Array): Promise<Int32Array | undefined> {
  const keys = options.batch.columns.get(options.schema.primaryKey.id);
  assert(keys !== undefined, `a segment needs its primary key column ${options.schema.primaryKey.name}`);
  const steps = sortOrderSliced(keys, timestamps);
  let step = steps.next();
  while (!step.done) {
    await pause(options.runtime);
    step = steps.next();
  }
  const order = step.value;
  return order.every((row, i) => row === i) ? undefined : order;
}

/**
 * `takeColumn` in slices that give way to the event loop. Vectors on shared memory are copied even when they are in order: not every store's
 * client takes shared memory.
 */
async function orderColumn(column: Column, sorted: Int32Array | undefined, runtime: Runtime): Promise<Column> {
  if (sorted === undefined && !(column.kind === 'vector' && column.data.buffer instanceof SharedArrayBuffer)) return column;
  const order = sorted ?? Int32Array.from({ length: column.length }, (_, row) => row);
  const bytesPerRow = Math.max(1, Math.ceil(columnBytes(column) / column.length));
  const step = Math.max(1, Math.floor(ORDER_SLICE_BYTES / bytesPerRow)) & ~7 || 8;
  if (step >= order.length) return takeColumn(column, order);
  if (column.kind === 'vector' && column.validity === null) return orderVectors(column, order, step, runtime);
  const parts: Column[] = [];
  for (let at = 0; at < order.length; at += step) {
    parts.push(takeColumn(column, order.subarray(at, at + step)));
    await pause(runtime);
  }
  return concatColumns(parts);
}

/** Vectors go straight to their place: joining slices would copy the largest column once more. */
async function orderVectors(column: VectorColumn, order: Int32Array, step: number, runtime: Runtime): Promise<VectorColumn> {
  const data = new Uint8Array(column.length * column.bytesPerRow);
  for (let at = 0; at < order.length; at += step) {
    copyVectors(column, order.subarray(at, at + step), data, at * column.bytesPerRow);
    await pause(runtime);
  }
  return { ...column, data };
}
