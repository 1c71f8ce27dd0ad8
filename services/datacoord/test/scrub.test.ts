import { CairnError } from '@cairn/base';
import { keys } from '@cairn/catalog';
import type { SegmentRecord } from '@cairn/proto/cairn/meta';
import type { SnapshotInfo } from '@cairn/proto/cairn/services';
import type { CheckResponse, VerifyReport } from '@cairn/proto/cairn/upkeep';
import { addHashes, formatHash, parseHash } from '@cairn/segment';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { DataCoordService } from '../src/index.ts';
import { EVERY, flushRealDeletes, flushRows } from './contents.ts';
import { World } from './world.ts';

const ROWS = 50;
const context = undefined as never;

let world: World;
let leader = 'a';
let coordinator: DataCoordService;
let collection: number;
let segments: SegmentRecord[];

/** Scrubs every snapshot whenever it is older than this. */
async function begin(scrubIntervalMs: number): Promise<void> {
  world = new World({ settings: { gcIntervalMs: 3_600_000, scrubIntervalMs, scrubPeriodMs: 20 } });
  await world.node('streaming', 's1');
  await lead('a');
  collection = (await world.createCollection('a', 'books')).id;
  const page = await world.meta.range({ prefix: keys.partitions(collection) });
  const partition = Number(page.entries[0]?.key.split('/').at(-1));
  segments = [await flushRows(world, collection, partition, ROWS), await flushRows(world, collection, partition, ROWS)];
}
async function lead(nodeId: string): Promise<void> {
  leader = nodeId;
  coordinator = await world.coordinator(nodeId);
}
afterEach(() => world.stop());

const create = (name: string) =>
  world
    .client('a')
    .createSnapshot({ requestId: '', database: '', collection: 'books', name, description: '', compactionProtectionSeconds: 0 });
const describeOne = (name: string): Promise<SnapshotInfo> =>
  world.client(leader).describeSnapshot({ database: '', collection: 'books', name, id: 0 });
const verify = async (name: string, more: { paged?: boolean; cursor?: string } = {}) =>
  (await coordinator.upkeep.verifySnapshot(
    { database: '', collection: 'books', name, snapshotId: 0, deep: true, paged: false, cursor: '', ...more },
    context,
  )) as VerifyReport;
const sum = (records: readonly SegmentRecord[]) => formatHash(addHashes(records.map((record) => parseHash(record.contentHash))));
const flip = async (key: string) => {
  const bytes = Buffer.from(await world.objects.get(key));
  bytes[900] ^= 1;
  await world.objects.put(key, bytes);
};

describe('content hashes of a snapshot', () => {
  beforeEach(() => begin(0));

  test('are those of its segments, known at once when no row is deleted', async () => {
    await create('s');
    const all = sum(segments);
    expect(await describeOne('s')).toMatchObject({ contentHash: all, visibleHash: all, visibleRows: 2 * ROWS });
    expect(await verify('s')).toMatchObject({
      findings: [],
      hashedSegments: 2,
      unrecordedSegments: 0,
      contentHash: all,
      visibleHash: all,
      visibleRows: 2 * ROWS,
    });
  });

  test('with deletes the visible rows are hashed soon after, survive a new leader, and are what verify finds', async () => {
    await flushRealDeletes(world, collection, [3, 4, 5], 1_000);
    await create('s');
    const hashed = async () => (await describeOne('s')).visibleHash !== '';
    await world.until(hashed, 'the visible rows are hashed');
    const info = await describeOne('s');
    expect(info).toMatchObject({ contentHash: sum(segments), visibleRows: 2 * ROWS - 6 });
    expect(info.visibleHash).not.toBe(info.contentHash);
    await world.stopCoordinators();
    await lead('b');
    expect(await describeOne('s')).toEqual(info);
    expect(await verify('s')).toMatchObject({ findings: [], visibleRows: info.visibleRows, visibleHash: info.visibleHash });
    const { findings } = (await coordinator.upkeep.check({ deep: true }, context)) as CheckResponse;
    expect(findings).toEqual([]);
  });

  test('go with the snapshot: nothing of them is left after its drop', async () => {
    await flushRealDeletes(world, collection, [3], 1_000);
    const { id } = await create('s');
    await world.until(async () => (await describeOne('s')).visibleHash !== '', 'the visible rows are hashed');
    expect(await world.meta.get(keys.snapshotHealth(id))).toBeDefined();
    await world.client(leader).dropSnapshot({ database: '', collection: 'books', name: 's', id: 0 });
    await world.until(async () => (await world.meta.get(keys.snapshot(collection, id))) === undefined, 'the snapshot is gone');
    expect(await world.meta.get(keys.snapshotHealth(id))).toBeUndefined();
  });

  test('a segment whose hash was not recorded is counted as such, and nothing is said against it', async () => {
    const [first] = segments;
    if (!first) throw new Error('no segment');
    const { SegmentRecord: codec } = await import('@cairn/proto/cairn/meta');
    const value = codec.encode({ ...first, contentHash: '' }).finish();
    await world.meta.txn({ then: [{ kind: 'put', key: keys.segment(collection, first.id), value }] });
    await create('s');
    expect(await describeOne('s')).toMatchObject({ contentHash: '', visibleHash: '' });
    expect(await verify('s')).toMatchObject({ findings: [], hashedSegments: 1, unrecordedSegments: 1, contentHash: sum(segments) });
  });

  test('verify goes on from a cursor, at another coordinator too, and refuses one of another snapshot', async () => {
    await create('s');
    await create('other');
    const whole = await verify('s');
    // As a page would have answered after the first segment.
    const half = {
      snapshotId: whole.snapshotId,
      at: 1,
      objects: 2,
      bytes: segments[0]?.bytes,
      segments: 1,
      hashed: 1,
      stored: segments[0]?.contentHash,
      visibleRows: ROWS,
      visible: segments[0]?.contentHash,
      unread: 0,
      elapsedMs: 0,
    };
    const cursor = Buffer.from(JSON.stringify(half)).toString('base64url');
    await world.stopCoordinators();
    await lead('b');
    const { elapsedMs: _, ...rest } = await verify('s', { paged: true, cursor });
    expect(whole).toMatchObject(rest);
    await expect(verify('other', { cursor })).rejects.toThrow('this cursor is not of a verification of snapshot');
  });
});

describe('the scrub', () => {
  test('marks a damaged snapshot, naming the object, and takes the mark away when it is whole again', async () => {
    await begin(1);
    await create('s');
    await world.until(async () => (await describeOne('s')).verifiedMs > 0, 'a first scrub');
    expect((await describeOne('s')).damage).toBe('');
    const key = segments[1]?.objects[1]?.key ?? '';
    await flip(key);
    await world.until(async () => (await describeOne('s')).damage !== '', 'the damage is seen');
    expect((await describeOne('s')).damage).toContain(`object ${key}: checksum`);
    await flip(key);
    await world.until(async () => (await describeOne('s')).damage === '', 'it is whole again');
  });

  test('a damaged snapshot can still be described, listed and dropped', async () => {
    await begin(1);
    await create('s');
    await world.objects.delete([segments[0]?.objects[0]?.key ?? '']);
    await world.until(async () => (await describeOne('s')).damage.includes('object not found'), 'the damage is seen');
    expect((await world.client(leader).listSnapshots({ ...EVERY, collection: 'books' })).snapshots[0]?.damage).toContain('not found');
    await world.client(leader).dropSnapshot({ database: '', collection: 'books', name: 's', id: 0 });
  });

  test('goes on to the others when one snapshot cannot be read now', async () => {
    const { SnapshotScrubber } = await import('../src/snapshot-scrubber.ts');
    const { defaultSettings } = await import('../src/index.ts');
    const { SnapshotState, SnapshotRecord } = await import('@cairn/proto/cairn/meta');
    const records = [1, 2, 3].map((id) =>
      SnapshotRecord.fromPartial({ id, createdMs: id, state: SnapshotState.SNAPSHOT_COMMITTED, contentHash: 'ab' }),
    );
    const asked: string[] = [];
    const look = <T>(what: string, record: { id: number }, answer: T): T => {
      asked.push(`${what} ${record.id}`);
      if (record.id === 1) throw new CairnError('StoreUnavailable', 'the bucket is away');
      return answer;
    };
    const verifier = {
      visible: async (record: { id: number }) => look('hash', record, { rows: 0, hash: 0n }),
      verify: async (record: { id: number }) => look('scrub', record, { findings: [], visibleHash: '', objects: 0, bytes: 0 }),
    };
    const snapshots = {
      values: () => records,
      get: (id: number) => records[id - 1],
      held: (id: number) => ({ key: 'k', revision: 1, record: records[id - 1] }),
    };
    const scrubber = new SnapshotScrubber({
      store: { state: { snapshots, health: { get: () => undefined } }, mustCommit: async () => 1 } as never,
      pins: { exclusively: (_: number, work: () => Promise<void>) => work() } as never,
      verifier: verifier as never,
      runtime: world.runtime,
      logger: { debug: () => {}, warn: () => {} } as never,
      settings: { ...defaultSettings, scrubIntervalMs: 1 },
      stop: new AbortController().signal,
    });
    await scrubber.round();
    expect(asked).toEqual(['hash 1', 'hash 2', 'hash 3', 'scrub 1', 'scrub 2', 'scrub 3']);
  });

  test('reads no faster than its rate', async () => {
    await begin(0);
    await create('s');
    const { SnapshotScrubber } = await import('../src/snapshot-scrubber.ts');
    const slept: number[] = [];
    const runtime = Object.assign(Object.create(world.runtime), {
      monotonic: () => 50_000,
      sleep: async (ms: number) => slept.push(ms),
      now: () => world.runtime.now() + 10,
    });
    const { defaultSettings } = await import('../src/index.ts');
    const { SnapshotState, SnapshotRecord } = await import('@cairn/proto/cairn/meta');
    const record = SnapshotRecord.fromPartial({ id: 1, state: SnapshotState.SNAPSHOT_COMMITTED });
    const verifier = {
      verify: async (_: unknown, options: { throttle(bytes: number): Promise<void> }) => {
        for (let i = 0; i < 4; i++) await options.throttle(1_000);
        return { findings: [], visibleHash: '', objects: 4, bytes: 4_000 };
      },
    };
    const held = { key: 'k', revision: 1, record };
    const scrubber = new SnapshotScrubber({
      store: {
        state: { snapshots: { values: () => [record], get: () => record, held: () => held }, health: { get: () => undefined } },
        mustCommit: async () => 1,
      } as never,
      pins: { exclusively: (_: number, work: () => Promise<void>) => work() } as never,
      verifier: verifier as never,
      runtime,
      logger: { debug: () => {} } as never,
      settings: { ...defaultSettings, scrubIntervalMs: 1, scrubBytesPerSecond: 1_000 },
      stop: new AbortController().signal,
    });
    await scrubber.round();
    // A second's worth at once, then a second for each thousand bytes.
    expect(slept).toEqual([1_000, 2_000, 3_000]);
  });
});
