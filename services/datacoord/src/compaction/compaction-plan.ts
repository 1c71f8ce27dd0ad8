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
export interface ShardDeletes {
  readonly logs: readonly DeltaLogRecord[];
  /** Living segments of the whole shard: a log of all partitions may hit any of them. */
  readonly segments: readonly SegmentRecord[];
  /** Every log that ends before it is known to hit no row of the segment, or too few. */
  appliedBefore(segment: SegmentRecord): number;
}

/** Sizes of one tier differ by this factor at most, so that a row is rewritten once per tier on its way to the target size. */
const TIER_FACTOR = 4;
const SMALLEST_TIER_BYTES = 64 * 1024;

/**
 * What should be compacted among the segments of one partition of one shard, without being asked: several small ones of about one size, or one with
 * many deleted rows. undefined: nothing. Oldest first among equals, so that the choice does not depend on the order given.
 */
export function planAutomatic(
  segments: readonly SegmentRecord[],
  deletes: ShardDeletes,
  purgeBeforeTs: number,
  limits: CompactionLimits,
): CompactionPlan | undefined {
  return planMerge(segments, limits) ?? planPurge(segments, deletes, purgeBeforeTs, limits);
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
    const rows = deletes.segments.reduce((sum, other) => sum + (mayHit(log, other) ? other.rows : 0), 0);
    if (rows > 0) share += log.rows / rows;
  }
  return Math.min(100, 100 * share);
}

/** False: another partition, or all deletes older than the oldest row. */
export function mayHit(log: DeltaLogRecord, segment: SegmentRecord): boolean {
  return log.shard === segment.shard && (log.partitionId === 0 || log.partitionId === segment.partitionId) && log.maxTs > segment.minTs;
}

/**
 * All segments of one partition of one shard, as somebody asked for it: packed up to the target size, smallest first; one that is alone is
 * rewritten if any delete may hit it.
 */
export function planAll(
  segments: readonly SegmentRecord[],
  deletes: ShardDeletes,
  limits: Pick<CompactionLimits, 'targetBytes' | 'maxSegments'>,
): CompactionPlan[] {
  const plans: CompactionPlan[] = [];
  let rest = bySize(segments);
  while (rest.length > 0) {
    const taken = takeUpTo(rest, limits);
    const inputs = taken.length > 0 ? taken : rest.slice(0, 1);
    rest = rest.slice(inputs.length);
    if (inputs.length > 1) plans.push({ segments: inputs, minPurgedPercent: 0 });
    else if (inputs.some((segment) => likelyPurgedPercent(segment, deletes, Number.POSITIVE_INFINITY) > 0))
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
