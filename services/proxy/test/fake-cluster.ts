import { CairnError, loadConfig, makeTimestamp, SystemRuntime, silentLogger } from '@cairn/base';
import { CatalogView, keys } from '@cairn/catalog';
import { MemoryMetaStore, type Op } from '@cairn/meta';
import {
  ChannelRecord,
  CollectionRecord,
  ControlAppliedRecord,
  DatabaseRecord,
  IndexRecord,
  LeaderRecord,
  LoadRecord,
  PartitionRecord,
} from '@cairn/proto/cairn/meta';
import {
  DataCoordDefinition,
  type ShardQueryRequest,
  type ShardSearchRequest,
  StreamingDefinition,
  type WriteRequest,
} from '@cairn/proto/cairn/services';
import { MilvusServiceDefinition } from '@cairn/proto/milvus/milvus';
import { type Client, GrpcTransport, type Handlers, InProcessNetwork } from '@cairn/rpc';
import { encodeSchema, schemaFromWire } from '@cairn/schema';
import { ProxyService } from '../src/index.ts';
import { sampleSchema } from './sample-schema.ts';

export const COLLECTION_ID = 500;
export const UPDATED_TS = makeTimestamp(1_700_000_000_000, 7);

/** One owner of channels as the proxy sees it: keeps what it was sent, answers what the test says. */
export class FakeOwner {
  readonly address: string;
  writes: WriteRequest[] = [];
  searches: ShardSearchRequest[] = [];
  queries: ShardQueryRequest[] = [];
  /** Thrown by the next calls, one each. */
  failures: CairnError[] = [];
  /** Set: writes wait for it. */
  hangs: Promise<void> | undefined;
  handlers: Handlers<StreamingDefinition>;

  constructor(address: string) {
    this.address = address;
    const refuse = async (): Promise<never> => {
      throw new CairnError('NotSupported', 'not in this test');
    };
    this.handlers = {
      write: async (request) => {
        this.writes.push(request);
        await this.hangs;
        this.#fail();
        return { ts: UPDATED_TS + this.writes.length, sequence: this.writes.length };
      },
      search: async (request) => {
        this.searches.push(request);
        this.#fail();
        return refuse();
      },
      query: async (request) => {
        this.queries.push(request);
        this.#fail();
        return { columns: new Uint8Array(), count: 5, ts: UPDATED_TS };
      },
      flush: refuse,
      barrier: refuse,
      release: refuse,
      shardStats: refuse,
    };
  }

  #fail(): void {
    const failure = this.failures.shift();
    if (failure) throw failure;
  }
}

/** A proxy on a real port in front of a catalog in memory, a DataCoord that only counts, and owners that the test plays. */
export class FakeCluster {
  readonly runtime = new SystemRuntime();
  readonly meta = new MemoryMetaStore(this.runtime);
  readonly network = new InProcessNetwork(this.runtime);
  readonly owners = [new FakeOwner('inproc:owner-0'), new FakeOwner('inproc:owner-1')];
  readonly view = new CatalogView(this.meta, this.runtime, silentLogger);
  readonly submitted: unknown[] = [];
  readonly #transport = new GrpcTransport(this.runtime);
  readonly #proxy = new ProxyService({
    catalog: this.view,
    meta: this.meta,
    transport: this.network,
    runtime: this.runtime,
    logger: silentLogger,
    config: loadConfig({ env: {}, sets: ['proxy.port=0', 'proxy.requestTimeoutMs=3000'] }),
  });
  #clock = UPDATED_TS + 1_000_000;
  #nextId = 1_000;

  async start(): Promise<Client<MilvusServiceDefinition>> {
    for (const owner of this.owners) this.network.serve(owner.address, StreamingDefinition, owner.handlers);
    const refuse = async (): Promise<never> => {
      throw new CairnError('NotSupported', 'not in this test');
    };
    this.network.serve('inproc:datacoord', DataCoordDefinition, {
      submit: async (request) => {
        this.submitted.push(request.record?.change);
        const revision = await this.put({
          kind: 'put',
          key: keys.applied,
          value: ControlAppliedRecord.encode({ sequence: this.submitted.length, ts: 0 }).finish(),
        });
        return { revision, ts: 0, id: 1 };
      },
      allocTimestamps: async ({ count }) => {
        this.#clock += count;
        return { first: this.#clock - count };
      },
      allocIds: async ({ count }) => {
        this.#nextId += count;
        return { first: this.#nextId - count };
      },
      createSnapshot: refuse,
      dropSnapshot: refuse,
      listSnapshots: refuse,
      describeSnapshot: refuse,
      pinSnapshot: refuse,
      unpinSnapshot: refuse,
      restoreSnapshot: refuse,
      planRestore: refuse,
      cancelRestoreJob: refuse,
      getRestoreJob: async ({ jobId }) => {
        throw new CairnError('RestoreJobNotFound', `job ${jobId}`);
      },
      listRestoreJobs: refuse,
      compact: refuse,
      getCompaction: refuse,
      getIndexProgress: async () => ({ indexes: [{ indexId: 700, totalRows: 10, indexedRows: 4, failure: '' }] }),
      listSegments: refuse,
      getClusterStatus: refuse,
    });
    await this.put({
      kind: 'put',
      key: keys.leader,
      value: LeaderRecord.encode({ nodeId: 'd', address: 'inproc:datacoord', epoch: 1 }).finish(),
    });
    await this.put(...this.#catalog());
    for (const channel of ['dml_0', 'dml_1']) await this.own(channel, this.owners[Number(channel.at(-1))]);
    await this.view.start();
    await this.#proxy.start();
    return this.#transport.client(MilvusServiceDefinition, `127.0.0.1:${this.#proxy.port}`);
  }

  /** Of the proxy. */
  get port(): number {
    return this.#proxy.port;
  }

  async stop(): Promise<void> {
    this.#transport.close();
    await this.#proxy.stop();
    await this.view.stop();
  }

  /** Names the owner of a channel; undefined: nobody. */
  async own(channel: string, owner: FakeOwner | undefined): Promise<void> {
    const record = { channel, epoch: 1, nodeId: owner?.address ?? '', address: owner?.address ?? '', releasedSequence: 0 };
    await this.put({ kind: 'put', key: keys.channel(channel), value: ChannelRecord.encode(record).finish() });
  }

  async put(...ops: Op[]): Promise<number> {
    return (await this.meta.txn({ then: ops })).revision;
  }

  #catalog(): Op[] {
    const database = DatabaseRecord.fromPartial({ id: 1, name: 'default' });
    const collection = CollectionRecord.fromPartial({
      id: COLLECTION_ID,
      databaseId: 1,
      name: 'sample',
      schema: encodeSchema(schemaFromWire(sampleSchema())),
      shards: [0, 1].map((index) => ({ index, vchannel: `dml_${index}_${COLLECTION_ID}v${index}`, channel: `dml_${index}` })),
      consistencyLevel: 2,
      createdTs: UPDATED_TS,
      updatedTs: UPDATED_TS,
      schemaVersion: 1,
      properties: [{ key: 'p', value: 'q' }],
    });
    const partition = PartitionRecord.fromPartial({ id: 600, collectionId: COLLECTION_ID, name: '_default' });
    const index = IndexRecord.fromPartial({
      id: 700,
      collectionId: COLLECTION_ID,
      fieldId: 102,
      name: 'embedding',
      indexParams: [{ key: 'metric_type', value: 'COSINE' }],
      userParams: [{ key: 'index_type', value: 'AUTOINDEX' }],
    });
    return [
      { kind: 'put', key: keys.database(1), value: DatabaseRecord.encode(database).finish() },
      { kind: 'put', key: keys.collection(COLLECTION_ID), value: CollectionRecord.encode(collection).finish() },
      { kind: 'put', key: keys.partition(COLLECTION_ID, 600), value: PartitionRecord.encode(partition).finish() },
      { kind: 'put', key: keys.index(COLLECTION_ID, 700), value: IndexRecord.encode(index).finish() },
      {
        kind: 'put',
        key: keys.load(COLLECTION_ID),
        value: LoadRecord.encode(LoadRecord.fromPartial({ collectionId: COLLECTION_ID })).finish(),
      },
      { kind: 'put', key: keys.applied, value: ControlAppliedRecord.encode({ sequence: 0, ts: 0 }).finish() },
    ];
  }
}
