import { type Deferred, deferred, silentLogger } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { SegmentRecord, SegmentState } from '@cairn/proto/cairn/meta';
import { InProcessNetwork } from '@cairn/rpc';
import { decodeSchema, encodeSchema, valueAt } from '@cairn/schema';
import { mergeSegments, openSegment, type SealedSegment, survivingRows, writeSegment } from '@cairn/segment';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { NodeLoads } from '../src/node-loads.ts';
import type { ReadView, ShardView } from '../src/shard-view.ts';
import { FakeDataNode } from './fake-datanode.ts';
import { byId, COLLECTION, callContext, type Row, SHARDS, World } from './world.ts';

let world: World;
let network: InProcessNetwork;
let loads: NodeLoads;
let node: FakeDataNode;
let ids = 50_000;

beforeEach(async () => {
  world = new World();
  network = new InProcessNetwork(world.runtime);
  const { meta, objects, runtime, catalog } = world;
  node = new FakeDataNode({ meta, objects, runtime, network, schema: () => catalog.schema }, 'a');
  loads = new NodeLoads({ meta, transport: network, catalog, runtime, logger: silentLogger, loadTimeoutMs: 5000 });
  loads.start();
  world.views = loads;
  await world.create();
  await world.assign();
  await node.start();
  catalog.loaded = { collectionId: COLLECTION, partitionIds: [], requestedTs: 1, replicas: 1, resourceGroups: [], loadFieldIds: [] };
  await world.owner.catalogChanged(COLLECTION);
});

afterEach(async () => {
  world.stop();
  await loads.stop();
});

function view(): ShardView {
  for (const shard of world.owner.shards) {
    const found = shard.index === 0 ? loads.viewOf(shard) : undefined;
    if (found) return found;
  }
  throw new Error('shard 0 is not loaded');
}

async function until(condition: () => boolean): Promise<void> {
  for (let waited = 0; !condition(); waited += 5) {
    if (waited > 3000) throw new Error('it did not happen');
    await world.runtime.sleep(5);
  }
}

const rows = (from: number, count: number): Row[] => Array.from({ length: count }, (_, at) => ({ id: from + at, tag: 'x' }));

async function flushed(from: number, count: number): Promise<SegmentRecord> {
  const before = new Set((await world.segments()).map((segment) => segment.id));
  await world.owner.write(world.request(0, { rows: rows(from, count) }), callContext());
  const { tickets } = await world.owner.seal({ vchannel: SHARDS[0], collectionId: COLLECTION, wait: true }, callContext().signal);
  await Promise.all(tickets.map((ticket) => ticket.done));
  const made = (await world.segments()).find((segment) => !before.has(segment.id));
  if (!made) throw new Error('nothing was flushed');
  return made;
}

/** The result of a compaction of these, not committed. */
async function merged(sources: readonly SegmentRecord[], purgedTs = 0): Promise<SegmentRecord> {
  const { objects, runtime } = world;
  const schema = decodeSchema(encodeSchema(world.catalog.schema));
  const opened = await Promise.all(sources.map((record) => openSegment({ objects, runtime, record, schema })));
  const batch = await mergeSegments(await survivingRows(opened, 0, runtime), schema, runtime);
  const id = ids++;
  const prefix = `segments/${COLLECTION}/merged/${id}/`;
  const written = await writeSegment({ objects, runtime, prefix, schema, batch });
  const [first] = sources;
  return { ...(first as SegmentRecord), ...written, id, prefix, compactedFrom: sources.map((source) => source.id), level: 1, purgedTs };
}

const put = (record: SegmentRecord) =>
  ({ kind: 'put', key: keys.segment(COLLECTION, record.id), value: SegmentRecord.encode(record).finish() }) as const;
const dropped = (record: SegmentRecord, into: SegmentRecord | undefined) =>
  put({
    ...record,
    state: SegmentState.SEGMENT_DROPPED,
    droppedTs: 9,
    compactedInto: into?.id ?? 0,
    purgedTs: into?.purgedTs ?? 0,
  });

async function commit(result: SegmentRecord, sources: readonly SegmentRecord[]): Promise<void> {
  await world.meta.txn({ then: [put(result), ...sources.map((source) => dropped(source, result))] });
}

async function rowsOf(sources: ReadView): Promise<Row[]> {
  const found: Row[] = [];
  const take = async (segment: Pick<SealedSegment, 'rows' | 'column'>): Promise<void> => {
    const [keysOf, tags] = [await segment.column(100), await segment.column(101)];
    for (let row = 0; row < segment.rows; row++) found.push({ id: Number(valueAt(keysOf, row)), tag: String(valueAt(tags, row)) });
  };
  for (const { segment } of sources.growing) await take(segment.capture());
  for (const { segmentIds } of sources.holders) {
    for (const id of segmentIds) {
      const held = node.held.get(id);
      if (!held) throw new Error(`segment ${id} is not held`);
      await take(held);
    }
  }
  return byId(found);
}

async function read(signal = AbortSignal.timeout(3000)): Promise<Row[]> {
  const sources = await view().acquire([], signal);
  try {
    return await rowsOf(sources);
  } finally {
    sources.release();
  }
}

const servedIds = (): number[] =>
  view()
    .holders()
    .map((holder) => holder.segmentId)
    .sort((a, b) => a - b);
/** Loads wait for it from now on. */
function gate(): Deferred<void> {
  const gated = deferred<void>();
  node.gate = gated.promise;
  return gated;
}

describe('a view whose segments are compacted', () => {
  it('reads the sources until the result is loaded, then the result: each row once, at every moment', async () => {
    const sources = [await flushed(0, 10), await flushed(10, 10)];
    await until(() => view().progress.loadedRows === 20);
    const gated = gate();
    const result = await merged(sources);
    let reading = true;
    const reader = (async () => {
      while (reading) {
        expect(await read(AbortSignal.timeout(200))).toEqual(rows(0, 20));
        await world.runtime.sleep(1);
      }
    })();
    await commit(result, sources);
    await until(() => node.loads.at(-1)?.segments.some((segment) => segment.id === result.id) ?? false);
    expect(servedIds()).toEqual(sources.map((source) => source.id));
    const under = await view().acquire([], callContext().signal);
    gated.resolve();
    await until(() => servedIds().includes(result.id));
    expect(servedIds()).toEqual([result.id]);
    await world.runtime.sleep(20);
    // A read that began before still finds the sources.
    expect(await rowsOf(under)).toEqual(rows(0, 20));
    expect(node.releases).toEqual([]);
    under.release();
    reading = false;
    await reader;
    await until(() => node.releases.length === 2);
    expect(view().progress).toEqual({ sealedRows: 20, loadedRows: 20, complete: true });
  });

  it('bridges a second compaction of a result that was never loaded', async () => {
    const sources = [await flushed(0, 5), await flushed(5, 5)];
    const third = await flushed(10, 5);
    await until(() => view().progress.loadedRows === 15);
    const gated = gate();
    const first = await merged(sources);
    await commit(first, sources);
    const second = await merged([first, third]);
    await commit(second, [first, third]);
    await world.runtime.sleep(30);
    expect(await read(AbortSignal.timeout(200))).toEqual(rows(0, 15));
    gated.resolve();
    await until(() => servedIds().join() === `${second.id}`);
    expect(await read()).toEqual(rows(0, 15));
  });

  it('waits for the result, never partial, when a source cannot be read any more', async () => {
    const sources = [await flushed(0, 5), await flushed(5, 5)];
    await until(() => view().progress.loadedRows === 10);
    const gated = gate();
    const result = await merged(sources);
    await commit(result, sources);
    await until(() => node.loads.at(-1)?.segments.some((segment) => segment.id === result.id) ?? false);
    const under = await view().acquire([], callContext().signal);
    const [holder] = under.holders;
    if (holder) view().lost(holder.node, [sources[0]?.id ?? 0]);
    under.release();
    await expect(view().acquire([], AbortSignal.timeout(50))).rejects.toThrow(/not fully loaded/);
    gated.resolve();
    expect(await read()).toEqual(rows(0, 10));
  });

  it('reads the rows once when the chain of compactions has lost a link: its record was removed before it was ever loaded', async () => {
    const sources = [await flushed(0, 5), await flushed(5, 5)];
    await until(() => view().progress.loadedRows === 10);
    const gated = gate();
    const first = await merged(sources);
    await commit(first, sources);
    const second = await merged([first]);
    await commit(second, [first]);
    const third = await merged([second]);
    await commit(third, [second]);
    // A snapshot keeps the records of the sources; nothing keeps this one.
    await world.meta.txn({ then: [{ kind: 'delete', key: keys.segment(COLLECTION, first.id) }] });
    await until(() => servedIds().join() === `${third.id}`);
    gated.resolve();
    expect(await read()).toEqual(rows(0, 10));
    expect(servedIds()).toEqual([third.id]);
  });

  it('shows each row once when the result is known before the end of its sources', async () => {
    const sources = [await flushed(0, 5), await flushed(5, 5)];
    await until(() => view().progress.loadedRows === 10);
    const result = await merged(sources);
    await commit(result, sources);
    await until(() => servedIds().join() === `${result.id}`);
    const more = await flushed(10, 5);
    const next = await merged([result, more]);
    await world.meta.txn({ then: [put(next)] });
    await until(() => servedIds().join() === `${next.id}`);
    expect(await read()).toEqual(rows(0, 15));
  });

  it('tells readers up to when deleted rows may be gone, also when nothing was left of a segment', async () => {
    const sources = [await flushed(0, 5), await flushed(5, 5)];
    await until(() => view().progress.loadedRows === 10);
    const before = await view().acquire([], callContext().signal);
    expect(before.purgedTs).toBe(0);
    before.release();
    const result = await merged(sources, 700);
    await commit(result, sources);
    await until(() => servedIds().join() === `${result.id}`);
    const after = await view().acquire([], callContext().signal);
    expect(after.purgedTs).toBe(700);
    after.release();
    await world.meta.txn({ then: [put({ ...result, state: SegmentState.SEGMENT_DROPPED, droppedTs: 9, purgedTs: 800 })] });
    await until(() => servedIds().length === 0);
    const empty = await view().acquire([], callContext().signal);
    expect(empty.purgedTs).toBe(800);
    empty.release();
  });
});
