import type { DeltaLogRecord, SegmentRecord } from '@cairn/proto/cairn/meta';

/** Segments that become one. */
export interface CompactionPlan {
  readonly segments: readonly SegmentRecord[];
  /** Below this share of deleted rows nothing is rewritten; 0: always. */
  readonly minPurgedPercent: number;
}

export interface CompactionLimits {
  readonly targetBytes: number;
  readonly minSegments: number;
  readonly maxSegments: number;
  readonly deletedPercent: number;
}

/** What is known of the deletes of one shard. */
export class ShardDeletes {
  readonly logs: readonly DeltaLogRecord[];
  /** Every log that ends before it is known to hit no row of the segment, or too few. */
  readonly appliedBefore: (segment: SegmentRecord) => number;
  readonly #segments: readonly SegmentRecord[];
  readonly #rows = new Map<DeltaLogRecord, number>();
  /** Smallest row timestamps in order, and the rows of all segments up to each. */
  #oldest: { readonly minTs: Float64Array; readonly rows: Float64Array } | undefined;

  /** `segments`: the living ones of the whole shard; a log of all partitions may hit any of them. */
  constructor(segments: readonly SegmentRecord[], logs: readonly DeltaLogRecord[], appliedBefore: (segment: SegmentRecord) => number) {
    this.#segments = segments;
    this.logs = logs;
    this.appliedBefore = appliedBefore;
  }

  /** Rows of the segments that a log may hit. */
  rowsUnder(log: DeltaLogRecord): number {
    let rows = this.#rows.get(log);
    if (rows === undefined) {
      rows = log.partitionId === 0 ? this.#rowsOlderThan(log.maxTs) : sumRows(this.#segments.filter((segment) => mayHit(log, segment)));
      this.#rows.set(log, rows);
    }
    return rows;
  }

  #rowsOlderThan(ts: number): number {
    if (!this.#oldest) {
      const sorted = [...this.#segments].sort((a, b) => oldestRow(a) - oldestRow(b));
      let sum = 0;
      this.#oldest = {
        minTs: Float64Array.from(sorted, oldestRow),
        rows: Float64Array.from(sorted, (segment) => {
          sum += segment.rows;
          return sum;
        }),
      };
    }
    const { minTs, rows } = this.#oldest;
    let low = 0;
    let high = minTs.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (minTs[middle] < ts) low = middle + 1;
      else high = middle;
    }
    return low === 0 ? 0 : rows[low - 1];
  }
}

function sumRows(segments: readonly SegmentRecord[]): number {
  return segments.reduce((sum, segment) => sum + segment.rows, 0);
}

/** Pairs of a segment and a log that are looked at in one go, some ms: with thousands of both, looks take their turn through the segments. */
const PURGE_PAIRS = 200_000;

/** Sizes of one tier differ by this factor at most, so that a row is rewritten once per tier on its way to the target size. */
const TIER_FACTOR = 4;
const SMALLEST_TIER_BYTES = 64 * 1024;

/**
 * What should be compacted among the segments of one partition of one shard, without being asked: those whose rows all have outlived their time (written at or
 * before `expiredUpTo`), several small ones of about one size, or one with many deleted rows. undefined: nothing. `turn`: number of the look, for
 * groups too large to be looked through at once.
 */
export function planAutomatic(
  segments: readonly SegmentRecord[],
  deletes: ShardDeletes,
  purgeBeforeTs: number,
  limits: CompactionLimits,
  turn = 0,
  expiredUpTo = 0,
): CompactionPlan | undefined {
  const expired = bySize(segments.filter((segment) => segment.maxTs <= expiredUpTo));
  const taken = takeUpTo(expired, limits);
  if (expired.length > 0) return { segments: taken.length > 0 ? taken : expired.slice(0, 1), minPurgedPercent: 0 };
  const looks = Math.max(1, Math.floor(PURGE_PAIRS / Math.max(1, deletes.logs.length)));
  const first = (turn * looks) % Math.max(looks, segments.length);
  return planMerge(segments, limits) ?? planPurge(segments.slice(first, first + looks), deletes, purgeBeforeTs, limits);
}

function planMerge(segments: readonly SegmentRecord[], limits: CompactionLimits): CompactionPlan | undefined {
  const tiers = new Map<number, SegmentRecord[]>();
  for (const segment of bySize(segments)) {
    if (segment.bytes * 2 > limits.targetBytes) continue;
    const tier = Math.max(0, Math.floor(Math.log(segment.bytes / SMALLEST_TIER_BYTES) / Math.log(TIER_FACTOR)));
    const of = tiers.get(tier);
    if (of) of.push(segment);
    else tiers.set(tier, [segment]);
  }
  for (const tier of [...tiers.values()]) {
    const taken = takeUpTo(tier, limits);
    if (taken.length >= limits.minSegments) return { segments: taken, minPurgedPercent: 0 };
    // A tier whose segments fill the target with fewer than the least number is full enough.
    if (taken.length >= 2 && taken.length < tier.length) return { segments: taken, minPurgedPercent: 0 };
  }
  return undefined;
}

function planPurge(
  segments: readonly SegmentRecord[],
  deletes: ShardDeletes,
  purgeBeforeTs: number,
  limits: CompactionLimits,
): CompactionPlan | undefined {
  let best: SegmentRecord | undefined;
  let bestPercent = limits.deletedPercent;
  for (const segment of bySize(segments)) {
    const percent = likelyPurgedPercent(segment, deletes, purgeBeforeTs);
    if (percent < bestPercent || (percent === bestPercent && best !== undefined)) continue;
    best = segment;
    bestPercent = percent;
  }
  return best && { segments: [best], minPurgedPercent: limits.deletedPercent };
}

/**
 * An estimate from above: the deletes of a log are taken to hit rows that are there, spread evenly over the segments that they may hit. The worker
 * counts, and writes nothing when they are fewer.
 */
export function likelyPurgedPercent(segment: SegmentRecord, deletes: ShardDeletes, purgeBeforeTs: number): number {
  const from = deletes.appliedBefore(segment);
  // Rows after as_of are in no state of the collection; how many there are is not known before they are counted.
  if (from === 0 && segment.asOf > 0 && segment.maxTs > segment.asOf) return 100;
  let share = 0;
  for (const log of deletes.logs) {
    if (!mayHit(log, segment) || (from > 0 && log.lastSequence < from) || log.maxTs > purgeBeforeTs) continue;
    const rows = deletes.rowsUnder(log);
    if (rows > 0) share += log.rows / rows;
  }
  return Math.min(100, 100 * share);
}

/** False: another partition, or all deletes older than the oldest row (whose time is commit_ts where it was restored from a clock ahead). */
export function mayHit(log: DeltaLogRecord, segment: SegmentRecord): boolean {
  return (
    log.shard === segment.shard && (log.partitionId === 0 || log.partitionId === segment.partitionId) && log.maxTs > oldestRow(segment)
  );
}

function oldestRow({ minTs, commitTs }: SegmentRecord): number {
  return commitTs > 0 ? Math.min(minTs, commitTs) : minTs;
}

/**
 * All segments of one partition of one shard, as somebody asked for it: packed up to the target size, smallest first; one that is alone is
 * rewritten if any delete may hit it or a row of it has outlived its time.
 */
export function planAll(
  segments: readonly SegmentRecord[],
  deletes: ShardDeletes,
  limits: Pick<CompactionLimits, 'targetBytes' | 'maxSegments'>,
  expiredUpTo = 0,
): CompactionPlan[] {
  const plans: CompactionPlan[] = [];
  let rest = bySize(segments);
  while (rest.length > 0) {
    const taken = takeUpTo(rest, limits);
    const inputs = taken.length > 0 ? taken : rest.slice(0, 1);
    rest = rest.slice(inputs.length);
    if (inputs.length > 1) plans.push({ segments: inputs, minPurgedPercent: 0 });
    else if (inputs.some((one) => one.minTs <= expiredUpTo || likelyPurgedPercent(one, deletes, Number.POSITIVE_INFINITY) > 0))
      plans.push({ segments: inputs, minPurgedPercent: 1 });
  }
  return plans;
}

function bySize(segments: readonly SegmentRecord[]): SegmentRecord[] {
  return [...segments].sort((a, b) => a.bytes - b.bytes || a.id - b.id);
}

/** The first ones, as many as fit. */
function takeUpTo(segments: readonly SegmentRecord[], limits: Pick<CompactionLimits, 'targetBytes' | 'maxSegments'>): SegmentRecord[] {
  const taken: SegmentRecord[] = [];
  let bytes = 0;
  for (const segment of segments) {
    if (taken.length >= limits.maxSegments || bytes + segment.bytes > limits.targetBytes) break;
    taken.push(segment);
    bytes += segment.bytes;
  }
  return taken;
}
