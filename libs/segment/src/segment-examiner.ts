import { assert, CairnError, checksum, countBits } from '@cairn/base';
import type { ObjectRef, SegmentRecord } from '@cairn/proto/cairn/meta';
import {
  type CollectionSchema,
  type Column,
  defaultColumn,
  type Field,
  KeyLookup,
  readArrowFile,
  sortOrder,
  TIMESTAMP_FIELD,
  takeColumn,
} from '@cairn/schema';
import { hashedColumns } from './content-hash.ts';
import { type Deletes, deleteHits } from './deletes.ts';
import { readingObject } from './object-bytes.ts';
import type { Bitmap } from './readable-segment.ts';
import { allRows, clearLater } from './row-deletes.ts';
import { formatHash, RowHashes, type RowSum } from './row-hash.ts';

/** Bytes whose checksum is computed in one stretch: about 2 ms. */
const CHECKSUM_SLICE_BYTES = 8 * 1024 * 1024;
/** Deletes gone through in one stretch. */
const DELETE_SLICE = 4096;

export interface ExaminedSegment {
  /** All rows, by the columns that are stored. */
  readonly stored: RowSum;
  /** Rows that readers of the snapshot see, by the fields of its schema. */
  readonly visible: RowSum;
}

/** The objects of a segment that have rows, in the order in which an examiner takes them. */
export function tablesOf(record: SegmentRecord): ObjectRef[] {
  return record.objects
    .filter((object) => object.role === 'scalars' || object.role === 'vector')
    .sort((a, b) => Number(a.role === 'vector') - Number(b.role === 'vector') || a.fieldId - b.fieldId);
}

/** Compares length and checksum; ObjectDamaged names the object. */
export function* checkBytes(ref: ObjectRef, bytes: Uint8Array): Generator<void, void> {
  if (bytes.byteLength !== ref.size)
    throw new CairnError('ObjectDamaged', `object ${ref.key}: ${bytes.byteLength} bytes, expected ${ref.size}`);
  let crc = 0;
  for (let at = 0; at < bytes.byteLength; at += CHECKSUM_SLICE_BYTES) {
    crc = checksum(bytes.subarray(at, at + CHECKSUM_SLICE_BYTES), crc);
    yield;
  }
  const hex = (value: number) => value.toString(16).padStart(8, '0');
  if (crc !== ref.crc32c) throw new CairnError('ObjectDamaged', `object ${ref.key}: checksum ${hex(crc)}, expected ${hex(ref.crc32c)}`);
}

/**
 * Reads a whole segment once and says what its rows hash to. Objects come one at a time, in the order of `tablesOf`, and none is kept: of a segment
 * it holds 20 bytes a row, keys and timestamps. Every step is a generator that yields about every millisecond.
 */
export class SegmentExaminer {
  readonly #record: SegmentRecord;
  readonly #schema: CollectionSchema;
  readonly #hashes: RowHashes;
  /** As readers see the rows: another state as soon as a column that is not stored has a default, or one is no field any more. */
  #seen: RowHashes | undefined;
  #keys: Column | undefined;
  #order: Int32Array | undefined;
  #timestamps = new Float64Array(0);
  #bits: Bitmap | undefined;

  constructor(record: SegmentRecord, schema: CollectionSchema) {
    this.#record = record;
    this.#schema = schema;
    this.#hashes = new RowHashes(record.rows);
  }

  /** One object with rows; verified first. ObjectDamaged names it. */
  *add(ref: ObjectRef, bytes: Uint8Array): Generator<void, void> {
    yield* checkBytes(ref, bytes);
    const batch = readingObject(ref.key, () => readArrowFile(bytes));
    const { rows, id } = this.#record;
    if (batch.length !== rows) throw new CairnError('ObjectDamaged', `object ${ref.key}: ${batch.length} rows, segment ${id} has ${rows}`);
    if (ref.role === 'scalars') yield* this.#scalars(ref, batch.columns);
    else for (const [fieldId, column] of hashedColumns(batch.columns)) yield* this.#mix(fieldId, column);
  }

  *#scalars(ref: ObjectRef, columns: ReadonlyMap<number, Column>): Generator<void, void> {
    const timestamps = columns.get(TIMESTAMP_FIELD);
    const keys = columns.get(this.#schema.primaryKey.id);
    if (timestamps?.kind !== 'fixed' || !(timestamps.values instanceof Float64Array) || keys === undefined)
      throw new CairnError('ObjectDamaged', `object ${ref.key} has no timestamps or no primary key (field ${this.#schema.primaryKey.id})`);
    // Copies: the object's bytes are not kept.
    this.#timestamps = timestamps.values.slice();
    this.#order = this.#record.sorted ? undefined : sortOrder(keys, this.#timestamps);
    this.#keys = takeColumn(keys, this.#order ?? asTheyLie(keys.length));
    for (const [fieldId, column] of hashedColumns(columns)) yield* this.#mix(fieldId, column);
    // Defaults of fields that were added later stand where compaction would have put them: among the scalars, by field id.
    yield* this.#defaults(columns);
  }

  *#mix(fieldId: number, column: Column): Generator<void, void> {
    yield* this.#hashes.mix(fieldId, column);
    if (this.#schema.byId.has(fieldId)) yield* this.#seen?.mix(fieldId, column) ?? [];
  }

  *#defaults(columns: ReadonlyMap<number, Column>): Generator<void, void> {
    const stored = new Set([...columns.keys(), ...this.#record.objects.map((object) => object.fieldId)]);
    const late = lateFields(this.#schema, stored);
    const gone = [...stored].filter((id) => id > TIMESTAMP_FIELD && !this.#schema.byId.has(id));
    if (late.length === 0 && gone.length === 0) return;
    const seen = new Map([...columns].filter(([id]) => !gone.includes(id)));
    for (const field of late) seen.set(field.id, defaultColumn(field, this.#record.rows));
    this.#seen = new RowHashes(this.#record.rows);
    for (const [fieldId, column] of hashedColumns(seen)) yield* this.#seen.mix(fieldId, column);
  }

  /** Deletes of the segment's shard and partition, those of one log at a time, up to that log's as_of. */
  *remove(deletes: Deletes): Generator<void, void> {
    const keys = this.#keys;
    assert(keys !== undefined, `segment ${this.#record.id}: deletes before its keys`);
    const lookup = new KeyLookup(keys, deletes.keys);
    const bits = this.#visible();
    for (let i = 0; i < deletes.ts.length; i++) {
      if (i % DELETE_SLICE === DELETE_SLICE - 1) yield;
      const [ts, readTs] = [deletes.ts[i], deletes.readTs[i]];
      for (let at = lookup.first(i); lookup.holds(at, i); at++) {
        const row = this.#order === undefined ? at : this.#order[at];
        if (deleteHits(this.#timestamps[row], ts, readTs)) bits[row >> 3] &= ~(1 << (row & 7));
      }
    }
  }

  /** After all objects and deletes. ObjectDamaged when the stored rows do not hash to what was recorded when they were written. */
  finish(): ExaminedSegment {
    const { id, prefix, contentHash } = this.#record;
    const stored = this.#hashes.sum();
    const found = formatHash(stored.hash);
    if (contentHash !== '' && found !== contentHash)
      throw new CairnError('ObjectDamaged', `segment ${id} (${prefix}): content hash ${found}, recorded ${contentHash}`);
    const bits = this.#visible();
    // Mostly all rows are seen, as they are stored: one sum then.
    const same = this.#seen === undefined && countBits(bits) === this.#record.rows;
    return { stored, visible: same ? stored : (this.#seen ?? this.#hashes).sum(bits) };
  }

  #visible(): Bitmap {
    const { rows, asOf } = this.#record;
    if (this.#bits === undefined) {
      this.#bits = allRows(rows);
      if (asOf > 0) clearLater(this.#bits, this.#timestamps, rows, asOf);
    }
    return this.#bits;
  }
}

/** Fields that rows without their column have a value of all the same: a default, or the empty object of `$meta`. */
function lateFields(schema: CollectionSchema, stored: ReadonlySet<number>): Field[] {
  return schema.fields.filter((field) => !stored.has(field.id) && (field.defaultValue !== undefined || field.isDynamic));
}

function asTheyLie(rows: number): Int32Array {
  const order = new Int32Array(rows);
  for (let row = 0; row < rows; row++) order[row] = row;
  return order;
}
