import { EPOCH_MS, isRetriable, loadConfig, makeTimestamp, Semaphore, SystemRuntime, silentLogger } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { MemoryMetaStore, type MetaStore, scan } from '@cairn/meta';
import { FaultyMetaStore, type MetaFaultHook } from '@cairn/meta/testing';
import { MemoryObjectStore, type ObjectStore } from '@cairn/objects';
import { FaultyObjectStore } from '@cairn/objects/testing';
import {
  ChannelRecord,
  type CollectionRecord,
  CollectionState,
  DeltaLogRecord,
  type LoadRecord,
  type PartitionRecord,
  SegmentRecord,
  ShardRecord,
} from '@cairn/proto/cairn/meta';
import { type QueryResult, type ShardQueryRequest, WriteRequest, type WriteResponse } from '@cairn/proto/cairn/services';
import { CollectionSchema as WireSchema } from '@cairn/proto/milvus/schema';
import type { CallContext } from '@cairn/rpc';
import {
  type CollectionSchema,
  columnFromValues,
  encodeFrame,
  encodeSchema,
  keyColumn,
  makeBatch,
  prepareNewSchema,
  valueAt,
} from '@cairn/schema';
import { openSegment, type ReadableSegment, readDeltaLog } from '@cairn/segment';
import { MemoryWalStore, type WalStore } from '@cairn/wal';
import { FaultyWalStore, type WalFaultPlan } from '@cairn/wal/testing';
import type { StreamingCatalog } from '../src/catalog-face.ts';
import { ChannelOwner, type ViewKeeper } from '../src/channel-owner.ts';
import { IdReserve, type StampSource } from '../src/coordinator.ts';
import { type StreamingSettings, streamingSettings } from '../src/settings.ts';

export const CHANNEL = 'dml_0';
export const COLLECTION = 1001;
export const DEFAULT_PARTITION = 1002;
export const OTHER_PARTITION = 1003;
export const SHARDS = [`${CHANNEL}_${COLLECTION}v0`, `${CHANNEL}_${COLLECTION}v1`] as const;
const DIM = 32;

export interface Row {
  readonly id: number;
  readonly tag: string;
}

/** Timestamps and ids as DataCoord gives them: never twice, never lower. */
export class FakeOracle implements StampSource {
  last = makeTimestamp(EPOCH_MS + 1000, 0);
  #nextId = 5000;
  /** Set to hold calls back, as a fail-over does. */
  gate: Promise<void> | undefined;
  /** Calls for timestamps, and how many were asked for. */
  readonly calls: number[] = [];

  async allocTimestamps(count: number): Promise<number> {
    this.calls.push(count);
    await this.gate;
    const first = this.last + 1;
    this.last += count;
    return first;
  }

  async allocIds(count: number): Promise<number> {
    const first = this.#nextId;
    this.#nextId += count;
    return first;
  }

  now(): number {
    return ++this.last;
  }
}

export class FakeCatalog implements StreamingCatalog {
  schema: CollectionSchema = prepareNewSchema(
    WireSchema.fromPartial({
      name: 'things',
      fields: [
        { name: 'id', dataType: 5, isPrimaryKey: true },
        { name: 'tag', dataType: 21, typeParams: [{ key: 'max_length', value: '60000' }] },
        { name: 'vec', dataType: 101, typeParams: [{ key: 'dim', value: String(DIM) }] },
      ],
    }),
  );
  record: CollectionRecord | undefined = {
    id: COLLECTION,
    databaseId: 1,
    name: 'things',
    schema: encodeSchema(this.schema),
    shards: SHARDS.map((vchannel, index) => ({ index, vchannel, channel: CHANNEL })),
    consistencyLevel: 0,
    properties: [],
    numPartitions: 0,
    state: CollectionState.COLLECTION_LIVE,
    createdTs: 1,
    updatedTs: 1,
    schemaVersion: 0,
    maxFieldId: 102,
    restoreJobId: 0,
    droppedTs: 0,
  };
  readonly partitionRecords: PartitionRecord[] = [DEFAULT_PARTITION, OTHER_PARTITION].map((id) => ({
    id,
    collectionId: COLLECTION,
    name: `p${id}`,
    createdTs: 1,
    droppedTs: 0,
  }));
  loaded: LoadRecord | undefined;
  readonly listeners = new Set<(collectionId: number) => void>();

  collection(id: number) {
    return this.record && id === this.record.id ? { record: this.record, schema: this.schema } : undefined;
  }
  collections() {
    return this.record ? [this.record] : [];
  }
  partition(_collectionId: number, partitionId: number) {
    return this.partitionRecords.find((record) => record.id === partitionId);
  }
  partitions() {
    return this.partitionRecords;
  }
  indexes() {
    return [];
  }
  load() {
    return this.loaded;
  }
  async sync() {}
  onChange(listener: (collectionId: number) => void) {
    this.listeners.add(listener);
    return { close: () => void this.listeners.delete(listener) };
  }
}

const noViews: ViewKeeper = { refresh: () => {}, isServed: () => false, flushed: () => {}, remove: () => {} };

export interface WorldOptions {
  readonly settings?: Partial<StreamingSettings>;
  readonly maxRecordBytes?: number;
  readonly metaFaults?: MetaFaultHook;
}

/** One physical channel with a collection of two shards, on memory stores with faults; owners come and go. */
export class World {
  readonly runtime = new SystemRuntime();
  readonly oracle = new FakeOracle();
  readonly catalog = new FakeCatalog();
  /** Without faults: what is really there. */
  readonly meta: MetaStore = new MemoryMetaStore(this.runtime);
  readonly objects: ObjectStore = new MemoryObjectStore(this.runtime);
  readonly wal: WalStore;
  readonly faultyMeta: FaultyMetaStore;
  readonly faultyObjects: FaultyObjectStore;
  readonly faultyWal: FaultyWalStore;
  readonly settings: StreamingSettings;
  readonly owners: ChannelOwner[] = [];
  metaFaults: MetaFaultHook = () => undefined;
  /** Whoever keeps views of loaded shards; default: nobody. */
  views: ViewKeeper = noViews;
  objectFaults: ConstructorParameters<typeof FaultyObjectStore>[2] = () => undefined;
  #epoch = 0;
  #requests = 0;

  constructor(options: WorldOptions = {}) {
    this.wal = new MemoryWalStore(options.maxRecordBytes === undefined ? {} : { maxRecordBytes: options.maxRecordBytes });
    this.faultyMeta = new FaultyMetaStore(this.meta, this.runtime, (call) => this.metaFaults(call));
    this.faultyObjects = new FaultyObjectStore(this.objects, this.runtime, (call) => this.objectFaults?.(call));
    this.faultyWal = new FaultyWalStore(this.wal, this.runtime);
    this.settings = { ...streamingSettings(loadConfig({ env: {} })), checkIntervalMs: 20, ...options.settings };
  }

  /** Reads of a shard, for partial updates: set by those who make them. */
  query: (request: ShardQueryRequest, context: CallContext) => Promise<QueryResult> = async () => {
    throw new Error('nothing reads here');
  };

  set walFaults(plan: WalFaultPlan) {
    this.faultyWal.plan = plan;
  }

  async create(): Promise<void> {
    await this.wal.ensureChannel(CHANNEL);
    for (const [shard, vchannel] of SHARDS.entries()) {
      const record: ShardRecord = { collectionId: COLLECTION, shard, vchannel, channel: CHANNEL, checkpoint: 0, checkpointTs: 0 };
      await this.meta.txn({ then: [{ kind: 'put', key: keys.shard(COLLECTION, shard), value: ShardRecord.encode(record).finish() }] });
    }
  }

  /** Raises the epoch and takes over, as DataCoord's assignment does; the owner before is not told. */
  async assign(): Promise<ChannelOwner> {
    const epoch = ++this.#epoch;
    const value = ChannelRecord.encode({ channel: CHANNEL, epoch, nodeId: `node-${epoch}`, address: '', releasedSequence: 0 }).finish();
    const { revision } = await this.meta.txn({ then: [{ kind: 'put', key: keys.channel(CHANNEL), value }] });
    const signal = new AbortController().signal;
    const owner = new ChannelOwner({
      proof: { channel: CHANNEL, epoch, revision },
      releasedSequence: 0,
      meta: this.faultyMeta,
      objects: this.faultyObjects,
      wal: this.faultyWal,
      catalog: this.catalog,
      stamps: this.oracle,
      rowIds: new IdReserve(this.oracle, 1000, signal),
      segmentIds: new IdReserve(this.oracle, 16, signal),
      flushSlots: new Semaphore('flushes', 2, 1000),
      runtime: this.runtime,
      logger: silentLogger,
      settings: this.settings,
      views: this.views,
      growingBytes: () => [...owner.shards].reduce((sum, shard) => sum + shard.memoryBytes, 0),
      query: (request, context) => this.query(request, context),
      onEnded: () => {},
    });
    this.owners.push(owner);
    const started = owner.start();
    if (this.owners.length === 1) await started;
    return owner;
  }

  get owner(): ChannelOwner {
    const owner = this.owners.at(-1);
    if (!owner) throw new Error('nobody owns the channel');
    return owner;
  }

  stop(): void {
    for (const owner of this.owners) owner.end('the test is over');
  }

  request(
    shard: number,
    parts: {
      rows?: readonly Row[];
      deletes?: readonly number[];
      partition?: number;
      readTs?: number;
      requestId?: string;
      deletePartition?: number;
    },
  ): WriteRequest {
    const rows = parts.rows ?? [];
    const inserts =
      rows.length === 0
        ? []
        : [{ partitionId: parts.partition ?? DEFAULT_PARTITION, rows: rows.length, columns: encodeFrame(this.batch(rows)) }];
    const deletes = parts.deletes ?? [];
    const keyBatch = makeBatch([[100, keyColumn(deletes.map(BigInt))]]);
    return WriteRequest.fromPartial({
      vchannel: SHARDS[shard] ?? '',
      collectionId: COLLECTION,
      requestId: parts.requestId ?? `request-${++this.#requests}`,
      schemaVersion: this.catalog.record?.schemaVersion ?? 0,
      inserts,
      deletes: deletes.length > 0 ? encodeFrame(keyBatch) : new Uint8Array(0),
      deleteRows: deletes.length,
      readTs: parts.readTs ?? 0,
      deletePartitionId: parts.deletePartition ?? 0,
    });
  }

  batch(rows: readonly Row[]) {
    const { schema } = this.catalog;
    const values = (name: string) => {
      if (name === 'id') return rows.map((row) => BigInt(row.id));
      if (name === 'tag') return rows.map((row) => row.tag);
      return rows.map((row) => new Uint8Array(new Float32Array(DIM).fill(row.id % 1000).buffer));
    };
    return makeBatch(schema.fields.map((field) => [field.id, columnFromValues(field, values(field.name))] as const));
  }

  /** As the proxy does: again under the same id, at whoever owns the channel then, while the error says so. */
  async writeUntilDone(request: WriteRequest): Promise<WriteResponse> {
    for (;;) {
      try {
        return await this.owner.write(request, callContext());
      } catch (error) {
        if (!isRetriable(error)) throw error;
        await this.runtime.sleep(1);
      }
    }
  }

  async records<T>(prefix: string, decode: (bytes: Uint8Array) => T): Promise<T[]> {
    const found: T[] = [];
    for await (const page of scan(this.meta, prefix)) for (const entry of page) found.push(decode(entry.value));
    return found;
  }

  segments(): Promise<SegmentRecord[]> {
    return this.records(keys.segments(COLLECTION), (bytes) => SegmentRecord.decode(bytes));
  }

  deltaLogs(): Promise<DeltaLogRecord[]> {
    return this.records(keys.deltas(COLLECTION), (bytes) => DeltaLogRecord.decode(bytes));
  }

  async shardRecord(shard: number): Promise<ShardRecord> {
    const entry = await this.meta.get(keys.shard(COLLECTION, shard));
    if (!entry) throw new Error(`shard ${shard} has no record`);
    return ShardRecord.decode(entry.value);
  }

  /** Flushed rows visible at `ts`: keys and tags by shard, with every copy of a key counted. */
  async flushedRows(shard: number, ts: number): Promise<Row[]> {
    const rows: Row[] = [];
    const logs = (await this.deltaLogs()).filter((log) => log.shard === shard);
    for (const record of (await this.segments()).filter((segment) => segment.shard === shard)) {
      const segment = await openSegment({ objects: this.objects, runtime: this.runtime, record, schema: this.catalog.schema });
      for (const log of logs) {
        if (log.partitionId !== 0 && log.partitionId !== record.partitionId) continue;
        if (log.object) segment.applyDeletes(await readDeltaLog(this.objects, log.object));
      }
      rows.push(...(await visibleRows(segment, ts)));
    }
    return byId(rows);
  }

  /** Rows in the owner's memory that are visible at `ts`. */
  async growingRows(shard: number, ts: number): Promise<Row[]> {
    const rows: Row[] = [];
    for (const state of this.owner.shards) {
      if (state.index !== shard) continue;
      for (const part of state.parts()) rows.push(...(await visibleRows(part.segment, ts)));
    }
    return byId(rows);
  }
}

async function visibleRows(segment: ReadableSegment, ts: number): Promise<Row[]> {
  const bits = segment.visible(ts);
  const [ids, tags] = [await segment.column(100), await segment.column(101)];
  const rows: Row[] = [];
  for (let row = 0; row < segment.rows; row++) {
    if (bits && ((bits[row >> 3] ?? 0) & (1 << (row & 7))) === 0) continue;
    rows.push({ id: Number(valueAt(ids, row)), tag: String(valueAt(tags, row)) });
  }
  return rows;
}

export function byId(rows: readonly Row[]): Row[] {
  return [...rows].sort((a, b) => a.id - b.id || a.tag.localeCompare(b.tag));
}

export function callContext(options: { signal?: AbortSignal } = {}): CallContext {
  return { signal: options.signal ?? new AbortController().signal, metadata: new Map(), remaining: () => Number.POSITIVE_INFINITY };
}

/** Numbers in [0, 1) that a seed repeats. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
