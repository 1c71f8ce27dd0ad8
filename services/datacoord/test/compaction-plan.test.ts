import { DeltaLogRecord, SegmentRecord } from '@cairn/proto/cairn/meta';
import { describe, expect, test } from 'vitest';
import { likelyPurgedPercent, mayHit, planAll, planAutomatic, ShardDeletes } from '../src/compaction/compaction-plan.ts';

const MiB = 2 ** 20;
const limits = { targetBytes: 256 * MiB, minSegments: 4, maxSegments: 30, deletedPercent: 20 };
let id = 1;
const segment = (bytes: number, more: Partial<SegmentRecord> = {}): SegmentRecord =>
  SegmentRecord.fromPartial({ id: id++, partitionId: 2, rows: 100, minTs: 10, maxTs: 20, bytes, ...more });
const log = (rows: number, more: Partial<DeltaLogRecord> = {}): DeltaLogRecord =>
  DeltaLogRecord.fromPartial({ id: id++, rows, minTs: 15, maxTs: 30, lastSequence: 50, ...more });
const deletes = (
  segments: SegmentRecord[],
  logs: DeltaLogRecord[] = [],
  appliedBefore = (one: SegmentRecord) => one.deletesFrom,
): ShardDeletes => new ShardDeletes(segments, logs, appliedBefore);
const automatic = (segments: SegmentRecord[], logs: DeltaLogRecord[] = [], before = 1_000) =>
  planAutomatic(segments, deletes(segments, logs), before, limits)?.segments.map((one) => one.bytes / MiB);

describe('what outlived its time', () => {
  test('goes first, whole segments only, as many as one compaction takes; a larger one goes alone', () => {
    const old = [segment(MiB), segment(200 * MiB), segment(100 * MiB)];
    const young = segment(MiB, { minTs: 10, maxTs: 21 });
    const plan = (segments: SegmentRecord[]) => planAutomatic(segments, deletes(segments), 1_000, limits, 0, 20)?.segments;
    expect(plan([young, ...old])).toEqual([old[0], old[2]]);
    expect(plan([young, segment(300 * MiB)])?.map((one) => one.bytes)).toEqual([300 * MiB]);
    expect(plan([young])).toBeUndefined();
  });

  test('a segment that is alone is rewritten when asked for if its oldest row is among it', () => {
    const one = segment(MiB);
    expect(planAll([one], deletes([one]), limits, 9)).toEqual([]);
    expect(planAll([one], deletes([one]), limits, 10)).toEqual([{ segments: [one], minPurgedPercent: 1 }]);
  });
});

describe('what is merged', () => {
  test('segments of one size, as soon as there are enough of them, at most as many and as much as one compaction takes', () => {
    const small = Array.from({ length: 3 }, () => segment(MiB));
    expect(automatic(small)).toBeUndefined();
    expect(automatic([...small, segment(2 * MiB)])).toEqual([1, 1, 1, 2]);
    expect(automatic(Array.from({ length: 40 }, () => segment(MiB)))).toHaveLength(30);
    expect(automatic(Array.from({ length: 6 }, () => segment(60 * MiB)))).toEqual([60, 60, 60, 60]);
  });

  test('not a large one with a few small ones: a row is rewritten a few times, not at every flush', () => {
    expect(automatic([segment(100 * MiB), segment(MiB), segment(MiB), segment(MiB)])).toBeUndefined();
    let written = 0;
    let segments: SegmentRecord[] = [];
    for (let flush = 0; flush < 250; flush++) {
      segments.push(segment(MiB));
      for (let plan = planAutomatic(segments, deletes(segments), 1_000, limits); plan; ) {
        const merged = plan.segments.reduce((sum, one) => sum + one.bytes, 0);
        written += merged / MiB;
        const taken = new Set(plan.segments);
        segments = [...segments.filter((one) => !taken.has(one)), segment(merged)];
        plan = planAutomatic(segments, deletes(segments), 1_000, limits);
      }
    }
    expect(written / 250).toBeLessThan(5);
    expect(segments.length).toBeLessThan(16);
  });

  test('none that is half as large as the target or more: it is done', () => {
    expect(automatic(Array.from({ length: 8 }, () => segment(129 * MiB)))).toBeUndefined();
  });
});

describe('what is purged', () => {
  const big = (more: Partial<SegmentRecord> = {}) => segment(200 * MiB, more);

  test('the segment that deletes may hit most, from the given share on', () => {
    expect(automatic([big()], [log(19)])).toBeUndefined();
    expect(automatic([big()], [log(21)])).toEqual([200]);
    expect(automatic([big(), big()], [log(30)])).toBeUndefined();
    expect(automatic([big(), big({ minTs: 40 })], [log(30)])).toEqual([200]);
  });

  test('not for deletes that were applied, are of another partition, or young', () => {
    expect(automatic([big({ deletesFrom: 51 })], [log(90)])).toBeUndefined();
    expect(automatic([big({ deletesFrom: 50 })], [log(90)])).toEqual([200]);
    expect(automatic([big()], [log(90, { partitionId: 3 })])).toBeUndefined();
    expect(automatic([big()], [log(90)], 29)).toBeUndefined();
  });

  test('a restored segment that may hold rows after its snapshot, until somebody has counted', () => {
    const restored = big({ asOf: 15 });
    expect(likelyPurgedPercent(restored, deletes([restored]), 1_000)).toBe(100);
    const counted = deletes([restored], [], () => 7);
    expect(likelyPurgedPercent(restored, counted, 1_000)).toBe(0);
  });
});

describe('what was asked for', () => {
  test('takes all, packed up to the target; one that is alone only if deletes may hit it', () => {
    const segments = [200, 100, 3, 2, 1].map((size) => segment(size * MiB));
    const plans = planAll(segments, deletes(segments, [log(1)]), limits);
    expect(plans.map((plan) => plan.segments.map((one) => one.bytes / MiB))).toEqual([[1, 2, 3, 100], [200]]);
    expect(plans.map((plan) => plan.minPurgedPercent)).toEqual([0, 1]);
    expect(planAll([segment(MiB)], deletes([]), limits)).toEqual([]);
    expect(planAll([segment(500 * MiB)], deletes([]), limits)).toEqual([]);
  });
});

describe('which segments a log may hit', () => {
  test('one whose rows came from a clock ahead is judged by its commit_ts', () => {
    const ahead = segment(MiB, { minTs: 100, maxTs: 200, commitTs: 20 });
    expect(mayHit(log(1, { maxTs: 30 }), ahead)).toBe(true);
    expect(mayHit(log(1, { maxTs: 20 }), ahead)).toBe(false);
    expect(mayHit(log(1, { maxTs: 30 }), segment(MiB, { minTs: 100, maxTs: 200 }))).toBe(false);
    expect(deletes([ahead]).rowsUnder(log(1, { maxTs: 30 }))).toBe(100);
  });
});
