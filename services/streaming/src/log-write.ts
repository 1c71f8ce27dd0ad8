import { CairnError, type Runtime } from '@cairn/base';
import type { WriteRequest } from '@cairn/proto/cairn/services';
import { DataKind, DataRecord } from '@cairn/proto/cairn/wal';
import { type Column, type ColumnBatch, decodeFrame, encodeFrame, sliceBatch } from '@cairn/schema';
import type { AppendEntry, WalRecord } from '@cairn/wal';

/** Room for a DataRecord's fields beside its columns: names and ids. Request ids and channel names are bounded by it. */
export const RECORD_OVERHEAD_BYTES = 2048;
export const MAX_REQUEST_ID_BYTES = 256;
/** Slicing and encoding a large request yields to other work of the process after so many bytes: a few ms. */
const SLICE_BYTES = 4 << 20;

export interface InsertPart {
  readonly partitionId: number;
  readonly batch: ColumnBatch;
  readonly firstRowId: number;
}

export interface DeletePart {
  readonly keys: Column;
  /** 0: all partitions. */
  readonly partitionId: number;
  /** Above 0: a delete by filter. */
  readonly readTs: number;
}

/** One request on one shard, whole: what the log holds as a batch of records and memory applies in one step. */
export interface LogWrite {
  readonly vchannel: string;
  readonly collectionId: number;
  readonly requestId: string;
  readonly schemaVersion: number;
  readonly inserts: readonly InsertPart[];
  readonly deletes: readonly DeletePart[];
}

export interface LogBarrier {
  readonly vchannel: string;
  readonly snapshotId: number;
}

/** What a position of the log means. `sequence` is that of its last record. */
export type LogEvent =
  | { readonly kind: 'write'; readonly ts: number; readonly sequence: number; readonly bytes: number; readonly write: LogWrite }
  | { readonly kind: 'barrier'; readonly ts: number; readonly sequence: number; readonly bytes: number; readonly barrier: LogBarrier };

/** The request's frames as columns. Damaged frames: InvalidParameter of libs/schema; wrong counts: InvalidParameter here. */
export function decodeWrite(
  request: WriteRequest,
): Omit<LogWrite, 'inserts'> & { readonly inserts: readonly Omit<InsertPart, 'firstRowId'>[] } {
  const inserts = request.inserts.map((part) => {
    const batch = decodeFrame(part.columns);
    if (batch.length !== part.rows)
      throw new CairnError('InvalidParameter', `partition ${part.partitionId}: ${part.rows} rows announced, ${batch.length} sent`);
    return { partitionId: part.partitionId, batch };
  });
  const deletes: DeletePart[] = [];
  if (request.deleteRows > 0) {
    const keys = keyColumnOf(decodeFrame(request.deletes));
    if (keys.length !== request.deleteRows)
      throw new CairnError('InvalidParameter', `${request.deleteRows} deletes announced, ${keys.length} sent`);
    deletes.push({ keys, partitionId: request.deletePartitionId, readTs: request.readTs });
  }
  const { vchannel, collectionId, requestId, schemaVersion } = request;
  return { vchannel, collectionId, requestId, schemaVersion, inserts, deletes };
}

function keyColumnOf(batch: ColumnBatch): Column {
  const [keys, ...others] = batch.columns.values();
  if (!keys || others.length > 0)
    throw new CairnError('InvalidParameter', `deletes: a frame of ${batch.columns.size} columns, 1 expected (the primary keys)`);
  return keys;
}

/** A record of the log before it has its timestamp and place in the batch. */
type Draft = Omit<DataRecord, 'ts' | 'batchIndex' | 'batchSize' | 'lastOnSubject'>;

/** The frames of a request, cut to what a record may hold. Made before the timestamp is known, so that stamping is quick. */
export class RecordDrafts {
  readonly #drafts: readonly Draft[];
  /** Bytes of all columns. */
  readonly bytes: number;

  private constructor(drafts: readonly Draft[]) {
    this.#drafts = drafts;
    this.bytes = drafts.reduce((sum, draft) => sum + draft.columns.length, 0);
  }

  /** `request` is what `write` was decoded from: its frames are reused where they fit. All inserts stand before all deletes. */
  static async of(request: WriteRequest, write: LogWrite, maxPayloadBytes: number, runtime: Runtime): Promise<RecordDrafts> {
    let sliced = 0;
    const pause = async (bytes: number): Promise<void> => {
      sliced += bytes;
      if (sliced < SLICE_BYTES) return;
      sliced = 0;
      await runtime.sleep(0);
    };
    const limit = maxPayloadBytes - RECORD_OVERHEAD_BYTES;
    const drafts: Draft[] = [];
    const common = {
      vchannel: write.vchannel,
      collectionId: write.collectionId,
      requestId: write.requestId,
      schemaVersion: write.schemaVersion,
      snapshotId: 0,
    };
    for (const [at, part] of write.inserts.entries()) {
      let rowId = part.firstRowId;
      for (const piece of frames(request.inserts[at]?.columns, part.batch, limit)) {
        drafts.push({ ...common, kind: DataKind.DATA_INSERT, partitionId: part.partitionId, ...piece, readTs: 0, firstRowId: rowId });
        rowId += piece.rows;
        await pause(piece.columns.length);
      }
    }
    for (const part of write.deletes) {
      const batch = { length: part.keys.length, columns: new Map([[0, part.keys]]) };
      for (const piece of frames(request.deletes, batch, limit)) {
        drafts.push({ ...common, kind: DataKind.DATA_DELETE, partitionId: part.partitionId, ...piece, readTs: part.readTs, firstRowId: 0 });
      }
    }
    return new RecordDrafts(drafts);
  }

  entries(ts: number): AppendEntry[] {
    const size = this.#drafts.length;
    return this.#drafts.map((draft, at) => {
      const lastOnSubject = this.#drafts[at + 1]?.kind !== draft.kind;
      const payload = DataRecord.encode({ ...draft, ts, batchIndex: at, batchSize: size, lastOnSubject }).finish();
      return { subject: subjectOf(draft.kind, draft.vchannel), payload };
    });
  }
}

function subjectOf(kind: DataRecord['kind'], vchannel: string): string {
  if (kind === DataKind.DATA_INSERT) return `ins.${vchannel}`;
  if (kind === DataKind.DATA_DELETE) return `del.${vchannel}`;
  return `bar.${vchannel}`;
}

/** Row ranges of a batch as frames of at most `limit` bytes. A row above it: ParameterTooLarge. */
function* frames(whole: Uint8Array | undefined, batch: ColumnBatch, limit: number): Generator<{ columns: Uint8Array; rows: number }> {
  if (batch.length === 0) return;
  const frame = whole ?? encodeFrame(batch);
  if (frame.length <= limit) return yield { columns: frame, rows: batch.length };
  if (batch.length === 1) throw new CairnError('ParameterTooLarge', `a row of ${frame.length} bytes: the log holds ${limit} a row`);
  // By the average row, a little less, so that most pieces fit at the first try; pieces of large rows are halved further.
  const perPiece = Math.max(1, Math.min(batch.length - 1, Math.floor((batch.length * limit * 0.9) / frame.length)));
  for (let start = 0; start < batch.length; start += perPiece) {
    yield* frames(undefined, sliceBatch(batch, start, Math.min(batch.length, start + perPiece)), limit);
  }
}

export function barrierEntry(barrier: LogBarrier & { readonly collectionId: number }, ts: number): AppendEntry {
  const record = DataRecord.fromPartial({ kind: DataKind.DATA_BARRIER, ...barrier, ts, batchSize: 1, lastOnSubject: true });
  return { subject: subjectOf(DataKind.DATA_BARRIER, barrier.vchannel), payload: DataRecord.encode(record).finish() };
}

/**
 * Records of a channel, in order, to events. A batch is contiguous, so one whose next record is not there was never finished and is dropped: it
 * was not acknowledged. Batches cut off at the front (trimmed) are dropped too; they lie below every checkpoint.
 */
export class BatchAssembler {
  #pending: DataRecord[] = [];
  #bytes = 0;
  #highestTs = 0;

  /** Largest timestamp of any record seen, those of incomplete batches too: stamps never go below it. */
  get highestTs(): number {
    return this.#highestTs;
  }

  add(stored: WalRecord): LogEvent | undefined {
    if (stored.kind === 'fence') {
      this.#pending = [];
      return undefined;
    }
    const record = DataRecord.decode(stored.payload);
    this.#highestTs = Math.max(this.#highestTs, record.ts);
    const { ts } = record;
    if (record.kind === DataKind.DATA_BARRIER) {
      this.#pending = [];
      const barrier = { vchannel: record.vchannel, snapshotId: record.snapshotId };
      return { kind: 'barrier', ts, sequence: stored.sequence, bytes: stored.payload.length, barrier };
    }
    if (!this.#follows(record)) this.#pending = [];
    if (record.batchIndex !== this.#pending.length) return undefined;
    if (this.#pending.length === 0) this.#bytes = 0;
    this.#pending.push(record);
    this.#bytes += stored.payload.length;
    if (this.#pending.length < record.batchSize) return undefined;
    const records = this.#pending;
    this.#pending = [];
    return { kind: 'write', ts, sequence: stored.sequence, bytes: this.#bytes, write: writeOf(records) };
  }

  #follows(record: DataRecord): boolean {
    const before = this.#pending.at(-1);
    return before !== undefined && before.vchannel === record.vchannel && before.ts === record.ts && before.requestId === record.requestId;
  }
}

function writeOf(records: readonly DataRecord[]): LogWrite {
  const { vchannel, collectionId, requestId, schemaVersion } = records[0] as DataRecord;
  const inserts: InsertPart[] = [];
  const deletes: DeletePart[] = [];
  for (const { kind, partitionId, columns, firstRowId, readTs } of records) {
    const batch = decodeFrame(columns);
    if (kind === DataKind.DATA_INSERT) inserts.push({ partitionId, batch, firstRowId });
    else deletes.push({ keys: keyColumnOf(batch), partitionId, readTs });
  }
  return { vchannel, collectionId, requestId, schemaVersion, inserts, deletes };
}
