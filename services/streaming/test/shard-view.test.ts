import { deferred, silentLogger } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { GroupRecord, IndexBuildState, SegmentIndexRecord, SegmentRecord } from '@cairn/proto/cairn/meta';
import { InProcessNetwork } from '@cairn/rpc';
import { valueAt } from '@cairn/schema';
import type { SealedSegment } from '@cairn/segment';
import { afterEach, describe, expect, it } from 'vitest';
import { NodeLoads } from '../src/node-loads.ts';
import { placeSegment } from '../src/placement.ts';
import type { Shard } from '../src/shard.ts';
import type { ReadView, ShardView } from '../src/shard-view.ts';
import { FakeDataNode } from './fake-datanode.ts';
import { byId, COLLECTION, callContext, DEFAULT_PARTITION, OTHER_PARTITION, type Row, SHARDS, World } from './world.ts';

let world: World;
let network: InProcessNetwork;
let loads: NodeLoads;
let nodes: FakeDataNode[];

function datanode(id: string): FakeDataNode {
  const { meta, objects, runtime, catalog } = world;
  const node = new FakeDataNode({ meta, objects, runtime, network, schema: () => catalog.schema }, id);
  nodes.push(node);
  return node;
}

async function open(): Promise<World> {
  world = new World();
  nodes = [];
  network = new InProcessNetwork(world.runtime);
  loads = new NodeLoads({
    meta: world.meta,
    transport: network,
    catalog: world.catalog,
    runtime: world.runtime,
    logger: silentLogger,
    loadTimeoutMs: 5000,
  });
  loads.start();
  world.views = loads;
  await world.create();
  await world.assign();
  return world;
}

afterEach(async () => {
  world.stop();
  await loads.stop();
});

const rowsOf = (from: number, count: number, tag = 'first'): Row[] => Array.from({ length: count }, (_, at) => ({ id: from + at, tag }));

async function flush(): Promise<void> {
  const { tickets } = await world.owner.seal({ vchannel: SHARDS[0], collectionId: COLLECTION, wait: true }, callContext().signal);
  await Promise.all(tickets.map((ticket) => ticket.done));
}

async function load(partitionIds: number[] = []): Promise<void> {
  world.catalog.loaded = { collectionId: COLLECTION, partitionIds, requestedTs: 1, replicas: 1, resourceGroups: [], loadFieldIds: [] };
  await world.owner.catalogChanged(COLLECTION);
}

function shard(): Shard {
  for (const state of world.owner.shards) if (state.index === 0) return state;
  throw new Error('no shard 0');
}

function view(): ShardView {
  const found = loads.viewOf(shard());
  if (!found) throw new Error('shard 0 is not loaded');
  return found;
}

/** Every row of the sources of a view, each as often as it is there. */
async function rowsOfView(sources: ReadView): Promise<Row[]> {
  const rows: Row[] = [];
  const take = async (segment: Pick<SealedSegment, 'rows' | 'visible' | 'column'>): Promise<void> => {
    const bits = segment.visible(Number.MAX_SAFE_INTEGER);
    const [ids, tags] = [await segment.column(100), await segment.column(101)];
    for (let row = 0; row < segment.rows; row++) {
      if (bits && ((bits[row >> 3] ?? 0) & (1 << (row & 7))) === 0) continue;
      rows.push({ id: Number(valueAt(ids, row)), tag: String(valueAt(tags, row)) });
    }
  };
  for (const { segment } of sources.growing) await take(segment.capture());
  for (const { node, segmentIds } of sources.holders) {
    for (const id of segmentIds) {
      const held = nodes.find((one) => one.id === node.nodeId)?.held.get(id);
      if (!held) throw new Error(`segment ${id} is not on ${node.nodeId}`);
      await take(held);
    }
  }
  return byId(rows);
}

async function read(partitionIds: number[] = [], signal = AbortSignal.timeout(3000)): Promise<Row[]> {
  const sources = await view().acquire(partitionIds, signal);
  try {
    return await rowsOfView(sources);
  } finally {
    sources.release();
  }
}

async function until(condition: () => boolean): Promise<void> {
  for (let waited = 0; !condition(); waited += 5) {
    if (waited > 3000) throw new Error('it did not happen');
    await world.runtime.sleep(5);
  }
}

describe('a view of a loaded shard', () => {
  it('shows each row once, growing, while it is flushed, and sealed', async () => {
    await open();
    await datanode('a').start();
    await load();
    let reading = true;
    let reads = 0;
    let written = 0;
    const reader = (async () => {
      while (reading) {
        const atLeast = written;
        const rows = await read();
        expect(new Set(rows.map((row) => row.id)).size).toBe(rows.length);
        expect(rows.length).toBeGreaterThanOrEqual(atLeast);
        reads++;
        await world.runtime.sleep(1);
      }
    })();
    for (let i = 0; i < 8; i++) {
      await world.owner.write(world.request(0, { rows: rowsOf(i * 10, 10) }), callContext());
      written += 10;
      await world.runtime.sleep(8);
      if (i % 2 === 1) await flush();
    }
    await until(() => view().progress.complete);
    reading = false;
    await reader;
    expect(reads).toBeGreaterThan(5);
    expect(await read()).toEqual(rowsOf(0, 80));
    // What a datanode serves is not kept here.
    expect(shard().parts()).toEqual([]);
    expect(nodes[0]?.held.size).toBe(4);
  });

  it('reads the growing source until the datanode has loaded the sealed one', async () => {
    await open();
    const node = datanode('a');
    const gate = deferred<void>();
    node.gate = gate.promise;
    await node.start();
    await load();
    await world.owner.write(world.request(0, { rows: rowsOf(0, 10) }), callContext());
    await flush();
    expect(await read()).toEqual(rowsOf(0, 10));
    await until(() => node.loads.length > 0);
    const sources = await view().acquire([], callContext().signal);
    expect([sources.growing.length, sources.holders.length]).toEqual([1, 0]);
    gate.resolve();
    await until(() => view().progress.loadedRows === 10);
    // A request that began before the swap still has its source.
    expect(await rowsOfView(sources)).toEqual(rowsOf(0, 10));
    sources.release();
    const after = await view().acquire([], callContext().signal);
    expect([after.growing.length, after.holders.length]).toEqual([0, 1]);
    after.release();
  });

  it('is never partial: a read waits for segments that no datanode serves, then fails retriably', async () => {
    await open();
    await world.owner.write(world.request(0, { rows: rowsOf(0, 10) }), callContext());
    await flush();
    await load();
    await expect(read([], AbortSignal.timeout(50))).rejects.toMatchObject({ codeName: 'CollectionNotFullyLoaded', retriable: true });
    const reading = read();
    await datanode('a').start();
    expect(await reading).toEqual(rowsOf(0, 10));
  });

  it('moves segments of a dead datanode to a living one; reads wait meanwhile', async () => {
    await open();
    for (const id of ['a', 'b']) await datanode(id).start();
    await load();
    for (let i = 0; i < 6; i++) {
      await world.owner.write(world.request(0, { rows: rowsOf(i * 10, 10) }), callContext());
      await flush();
    }
    await until(() => view().progress.loadedRows === 60);
    expect(nodes.map((node) => node.held.size > 0)).toEqual([true, true]);
    await nodes[0]?.kill();
    await until(() => view().progress.loadedRows < 60 || nodes[1]?.held.size === 6);
    expect(await read()).toEqual(rowsOf(0, 60));
    expect(nodes[1]?.held.size).toBe(6);
  });

  it('a datanode that joins takes its share; the old holder lets go only when no request uses it', async () => {
    await open();
    await datanode('a').start();
    await load();
    for (let i = 0; i < 8; i++) {
      await world.owner.write(world.request(0, { rows: rowsOf(i * 10, 10) }), callContext());
      await flush();
    }
    await until(() => view().progress.loadedRows === 80);
    const sources = await view().acquire([], callContext().signal);
    const joined = datanode('b');
    await joined.start();
    await until(
      () =>
        joined.held.size > 0 &&
        view()
          .holders()
          .some((holder) => holder.nodeId === 'b'),
    );
    await world.runtime.sleep(20);
    expect(nodes[0]?.held.size).toBe(8);
    expect(await rowsOfView(sources)).toEqual(rowsOf(0, 80));
    sources.release();
    await until(() => (nodes[0]?.held.size ?? 0) + joined.held.size === 8);
    expect(await read()).toEqual(rowsOf(0, 80));
  });

  it('loads again what a datanode turns out not to hold', async () => {
    await open();
    const node = datanode('a');
    await node.start();
    await load();
    await world.owner.write(world.request(0, { rows: rowsOf(0, 10) }), callContext());
    await flush();
    await until(() => view().progress.loadedRows === 10);
    const sources = await view().acquire([], callContext().signal);
    node.held.clear();
    const [holder] = sources.holders;
    if (holder) view().lost(holder.node, holder.segmentIds);
    sources.release();
    expect(await read()).toEqual(rowsOf(0, 10));
  });

  it('names the object that keeps a segment from being loaded, loads all others, and is well when the object comes back', async () => {
    await open();
    for (let i = 0; i < 4; i++) {
      await world.owner.write(world.request(0, { rows: rowsOf(i * 10, 10) }), callContext());
      await flush();
    }
    const records = (await world.meta.range({ prefix: keys.segments(COLLECTION) })).entries.map((entry) =>
      SegmentRecord.decode(entry.value),
    );
    const key = records[1]?.objects.find((object) => object.role === 'scalars')?.key ?? '';
    const bytes = await world.objects.get(key);
    await world.objects.delete([key]);
    await load();
    await datanode('a').start();
    for (const { id } of records) shard().drop(id);
    await until(() => view().progress.loadedRows === 30 && view().damage !== undefined);
    expect(view().damage?.message).toContain(key);
    expect(view().progress).toEqual({ sealedRows: 40, loadedRows: 30, complete: false });
    await world.objects.put(key, bytes);
    await until(() => view().progress.complete);
    expect(view().damage).toBeUndefined();
  });

  it('sends a segment again when an index of it is finished', async () => {
    await open();
    const node = datanode('a');
    await node.start();
    world.catalog.indexes = () => [{ id: 7, droppedTs: 0 } as never];
    await load();
    await world.owner.write(world.request(0, { rows: rowsOf(0, 10) }), callContext());
    await flush();
    await until(() => view().progress.loadedRows === 10);
    const segmentId = view().holders()[0]?.segmentId ?? 0;
    const build = {
      buildId: 70,
      indexId: 7,
      collectionId: COLLECTION,
      segmentId,
      fieldId: 102,
      state: IndexBuildState.INDEX_BUILD_FINISHED,
      object: { key: 'index' },
    };
    const value = SegmentIndexRecord.encode(SegmentIndexRecord.fromPartial(build)).finish();
    await world.meta.txn({ then: [{ kind: 'put', key: keys.segmentIndex(COLLECTION, segmentId, 7), value }] });
    await until(() => node.loads.at(-1)?.segmentIndexes.some((one) => one.buildId === 70) ?? false);
    await world.runtime.sleep(20);
    expect(node.loads).toHaveLength(2);
    expect(node.releases).toEqual([]);
  });

  it('shows segments of a group only once it is published, then all at once', async () => {
    await open();
    await datanode('a').start();
    await world.owner.write(world.request(0, { rows: rowsOf(0, 10) }), callContext());
    await flush();
    const [flushed] = await world.segments();
    if (!flushed) throw new Error('nothing was flushed');
    const group = 'job-1';
    const put = (published: boolean) =>
      ({ kind: 'put', key: keys.group(group), value: GroupRecord.encode({ group, published, createdMs: 0 }).finish() }) as const;
    const staged = { ...flushed, id: 1, group };
    await world.meta.txn({
      then: [put(false), { kind: 'put', key: keys.segment(COLLECTION, 1), value: SegmentRecord.encode(staged).finish() }],
    });
    await load();
    expect(await read()).toHaveLength(10);
    await world.meta.txn({ then: [put(true)] });
    await until(() => view().progress.loadedRows === 20);
    expect(await read()).toHaveLength(20);
  });

  it('reads only the partitions that are loaded, and none that is dropped', async () => {
    await open();
    await datanode('a').start();
    await world.owner.write(world.request(0, { rows: rowsOf(0, 5) }), callContext());
    await world.owner.write(world.request(0, { rows: rowsOf(10, 5), partition: OTHER_PARTITION }), callContext());
    await flush();
    await world.owner.write(world.request(0, { rows: rowsOf(20, 5) }), callContext());
    await world.owner.write(world.request(0, { rows: rowsOf(30, 5), partition: OTHER_PARTITION }), callContext());
    await load([DEFAULT_PARTITION]);
    expect(await read()).toEqual([...rowsOf(0, 5), ...rowsOf(20, 5)]);
    expect(view().hasPartition(OTHER_PARTITION)).toBe(false);
    await load([]);
    expect(await read()).toHaveLength(20);
    expect(await read([OTHER_PARTITION])).toEqual([...rowsOf(10, 5), ...rowsOf(30, 5)]);
    Object.assign(world.catalog.partitionRecords[1] as object, { droppedTs: 99 });
    await world.owner.catalogChanged(COLLECTION);
    expect(await read()).toEqual([...rowsOf(0, 5), ...rowsOf(20, 5)]);
    await until(() => nodes[0]?.held.size === 1);
  });

  it('of a released collection is let go once reads are done; loading again works', async () => {
    await open();
    const node = datanode('a');
    await node.start();
    await load();
    await world.owner.write(world.request(0, { rows: rowsOf(0, 10) }), callContext());
    await flush();
    await until(() => view().progress.loadedRows === 10);
    const sources = await view().acquire([], callContext().signal);
    world.catalog.loaded = undefined;
    await world.owner.catalogChanged(COLLECTION);
    expect(loads.viewOf(shard())).toBeUndefined();
    await load();
    await world.runtime.sleep(20);
    expect(node.releases).toEqual([]);
    expect(await rowsOfView(sources)).toEqual(rowsOf(0, 10));
    sources.release();
    await until(() => loads.viewOf(shard()) !== undefined);
    expect(await read()).toEqual(rowsOf(0, 10));
    expect(node.releases[0]).toEqual([]);
  });

  it('of a new owner reads everything, what the old one had flushed and what it had not', async () => {
    await open();
    await datanode('a').start();
    await load();
    await world.owner.write(world.request(0, { rows: rowsOf(0, 10) }), callContext());
    await flush();
    await world.owner.write(world.request(0, { rows: rowsOf(10, 10) }), callContext());
    world.owner.end('killed');
    await world.assign();
    await world.owner.shard(SHARDS[0], COLLECTION, callContext().signal);
    expect(await read()).toEqual(rowsOf(0, 20));
  });
});

describe('placement', () => {
  it('spreads segments, and moves only those of a node that goes', () => {
    const instances = ['a', 'b', 'c'].map((nodeId) => ({ key: nodeId, nodeId, address: '' }));
    const before = Array.from({ length: 3000 }, (_, id) => placeSegment(id, instances)?.nodeId);
    for (const { nodeId } of instances) expect(before.filter((placed) => placed === nodeId).length).toBeGreaterThan(800);
    const after = before.map((_, id) => placeSegment(id, instances.slice(0, 2))?.nodeId);
    for (const [id, placed] of before.entries()) if (placed !== 'c') expect(after[id]).toBe(placed);
    expect(placeSegment(1, [])).toBeUndefined();
  });
});
