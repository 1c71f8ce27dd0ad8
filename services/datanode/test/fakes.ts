import { type Logger, type Runtime, silentLogger } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { MemoryMetaStore } from '@cairn/meta';
import { MemoryObjectStore } from '@cairn/objects';
import { DeltaLogRecord, SegmentRecord, ShardRecord } from '@cairn/proto/cairn/meta';
import { LoadSegmentsRequest } from '@cairn/proto/cairn/services';
import { DataKind, DataRecord } from '@cairn/proto/cairn/wal';
import {
  type CollectionSchema,
  DataType,
  encodeFrame,
  encodeSchema,
  keyColumn,
  makeBatch,
  makeSchema,
  type PlainValue,
  valueAt,
} from '@cairn/schema';
import { type Deletes, type SealedSegment, writeDeltaLog } from '@cairn/segment';
import { type ChannelWriter, MemoryWalStore, openChannelWriter } from '@cairn/wal';
import { DeltaLogs } from '../src/delta-logs.ts';
import { HeldShard, type ShardParts } from '../src/held-shard.ts';
import { LocalFiles } from '../src/local-files.ts';

export const CHANNEL = 'dml_0';
export const VCHANNEL = 'dml_0_7v0';
export const COLLECTION = 7;

const plain = {
  ...{ description: '', elementType: DataType.None, autoId: false, nullable: false, isDynamic: false, isPartitionKey: false },
  ...{
    isClusteringKey: false,
    isFunctionOutput: false,
    defaultValue: undefined,
    dim: 0,
    maxLength: 0,
    maxCapacity: 0,
    typeParams: {},
    indexParams: {},
  },
};

/** Key `id` (101), vector `v` (102), and as many further nullable Int64 fields as asked. */
export function schemaBytes(further = 0): Uint8Array {
  const more = Array.from({ length: further }, (_, i) => ({
    ...plain,
    id: 103 + i,
    name: `more${i}`,
    type: DataType.Int64,
    nullable: true,
    isPrimaryKey: false,
  }));
  return encodeSchema(
    makeSchema({
      ...{ name: 'c', description: '', enableDynamicField: false, properties: {} },
      fields: [
        { ...plain, id: 101, name: 'id', type: DataType.Int64, isPrimaryKey: true },
        { ...plain, id: 102, name: 'v', type: DataType.FloatVector, dim: 4, isPrimaryKey: false, typeParams: { dim: '4' } },
        ...more,
      ],
    }),
  );
}

/** A segment of keys, each inserted at one timestamp, that remembers when each was deleted first. */
export class FakeSegment {
  readonly keys: readonly bigint[];
  readonly insertedAt: number;
  readonly deletedAt = new Map<PlainValue, number>();
  closed = false;
  fields = 0;

  constructor(keys: readonly number[], insertedAt: number) {
    this.keys = keys.map(BigInt);
    this.insertedAt = insertedAt;
  }

  applyDeletes(deletes: Deletes): number {
    for (let i = 0; i < deletes.ts.length; i++) {
      const key = valueAt(deletes.keys, i);
      const hit = deletes.readTs[i] > 0 ? this.insertedAt <= deletes.readTs[i] : this.insertedAt < deletes.ts[i];
      if (this.keys.some((mine) => mine === key) && hit)
        this.deletedAt.set(key, Math.min(deletes.ts[i], this.deletedAt.get(key) ?? Number.POSITIVE_INFINITY));
    }
    return deletes.ts.length;
  }

  /** Keys that a reader at `readTs` sees. */
  alive(readTs = Number.MAX_SAFE_INTEGER): number[] {
    return this.keys.filter((key) => (this.deletedAt.get(key) ?? Number.POSITIVE_INFINITY) > readTs).map(Number);
  }

  updateSchema(schema: CollectionSchema): void {
    this.fields = schema.fields.length;
  }

  async close(): Promise<void> {
    this.closed = true;
  }
}

/** One shard's stores, its log, and what an owner does. */
export class Stage {
  readonly meta: MemoryMetaStore;
  readonly objects: MemoryObjectStore;
  readonly wal = new MemoryWalStore();
  readonly segments = new Map<number, FakeSegment>();
  readonly opened: number[] = [];
  readonly runtime: Runtime;
  readonly logger: Logger = silentLogger;
  #writer: ChannelWriter | undefined;
  #epoch = 0;
  #ids = 1000;

  constructor(runtime: Runtime) {
    this.runtime = runtime;
    this.meta = new MemoryMetaStore(runtime);
    this.objects = new MemoryObjectStore(runtime);
  }

  /** A new owner takes the channel. */
  async takeOver(): Promise<void> {
    await this.wal.ensureChannel(CHANNEL);
    this.#writer?.close();
    this.#writer = await openChannelWriter(this.wal, CHANNEL, ++this.#epoch, { runtime: this.runtime, logger: this.logger });
  }

  parts(): ShardParts {
    const { wal, runtime, logger, objects } = this;
    return {
      ...{ wal, runtime, logger },
      deltaLogs: new DeltaLogs(this.meta, objects, runtime),
      files: new LocalFiles({ objects, runtime, logger, dir: '/nowhere', limitBytes: 0 }),
      pool: { open: () => Promise.reject(new Error('no indexes here')), release: async () => {} },
      open: async (record) => {
        this.opened.push(record.id);
        const segment = this.segments.get(record.id);
        if (!segment) throw new Error(`no segment ${record.id}`);
        return segment as unknown as SealedSegment;
      },
      openConcurrency: 4,
      maxHistoryBytes: 1 << 20,
    };
  }

  shard(): HeldShard {
    return new HeldShard(VCHANNEL, this.parts());
  }

  segment(id: number, keys: readonly number[], insertedAt: number, partitionId = 1): SegmentRecord {
    this.segments.set(id, new FakeSegment(keys, insertedAt));
    return SegmentRecord.fromPartial({
      id,
      collectionId: COLLECTION,
      partitionId,
      minTs: insertedAt,
      maxTs: insertedAt,
      rows: keys.length,
    });
  }

  /** Appends one delete record. Answers its sequence. */
  async delete(keys: readonly number[], ts: number, more: Partial<DataRecord> = {}): Promise<number> {
    const columns = encodeFrame(makeBatch([[101, keyColumn(keys.map(BigInt))]]));
    const record = {
      ...{ kind: DataKind.DATA_DELETE, vchannel: VCHANNEL, collectionId: COLLECTION, ts, columns, rows: keys.length },
      ...{ requestId: `r${ts}`, batchIndex: 0, batchSize: 1, lastOnSubject: true, ...more },
    };
    if (!this.#writer) throw new Error('nobody owns the channel');
    return this.#writer.append([{ subject: `del.${VCHANNEL}`, payload: DataRecord.encode(DataRecord.fromPartial(record)).finish() }]);
  }

  /** Flushes deletes into a log and moves the shard's checkpoint, as the owner's commit does. */
  async flush(
    checkpoint: number,
    deletes: { keys: readonly number[]; ts: number }[],
    more: Partial<DeltaLogRecord> = {},
  ): Promise<DeltaLogRecord> {
    const id = ++this.#ids;
    const all: Deletes = {
      keys: keyColumn(deletes.flatMap((entry) => entry.keys.map(BigInt))),
      ts: Float64Array.from(deletes.flatMap((entry) => entry.keys.map(() => entry.ts))),
      readTs: new Float64Array(deletes.flatMap((entry) => entry.keys).length),
    };
    const { object, rows, minTs, maxTs } = await writeDeltaLog(this.objects, `deltas/7/0/${id}-g.arrow`, all);
    const log = DeltaLogRecord.fromPartial({
      id,
      collectionId: COLLECTION,
      shard: 0,
      rows,
      minTs,
      maxTs,
      lastSequence: checkpoint,
      object,
      ...more,
    });
    const shard = ShardRecord.fromPartial({ collectionId: COLLECTION, shard: 0, vchannel: VCHANNEL, channel: CHANNEL, checkpoint });
    await this.meta.txn({
      then: [
        { kind: 'put', key: keys.delta(COLLECTION, id), value: DeltaLogRecord.encode(log).finish() },
        { kind: 'put', key: keys.shard(COLLECTION, 0), value: ShardRecord.encode(shard).finish() },
      ],
    });
    return log;
  }

  request(more: Partial<LoadSegmentsRequest>): LoadSegmentsRequest {
    return LoadSegmentsRequest.fromPartial({
      vchannel: VCHANNEL,
      collectionId: COLLECTION,
      schema: schemaBytes(),
      channel: CHANNEL,
      ...more,
    });
  }

  alive(id: number, readTs?: number): number[] {
    return this.segments.get(id)?.alive(readTs) ?? [];
  }
}
