import { assert, CairnError, type Runtime } from '@cairn/base';
import type { ObjectStore } from '@cairn/objects';
import type { ObjectRef, SegmentRecord } from '@cairn/proto/cairn/meta';
import {
  type CollectionSchema,
  type Column,
  type ColumnBatch,
  defaultColumn,
  type Field,
  familyOf,
  findKeyRows,
  KeyLookup,
  readArrowFile,
  type StoredVectors,
  sortOrder,
  TIMESTAMP_FIELD,
  takeColumn,
  type VectorColumn,
} from '@cairn/schema';
import { type Deletes, deleteHits } from './deletes.ts';
import { getObject, readingObject } from './object-bytes.ts';
import type { Bitmap, LoadedScalarIndex, LoadedVectorIndex, ReadableSegment } from './readable-segment.ts';
import { allRows, clearLater, RowDeletes } from './row-deletes.ts';
import { VectorFile } from './vector-file.ts';
import type { VectorMemory } from './vector-memory.ts';

export interface OpenSegmentOptions {
  readonly objects: ObjectStore;
  readonly runtime: Runtime;
  readonly record: SegmentRecord;
  readonly schema: CollectionSchema;
  /** Where vector files are kept when the store is not the local disk; absent: in memory. */
  readonly cacheDir?: string | undefined;
  /** Counts vector columns that are kept whole; absent: without limit. */
  readonly memory?: VectorMemory | undefined;
}

/** Reads and verifies the scalars; vectors on first use. ObjectNotFound, ObjectDamaged name the key. */
export async function openSegment(options: OpenSegmentOptions): Promise<SealedSegment> {
  const { objects, runtime, record } = options;
  const ref = record.objects.find((object) => object.role === 'scalars');
  if (ref === undefined) throw new CairnError('ObjectDamaged', `segment ${record.id} (${record.prefix}) lists no scalars object`);
  const bytes = await getObject(objects, ref, runtime);
  const scalars = readingObject(ref.key, () => readArrowFile(bytes));
  if (scalars.length !== record.rows)
    throw new CairnError('ObjectDamaged', `object ${ref.key}: ${scalars.length} rows, its segment ${record.id} has ${record.rows}`);
  const timestamps = scalars.columns.get(TIMESTAMP_FIELD);
  const keys = scalars.columns.get(options.schema.primaryKey.id);
  if (timestamps?.kind !== 'fixed' || !(timestamps.values instanceof Float64Array) || keys === undefined)
    throw new CairnError('ObjectDamaged', `object ${ref.key} has no timestamps or no primary key (field ${options.schema.primaryKey.id})`);
  return new SealedSegment(options, { scalars, timestamps: timestamps.values, keys });
}

interface OpenedScalars {
  readonly scalars: ColumnBatch;
  readonly timestamps: Float64Array;
  readonly keys: Column;
}

/** A flushed segment in a datanode. Rows never change; deletes are added. */
export class SealedSegment implements ReadableSegment {
  readonly id: number;
  readonly partitionId: number;
  readonly rows: number;
  readonly sorted: boolean;
  readonly final = true;
  /** As stored. Where the record has a commit_ts, reads and later deletes see min(this, commit_ts). */
  readonly timestamps: Float64Array;
  readonly #options: OpenSegmentOptions;
  #schema: CollectionSchema;
  readonly #columns: Map<number, Column>;
  readonly #keys: Column;
  /** Of a segment that is not sorted by key: its order. */
  readonly #keyOrder: Int32Array | undefined;
  readonly #vectorFiles = new Map<number, VectorFile>();
  readonly #sparseFiles = new Map<number, Promise<Column>>();
  readonly #indexes = new Map<number, LoadedVectorIndex>();
  /** By index id, of each field. */
  readonly #scalarIndexes = new Map<number, Map<number, LoadedScalarIndex>>();
  readonly #deletes = new RowDeletes();
  readonly #effective: Float64Array;
  readonly #maxTs: number;
  #latest: { readonly version: number; readonly bits: Bitmap } | undefined;

  constructor(options: OpenSegmentOptions, opened: OpenedScalars) {
    const { record } = options;
    this.#options = options;
    this.#schema = options.schema;
    this.id = record.id;
    this.partitionId = record.partitionId;
    this.rows = record.rows;
    this.sorted = record.sorted;
    this.timestamps = opened.timestamps;
    this.#columns = new Map(opened.scalars.columns);
    this.#keyOrder = record.sorted ? undefined : sortOrder(opened.keys, opened.timestamps);
    this.#keys = this.#keyOrder === undefined ? opened.keys : takeColumn(opened.keys, this.#keyOrder);
    const { commitTs } = record;
    this.#effective = commitTs > 0 ? opened.timestamps.map((ts) => Math.min(ts, commitTs)) : opened.timestamps;
    let maxTs = 0;
    // The mask of as_of is on the stored timestamps: rows after it are in no state of this collection.
    for (const ts of opened.timestamps) if (ts > maxTs) maxTs = ts;
    this.#maxTs = maxTs;
    const scalarIds = new Set(opened.scalars.columns.keys());
    for (const ref of record.objects) {
      if (ref.role !== 'vector' || scalarIds.has(ref.fieldId)) continue;
      const field = options.schema.byId.get(ref.fieldId);
      // Of a field that the schema does not have nothing is read.
      if (field === undefined || familyOf(field.type) === 'vector')
        this.#vectorFiles.set(ref.fieldId, new VectorFile({ ...options, ref, cacheDir: options.cacheDir }));
    }
  }

  visible(readTs: number): Bitmap | undefined {
    const { asOf } = this.#options.record;
    const limit = asOf > 0 ? asOf : Number.POSITIVE_INFINITY;
    const masked = this.#maxTs > limit;
    const later = this.#maxTs > readTs;
    if (!masked && !later && readTs < this.#deletes.earliest) return undefined;
    const current = !later && readTs >= this.#deletes.latest;
    if (current && this.#latest?.version === this.#deletes.version) return this.#latest.bits.slice();
    const bits = allRows(this.rows);
    if (masked) clearLater(bits, this.timestamps, this.rows, limit);
    if (later) clearLater(bits, this.#effective, this.rows, readTs);
    this.#deletes.clear(bits, this.rows, readTs);
    if (current) this.#latest = { version: this.#deletes.version, bits: bits.slice() };
    return bits;
  }

  async column(fieldId: number): Promise<Column> {
    const found = this.#columns.get(fieldId);
    if (found !== undefined) return found;
    if (this.#vectorFiles.has(fieldId)) return this.vectors(fieldId);
    const ref = this.#vectorRef(fieldId);
    if (ref !== undefined) return this.#sparse(ref);
    const column = defaultColumn(this.#field(fieldId), this.rows);
    this.#columns.set(fieldId, column);
    return column;
  }

  async gather(fieldId: number, rows: Int32Array): Promise<Column> {
    const file = this.#vectorFiles.get(fieldId);
    return file === undefined ? takeColumn(await this.column(fieldId), rows) : file.gather(rows);
  }

  async vectors(fieldId: number): Promise<VectorColumn> {
    const file = this.#vectorFiles.get(fieldId);
    if (file !== undefined) return this.#asLong(fieldId, await file.load());
    const column = await this.column(fieldId);
    if (column.kind !== 'vector') throw new CairnError('InvalidParameter', `field ${fieldId} of segment ${this.id} has no dense vectors`);
    return column;
  }

  async vectorsInPlace(fieldId: number): Promise<VectorColumn | StoredVectors> {
    const file = this.#vectorFiles.get(fieldId);
    return file === undefined ? this.vectors(fieldId) : this.#asLong(fieldId, await file.inPlace());
  }

  #asLong<T extends VectorColumn | StoredVectors>(fieldId: number, column: T): T {
    if (column.length !== this.rows)
      throw new CairnError(
        'ObjectDamaged',
        `object ${this.#vectorRef(fieldId)?.key}: ${column.length} rows, its segment ${this.id} has ${this.rows}`,
      );
    return column;
  }

  rowsOfKeys(keys: Column): Int32Array {
    const found = findKeyRows(this.#keys, keys);
    const order = this.#keyOrder;
    return order === undefined ? found : found.map((row) => order[row]).sort();
  }

  vectorIndex(fieldId: number): LoadedVectorIndex | undefined {
    return this.#indexes.get(fieldId);
  }

  attachIndex(fieldId: number, index: LoadedVectorIndex): void {
    assert(index.rows === this.rows, `index of ${index.rows} rows for segment ${this.id} of ${this.rows}`);
    this.#indexes.set(fieldId, index);
  }

  scalarIndexes(fieldId: number): readonly LoadedScalarIndex[] {
    return [...(this.#scalarIndexes.get(fieldId)?.values() ?? [])];
  }

  attachScalarIndex(fieldId: number, indexId: number, index: LoadedScalarIndex): void {
    assert(index.rows === this.rows, `scalar index of ${index.rows} rows for segment ${this.id} of ${this.rows}`);
    const indexes = this.#scalarIndexes.get(fieldId) ?? new Map<number, LoadedScalarIndex>();
    this.#scalarIndexes.set(fieldId, indexes.set(indexId, index));
  }

  get schema(): CollectionSchema {
    return this.#schema;
  }

  /** A field was added: rows here have its default. */
  updateSchema(schema: CollectionSchema): void {
    this.#schema = schema;
  }

  detachIndex(fieldId: number): void {
    this.#indexes.delete(fieldId);
  }

  /**
   * Number of rows newly marked, or marked earlier in time. With `original` the stored timestamps decide (a snapshot's own deletes), else the
   * ones that readers see; they differ only in a segment with a commit_ts.
   */
  applyDeletes(deletes: Deletes, options: { readonly original?: boolean } = {}): number {
    const timestamps = options.original === true ? this.timestamps : this.#effective;
    const lookup = new KeyLookup(this.#keys, deletes.keys);
    let marked = 0;
    for (let i = 0; i < deletes.ts.length; i++) {
      const [ts, readTs] = [deletes.ts[i], deletes.readTs[i]];
      for (let at = lookup.first(i); lookup.holds(at, i); at++) {
        const row = this.#keyOrder === undefined ? at : this.#keyOrder[at];
        if (deleteHits(timestamps[row], ts, readTs) && this.#deletes.mark(row, ts, this.rows)) marked++;
      }
    }
    return marked;
  }

  /** Timestamp from which the row is deleted; infinity: it is not. 0: it lies after as_of, in no state of this collection. */
  deletedAt(row: number): number {
    const { asOf } = this.#options.record;
    return asOf > 0 && this.timestamps[row] > asOf ? 0 : this.#deletes.deletedAt(row);
  }

  /** Frees the memory of a column that was loaded whole; it can be loaded again. */
  unload(fieldId: number): void {
    this.#vectorFiles.get(fieldId)?.unload();
    this.#sparseFiles.delete(fieldId);
  }

  /** Closes local files and removes cached copies. No read may be under way. */
  async close(): Promise<void> {
    for (const file of this.#vectorFiles.values()) await file.close();
    this.#indexes.clear();
    this.#scalarIndexes.clear();
  }

  #field(fieldId: number): Field {
    const field = this.#schema.byId.get(fieldId);
    if (field === undefined)
      throw new CairnError('FieldNotFound', `field ${fieldId} is not in the schema of collection ${this.#schema.name}`);
    return field;
  }

  #vectorRef(fieldId: number): ObjectRef | undefined {
    return this.#options.record.objects.find((object) => object.role === 'vector' && object.fieldId === fieldId);
  }

  /** Sparse vectors and lists of vectors are loaded whole: their rows have no fixed place. */
  #sparse(ref: ObjectRef): Promise<Column> {
    const loading = this.#sparseFiles.get(ref.fieldId) ?? this.#loadSparse(ref);
    this.#sparseFiles.set(ref.fieldId, loading);
    loading.catch(() => this.#sparseFiles.delete(ref.fieldId));
    return loading;
  }

  async #loadSparse(ref: ObjectRef): Promise<Column> {
    const bytes = await getObject(this.#options.objects, ref, this.#options.runtime);
    const column = readingObject(ref.key, () => readArrowFile(bytes)).columns.get(ref.fieldId);
    if (column === undefined || column.length !== this.rows)
      throw new CairnError(
        'ObjectDamaged',
        `object ${ref.key}: ${column?.length ?? 'no'} rows of field ${ref.fieldId}, expected ${this.rows}`,
      );
    return column;
  }
}
