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

/** All entries of a prefix as of a revision (now, when absent); and which revision that was. */
async function listAt(meta: MetaStore, prefix: string, revision?: number): Promise<{ entries: MetaEntry[]; revision: number }> {
  const entries: MetaEntry[] = [];
  let after: string | undefined;
  let at = revision;
  for (;;) {
    const page = await meta.range({ prefix, ...(after === undefined ? {} : { after }), ...(at === undefined ? {} : { revision: at }) });
    at ??= page.revision;
    entries.push(...page.entries);
    const last = page.entries.at(-1);
    if (!page.more || !last) return { entries, revision: at };
    after = last.key;
  }
}

/**
 * What a snapshot at T consists of, read at one revision after the barrier: segments and delta logs that hold anything at or before T, masked by
 * as_of = T since they may also hold later rows, and the finished index builds of those segments. What was dropped after T (a partition, say) was
 * live at T and belongs to it; what was merged into a captured segment does not.
 */
export async function captureSnapshot(meta: MetaStore, ts: number, definition: SnapshotDefinition): Promise<SnapshotContents> {
  const collectionId = definition.collection?.id ?? 0;
  // Groups first: one that is published later holds nothing of T, and on a store without history later reads must not be older than this one.
  const groups = await listAt(meta, keys.groups);
  const { revision } = groups;
  const [{ entries }, deltas, builds, shards] = await Promise.all([
    listAt(meta, keys.segments(collectionId), revision),
    listAt(meta, keys.deltas(collectionId), revision),
    listAt(meta, keys.segmentIndexes(collectionId), revision),
    listAt(meta, keys.shards(collectionId), revision),
  ]);
  const published = publishedGroups(groups.entries);
  const partitions = new Set(definition.partitions.map((partition) => partition.id));
  const live = entries
    .map((entry) => SegmentRecord.decode(entry.value))
    .filter((segment) => partitions.has(segment.partitionId) && segment.minTs <= ts && published.has(segment.group))
    .filter((segment) => segment.state === SegmentState.SEGMENT_SEALED || segment.droppedTs > ts);
  const merged = new Set(live.flatMap((segment) => segment.compactedFrom));
  const segments = live
    .filter((segment) => !merged.has(segment.id))
    .map((segment) => ({ ...segment, asOf: mask(segment.asOf, ts), group: '' }));
  const deltaLogs = deltas.entries
    .map((entry) => DeltaLogRecord.decode(entry.value))
    .filter((log) => log.minTs <= ts && published.has(log.group) && (log.droppedTs === 0 || log.droppedTs > ts))
    .map((log) => ({ ...log, asOf: mask(log.asOf, ts), group: '' }));
  const captured = new Set(segments.map((segment) => segment.id));
  const indexes = new Set(definition.indexes.map((index) => index.id));
  const segmentIndexes = builds.entries
    .map((entry) => SegmentIndexRecord.decode(entry.value))
    .filter((build) => build.state === IndexBuildState.INDEX_BUILD_FINISHED && captured.has(build.segmentId) && indexes.has(build.indexId));
  return { segments, deltaLogs, segmentIndexes, shards: shards.entries.map((entry) => ShardRecord.decode(entry.value)) };
}

/** The stricter of two masks; 0 is none. */
const mask = (asOf: number, ts: number): number => (asOf === 0 ? ts : Math.min(asOf, ts));

/** Names of the groups whose records are visible; the empty one is no group. */
export function publishedGroups(entries: readonly MetaEntry[]): Set<string> {
  const published = entries.map((entry) => GroupRecord.decode(entry.value)).filter((record) => record.published);
  return new Set(['', ...published.map((record) => record.group)]);
}
