import { makeTimestamp, SystemRuntime, silentLogger } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { LoadRecord, SegmentRecord, SegmentState } from '@cairn/proto/cairn/meta';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { HeldShard } from '../src/held-shard.ts';
import { HeldSweeper } from '../src/held-sweeper.ts';
import { COLLECTION, Stage } from './fakes.ts';

const runtime = new SystemRuntime();
const MINUTE = 60_000;

describe('what a datanode holds', () => {
  let stage: Stage;
  let shard: HeldShard;
  let sweeper: HeldSweeper;

  const recorded = async (id: number, more: Partial<SegmentRecord> = {}): Promise<void> => {
    const record = { ...stage.segment(id, [id], 10), state: SegmentState.SEGMENT_SEALED, ...more };
    const value = SegmentRecord.encode(record).finish();
    await stage.meta.txn({ then: [{ kind: 'put', key: keys.segment(COLLECTION, id), value }] });
  };
  const droppedAgo = (ms: number) => ({ state: SegmentState.SEGMENT_DROPPED, droppedTs: makeTimestamp(runtime.now() - ms, 0) });

  beforeEach(async () => {
    stage = new Stage(runtime);
    await stage.takeOver();
    shard = stage.shard();
    const value = LoadRecord.encode(LoadRecord.fromPartial({ collectionId: COLLECTION })).finish();
    await stage.meta.txn({ then: [{ kind: 'put', key: keys.load(COLLECTION), value }] });
    await shard.load(stage.request({ segments: [1, 2, 3, 4].map((id) => stage.segment(id, [id], 10)) }));
    sweeper = new HeldSweeper({
      meta: stage.meta,
      runtime,
      logger: silentLogger,
      shards: () => [shard],
      release: (_vchannel, ids) => shard.release(ids),
    });
  });
  afterEach(() => shard.release([]));

  test('goes when its record is gone, or was replaced long ago; what its owner may still read stays', async () => {
    await recorded(1);
    await recorded(2, droppedAgo(MINUTE));
    await recorded(3, droppedAgo(20 * MINUTE));
    await sweeper.sweep();
    expect(shard.segmentIds).toEqual([1, 2]);
  });

  test('goes as a whole when its collection is not loaded any more', async () => {
    for (const id of [1, 2, 3, 4]) await recorded(id);
    await sweeper.sweep();
    expect(shard.segmentIds).toEqual([1, 2, 3, 4]);
    await stage.meta.txn({ then: [{ kind: 'delete', key: keys.load(COLLECTION) }] });
    await sweeper.sweep();
    expect(shard.segmentIds).toEqual([]);
  });
});
