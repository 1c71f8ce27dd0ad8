import { CairnError, deferred, hasCode, isRetriable } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { GroupRecord, PrefixRecord } from '@cairn/proto/cairn/meta';
import type { DataRecord } from '@cairn/proto/cairn/wal';
import { afterEach, describe, expect, it } from 'vitest';
import {
  byId,
  CHANNEL,
  COLLECTION,
  callContext,
  DEFAULT_PARTITION,
  OTHER_PARTITION,
  type Row,
  SHARDS,
  seeded,
  World,
  type WorldOptions,
} from './world.ts';

let world: World;
afterEach(() => world.stop());

async function open(options: WorldOptions = {}): Promise<World> {
  world = new World(options);
  await world.create();
  await world.assign();
  return world;
}

const rowsOf = (from: number, count: number, tag = 'first'): Row[] => Array.from({ length: count }, (_, at) => ({ id: from + at, tag }));
const flushRequest = (shard: number) => ({ vchannel: SHARDS[shard] ?? '', collectionId: COLLECTION, wait: true });

async function flush(shard: number): Promise<void> {
  const { tickets } = await world.owner.seal(flushRequest(shard), callContext().signal);
  await Promise.all(tickets.map((ticket) => ticket.done));
}

describe('write', () => {
  it('is readable in the owner once it is acknowledged, at its timestamp and not before', async () => {
    await open();
    const { ts } = await world.owner.write(world.request(0, { rows: rowsOf(1, 3) }), callContext());
    expect(await world.growingRows(0, ts)).toEqual(rowsOf(1, 3));
    expect(await world.growingRows(0, ts - 1)).toEqual([]);
    expect(await world.growingRows(1, ts)).toEqual([]);
  });

  it('sent after another was acknowledged has the greater timestamp, on any shard', async () => {
    await open();
    let before = 0;
    for (let i = 0; i < 10; i++) {
      const { ts } = await world.owner.write(world.request(i % 2, { rows: rowsOf(i, 1) }), callContext());
      expect(ts).toBeGreaterThan(before);
      before = ts;
    }
  });

  it('takes one call for timestamps for all that wait', async () => {
    await open();
    await Promise.all(Array.from({ length: 50 }, (_, i) => world.owner.write(world.request(0, { rows: rowsOf(i, 1) }), callContext())));
    expect(world.oracle.calls.length).toBeLessThan(6);
    expect(world.oracle.calls.reduce((sum, count) => sum + count, 0)).toBe(50);
  });

  it('answers a repeat of a request id with the first result, and writes once', async () => {
    await open();
    const request = world.request(0, { rows: rowsOf(1, 2) });
    const [first, meanwhile] = await Promise.all([world.owner.write(request, callContext()), world.owner.write(request, callContext())]);
    const later = await world.owner.write(request, callContext());
    expect([meanwhile, later]).toEqual([first, first]);
    expect(await world.growingRows(0, world.oracle.now())).toEqual(rowsOf(1, 2));
  });

  it('answers a repeat at a new owner too, flushed or not', async () => {
    await open();
    const requests = [world.request(0, { rows: rowsOf(1, 2) }), world.request(0, { rows: rowsOf(3, 2) })];
    const first = await world.owner.write(requests[0] as never, callContext());
    await flush(0);
    const second = await world.owner.write(requests[1] as never, callContext());
    await world.assign();
    expect(await world.owner.write(requests[0] as never, callContext())).toEqual(first);
    expect(await world.owner.write(requests[1] as never, callContext())).toEqual(second);
    expect(await world.growingRows(0, world.oracle.now())).toEqual(rowsOf(3, 2));
  });

  it('whose caller gave up is still known to a repeat', async () => {
    await open();
    const gate = deferred<void>();
    const caller = new AbortController();
    world.walFaults = () => ({ kind: 'none', delayMs: 30 });
    const request = world.request(0, { rows: rowsOf(1, 1) });
    const lost = world.owner.write(request, callContext({ signal: caller.signal }));
    await world.runtime.sleep(10);
    caller.abort();
    await expect(lost).rejects.toThrow(CairnError);
    await world.owner.write(request, callContext());
    gate.resolve();
    expect(await world.growingRows(0, world.oracle.now())).toEqual(rowsOf(1, 1));
  });

  it('waits while the coordinator fails over, and does not fail', async () => {
    await open();
    const gate = deferred<void>();
    world.oracle.gate = gate.promise;
    const write = world.owner.write(world.request(0, { rows: rowsOf(1, 1) }), callContext());
    await world.runtime.sleep(30);
    gate.resolve();
    await expect(write).resolves.toMatchObject({ ts: expect.any(Number) });
  });

  it('upsert shows the old row or the new one, never both or neither', async () => {
    await open();
    const { ts: before } = await world.owner.write(world.request(0, { rows: [{ id: 1, tag: 'old' }] }), callContext());
    const { ts: after } = await world.owner.write(world.request(0, { rows: [{ id: 1, tag: 'new' }], deletes: [1] }), callContext());
    for (let ts = before; ts <= after; ts++) {
      expect(await world.growingRows(0, ts)).toEqual([{ id: 1, tag: ts < after ? 'old' : 'new' }]);
    }
    await flush(0);
    for (const ts of [before, after - 1, after])
      expect(await world.flushedRows(0, ts)).toEqual([{ id: 1, tag: ts < after ? 'old' : 'new' }]);
  });

  it('delete by filter affects rows at or before its read timestamp only', async () => {
    await open();
    const { ts: readTs } = await world.owner.write(world.request(0, { rows: [{ id: 1, tag: 'seen' }] }), callContext());
    await world.owner.write(world.request(0, { rows: [{ id: 1, tag: 'later' }] }), callContext());
    const { ts } = await world.owner.write(world.request(0, { deletes: [1], readTs }), callContext());
    expect(await world.growingRows(0, ts)).toEqual([{ id: 1, tag: 'later' }]);
    await flush(0);
    expect(await world.flushedRows(0, ts)).toEqual([{ id: 1, tag: 'later' }]);
  });

  it('delete limited to a partition leaves the key in others', async () => {
    await open();
    await world.owner.write(world.request(0, { rows: [{ id: 1, tag: 'here' }] }), callContext());
    await world.owner.write(world.request(0, { rows: [{ id: 1, tag: 'there' }], partition: OTHER_PARTITION }), callContext());
    const { ts } = await world.owner.write(world.request(0, { deletes: [1], deletePartition: DEFAULT_PARTITION }), callContext());
    expect(await world.growingRows(0, ts)).toEqual([{ id: 1, tag: 'there' }]);
    await flush(0);
    expect(await world.flushedRows(0, ts)).toEqual([{ id: 1, tag: 'there' }]);
  });

  it('larger than a record becomes a batch that a new owner sees whole', async () => {
    await open({ maxRecordBytes: 16 * 1024 });
    const rows = rowsOf(1, 500, 'x'.repeat(100));
    const { sequence } = await world.owner.write(world.request(0, { rows, deletes: rows.map((row) => row.id) }), callContext());
    expect(sequence).toBeGreaterThan(5);
    await world.assign();
    await world.owner.shard(SHARDS[0], COLLECTION, callContext().signal);
    expect(await world.growingRows(0, world.oracle.now())).toEqual(byId(rows));
  });

  it('of which the last record is missing is invisible after a take-over', async () => {
    await open({ maxRecordBytes: 16 * 1024 });
    await world.owner.write(world.request(0, { rows: rowsOf(1, 1) }), callContext());
    let records = 0;
    // The log goes away in the middle of a batch, for good.
    world.walFaults = ({ operation }) => ({ kind: operation === 'append' && ++records > 3 ? 'lost' : 'none' });
    const request = world.request(0, { rows: rowsOf(100, 500, 'x'.repeat(100)) });
    const lost = world.owner.write(request, callContext()).catch((error: unknown) => error);
    await world.runtime.sleep(30);
    world.owner.end('killed');
    expect(isRetriable(await lost)).toBe(true);
    world.walFaults = () => ({ kind: 'none' });
    expect((await world.wal.state(CHANNEL)).lastSequence).toBeGreaterThan(3);
    await world.assign();
    await world.owner.shard(SHARDS[0], COLLECTION, callContext().signal);
    expect(await world.growingRows(0, world.oracle.now())).toEqual(rowsOf(1, 1));
    // The repeat is a write of its own.
    await world.owner.write(request, callContext());
    expect(await world.growingRows(0, world.oracle.now())).toHaveLength(501);
  });

  it('is refused when the schema, the partition or the collection is not what it was made for', async () => {
    await open();
    const refusals: [Parameters<World['request']>[1] & { version?: number; collection?: number }, string][] = [
      [{ rows: rowsOf(1, 1), partition: 77 }, 'PartitionNotFound'],
      [{ rows: rowsOf(1, 1), version: 5 }, 'SchemaMismatch'],
      [{ rows: rowsOf(1, 1), collection: 4 }, 'CollectionNotFound'],
    ];
    for (const [parts, code] of refusals) {
      const request = world.request(0, parts);
      const changed = {
        ...request,
        schemaVersion: parts.version ?? 0,
        collectionId: parts.collection ?? COLLECTION,
        vchannel: parts.collection ? `${CHANNEL}_4v0` : request.vchannel,
      };
      const error = await world.owner.write(changed, callContext()).catch((thrown: unknown) => thrown);
      expect(hasCode(error, code as 'SchemaMismatch'), String(error)).toBe(true);
    }
    expect((await world.wal.state(CHANNEL)).lastSequence).toBe(world.owner.appliedSequence);
  });

  it('is held off with RateLimit when too much is unflushed', async () => {
    await open({ settings: { maxGrowingBytes: 1000 } });
    world.objectFaults = () => ({ fail: new CairnError('StoreUnavailable', 'away') });
    await world.owner.write(world.request(0, { rows: rowsOf(1, 50) }), callContext());
    await expect(world.owner.write(world.request(0, { rows: rowsOf(60, 1) }), callContext())).rejects.toMatchObject({
      codeName: 'RateLimit',
    });
  });
});

describe('a writer that outruns the store', () => {
  it('gets code 8, memory stays within the limit and one write, and it goes on once the store keeps up', async () => {
    const limit = 200_000;
    await open({ settings: { maxGrowingBytes: limit, segmentMaxRows: 100 } });
    world.objectFaults = ({ operation }) => (operation === 'put' ? { delayMs: 30 } : undefined);
    let refused = 0;
    let most = 0;
    let largest = 0;
    let written = 0;
    for (; written < 40; ) {
      const before = memoryBytes();
      try {
        await world.owner.write(world.request(0, { rows: rowsOf(written * 100, 100) }), callContext());
        written++;
        largest = Math.max(largest, memoryBytes() - before);
      } catch (error) {
        expect(error).toMatchObject({ codeName: 'RateLimit', code: 8, retriable: true });
        refused++;
        await world.runtime.sleep(5);
      }
      most = Math.max(most, memoryBytes());
    }
    expect(refused).toBeGreaterThan(0);
    expect(most).toBeLessThanOrEqual(limit + largest);
    await flush(0);
    expect(memoryBytes()).toBe(0);
    expect(await world.flushedRows(0, world.oracle.now())).toHaveLength(4_000);
  });

  it('is held off by rows too that are flushed and that no datanode serves yet', async () => {
    world = new World({ settings: { maxGrowingBytes: 20_000, segmentMaxRows: 100 } });
    world.views = { refresh: () => {}, isServed: () => true, flushed: () => {}, remove: () => {} };
    await world.create();
    await world.assign();
    await world.owner.write(world.request(0, { rows: rowsOf(1, 200) }), callContext());
    await flush(0);
    const more = () => world.owner.write(world.request(0, { rows: rowsOf(300, 1) }), callContext());
    await expect(more()).rejects.toMatchObject({ code: 8, retriable: true });
    const segments = await world.segments();
    for (const shard of world.owner.shards) for (const { id } of segments) shard.drop(id);
    await more();
  });
});

const memoryBytes = (): number => [...world.owner.shards].reduce((sum, shard) => sum + shard.memoryBytes, 0);

describe('flush', () => {
  it('moves everything acknowledged into segments and delta logs, and the checkpoint with them', async () => {
    await open();
    await world.owner.write(world.request(0, { rows: rowsOf(1, 10) }), callContext());
    await world.owner.write(world.request(0, { rows: rowsOf(20, 5), partition: OTHER_PARTITION }), callContext());
    const { ts, sequence } = await world.owner.write(world.request(0, { deletes: [1, 20] }), callContext());
    await flush(0);
    expect(await world.flushedRows(0, ts)).toEqual([...rowsOf(2, 9), ...rowsOf(21, 4)]);
    expect(await world.shardRecord(0)).toMatchObject({ checkpoint: sequence, checkpointTs: ts });
    expect((await world.segments()).map((segment) => [segment.partitionId, segment.rows, segment.minTs > 0])).toEqual([
      [DEFAULT_PARTITION, 10, true],
      [OTHER_PARTITION, 5, true],
    ]);
    const prefixes = await world.records(keys.prefixes, (bytes) => PrefixRecord.decode(bytes));
    for (const { objects } of await world.segments())
      for (const { key } of objects)
        expect(
          prefixes.some(({ prefix }) => key.startsWith(prefix)),
          key,
        ).toBe(true);
    for (const { object } of await world.deltaLogs()) expect(prefixes.some(({ prefix }) => object?.key.startsWith(prefix))).toBe(true);
  });

  it('of a deposed owner is refused: nothing of it is committed', async () => {
    await open();
    await world.owner.write(world.request(0, { rows: rowsOf(1, 10) }), callContext());
    const old = world.owner;
    const gate = deferred<void>();
    world.objectFaults = () => ({ delayMs: 60 });
    const { tickets } = await old.seal(flushRequest(0), callContext().signal);
    const done = tickets[0]?.done.then(
      () => 'flushed',
      () => 'refused',
    );
    await world.assign();
    expect(await done).toBe('refused');
    expect(await world.segments()).toEqual([]);
    world.objectFaults = () => undefined;
    gate.resolve();
    await flush(0);
    expect(await world.flushedRows(0, world.oracle.now())).toEqual(rowsOf(1, 10));
  });

  it('goes on when stores fail, also after they did what was asked; writes go on meanwhile', async () => {
    await open();
    const random = seeded(7);
    world.objectFaults = () =>
      random() < 0.3
        ? { fail: new CairnError('StoreUnavailable', 'away') }
        : random() < 0.2
          ? { failAfter: new CairnError('StoreUnavailable', 'late') }
          : undefined;
    world.metaFaults = () => (random() < 0.2 ? { kind: 'timeoutAfter' } : random() < 0.2 ? { kind: 'failBefore' } : undefined);
    await world.owner.write(world.request(0, { rows: rowsOf(1, 10) }), callContext());
    const flushing = flush(0);
    const { ts } = await world.owner.write(world.request(0, { rows: rowsOf(11, 10) }), callContext());
    await flushing;
    await flush(0);
    expect(await world.flushedRows(0, ts)).toEqual(rowsOf(1, 20));
    // Object keys never repeat, so a second try wrote elsewhere: no segment refers to an object of a failed one.
    const written = (await world.segments()).flatMap((segment) => segment.objects.map((object) => object.key));
    expect(new Set(written).size).toBe(written.length);
  });

  it('of more partitions than a transaction holds is one step all the same', async () => {
    await open();
    const partitions = Array.from({ length: 120 }, (_, at) => 3000 + at);
    for (const id of partitions)
      world.catalog.partitionRecords.push({ id, collectionId: COLLECTION, name: `p${id}`, createdTs: 1, droppedTs: 0 });
    await Promise.all(
      partitions.map((partition) => world.owner.write(world.request(0, { rows: rowsOf(partition, 1), partition }), callContext())),
    );
    await flush(0);
    const segments = await world.segments();
    expect(segments.map((segment) => segment.partitionId).sort()).toEqual(partitions);
    expect(new Set(segments.map((segment) => segment.group)).size).toBe(1);
    const published = await world.records(keys.groups, (bytes) => GroupRecord.decode(bytes));
    expect(published.map(({ group, published: done }) => [group, done])).toEqual([[segments[0]?.group, true]]);
    expect(await world.flushedRows(0, world.oracle.now())).toEqual(partitions.flatMap((id) => rowsOf(id, 1)));
  });

  it('happens by itself by size, by age, and when the log to replay grows long', async () => {
    for (const settings of [{ segmentMaxBytes: 20_000 }, { segmentMaxAgeMs: 50 }, { maxReplayBytes: 40_000 }]) {
      await open({ settings });
      await world.owner.write(world.request(0, { rows: rowsOf(1, 200) }), callContext());
      for (let waited = 0; waited < 2000 && (await world.segments()).length === 0; waited += 10) await world.runtime.sleep(10);
      expect(await world.flushedRows(0, world.oracle.now()), JSON.stringify(settings)).toEqual(rowsOf(1, 200));
      world.stop();
    }
  });

  it('lets the log be trimmed up to the smallest checkpoint; idle shards do not hold it back', async () => {
    await open({ settings: { maxReplayBytes: 60_000, repeatLogBytes: 0, segmentMaxBytes: 30_000, repeatWindowMs: 0 } });
    for (let i = 0; i < 40; i++) await world.owner.write(world.request(0, { rows: rowsOf(i * 50, 50) }), callContext());
    await flush(0);
    for (let waited = 0; waited < 3000 && (await world.wal.state(CHANNEL)).firstSequence < 20; waited += 20) await world.runtime.sleep(20);
    const { firstSequence } = await world.wal.state(CHANNEL);
    expect(firstSequence).toBeGreaterThan(20);
    for (const shard of [0, 1]) expect((await world.shardRecord(shard)).checkpoint).toBeGreaterThanOrEqual(firstSequence - 1);
    await world.assign();
    await flush(0);
    expect(await world.flushedRows(0, world.oracle.now())).toEqual(rowsOf(0, 2000));
  });
});

describe('barrier', () => {
  const barrier = (shard: number, snapshotId: number, ts: number) => ({
    vchannel: SHARDS[shard] ?? '',
    collectionId: COLLECTION,
    snapshotId,
    ts,
  });

  it('flushes what is at or before T and nothing that came after it', async () => {
    await open();
    await world.owner.write(world.request(0, { rows: rowsOf(1, 10) }), callContext());
    const ts = world.oracle.now();
    const writing = Promise.all(
      Array.from({ length: 20 }, (_, i) => world.owner.write(world.request(0, { rows: rowsOf(100 + i, 1) }), callContext())),
    );
    const { sequence } = await world.owner.barrier(barrier(0, 9, ts), callContext());
    await writing;
    expect(await world.flushedRows(0, ts)).toEqual(rowsOf(1, 10));
    for (const segment of await world.segments()) expect(segment.lastSequence).toBeLessThan(sequence);
    expect((await world.shardRecord(0)).checkpoint).toBe(sequence);
    const all = [...(await world.flushedRows(0, world.oracle.now())), ...(await world.growingRows(0, world.oracle.now()))];
    expect(byId(all)).toEqual([...rowsOf(1, 10), ...rowsOf(100, 20)]);
  });

  it('throws away a stamp at or below T that was taken and not used', async () => {
    await open();
    const gate = deferred<void>();
    world.oracle.gate = gate.promise;
    const writing = world.owner.write(world.request(0, { rows: rowsOf(1, 1) }), callContext());
    await world.runtime.sleep(5);
    // The stamp is on its way when T is taken above it and the barrier comes.
    const ts = world.oracle.last + 10;
    const { sequence } = await world.owner.barrier(barrier(0, 9, ts), callContext());
    gate.resolve();
    const written = await writing;
    expect(written.ts).toBeGreaterThan(ts);
    expect(written.sequence).toBeGreaterThan(sequence);
  });

  it('keeps its word through a take-over: later stamps are above T, and a repeat flushes up to it', async () => {
    await open();
    await world.owner.write(world.request(0, { rows: rowsOf(1, 5) }), callContext());
    const ts = world.oracle.last + 1000;
    world.objectFaults = () => ({ fail: new CairnError('StoreUnavailable', 'away') });
    const first = world.owner.barrier(barrier(0, 9, ts), callContext()).catch((error: unknown) => error);
    for (let waited = 0; waited < 1000 && world.owner.appliedTs < ts; waited += 5) await world.runtime.sleep(5);
    await world.assign();
    expect(isRetriable(await first)).toBe(true);
    world.objectFaults = () => undefined;
    const { sequence } = await world.owner.barrier(barrier(0, 9, ts), callContext());
    const after = await world.owner.write(world.request(0, { rows: rowsOf(50, 1) }), callContext());
    expect(after.ts).toBeGreaterThan(ts);
    expect(after.sequence).toBeGreaterThan(sequence);
    expect(await world.flushedRows(0, ts)).toEqual(rowsOf(1, 5));
    const barriers: DataRecord[] = [];
    for await (const batch of world.wal.read(CHANNEL, { from: 1, subjects: [`bar.${SHARDS[0]}`] }))
      for (const stored of batch) barriers.push(stored as never);
    expect(barriers).toHaveLength(1);
  });

  it('of a shard with nothing unflushed moves its checkpoint without a segment', async () => {
    await open();
    const { sequence } = await world.owner.barrier(barrier(1, 9, world.oracle.now()), callContext());
    expect((await world.shardRecord(1)).checkpoint).toBe(sequence);
    expect(await world.segments()).toEqual([]);
  });
});

describe('reads', () => {
  it('at a guarantee timestamp see everything below it, and nothing can come below it any more', async () => {
    await open();
    const guarantee = world.oracle.last + 50;
    const readTs = await world.owner.readTimestamp(guarantee, callContext().signal);
    expect(readTs).toBe(guarantee);
    const { ts } = await world.owner.write(world.request(0, { rows: rowsOf(1, 1) }), callContext());
    expect(ts).toBeGreaterThan(guarantee);
  });

  it('wait for writes in flight below the guarantee', async () => {
    await open();
    world.walFaults = () => ({ kind: 'none', delayMs: 40 });
    const writing = world.owner.write(world.request(0, { rows: rowsOf(1, 1) }), callContext());
    await world.runtime.sleep(10);
    const readTs = await world.owner.readTimestamp(world.oracle.now(), callContext().signal);
    expect(await world.growingRows(0, readTs)).toEqual(rowsOf(1, 1));
    await writing;
  });
});

describe('nothing acknowledged is lost and nothing is twice', () => {
  const SEEDS = 12;
  for (let seed = 1; seed <= SEEDS; seed++) {
    it(`through take-overs, crashes and failing stores, seed ${seed}`, async () => {
      const random = seeded(seed);
      await open({
        maxRecordBytes: 16 * 1024,
        settings: { segmentMaxBytes: 60_000, maxReplayBytes: 200_000, repeatLogBytes: 1_000_000, segmentMaxAgeMs: 40 },
      });
      let calm = false;
      const chance = (probability: number): boolean => !calm && random() < probability;
      world.walFaults = () =>
        chance(0.03)
          ? { kind: 'written but unanswered' }
          : chance(0.03)
            ? { kind: 'lost' }
            : { kind: 'none', ...(chance(0.2) ? { delayMs: 3 } : {}) };
      world.objectFaults = () =>
        chance(0.05) ? { fail: new CairnError('StoreUnavailable', 'away') } : chance(0.3) ? { delayMs: 3 } : undefined;
      world.metaFaults = () => (chance(0.02) ? { kind: 'timeoutAfter' } : chance(0.02) ? { kind: 'failBefore' } : undefined);
      const model = [new Map<number, string>(), new Map<number, string>()];
      let done = false;
      const client = async (lane: number): Promise<void> => {
        for (let step = 0; step < 25; step++) {
          const shard = Math.floor(random() * 2);
          const state = model[shard] as Map<number, string>;
          const base = lane * 100_000;
          const mine = [...state.keys()].filter((id) => id >= base && id < base + 100_000);
          const kind = random();
          if (kind < 0.2 && mine.length > 0) {
            const deletes = mine.filter(() => random() < 0.3);
            await world.writeUntilDone(world.request(shard, { deletes }));
            for (const id of deletes) state.delete(id);
          } else if (kind < 0.45 && mine.length > 0) {
            const rows = mine.filter(() => random() < 0.3).map((id) => ({ id, tag: `upsert ${lane} ${step}` }));
            await world.writeUntilDone(
              world.request(shard, {
                rows,
                deletes: rows.map((row) => row.id),
                partition: random() < 0.5 ? DEFAULT_PARTITION : OTHER_PARTITION,
              }),
            );
            for (const row of rows) state.set(row.id, row.tag);
          } else {
            const rows = rowsOf(base + step * 200, 1 + Math.floor(random() * 120), `insert ${lane} ${step}`);
            await world.writeUntilDone(world.request(shard, { rows }));
            for (const row of rows) state.set(row.id, row.tag);
          }
        }
      };
      const unrest = async (): Promise<void> => {
        while (!done) {
          await world.runtime.sleep(5 + random() * 60);
          if (random() < 0.5) world.owner.end('killed');
          await world.assign();
        }
      };
      const clients = Promise.all([1, 2, 3, 4].map(client)).finally(() => {
        done = true;
      });
      await Promise.all([clients, unrest()]);
      calm = true;
      await world.assign();
      for (const shard of [0, 1]) {
        await flush(shard);
        const expected = byId([...(model[shard] as Map<number, string>)].map(([id, tag]) => ({ id, tag })));
        expect(await world.flushedRows(shard, world.oracle.now())).toEqual(expected);
        expect(await world.growingRows(shard, world.oracle.now())).toEqual([]);
      }
    }, 20_000);
  }
});
