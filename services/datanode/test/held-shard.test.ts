import { SystemRuntime } from '@cairn/base';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { HeldShard } from '../src/held-shard.ts';
import { CHANNEL, Stage, schemaBytes } from './fakes.ts';

const runtime = new SystemRuntime();
const PATIENCE_MS = 5000;

describe('deletes of a shard on a datanode', () => {
  let stage: Stage;
  let shard: HeldShard;

  beforeEach(async () => {
    stage = new Stage(runtime);
    await stage.takeOver();
    shard = stage.shard();
  });

  afterEach(async () => {
    await shard.release([]);
  });

  test('a loaded segment has the deletes of the delta logs and of the log behind the checkpoint', async () => {
    const first = await stage.delete([1], 20);
    const log = await stage.flush(first, [{ keys: [1], ts: 20 }]);
    const second = await stage.delete([2], 30);
    await shard.load(stage.request({ segments: [stage.segment(1, [1, 2, 3], 10)], deltaLogs: [log], checkpoint: first }));
    await shard.waitForDeletes(second, PATIENCE_MS);
    expect(stage.alive(1)).toEqual([3]);
    expect(stage.alive(1, 25)).toEqual([2, 3]);
    const third = await stage.delete([3], 40);
    await shard.waitForDeletes(third, PATIENCE_MS);
    expect(stage.alive(1)).toEqual([]);
  });

  test('a segment that is loaded later gets the deletes that came before', async () => {
    await shard.load(stage.request({ segments: [stage.segment(1, [1, 2], 10)] }));
    const sequence = await stage.delete([1, 3], 20);
    await shard.waitForDeletes(sequence, PATIENCE_MS);
    await shard.load(stage.request({ segments: [stage.segment(2, [3, 4], 10)] }));
    expect(stage.alive(1)).toEqual([2]);
    expect(stage.alive(2)).toEqual([4]);
  });

  test('what the checkpoint has passed comes from its delta logs, also when an owner with an older list asks', async () => {
    await shard.load(stage.request({ segments: [stage.segment(1, [1], 10)] }));
    const first = await stage.delete([5, 6], 20);
    await shard.waitForDeletes(first, PATIENCE_MS);
    const log = await stage.flush(first, [{ keys: [5, 6], ts: 20 }]);
    await shard.load(stage.request({ segments: [stage.segment(2, [5, 7], 10)], deltaLogs: [log], checkpoint: first }));
    expect(stage.alive(2)).toEqual([7]);
    await shard.load(stage.request({ segments: [stage.segment(3, [6, 8], 10)], deltaLogs: [], checkpoint: 0 }));
    expect(stage.alive(3)).toEqual([8]);
  });

  test('deletes of one partition spare the others; those of a filter take rows up to its read timestamp', async () => {
    const records = [stage.segment(1, [1, 2], 10, 100), stage.segment(2, [1, 2], 10, 200)];
    await shard.load(stage.request({ segments: records }));
    await stage.delete([1], 20, { partitionId: 100 });
    await stage.delete([2], 30, { readTs: 5 });
    const last = await stage.delete([7], 40);
    await shard.waitForDeletes(last, PATIENCE_MS);
    expect(stage.alive(1)).toEqual([2]);
    expect(stage.alive(2)).toEqual([1, 2]);
  });

  test('deletes in a log of a snapshot count up to its point in time; later ones of the shard itself count too', async () => {
    const log = await stage.flush(
      0,
      [
        { keys: [1], ts: 20 },
        { keys: [2], ts: 60 },
      ],
      { asOf: 50 },
    );
    await shard.load(stage.request({ segments: [stage.segment(1, [1, 2, 3], 10)], deltaLogs: [log] }));
    expect(stage.alive(1)).toEqual([2, 3]);
    await shard.waitForDeletes(await stage.delete([3], 90), PATIENCE_MS);
    expect(stage.alive(1)).toEqual([2]);
  });

  test('a write in several records shows when its last one is there, and never when its owner died in the middle', async () => {
    await shard.load(stage.request({ segments: [stage.segment(1, [1, 2, 3, 4], 10)] }));
    const before = await stage.delete([9], 11);
    await stage.delete([1], 20, { batchSize: 2, lastOnSubject: false });
    await expect(shard.waitForDeletes(before + 1, 50)).rejects.toMatchObject({ codeName: 'Timeout', retriable: true });
    expect(stage.alive(1)).toEqual([1, 2, 3, 4]);
    await shard.waitForDeletes(await stage.delete([2], 20, { batchIndex: 1, batchSize: 2 }), PATIENCE_MS);
    expect(stage.alive(1)).toEqual([3, 4]);
    await stage.delete([3], 30, { batchSize: 2, lastOnSubject: false });
    await stage.takeOver();
    await shard.waitForDeletes(await stage.delete([4], 40), PATIENCE_MS);
    expect(stage.alive(1)).toEqual([3]);
  });

  test('a log that was trimmed under the node: everything is reloaded from delta logs, nothing is skipped', async () => {
    const first = await stage.delete([1], 20);
    const second = await stage.delete([2], 30);
    const logs = [await stage.flush(first, [{ keys: [1], ts: 20 }]), await stage.flush(second, [{ keys: [2], ts: 30 }])];
    const third = await stage.delete([3], 40);
    await stage.wal.trim(CHANNEL, third);
    // The owner's request is from before the second flush.
    await shard.load(stage.request({ segments: [stage.segment(1, [1, 2, 3, 4], 10)], deltaLogs: logs.slice(0, 1), checkpoint: first }));
    await shard.waitForDeletes(third, PATIENCE_MS);
    expect(stage.alive(1)).toEqual([4]);
    await shard.load(stage.request({ segments: [stage.segment(2, [1, 2, 3, 5], 10)], deltaLogs: logs.slice(0, 1), checkpoint: first }));
    expect(stage.alive(2)).toEqual([5]);
  });

  test('many deletes do not stay in memory once they are flushed', async () => {
    await shard.load(stage.request({ segments: [stage.segment(1, [1], 10)] }));
    const many = Array.from({ length: 50_000 }, (_, i) => i + 100);
    let last = 0;
    for (let ts = 20; ts < 24; ts++) last = await stage.delete(many, ts);
    await stage.flush(last, [{ keys: many, ts: 20 }]);
    await shard.waitForDeletes(last, PATIENCE_MS);
    expect(shard.keptDeleteBytes).toBeGreaterThan(1 << 20);
    await runtime.sleep(1050);
    await shard.waitForDeletes(await stage.delete([1], 30), PATIENCE_MS);
    expect(stage.alive(1)).toEqual([]);
    // A later load is right, be it before or after the trimming that this has started.
    await shard.load(stage.request({ segments: [stage.segment(2, [100, 5], 10)] }));
    expect(stage.alive(2)).toEqual([5]);
    expect(shard.keptDeleteBytes).toBeLessThan(1000);
  });

  test('a read waits for its deletes to its deadline, then fails retriable and says how far they are', async () => {
    await shard.load(stage.request({ segments: [stage.segment(1, [1], 10)] }));
    await expect(shard.waitForDeletes(99, 20)).rejects.toMatchObject({ codeName: 'Timeout', message: expect.stringMatching(/needs 99/) });
    const cancelled = new AbortController();
    const waiting = shard.waitForDeletes(99, PATIENCE_MS, cancelled.signal);
    cancelled.abort();
    await expect(waiting).rejects.toMatchObject({ codeName: 'Cancelled' });
  });
});

describe('segments of a shard on a datanode', () => {
  let stage: Stage;
  let shard: HeldShard;

  beforeEach(async () => {
    stage = new Stage(runtime);
    await stage.takeOver();
    shard = stage.shard();
  });

  afterEach(async () => {
    await shard.release([]);
  });

  test('loading again opens nothing again; one that cannot be opened leaves the others out too, and works later', async () => {
    const records = [stage.segment(1, [1], 10), stage.segment(2, [2], 10)];
    const missing = { ...records[0], id: 3 };
    await expect(shard.load(stage.request({ segments: [...records, missing] }))).rejects.toThrow(/segment 3/);
    expect(shard.segmentIds).toEqual([]);
    expect(stage.segments.get(1)?.closed).toBe(true);
    await shard.load(stage.request({ segments: records }));
    stage.opened.length = 0;
    await shard.load(stage.request({ segments: records }));
    expect(stage.opened).toEqual([]);
    expect(shard.segmentIds.sort()).toEqual([1, 2]);
  });

  test('a segment that is not held is named', async () => {
    await shard.load(stage.request({ segments: [stage.segment(1, [1], 10)] }));
    await expect(shard.read([1, 5], async () => 0)).rejects.toMatchObject({
      codeName: 'SegmentNotFound',
      message: expect.stringContaining('segment 5'),
    });
  });

  test('a released segment closes when its last reader is done', async () => {
    await shard.load(stage.request({ segments: [stage.segment(1, [1], 10), stage.segment(2, [2], 10)] }));
    const reading = Promise.withResolvers<void>();
    const read = shard.read([1], () => reading.promise);
    expect(await shard.release([1])).toBe(false);
    expect(shard.segmentIds).toEqual([2]);
    expect(stage.segments.get(1)?.closed).toBe(false);
    reading.resolve();
    await read;
    expect(stage.segments.get(1)?.closed).toBe(true);
    expect(await shard.release([2])).toBe(true);
    expect(await shard.load(stage.request({ segments: [] }))).toBe(false);
  });

  test('held segments learn of a new field; an older schema changes nothing', async () => {
    await shard.load(stage.request({ segments: [stage.segment(1, [1, 2], 10)] }));
    await shard.load(stage.request({ schema: schemaBytes(1) }));
    expect(stage.segments.get(1)?.fields).toBe(3);
    await shard.load(stage.request({ schema: schemaBytes() }));
    expect(stage.segments.get(1)?.fields).toBe(3);
    expect(shard.schema.fields).toHaveLength(3);
  });
});
