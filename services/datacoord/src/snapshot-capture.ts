import type { Turns } from '@cairn/base';
import { keys } from '@cairn/catalog';
import type { MetaEntry, MetaStore } from '@cairn/meta';
import {
  DeltaLogRecord,
  GroupRecord,
  IndexBuildState,
  SegmentIndexRecord,
  SegmentRecord,
  SegmentState,
  ShardRecord,
  type SnapshotDefinition,
} from '@cairn/proto/cairn/meta';
import type { SnapshotContents } from '@cairn/segment';

/** Entries decoded between two looks at the clock: about a third of a millisecond. */
const STRETCH = 64;

interface Listing {
  readonly meta: MetaStore;
  readonly turns: Turns;
  /** As of which revision; absent: now. */
  readonly revision?: number;
}

/** Calls `take` with each entry of a prefix, giving way to the event loop; answers with the revision they were read at. */
async function eachAt({ meta, turns, revision }: Listing, prefix: string, take: (entry: MetaEntry) => void): Promise<number> {
  let after: string | undefined;
  let at = revision;
  for (;;) {
    const page = await meta.range({ prefix, ...(after === undefined ? {} : { after }), ...(at === undefined ? {} : { revision: at }) });
    at ??= page.revision;
    let seen = 0;
    for (const entry of page.entries) {
      take(entry);
      if (++seen % STRETCH === 0 && turns.due) await turns.give();
    }
    const last = page.entries.at(-1);
    if (!page.more || !last) return at;
    after = last.key;
  }
}

/**
 * What a snapshot at T consists of, read at one revision after the barrier: segments and delta logs that hold anything at or before T, masked by
 * as_of = T since they may also hold later rows, and the finished index builds of those segments. What was dropped after T (a partition, say) was
 * live at T and belongs to it; what was merged into a captured segment does not.
 */
export async function captureSnapshot(
  meta: MetaStore,
  ts: number,
  definition: SnapshotDefinition,
  turns: Turns,
): Promise<SnapshotContents> {
  const collectionId = definition.collection?.id ?? 0;
  // Groups first: one that is published later holds nothing of T, and on a store without history later reads must not be older than this one.
  const groups: MetaEntry[] = [];
  const revision = await eachAt({ meta, turns }, keys.groups, (entry) => groups.push(entry));
  const published = publishedGroups(groups);
  const partitions = new Set(definition.partitions.map((partition) => partition.id));
  const indexes = new Set(definition.indexes.map((index) => index.id));
  const live: SegmentRecord[] = [];
  const merged = new Set<number>();
  const deltaLogs: DeltaLogRecord[] = [];
  const builds: SegmentIndexRecord[] = [];
  const shards: ShardRecord[] = [];
  const from = { meta, turns, revision };
  await Promise.all([
    eachAt(from, keys.segments(collectionId), ({ value }) => {
      const segment = SegmentRecord.decode(value);
      if (!partitions.has(segment.partitionId) || segment.minTs > ts || !published.has(segment.group)) return;
      if (segment.state !== SegmentState.SEGMENT_SEALED && segment.droppedTs <= ts) return;
      for (const source of segment.compactedFrom) merged.add(source);
      live.push({ ...segment, asOf: mask(segment.asOf, ts), group: '' });
    }),
    eachAt(from, keys.deltas(collectionId), ({ value }) => {
      const log = DeltaLogRecord.decode(value);
      if (log.minTs > ts || !published.has(log.group) || (log.droppedTs !== 0 && log.droppedTs <= ts)) return;
      deltaLogs.push({ ...log, asOf: mask(log.asOf, ts), group: '' });
    }),
    eachAt(from, keys.segmentIndexes(collectionId), ({ value }) => {
      const build = SegmentIndexRecord.decode(value);
      if (build.state === IndexBuildState.INDEX_BUILD_FINISHED && indexes.has(build.indexId)) builds.push(build);
    }),
    eachAt(from, keys.shards(collectionId), ({ value }) => shards.push(ShardRecord.decode(value))),
  ]);
  const segments: SegmentRecord[] = [];
  const captured = new Set<number>();
  for (const segment of live) {
    if (merged.has(segment.id)) continue;
    segments.push(segment);
    captured.add(segment.id);
    if (segments.length % STRETCH === 0 && turns.due) await turns.give();
  }
  const segmentIndexes: SegmentIndexRecord[] = [];
  for (const build of builds) {
    if (captured.has(build.segmentId)) segmentIndexes.push(build);
    if (segmentIndexes.length % STRETCH === 0 && turns.due) await turns.give();
  }
  return { segments, deltaLogs, segmentIndexes, shards };
}

/** The stricter of two masks; 0 is none. */
const mask = (asOf: number, ts: number): number => (asOf === 0 ? ts : Math.min(asOf, ts));

/** Names of the groups whose records are visible; the empty one is no group. */
export function publishedGroups(entries: readonly MetaEntry[]): Set<string> {
  const published = entries.map((entry) => GroupRecord.decode(entry.value)).filter((record) => record.published);
  return new Set(['', ...published.map((record) => record.group)]);
}
