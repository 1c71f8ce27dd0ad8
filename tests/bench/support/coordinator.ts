/** One coordinator in this process on embedded stores, with an owner that answers barriers at once: what a catalog of any size costs it, alone. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadConfig, SystemRuntime, silentLogger } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { DataCoordService, type DataCoordSettings, defaultSettings } from '@cairn/datacoord';
import { DataNodeService } from '@cairn/datanode';
import type { IndexPool } from '@cairn/index';
import type { Op } from '@cairn/meta';
import type { ObjectStore } from '@cairn/objects';
import { CollectionRecord, IndexRecord, NodeRecord } from '@cairn/proto/cairn/meta';
import { DataCoordDefinition, DataNodeDefinition, StreamingDefinition } from '@cairn/proto/cairn/services';
import { UpkeepDefinition } from '@cairn/proto/cairn/upkeep';
import { ControlRecord } from '@cairn/proto/cairn/wal';
import { CollectionSchema, DataType } from '@cairn/proto/milvus/schema';
import { type Client, type Handlers, InProcessNetwork } from '@cairn/rpc';
import { openStores, type Stores } from '@cairn/stores';

export const SCHEMA = CollectionSchema.encode(
  CollectionSchema.fromPartial({
    name: 'synthetic',
    fields: [
      { fieldID: 100n, name: 'id', dataType: DataType.Int64, isPrimaryKey: true },
      { fieldID: 101n, name: 'vector', dataType: DataType.FloatVector, typeParams: [{ key: 'dim', value: '8' }] },
    ],
  }),
).finish();
/** Records in one transaction, and transactions under way. */
const PAGE = 90;
const PARALLEL = 64;

export interface Coordinator {
  readonly stores: Stores;
  readonly client: Client<typeof DataCoordDefinition>;
  readonly upkeep: Client<typeof UpkeepDefinition>;
  /** Answers with the ids of the collection and of its default partition. */
  createCollection(name: string, shards: number): Promise<{ readonly collection: number; readonly partition: number }>;
  createPartition(collection: string, name: string): Promise<void>;
  /** Answers with the id of the index. */
  createIndex(collection: string): Promise<number>;
  /** Another term of leadership: reads what `putAll` wrote. */
  again(): Promise<void>;
  /** Writes records straight into the catalog. */
  putAll(entries: Iterable<{ readonly key: string; readonly value: Uint8Array }>): Promise<void>;
  /** A datanode of this process, as far as tasks go. */
  datanode(id: string): Promise<void>;
  stop(): Promise<void>;
}

/** `objects`: instead of the disk. Upkeep runs only when asked for. */
export async function startCoordinator(
  settings: Partial<DataCoordSettings> = {},
  objects?: (disk: ObjectStore) => ObjectStore,
): Promise<Coordinator> {
  const runtime = new SystemRuntime();
  const dir = mkdtempSync(join(tmpdir(), 'cairn-coordinator-'));
  const config = loadConfig({ sets: [`dataDir=${dir}`], env: {} });
  const opened = await openStores(config, runtime, silentLogger);
  const stores: Stores = { ...opened, objects: objects?.(opened.objects) ?? opened.objects };
  const network = new InProcessNetwork(runtime);
  const streaming = { barrier: async () => ({ sequence: 1 }) } as unknown as Handlers<typeof StreamingDefinition>;
  network.serve('inproc:s1', StreamingDefinition, streaming);
  const node = NodeRecord.fromPartial({ id: 's1', role: 'streaming', address: 'inproc:s1', slots: 2 });
  await stores.meta.txn({ then: [{ kind: 'put', key: keys.node('streaming', 's1'), value: NodeRecord.encode(node).finish() }] });
  const address = 'inproc:a';
  /** Starts a coordinator that leads; the answer stops it. */
  const lead = async (): Promise<() => Promise<void>> => {
    const service = new DataCoordService({
      ...stores,
      transport: network,
      runtime,
      logger: silentLogger,
      settings: { ...defaultSettings, sweepPeriodMs: 3_600_000, gcIntervalMs: 3_600_000, assignSettleMs: 0, ...settings },
      nodeId: 'a',
      address,
    });
    const served = [
      network.serve(address, DataCoordDefinition, service.handlers),
      network.serve(address, UpkeepDefinition, service.upkeep),
    ];
    await service.start();
    while (!service.leading) await runtime.sleep(5);
    return async () => {
      for (const one of served) one.close();
      await service.stop();
    };
  };
  let stop = await lead();
  const client = network.client(DataCoordDefinition, 'inproc:a');
  let requests = 0;
  const nodes: DataNodeService[] = [];
  const submit = (change: unknown) =>
    client.submit({
      record: ControlRecord.fromPartial({ requestId: `r${requests++}`, change } as Parameters<typeof ControlRecord.fromPartial>[0]),
    });
  return {
    stores,
    client,
    upkeep: network.client(UpkeepDefinition, 'inproc:a'),
    createCollection: async (name, shards) => {
      const made = CollectionRecord.fromPartial({
        name,
        schema: SCHEMA,
        shards: Array.from({ length: shards }, (_, index) => ({ index })),
      });
      const { id } = await submit({
        $case: 'createCollection',
        value: { database: '', collection: made, partitions: [], checkpoints: [] },
      });
      const page = await stores.meta.range({ prefix: keys.partitions(id) });
      return { collection: id, partition: Number(page.entries[0]?.key.split('/').at(-1)) };
    },
    createPartition: async (collection, name) => {
      await submit({ $case: 'createPartition', value: { database: '', collection, name, id: 0 } });
    },
    createIndex: async (collection) => {
      const index = IndexRecord.fromPartial({
        indexParams: [
          { key: 'index_type', value: 'HNSW' },
          { key: 'metric_type', value: 'COSINE' },
        ],
      });
      return (await submit({ $case: 'createIndex', value: { database: '', collection, index, field: 'vector', restoreJobId: 0 } })).id;
    },
    again: async () => {
      await stop();
      stop = await lead();
    },
    putAll: async (entries) => {
      let page: Op[] = [];
      let under: Promise<unknown>[] = [];
      for (const entry of entries) {
        page.push({ kind: 'put', ...entry });
        if (page.length < PAGE) continue;
        under.push(stores.meta.txn({ then: page }));
        page = [];
        if (under.length >= PARALLEL) {
          await Promise.all(under);
          under = [];
        }
      }
      if (page.length > 0) under.push(stores.meta.txn({ then: page }));
      await Promise.all(under);
    },
    datanode: async (id) => {
      const address = `inproc:${id}`;
      const own = loadConfig({ sets: [`dataDir=${join(dir, id)}`], env: {} });
      // Copies need no index workers.
      const pool = {} as unknown as IndexPool;
      const service = new DataNodeService({
        ...stores,
        runtime,
        logger: silentLogger,
        config: own,
        pool,
        nodeId: id,
        address,
      });
      network.serve(address, DataNodeDefinition, service.handlers);
      await service.start();
      nodes.push(service);
    },
    stop: async () => {
      for (const service of nodes) await service.stop();
      await stop();
      await stores.close();
      rmSync(dir, { recursive: true, force: true });
    },
  };
}
