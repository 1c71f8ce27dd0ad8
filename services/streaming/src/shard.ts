import { CairnError } from '@cairn/base';
import type { ShardRecord } from '@cairn/proto/cairn/meta';
import { type CollectionSchema, type ColumnBatch, fillDefaults } from '@cairn/schema';
import { DeleteBuffer, type Deletes, deletesOf, GrowingSegment } from '@cairn/segment';
import type { DeletePart, InsertPart, LogEvent } from './log-write.ts';
import { RepeatResults } from './repeat-results.ts';

/** Barriers of a shard that are remembered, for repeated Barrier calls. */
const MAX_BARRIERS = 256;

/** Schema in force, as the catalog says. */
export interface SchemaInForce {
  readonly schema: CollectionSchema;
  readonly version: number;
}

/** A growing segment and where in the log its rows stand. */
export interface GrowingPart {
  readonly segment: GrowingSegment;
  readonly partitionId: number;
  /** What it was made under; a change of the schema begins a new part. */
  readonly schema: CollectionSchema;
  readonly schemaVersion: number;
  readonly firstSequence: number;
  lastSequence: number;
}

/** Everything of a shard that was growing at a cut, on its way to the object store. */
export interface SealedCut {
  /** Everything of the shard at or before this sequence is in here or was flushed before. */
  readonly cut: number;
  readonly cutTs: number;
  readonly parts: readonly GrowingPart[];
}

/** Deletes of one partition (0: of all) to be flushed. */
export interface DeleteRange {
  readonly partitionId: number;
  readonly deletes: Deletes;
}

export interface ShardLimits {
  readonly repeatWindowMs: number;
  readonly maxRepeats: number;
}

/**
 * Memory of one virtual channel: what the log says after the shard's checkpoint. Changes only by `apply`, in log order, and by what was flushed;
 * so a new owner that replays the same records has the same rows, deletes and answers.
 */
export class Shard {
  readonly vchannel: string;
  readonly collectionId: number;
  readonly index: number;
  readonly repeats: RepeatResults;
  /** Sequence of the barrier by snapshot. */
  readonly barriers = new Map<number, number>();
  /** Sealed and on their way, oldest first. */
  readonly sealed: SealedCut[] = [];
  /** Bytes of the record as stored: what a commit compares. */
  recordBytes: Uint8Array;

  readonly #schema: () => SchemaInForce;
  readonly #deletes = new Map<number, DeleteBuffer>();
  #open: GrowingPart[] = [];
  /** Flushed, but still read until the sealed segment is loaded: by the id of that segment. */
  readonly #retained = new Map<number, GrowingPart>();
  #record: ShardRecord;
  #nextLocalId = -1;
  #lastDeleteSequence = 0;
  #unsealedSince: { sequence: number; atMs: number } | undefined;
  #unsealedDeleteRows = 0;

  /** `schema` gives what is in force when rows are applied. */
  constructor(record: ShardRecord, recordBytes: Uint8Array, schema: () => SchemaInForce, limits: ShardLimits) {
    this.vchannel = record.vchannel;
    this.collectionId = record.collectionId;
    this.index = record.shard;
    this.repeats = new RepeatResults(limits.repeatWindowMs, limits.maxRepeats);
    this.recordBytes = recordBytes;
    this.#record = record;
    this.#schema = schema;
  }

  get record(): ShardRecord {
    return this.#record;
  }

  get checkpoint(): number {
    return this.#record.checkpoint;
  }

  /** Sequence of the last delete applied; what datanodes must have applied before they answer. */
  get lastDeleteSequence(): number {
    return this.#lastDeleteSequence;
  }

  /** Applies one event. Records at or below the checkpoint are flushed: only their answers and barriers are remembered. */
  apply(event: LogEvent, nowMs: number): void {
    if (event.kind === 'barrier') {
      this.#rememberBarrier(event.barrier.snapshotId, event.sequence);
      return;
    }
    this.repeats.add(event.write.requestId, { ts: event.ts, sequence: event.sequence }, nowMs);
    if (event.write.deletes.length > 0) this.#lastDeleteSequence = event.sequence;
    if (event.sequence <= this.checkpoint) return;
    for (const insert of event.write.inserts) this.#insert(insert, event.write.schemaVersion, event.ts, event.sequence);
    for (const part of event.write.deletes) this.#delete(part, event.ts, event.sequence);
    this.#unsealedSince ??= { sequence: event.sequence, atMs: nowMs };
  }

  #insert(insert: InsertPart, writtenVersion: number, ts: number, sequence: number): void {
    if (insert.batch.length === 0) return;
    const { schema, version } = this.#schema();
    let part = this.#open.findLast((open) => open.partitionId === insert.partitionId);
    if (part === undefined || part.schemaVersion !== version) {
      const segment = new GrowingSegment({ id: this.#nextLocalId--, partitionId: insert.partitionId, schema });
      part = { segment, partitionId: insert.partitionId, schema, schemaVersion: version, firstSequence: sequence, lastSequence: sequence };
      this.#open.push(part);
    }
    part.segment.append(writtenVersion === version ? insert.batch : withDefaults(schema, insert.batch), ts, insert.firstRowId);
    part.lastSequence = sequence;
  }

  #delete(part: DeletePart, ts: number, sequence: number): void {
    const deletes = deletesOf(part.keys, ts, part.readTs);
    const buffer = this.#deletes.get(part.partitionId) ?? new DeleteBuffer();
    this.#deletes.set(part.partitionId, buffer);
    buffer.add(sequence, deletes);
    this.#unsealedDeleteRows += part.keys.length;
    for (const growing of this.parts()) {
      if (part.partitionId === 0 || growing.partitionId === part.partitionId) growing.segment.applyDeletes(deletes);
    }
  }

  #rememberBarrier(snapshotId: number, sequence: number): void {
    this.barriers.set(snapshotId, sequence);
    for (const oldest of this.barriers.keys()) {
      if (this.barriers.size <= MAX_BARRIERS) return;
      this.barriers.delete(oldest);
    }
  }

  /** Everything in memory that readers of now need: open, sealed and flushed but not yet served by a datanode. */
  parts(): GrowingPart[] {
    return [...this.#retained.values(), ...this.sealed.flatMap((cut) => cut.parts), ...this.#open];
  }

  /** Whether a sealed segment's rows are still readable here. */
  retains(segmentId: number): boolean {
    return this.#retained.has(segmentId);
  }

  /** A datanode serves the segment now: its source here goes. */
  drop(segmentId: number): void {
    this.#retained.delete(segmentId);
  }

  dropRetained(): void {
    this.#retained.clear();
  }

  /** Bytes and rows of the largest open segment; unsealed deletes count as rows. */
  openSize(): { bytes: number; rows: number } {
    let bytes = 0;
    let rows = 0;
    for (const { segment } of this.#open) {
      bytes = Math.max(bytes, segment.bytes);
      rows = Math.max(rows, segment.rows);
    }
    return { bytes, rows: Math.max(rows, this.#unsealedDeleteRows) };
  }

  /** Rows and bytes that are in no flushed segment. */
  unflushed(): { rows: number; bytes: number } {
    let rows = 0;
    let bytes = 0;
    for (const cut of [{ parts: this.#open }, ...this.sealed]) {
      for (const { segment } of cut.parts) {
        rows += segment.rows;
        bytes += segment.bytes;
      }
    }
    return { rows, bytes };
  }

  /** Bytes of rows in memory: not flushed, or flushed and still read here until a datanode serves them. */
  get memoryBytes(): number {
    let bytes = this.unflushed().bytes;
    for (const { segment } of this.#retained.values()) bytes += segment.bytes;
    return bytes;
  }

  /** The first write that is not sealed yet: its sequence, and when it came (monotonic ms). */
  get unsealedSince(): { readonly sequence: number; readonly atMs: number } | undefined {
    return this.#unsealedSince;
  }

  /** Rows or deletes were applied since the last seal. */
  get hasUnsealed(): boolean {
    return this.#unsealedSince !== undefined;
  }

  /** Something at or below the sequence is neither flushed nor sealed. */
  hasUnsealedUpTo(sequence: number): boolean {
    return this.#unsealedSince !== undefined && this.#unsealedSince.sequence <= sequence;
  }

  /** Nothing of the shard is in memory only. */
  get isFlushed(): boolean {
    return !this.hasUnsealed && this.sealed.length === 0;
  }

  /** Turns what grows into a cut at `sequence`, the last one applied; new writes go to new segments. undefined when nothing grows. */
  seal(sequence: number, ts: number): SealedCut | undefined {
    if (!this.hasUnsealed) return undefined;
    const cut: SealedCut = { cut: sequence, cutTs: ts, parts: this.#open };
    this.#open = [];
    this.#unsealedSince = undefined;
    this.#unsealedDeleteRows = 0;
    this.sealed.push(cut);
    return cut;
  }

  /** Deletes after the checkpoint up to the cut, by the partition they are limited to. */
  deletesUpTo(cut: number): DeleteRange[] {
    const ranges: DeleteRange[] = [];
    for (const [partitionId, buffer] of this.#deletes) {
      const deletes = buffer.between(this.checkpoint, cut);
      if (deletes) ranges.push({ partitionId, deletes });
    }
    return ranges;
  }

  /**
   * The cut is committed. `segmentIds` are those its parts became, in order; with `retain` they stay readable here until `drop`.
   */
  flushed(cut: SealedCut, record: ShardRecord, recordBytes: Uint8Array, segmentIds: readonly number[], retain: boolean): void {
    if (this.sealed[0] !== cut) throw new CairnError('Internal', `${this.vchannel}: cut ${cut.cut} flushed out of order`);
    this.sealed.shift();
    if (retain) {
      cut.parts.forEach((part, at) => {
        const id = segmentIds[at];
        if (id !== undefined) this.#retained.set(id, part);
      });
    }
    this.moveCheckpoint(record, recordBytes);
  }

  moveCheckpoint(record: ShardRecord, recordBytes: Uint8Array): void {
    if (record.checkpoint < this.checkpoint)
      throw new CairnError('Internal', `${this.vchannel}: checkpoint would go back from ${this.checkpoint} to ${record.checkpoint}`);
    this.#record = record;
    this.recordBytes = recordBytes;
    for (const buffer of this.#deletes.values()) buffer.trim(record.checkpoint);
  }
}

/** A batch written under an older schema: fields added since get their default or null. */
function withDefaults(schema: CollectionSchema, batch: ColumnBatch): ColumnBatch {
  if (schema.fields.every((field) => batch.columns.has(field.id))) return batch;
  return { length: batch.length, columns: fillDefaults(schema, batch.columns, batch.length) };
}
