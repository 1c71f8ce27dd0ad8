import { createLogger, type Runtime, randomId, SystemRuntime, silentLogger } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { MemoryMetaStore, type MetaStore } from '@cairn/meta';
import { MemoryObjectStore, type ObjectStore } from '@cairn/objects';
import { ChannelRecord, CollectionRecord, IndexRecord, NodeRecord } from '@cairn/proto/cairn/meta';
import {
  type BarrierRequest,
  DataCoordDefinition,
  DataNodeDefinition,
  type ReleaseRequest,
  StreamingDefinition,
  type SubmitResponse,
  type TaskRequest,
  type TaskUpdate,
} from '@cairn/proto/cairn/services';
import { ControlRecord } from '@cairn/proto/cairn/wal';
import { CollectionSchema, DataType } from '@cairn/proto/milvus/schema';
import { type CallContext, type Client, type Handlers, InProcessNetwork } from '@cairn/rpc';
import { MemoryWalStore, type WalStore } from '@cairn/wal';
import type { Change } from '../src/changes/table.ts';
import { DataCoordService, type DataCoordSettings, defaultSettings } from '../src/index.ts';

export interface WorldOptions {
  readonly settings?: Partial<DataCoordSettings>;
  readonly runtime?: Runtime;
  /** Puts something before a store (faults). */
  readonly meta?: (inner: MetaStore) => MetaStore;
  readonly wal?: (inner: WalStore) => WalStore;
  readonly objects?: (inner: ObjectStore) => ObjectStore;
}

type Task = (request: TaskRequest, context: CallContext) => AsyncIterable<TaskUpdate>;

/** Memory stores, coordinators, and other services as far as a coordinator sees them. */
export class World {
  readonly runtime: Runtime;
  readonly meta: MemoryMetaStore;
  readonly wal = new MemoryWalStore();
  readonly objects: MemoryObjectStore;
  readonly network: InProcessNetwork;
  readonly barriers: BarrierRequest[] = [];
  onBarrier: (request: BarrierRequest) => Promise<void> = async () => {};
  /** Channels that were asked for. */
  readonly released: string[] = [];
  onRelease: (channel: string) => Promise<void> = async () => {};
  task: Task;
  readonly #options: WorldOptions;
  readonly #started: DataCoordService[] = [];

  constructor(options: WorldOptions = {}) {
    this.#options = options;
    this.runtime = options.runtime ?? new SystemRuntime();
    this.meta = new MemoryMetaStore(this.runtime);
    this.objects = new MemoryObjectStore(this.runtime);
    this.network = new InProcessNetwork(this.runtime);
    this.task = (request) => this.copyForReal(request);
  }

  /** A coordinator that campaigns; with `wait`, until it serves. */
  async coordinator(nodeId: string, wait = true): Promise<DataCoordService> {
    const { settings = {}, meta = (x: MetaStore) => x, wal = (x: WalStore) => x, objects = (x: ObjectStore) => x } = this.#options;
    const address = `inproc:${nodeId}`;
    const service = new DataCoordService({
      meta: meta(this.meta),
      objects: objects(this.objects),
      wal: wal(this.wal),
      transport: this.network,
      runtime: this.runtime,
      logger: process.env.TEST_LOG ? createLogger({ level: 'debug' }).child({ nodeId }) : silentLogger,
      settings: { ...defaultSettings, sweepPeriodMs: 100, gcGraceMs: 200, compactionEnabled: false, ...settings },
      nodeId,
      address,
    });
    this.#started.push(service);
    this.network.serve(address, DataCoordDefinition, service.handlers);
    await service.start();
    if (wait) await this.until(() => service.leading, `${nodeId} leads`);
    return service;
  }

  client(nodeId: string): Client<typeof DataCoordDefinition> {
    return this.network.client(DataCoordDefinition, `inproc:${nodeId}`);
  }

  async until(condition: () => boolean | Promise<boolean>, what: string, withinMs = 60_000): Promise<void> {
    const end = this.runtime.monotonic() + withinMs;
    while (!(await condition())) {
      if (this.runtime.monotonic() > end) throw new Error(`not within ${withinMs} ms: ${what}`);
      await this.runtime.sleep(5);
    }
  }

  async node(role: 'streaming' | 'datanode', id: string): Promise<{ leave(): Promise<void> }> {
    const address = `inproc:${id}`;
    const record = NodeRecord.fromPartial({ id, role, address, slots: 2 });
    await this.meta.txn({ then: [{ kind: 'put', key: keys.node(role, id), value: NodeRecord.encode(record).finish() }] });
    const served =
      role === 'streaming'
        ? this.network.serve(address, StreamingDefinition, this.#streaming())
        : this.network.serve(address, DataNodeDefinition, this.#datanode());
    return {
      leave: async () => {
        await this.meta.txn({ then: [{ kind: 'delete', key: keys.node(role, id) }] });
        served.close();
      },
    };
  }

  #streaming(): Handlers<typeof StreamingDefinition> {
    const barrier = async (request: BarrierRequest) => {
      this.barriers.push(request);
      await this.onBarrier(request);
      return { sequence: 1 };
    };
    /** Gives the record back as an owner does. */
    const release = async ({ channel, epoch }: ReleaseRequest) => {
      this.released.push(channel);
      await this.onRelease(channel);
      const record = { channel, epoch, nodeId: '', address: '', releasedSequence: 9 };
      await this.meta.txn({ then: [{ kind: 'put', key: keys.channel(channel), value: ChannelRecord.encode(record).finish() }] });
      return { sequence: 9 };
    };
    return { barrier, release } as unknown as Handlers<typeof StreamingDefinition>;
  }

  #datanode(): Handlers<typeof DataNodeDefinition> {
    return { runTask: (request: TaskRequest, context: CallContext) => this.task(request, context) } as unknown as Handlers<
      typeof DataNodeDefinition
    >;
  }

  async *copyForReal(request: TaskRequest): AsyncGenerator<TaskUpdate> {
    const copied = [];
    if (request.task?.$case === 'copy') {
      for (const { source, targetKey } of request.task.value.objects) {
        if (!source) continue;
        const info = await this.objects.copy(source.key, targetKey);
        copied.push({ ...source, key: targetKey, etag: info.etag, size: info.size });
        yield { doneBytes: info.size, doneObjects: 1, finished: false, objects: [], rows: 0, compacted: undefined, rewritten: [] };
      }
    }
    yield { doneBytes: 0, doneObjects: 0, finished: true, objects: copied, rows: 0, compacted: undefined, rewritten: [] };
  }

  submit(nodeId: string, change: Change, requestId = randomId(this.runtime)): Promise<SubmitResponse> {
    return this.client(nodeId).submit({
      record: ControlRecord.fromPartial({ requestId, change } as Parameters<typeof ControlRecord.fromPartial>[0]),
    });
  }

  createCollection(nodeId: string, name: string, requestId?: string, shards = 2): Promise<SubmitResponse> {
    const collection = CollectionRecord.fromPartial({
      name,
      schema: schemaOf(name),
      shards: Array.from({ length: shards }, (_, index) => ({ index })),
    });
    return this.submit(
      nodeId,
      { $case: 'createCollection', value: { database: '', collection, partitions: [], checkpoints: [] } },
      requestId,
    );
  }

  createIndex(nodeId: string, collection: string): Promise<SubmitResponse> {
    const index = IndexRecord.fromPartial({
      indexParams: [
        { key: 'index_type', value: 'HNSW' },
        { key: 'metric_type', value: 'COSINE' },
      ],
    });
    return this.submit(nodeId, { $case: 'createIndex', value: { database: '', collection, index, field: 'vector', restoreJobId: 0 } });
  }

  /** Stops the coordinators; the stores stay. */
  async stopCoordinators(): Promise<void> {
    for (const service of this.#started.splice(0)) await service.stop();
  }

  async stop(): Promise<void> {
    for (const service of this.#started) await service.stop();
    await this.meta.close();
  }
}

/** A key, a vector of 8, a word. */
export function schemaOf(name: string): Uint8Array {
  return CollectionSchema.encode(
    CollectionSchema.fromPartial({
      name,
      fields: [
        { fieldID: 100n, name: 'id', dataType: DataType.Int64, isPrimaryKey: true },
        { fieldID: 101n, name: 'vector', dataType: DataType.FloatVector, typeParams: [{ key: 'dim', value: '8' }] },
        { fieldID: 102n, name: 'word', dataType: DataType.VarChar, typeParams: [{ key: 'max_length', value: '64' }], nullable: true },
      ],
    }),
  ).finish();
}
