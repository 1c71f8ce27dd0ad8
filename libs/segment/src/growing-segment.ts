import { assert, CairnError } from '@cairn/base';
import {
  type CollectionSchema,
  type Column,
  type ColumnBatch,
  defaultColumn,
  type Field,
  numberColumn,
  ROW_ID_FIELD,
  TIMESTAMP_FIELD,
  takeColumn,
  type VectorColumn,
} from '@cairn/schema';
import { type ColumnBuilder, columnBuilder, lateBuilder } from './column-builder.ts';
import { type Deletes, deleteHits } from './deletes.ts';
import { GrowingNumbers } from './growing-numbers.ts';
import { KeyRows } from './key-rows.ts';
import type { Bitmap, LoadedScalarIndex, LoadedVectorIndex, ReadableSegment } from './readable-segment.ts';
import { allRows, clearLater, RowDeletes } from './row-deletes.ts';

export interface GrowingSegmentOptions {
  readonly id: number;
  readonly partitionId: number;
  readonly schema: CollectionSchema;
  /** Rows that room is made for at first. */
  readonly initialRows?: number;
}

/**
 * Unflushed rows of one partition in the shard's owner, in order of arrival. Readers take `capture()`, a segment of the rows there are now; the
 * methods of ReadableSegment on this class itself answer for the rows at the time of the call.
 */
export class GrowingSegment implements ReadableSegment {
  readonly id: number;
  readonly partitionId: number;
  readonly sorted = false;
  #schema: CollectionSchema;
  #rows = 0;
  #minTs = Number.POSITIVE_INFINITY;
  #maxTs = 0;
  #frozen = false;
  readonly #builders = new Map<number, ColumnBuilder>();
  readonly #timestamps: GrowingNumbers<Float64Array>;
  readonly #rowIds: GrowingNumbers<Float64Array>;
  readonly #keyRows = new KeyRows();
  readonly #deletes = new RowDeletes();

  constructor(options: GrowingSegmentOptions) {
    this.id = options.id;
    this.partitionId = options.partitionId;
    this.#schema = options.schema;
    const room = options.initialRows ?? 1024;
    for (const field of options.schema.fields) this.#builders.set(field.id, columnBuilder(field, room));
    this.#timestamps = new GrowingNumbers((length) => new Float64Array(length), room);
    this.#rowIds = new GrowingNumbers((length) => new Float64Array(length), room);
  }

  get rows(): number {
    return this.#rows;
  }

  get timestamps(): Float64Array {
    return this.#timestamps.values;
  }

  /** Bytes of its columns. */
  get bytes(): number {
    let sum = this.#rows * 16;
    for (const builder of this.#builders.values()) sum += builder.bytes;
    return sum;
  }

  /** Infinity while it has no rows. */
  get minTs(): number {
    return this.#minTs;
  }

  get maxTs(): number {
    return this.#maxTs;
  }

  /** A field was added: rows here get its default. */
  updateSchema(schema: CollectionSchema): void {
    this.#schema = schema;
    for (const field of schema.fields) if (!this.#builders.has(field.id)) this.#builders.set(field.id, lateBuilder(field, this.#rows));
  }

  /** Rows of one write, all with timestamp ts; row ids from firstRowId up, unless the batch has column 0. */
  append(batch: ColumnBatch, ts: number, firstRowId: number): void {
    assert(!this.#frozen, `segment ${this.id} is frozen`);
    const keys = batch.columns.get(this.#schema.primaryKey.id);
    if (keys === undefined)
      throw new CairnError('InvalidParameter', `rows without primary key ${this.#schema.primaryKey.name} for segment ${this.id}`);
    if (batch.length === 0) return;
    const rows = batch.length;
    const start = this.#timestamps.extend(rows);
    this.#timestamps.values.fill(ts, start, start + rows);
    this.#rowIds.extend(rows);
    const ids = batch.columns.get(ROW_ID_FIELD);
    if (ids?.kind === 'fixed' && ids.values instanceof Float64Array) this.#rowIds.values.set(ids.values, start);
    else for (let i = 0; i < rows; i++) this.#rowIds.values[start + i] = firstRowId + i;
    for (const [id, builder] of this.#builders) builder.append(batch.columns.get(id) ?? defaultColumn(this.#field(id), rows));
    this.#keyRows.append(keys);
    this.#rows += rows;
    this.#minTs = Math.min(this.#minTs, ts);
    this.#maxTs = Math.max(this.#maxTs, ts);
  }

  /** Number of rows newly marked, or marked earlier in time. */
  applyDeletes(deletes: Deletes): number {
    let marked = 0;
    const timestamps = this.#timestamps.values;
    this.#keyRows.find(this.#keys(), deletes.keys, this.#rows, (row, i) => {
      if (deleteHits(timestamps[row], deletes.ts[i], deletes.readTs[i]) && this.#deletes.mark(row, deletes.ts[i], this.#rows)) marked++;
    });
    return marked;
  }

  /**
   * The rows there are now, as a segment that does not grow; deletes that come later are seen through it. With a schema newer than this segment's own,
   * fields added since have their default.
   */
  capture(schema: CollectionSchema = this.#schema): ReadableSegment {
    return new CapturedRows(this, this.#rows, schema);
  }

  /** No more appends; all rows (deleted ones too) with row ids and timestamps, in order of arrival. */
  freeze(): ColumnBatch {
    this.#frozen = true;
    const rows = this.#rows;
    const columns = new Map<number, Column>([
      [ROW_ID_FIELD, numberColumn(this.#rowIds.values.subarray(0, rows))],
      [TIMESTAMP_FIELD, numberColumn(this.#timestamps.values.subarray(0, rows))],
    ]);
    for (const [id, builder] of this.#builders) columns.set(id, builder.view(rows));
    return { length: rows, columns };
  }

  visible(readTs: number): Bitmap | undefined {
    return this.visibleOf(this.#rows, readTs);
  }

  /** Of the first `rows` rows. */
  visibleOf(rows: number, readTs: number): Bitmap | undefined {
    if (this.#maxTs <= readTs && readTs < this.#deletes.earliest) return undefined;
    const bits = allRows(rows);
    if (this.#maxTs > readTs) clearLater(bits, this.#timestamps.values, rows, readTs);
    this.#deletes.clear(bits, rows, readTs);
    return bits;
  }

  async column(fieldId: number): Promise<Column> {
    return this.columnOf(fieldId, this.#rows);
  }

  /** The first `rows` rows of a column; a view. `schema` tells the default of a field that has no column here. */
  columnOf(fieldId: number, rows: number, schema: CollectionSchema = this.#schema): Column {
    if (fieldId === TIMESTAMP_FIELD) return numberColumn(this.#timestamps.values.subarray(0, rows));
    if (fieldId === ROW_ID_FIELD) return numberColumn(this.#rowIds.values.subarray(0, rows));
    return this.#builders.get(fieldId)?.view(rows) ?? defaultColumn(this.#field(fieldId, schema), rows);
  }

  async gather(fieldId: number, rows: Int32Array): Promise<Column> {
    return takeColumn(this.columnOf(fieldId, this.#rows), rows);
  }

  async vectors(fieldId: number): Promise<VectorColumn> {
    return this.vectorsOf(fieldId, this.#rows);
  }

  vectorsOf(fieldId: number, rows: number, schema?: CollectionSchema): VectorColumn {
    const column = this.columnOf(fieldId, rows, schema);
    if (column.kind !== 'vector') throw new CairnError('InvalidParameter', `field ${fieldId} of segment ${this.id} has no dense vectors`);
    return column;
  }

  rowsOfKeys(keys: Column): Int32Array {
    return this.rowsOfKeysIn(keys, this.#rows);
  }

  rowsOfKeysIn(keys: Column, rows: number): Int32Array {
    const found = new Set<number>();
    this.#keyRows.find(this.#keys(), keys, rows, (row) => found.add(row));
    return Int32Array.from(found).sort();
  }

  vectorIndex(_fieldId: number): LoadedVectorIndex | undefined {
    return undefined;
  }

  scalarIndexes(_fieldId: number): readonly LoadedScalarIndex[] {
    return [];
  }

  #keys(): Column {
    return this.columnOf(this.#schema.primaryKey.id, this.#rows);
  }

  #field(fieldId: number, schema: CollectionSchema = this.#schema): Field {
    const field = schema.byId.get(fieldId);
    if (field === undefined) throw new CairnError('FieldNotFound', `field ${fieldId} is not in the schema of collection ${schema.name}`);
    return field;
  }
}

/** The first rows of a growing segment. */
class CapturedRows implements ReadableSegment {
  readonly rows: number;
  readonly sorted = false;
  readonly timestamps: Float64Array;
  readonly #segment: GrowingSegment;
  readonly #schema: CollectionSchema;

  constructor(segment: GrowingSegment, rows: number, schema: CollectionSchema) {
    this.#segment = segment;
    this.#schema = schema;
    this.rows = rows;
    this.timestamps = segment.timestamps;
  }

  get id(): number {
    return this.#segment.id;
  }

  get partitionId(): number {
    return this.#segment.partitionId;
  }

  visible(readTs: number): Bitmap | undefined {
    return this.#segment.visibleOf(this.rows, readTs);
  }

  async column(fieldId: number): Promise<Column> {
    return this.#segment.columnOf(fieldId, this.rows, this.#schema);
  }

  async gather(fieldId: number, rows: Int32Array): Promise<Column> {
    return takeColumn(this.#segment.columnOf(fieldId, this.rows, this.#schema), rows);
  }

  async vectors(fieldId: number): Promise<VectorColumn> {
    return this.#segment.vectorsOf(fieldId, this.rows, this.#schema);
  }

  rowsOfKeys(keys: Column): Int32Array {
    return this.#segment.rowsOfKeysIn(keys, this.rows);
  }

  vectorIndex(fieldId: number): LoadedVectorIndex | undefined {
    return this.#segment.vectorIndex(fieldId);
  }

  scalarIndexes(fieldId: number): readonly LoadedScalarIndex[] {
    return this.#segment.scalarIndexes(fieldId);
  }
}
