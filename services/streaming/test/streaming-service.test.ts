import { CairnError, isRetriable, loadConfig, SystemRuntime, silentLogger } from '@cairn/base';
import { CatalogView, keys } from '@cairn/catalog';
import { IndexPool } from '@cairn/index';
import { type Lease, MemoryMetaStore } from '@cairn/meta';
import { MemoryObjectStore } from '@cairn/objects';
import {
  ChannelRecord,
  CollectionRecord,
  LoadRecord,
  NodeRecord,
  PartitionRecord,
  SegmentRecord,
  ShardRecord,
} from '@cairn/proto/cairn/meta';
import { QueryPlan, ReadScope, SearchPlan, StreamingDefinition, type WriteRequest } from '@cairn/proto/cairn/services';
import { decodeQueryResult, decodeSearchResult } from '@cairn/query';
import { type Client, InProcessNetwork } from '@cairn/rpc';
import { encodeFrame, keyColumn, makeBatch, valueAt } from '@cairn/schema';
import { MemoryWalStore } from '@cairn/wal';
import { afterEach, describe, expect, it } from 'vitest';
import { StreamingService } from '../src/index.ts';
import { FakeDataNode, inline } from './fake-datanode.ts';
import { CHANNEL, COLLECTION, DEFAULT_PARTITION, FakeCatalog, FakeOracle, OTHER_PARTITION, type Row, SHARDS, World } from './world.ts';

/** A cluster of streaming nodes as DataCoord and the proxy see it: real service, view, registration; datanodes played. */
class Cluster {
  readonly runtime = inline(new SystemRuntime());
  readonly meta = new MemoryMetaStore(this.runtime);
  readonly objects = new MemoryObjectStore(this.runtime);
  readonly wal = new MemoryWalStore();
  readonly network = new InProcessNetwork(this.runtime);
  readonly oracle = new FakeOracle();
  readonly view = new CatalogView(this.meta, this.runtime, silentLogger);
  readonly pool = new IndexPool({ runtime: this.runtime, threads: 1 });
  /** Revision of each node's registration. */
  readonly registered = new Map<string, number | undefined>();
  readonly services = new Map<string, StreamingService>();
  readonly definition = new FakeCatalog();
  /** Only for its requests. */
  readonly maker = new World();
  readonly leases: Lease[] = [];
  /** Set: leases count as run out from this monotonic instant on. */
  leaseEndMs: number | undefined;
  #epoch = 0;

  async start(): Promise<void> {
    const grant = this.meta.grantLease.bind(this.meta);
    this.meta.grantLease = async (ttlMs) => {
      const lease = await grant(ttlMs);
      this.leases.push(lease);
      return {
        id: lease.id,
        ttlMs,
        lost: lease.lost,
        validUntil: () => this.leaseEndMs ?? lease.validUntil(),
        revoke: () => lease.revoke(),
      };
    };
    await this.wal.ensureChannel(CHANNEL);
    const { record, partitionRecords } = this.definition;
    if (!record) throw new Error('no collection');
    await this.#catalog(keys.collection(COLLECTION), CollectionRecord.encode(record).finish());
    for (const partition of partitionRecords)
      await this.#catalog(keys.partition(COLLECTION, partition.id), PartitionRecord.encode(partition).finish());
    for (const [shard, vchannel] of SHARDS.entries()) {
      const value = ShardRecord.encode({
        collectionId: COLLECTION,
        shard,
        vchannel,
        channel: CHANNEL,
        checkpoint: 0,
        checkpointTs: 0,
      }).finish();
      await this.meta.txn({ then: [{ kind: 'put', key: keys.shard(COLLECTION, shard), value }] });
    }
    await this.view.start();
  }

  async #catalog(key: string, value: Uint8Array): Promise<void> {
    await this.meta.txn({
      then: [
        { kind: 'put', key, value },
        { kind: 'put', key: keys.applied, value: new Uint8Array(0) },
      ],
    });
  }

  /** Another state of the collection, known to the process's view when this resolves. */
  async put(record: CollectionRecord): Promise<void> {
    await this.#catalog(keys.collection(COLLECTION), CollectionRecord.encode(record).finish());
    await this.view.sync();
  }

  load(): Promise<void> {
    return this.#catalog(
      keys.load(COLLECTION),
      LoadRecord.encode(LoadRecord.fromPartial({ collectionId: COLLECTION, requestedTs: this.oracle.now() })).finish(),
    );
  }

  async streaming(nodeId: string): Promise<StreamingService> {
    const { meta, objects, wal, network, view, pool, runtime, oracle } = this;
    const config = loadConfig({ env: {} });
    const address = `inproc:${nodeId}`;
    const service = new StreamingService({
      nodeId,
      address,
      meta,
      objects,
      wal,
      transport: network,
      catalog: view,
      pool,
      config,
      runtime,
      logger: silentLogger,
      stamps: oracle,
    });
    await service.start();
    this.registered.set(nodeId, (await meta.get(keys.node('streaming', nodeId)))?.createRevision);
    network.serve(address, StreamingDefinition, service.handlers);
    this.services.set(nodeId, service);
    return service;
  }

  async assign(nodeId: string): Promise<void> {
    const value = ChannelRecord.encode({
      channel: CHANNEL,
      epoch: ++this.#epoch,
      nodeId,
      address: `inproc:${nodeId}`,
      releasedSequence: 0,
    }).finish();
    await this.meta.txn({ then: [{ kind: 'put', key: keys.channel(CHANNEL), value }] });
  }

  async datanode(id: string): Promise<FakeDataNode> {
    const { meta, objects, runtime, network, definition } = this;
    return new FakeDataNode({ meta, objects, runtime, network, schema: () => definition.schema }, id).start();
  }

  /** As the proxy: whoever the record names, again while the error says so. */
  async call<T>(work: (owner: Client<typeof StreamingDefinition>) => Promise<T>): Promise<T> {
    for (let tries = 0; ; tries++) {
      try {
        const entry = await this.meta.get(keys.channel(CHANNEL));
        return await work(this.network.client(StreamingDefinition, entry ? ChannelRecord.decode(entry.value).address : 'nobody'));
      } catch (error) {
        if (!isRetriable(error) || tries > 200) throw error;
        await this.runtime.sleep(5);
      }
    }
  }

  write(rows: readonly Row[], deletes: readonly number[] = []) {
    return this.call((owner) => owner.write(this.maker.request(0, { rows, deletes })));
  }

  flush() {
    return this.call((owner) => owner.flush({ vchannel: SHARDS[0], collectionId: COLLECTION, wait: true }));
  }

  scope(more: Partial<ReadScope> = {}): ReadScope {
    return ReadScope.fromPartial({ vchannel: SHARDS[0], collectionId: COLLECTION, ...more });
  }

  async count(more: Partial<ReadScope> = {}): Promise<number> {
    return (await this.call((owner) => owner.query({ scope: this.scope(more), plan: QueryPlan.fromPartial({ countOnly: true }) }))).count;
  }

  async ids(more: Partial<ReadScope> = {}, limit = 0): Promise<number[]> {
    const result = await this.call((owner) =>
      owner.query({ scope: this.scope(more), plan: QueryPlan.fromPartial({ outputFieldIds: [100], limit }) }),
    );
    const column = decodeQueryResult(result).columns.columns.get(100);
    return column ? Array.from({ length: column.length }, (_, row) => Number(valueAt(column, row))) : [];
  }

  async stop(): Promise<void> {
    for (const service of this.services.values()) await service.stop();
    await this.view.stop();
  }
}

let cluster: Cluster;
afterEach(() => cluster.stop());

async function open(): Promise<Cluster> {
  cluster = new Cluster();
  await cluster.start();
  await cluster.streaming('s1');
  await cluster.assign('s1');
  return cluster;
}

const rowsOf = (from: number, count: number): Row[] => Array.from({ length: count }, (_, at) => ({ id: from + at, tag: 'x' }));

describe('a streaming node', () => {
  it('answers for the channels that are assigned to it after it registered, and for no others', async () => {
    cluster = new Cluster();
    await cluster.start();
    // Assigned to an earlier process of this name.
    await cluster.assign('s1');
    await cluster.streaming('s1');
    const owner = cluster.network.client(StreamingDefinition, 'inproc:s1');
    const request = cluster.maker.request(0, { rows: rowsOf(1, 1) });
    await cluster.runtime.sleep(20);
    await expect(owner.write(request)).rejects.toMatchObject({ codeName: 'ChannelNotAvailable', retriable: true });
    await cluster.assign('s1');
    await expect(cluster.write(rowsOf(1, 1))).resolves.toMatchObject({ ts: expect.any(Number) });
    await expect(owner.write({ ...request, vchannel: 'dml_9_1001v0' })).rejects.toMatchObject({ codeName: 'ChannelNotAvailable' });
  });

  it('reads growing and sealed rows together, each once, in key order', async () => {
    await open();
    await cluster.load();
    await cluster.write(rowsOf(100, 50));
    expect(await cluster.ids()).toEqual(rowsOf(100, 50).map((row) => row.id));
    const node = await cluster.datanode('d1');
    const flushed = await cluster.flush();
    expect(flushed.segmentIds).toHaveLength(1);
    await cluster.write(rowsOf(0, 50), [120]);
    for (let waited = 0; node.held.size === 0 && waited < 2000; waited += 10) await cluster.runtime.sleep(10);
    const ids = await cluster.ids({}, 70);
    expect(ids).toEqual([...rowsOf(0, 50), ...rowsOf(100, 20)].map((row) => row.id));
    // The owner says up to which delete the datanode must be, and at which timestamp to read.
    const scope = node.scopes.at(-1);
    expect(scope?.segmentIds).toEqual(flushed.segmentIds);
    expect(scope?.deleteSequence).toBeGreaterThan(0);
    expect(scope?.readTs).toBe(cluster.oracle.last);
    const again = await cluster.flush();
    expect(again.flushedSegmentIds).toEqual(flushed.segmentIds);
  });

  it('finds the nearest rows of both', async () => {
    await open();
    await cluster.datanode('d1');
    await cluster.load();
    await cluster.write(rowsOf(0, 100));
    await cluster.flush();
    await cluster.write(rowsOf(200, 100));
    const plan = SearchPlan.fromPartial({
      fieldId: 102,
      metric: 'L2',
      nq: 1,
      topK: 3,
      queries: new Uint8Array(new Float32Array(32).fill(200.4).buffer),
      outputFieldIds: [100],
      params: '{}',
    });
    const hits = decodeSearchResult(await cluster.call((owner) => owner.search({ scope: cluster.scope(), plan })));
    const column = hits.columns.columns.get(100);
    expect([0, 1, 2].map((row) => column && Number(valueAt(column, row)))).toEqual([200, 201, 202]);
    const between = { ...plan, queries: new Uint8Array(new Float32Array(32).fill(149.6).buffer) };
    const both = decodeSearchResult(await cluster.call((owner) => owner.search({ scope: cluster.scope(), plan: between })));
    const merged = both.columns.columns.get(100);
    expect([0, 1, 2].map((row) => merged && Number(valueAt(merged, row)))).toEqual([200, 99, 201]);
  });

  it('shows at a guarantee timestamp every write before it, and an exact read timestamp what was visible then', async () => {
    await open();
    await cluster.load();
    const first = await cluster.write(rowsOf(1, 5));
    const second = await cluster.write(rowsOf(6, 5), [1]);
    expect(await cluster.count({ guaranteeTs: cluster.oracle.now() })).toBe(9);
    expect(await cluster.ids({ readTs: first.ts })).toEqual([1, 2, 3, 4, 5]);
    expect(await cluster.ids({ readTs: second.ts })).toEqual([2, 3, 4, 5, 6, 7, 8, 9, 10]);
  });

  it('shows no row that has outlived collection.ttl.seconds, growing or sealed, and at a time of its own what lived then', async () => {
    await open();
    const { record } = cluster.definition;
    if (!record) throw new Error('no collection');
    // The oracle of this test stands in 2020, the clock does not.
    await cluster.load();
    const node = await cluster.datanode('d1');
    const { ts } = await cluster.write(rowsOf(1, 5));
    await cluster.flush();
    for (let waited = 0; node.held.size === 0 && waited < 2000; waited += 10) await cluster.runtime.sleep(10);
    await cluster.write(rowsOf(6, 5));
    await cluster.put({ ...record, properties: [{ key: 'collection.ttl.seconds', value: String(50 * 365 * 24 * 3600) }] });
    expect(await cluster.count()).toBe(10);
    await cluster.put({ ...record, properties: [{ key: 'collection.ttl.seconds', value: '3600' }] });
    expect(await cluster.count()).toBe(0);
    expect(await cluster.ids()).toEqual([]);
    expect(await cluster.ids({ readTs: ts })).toEqual([1, 2, 3, 4, 5]);
    await cluster.put({ ...record, properties: [{ key: 'collection.ttl.seconds', value: '-1' }] });
    expect(await cluster.count()).toBe(10);
  });

  it('never reads at a timestamp whose deleted rows a compaction has left out: picks a later one, or refuses', async () => {
    await open();
    await cluster.load();
    const first = await cluster.write(rowsOf(1, 5));
    const node = await cluster.datanode('d1');
    const { segmentIds } = await cluster.flush();
    for (let waited = 0; node.held.size === 0 && waited < 2000; waited += 10) await cluster.runtime.sleep(10);
    expect(await cluster.ids({ readTs: first.ts })).toHaveLength(5);
    const key = keys.segment(COLLECTION, segmentIds[0] ?? 0);
    const entry = await cluster.meta.get(key);
    if (!entry) throw new Error('no segment');
    const purgedTs = cluster.oracle.last + 7;
    const value = SegmentRecord.encode({ ...SegmentRecord.decode(entry.value), id: 77, compactedFrom: segmentIds, purgedTs }).finish();
    await cluster.meta.txn({ then: [{ kind: 'put', key: keys.segment(COLLECTION, 77), value }] });
    for (let waited = 0; !node.held.has(77) && waited < 2000; waited += 10) await cluster.runtime.sleep(10);
    expect(await cluster.ids()).toHaveLength(5);
    expect(node.scopes.at(-1)).toMatchObject({ segmentIds: [77] });
    expect(node.scopes.at(-1)?.readTs).toBeGreaterThanOrEqual(purgedTs);
    await expect(cluster.ids({ readTs: first.ts })).rejects.toMatchObject({ codeName: 'InvalidParameter', message: /purged/ });
  });

  it('refuses to read what is not loaded', async () => {
    await open();
    await cluster.write(rowsOf(1, 5));
    await expect(cluster.count()).rejects.toMatchObject({ codeName: 'CollectionNotLoaded' });
    await cluster.load();
    await expect(cluster.count({ partitionIds: [4711] })).rejects.toMatchObject({ codeName: 'PartitionNotLoaded' });
    expect(await cluster.count({ partitionIds: [DEFAULT_PARTITION] })).toBe(5);
    expect(await cluster.count({ partitionIds: [OTHER_PARTITION] })).toBe(0);
  });

  it('reads on when a datanode dies: the rows are read elsewhere, never left out', async () => {
    await open();
    const [one, two] = [await cluster.datanode('d1'), await cluster.datanode('d2')];
    await cluster.load();
    for (let i = 0; i < 6; i++) {
      await cluster.write(rowsOf(i * 10, 10));
      await cluster.flush();
    }
    for (let waited = 0; one.held.size + two.held.size < 6 && waited < 2000; waited += 10) await cluster.runtime.sleep(10);
    const killed = one.kill(100);
    const counts = await Promise.all(Array.from({ length: 10 }, () => cluster.count()));
    expect(counts).toEqual(Array.from({ length: 10 }, () => 60));
    await killed;
    expect(two.held.size).toBe(6);
  });

  it('leaves a datanode that does not answer when its key is gone, and reads elsewhere', async () => {
    await open();
    const [one, two] = [await cluster.datanode('d1'), await cluster.datanode('d2')];
    await cluster.load();
    for (let i = 0; i < 6; i++) {
      await cluster.write(rowsOf(i * 10, 10));
      await cluster.flush();
    }
    for (let waited = 0; one.held.size + two.held.size < 6 && waited < 2000; waited += 10) await cluster.runtime.sleep(10);
    expect(one.held.size).toBeGreaterThan(0);
    one.hangs = new Promise(() => undefined);
    const count = cluster.count();
    await cluster.runtime.sleep(50);
    await cluster.meta.txn({ then: [{ kind: 'delete', key: keys.node('datanode', 'd1') }] });
    expect(await count).toBe(60);
  });

  it('hands its channels on: the next owner has every acknowledged row, and the old one answers nothing', async () => {
    await open();
    await cluster.load();
    await cluster.write(rowsOf(1, 10));
    await cluster.streaming('s2');
    await cluster.assign('s2');
    expect(await cluster.count()).toBe(10);
    const old = cluster.network.client(StreamingDefinition, 'inproc:s1');
    await expect(old.query({ scope: cluster.scope(), plan: QueryPlan.fromPartial({ countOnly: true }) })).rejects.toMatchObject({
      codeName: 'ChannelNotAvailable',
    });
    await cluster.services.get('s2')?.stop();
    cluster.services.delete('s2');
    expect(await cluster.meta.get(keys.node('streaming', 's2'))).toBeUndefined();
    await cluster.assign('s1');
    expect(await cluster.count()).toBe(10);
  });

  it('releases a channel when it is asked: in flight resolved, the record free at its epoch, nothing answered any more', async () => {
    await open();
    await cluster.load();
    const written = await cluster.write(rowsOf(1, 10));
    const old = cluster.network.client(StreamingDefinition, 'inproc:s1');
    await expect(old.release({ channel: CHANNEL, epoch: 7 })).rejects.toMatchObject({ codeName: 'ChannelNotAvailable' });
    const waiting = old.write(cluster.maker.request(0, { rows: rowsOf(11, 5) })).then(
      () => 'durable',
      (error: unknown) => (isRetriable(error) ? 'again' : error),
    );
    const { sequence } = await old.release({ channel: CHANNEL, epoch: 1 });
    expect(['durable', 'again']).toContain(await waiting);
    expect(sequence).toBeGreaterThanOrEqual(written.sequence);
    const entry = await cluster.meta.get(keys.channel(CHANNEL));
    expect(entry && ChannelRecord.decode(entry.value)).toMatchObject({ nodeId: '', epoch: 1, releasedSequence: sequence });
    for (const late of [
      old.write(cluster.maker.request(0, { rows: rowsOf(50, 1) })),
      old.query({ scope: cluster.scope(), plan: QueryPlan.fromPartial({ countOnly: true }) }),
    ])
      await expect(late).rejects.toMatchObject({ codeName: 'ChannelNotAvailable', retriable: true });
    await cluster.streaming('s2');
    await cluster.assign('s2');
    expect(await cluster.count()).toBe((await waiting) === 'durable' ? 15 : 10);
  });

  it('keeps a channel while a barrier runs on it', async () => {
    await open();
    await cluster.write(rowsOf(1, 10));
    const owner = cluster.network.client(StreamingDefinition, 'inproc:s1');
    const held = Promise.withResolvers<void>();
    cluster.objects.put = new Proxy(cluster.objects.put, {
      apply: async (put, self, args) => {
        await held.promise;
        return Reflect.apply(put, self, args);
      },
    });
    const barrier = owner.barrier({ vchannel: SHARDS[0], collectionId: COLLECTION, snapshotId: 5, ts: cluster.oracle.now() });
    await cluster.runtime.sleep(20);
    await expect(owner.release({ channel: CHANNEL, epoch: 1 })).rejects.toMatchObject({ codeName: 'ServiceNotReady', retriable: true });
    held.resolve();
    await barrier;
    await owner.release({ channel: CHANNEL, epoch: 1 });
  });

  it('serves while it drains at a stop, and ends when its channels were taken over', async () => {
    await open();
    await cluster.streaming('s2');
    await cluster.meta.txn({ then: [{ kind: 'put', key: keys.leader, value: new Uint8Array() }] });
    const stopping = cluster.services.get('s1')?.stop();
    cluster.services.delete('s1');
    const key = keys.node('streaming', 's1');
    const record = async () => NodeRecord.decode((await cluster.meta.get(key))?.value ?? new Uint8Array());
    for (let tries = 0; !(await record()).draining; tries++) {
      if (tries > 200) throw new Error('the node does not say that it drains');
      await cluster.runtime.sleep(5);
    }
    const old = cluster.network.client(StreamingDefinition, 'inproc:s1');
    await old.write(cluster.maker.request(0, { rows: rowsOf(1, 3) }));
    expect((await cluster.meta.get(key))?.createRevision).toBe(cluster.registered.get('s1'));
    await old.release({ channel: CHANNEL, epoch: 1 });
    await cluster.assign('s2');
    await stopping;
    expect(await cluster.meta.get(key)).toBeUndefined();
    await cluster.load();
    expect(await cluster.count()).toBe(3);
  });

  it('answers no read once its lease may have run out, though nobody has told it yet; writes are fenced by the log', async () => {
    await open();
    await cluster.load();
    await cluster.write(rowsOf(1, 10));
    const owner = cluster.network.client(StreamingDefinition, 'inproc:s1');
    const read = () => owner.query({ scope: cluster.scope(), plan: QueryPlan.fromPartial({ countOnly: true }) });
    expect((await read()).count).toBe(10);
    cluster.leaseEndMs = cluster.runtime.monotonic();
    await expect(read()).rejects.toMatchObject({ codeName: 'ChannelNotAvailable', retriable: true });
    await expect(cluster.write(rowsOf(20, 1))).resolves.toBeDefined();
  });

  it('steps down when its lease is lost: waiting and later requests fail retriably', async () => {
    await open();
    const { promise, resolve } = Promise.withResolvers<void>();
    cluster.oracle.gate = promise;
    const owner = cluster.network.client(StreamingDefinition, 'inproc:s1');
    const waiting = owner.write(cluster.maker.request(0, { rows: rowsOf(1, 1) })).catch((error: unknown) => error);
    await cluster.runtime.sleep(10);
    await cluster.meta.loseLease(cluster.leases[0]?.id ?? '');
    expect(isRetriable(await waiting)).toBe(true);
    resolve();
    await cluster.runtime.sleep(10);
    expect(cluster.services.get('s1')?.lost.aborted).toBe(true);
    await expect(owner.write(cluster.maker.request(0, { rows: rowsOf(2, 1) }))).rejects.toMatchObject({ codeName: 'ChannelNotAvailable' });
    expect((await cluster.meta.get(keys.node('streaming', 's1')))?.key).toBeUndefined();
  });

  it('gives a channel back whose log failed, so that it is assigned anew', async () => {
    await open();
    await cluster.write(rowsOf(1, 1));
    // Someone wrote with a higher epoch, and DataCoord did not name an owner yet.
    const { openChannelWriter } = await import('@cairn/wal');
    (await openChannelWriter(cluster.wal, CHANNEL, 77, { runtime: cluster.runtime, logger: silentLogger })).close();
    const lost = await cluster.network
      .client(StreamingDefinition, 'inproc:s1')
      .write(cluster.maker.request(0, { rows: rowsOf(2, 1) }))
      .catch((error: unknown) => error);
    expect(lost).toBeInstanceOf(CairnError);
    expect(isRetriable(lost)).toBe(true);
    for (let waited = 0; waited < 2000; waited += 10) {
      const entry = await cluster.meta.get(keys.channel(CHANNEL));
      if (entry && ChannelRecord.decode(entry.value).nodeId === '') return;
      await cluster.runtime.sleep(10);
    }
    throw new Error('the channel was not given back');
  });

  it('tells what each shard has where', async () => {
    await open();
    await cluster.datanode('d1');
    await cluster.write(rowsOf(1, 10));
    await cluster.flush();
    await cluster.write(rowsOf(20, 3));
    const stats = () => cluster.call(async (owner) => (await owner.shardStats({ vchannels: [SHARDS[0]] })).shards[0]);
    expect(await stats()).toMatchObject({ growingRows: 3, sealedRows: 10, loadedRows: 0, loaded: false });
    await cluster.load();
    for (let waited = 0; waited < 2000 && (await stats())?.loaded !== true; waited += 10) await cluster.runtime.sleep(10);
    expect(await stats()).toMatchObject({
      growingRows: 3,
      sealedRows: 10,
      loadedRows: 10,
      loaded: true,
      holders: [{ nodeId: 'd1', rows: 10 }],
    });
  });

  it('refuses damaged frames with an error, and goes on', async () => {
    await open();
    const good = cluster.maker.request(0, { rows: rowsOf(1, 3) });
    const damaged: WriteRequest[] = [
      { ...good, requestId: 'a', inserts: good.inserts.map((part) => ({ ...part, columns: part.columns.slice(0, 20) })) },
      { ...good, requestId: 'b', inserts: good.inserts.map((part) => ({ ...part, rows: 4 })) },
      { ...good, requestId: 'c', deletes: encodeFrame(makeBatch([[100, keyColumn(['text'])]])), deleteRows: 1 },
      {
        ...good,
        requestId: 'd',
        inserts: good.inserts.map((part) => ({ ...part, columns: encodeFrame(makeBatch([[100, keyColumn([1n, 2n, 3n])]])) })),
      },
    ];
    for (const request of damaged) await expect(cluster.call((owner) => owner.write(request))).rejects.toBeInstanceOf(CairnError);
    await cluster.load();
    await cluster.write(rowsOf(1, 3));
    expect(await cluster.count()).toBe(3);
  });
});
