import { mapLimit, type Turns } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { DeltaLogRecord, type RestoreJobRecord, SegmentIndexRecord, SegmentRecord } from '@cairn/proto/cairn/meta';
import type { Ids } from './change-preparer.ts';
import { putRecord } from './changes/change.ts';
import { pagesOf } from './control-applier.ts';
import { targetBuild, targetDeltaLog, targetSegment } from './copy-records.ts';
import type { CopySource } from './copy-source.ts';
import type { LeaderStore, Put } from './leader-store.ts';

/** Pages of staged records under way at once. */
const PARALLEL_PAGES = 8;

/**
 * A clone: records of the target that refer to the snapshot's own objects, under their own ids, keeping the prefixes of the source. No byte is
 * copied and no object is read. Every transaction compares that the snapshot is COMMITTED as it was and pinned by the job: a new reference is made
 * only from a living one, so what garbage collection found unreferenced never gains one (snapshots.md, GC).
 */
export async function stageReferences(
  store: LeaderStore,
  ids: Ids,
  job: RestoreJobRecord,
  source: CopySource,
  turns: Turns,
): Promise<void> {
  const snapshot = store.state.snapshots.held(job.snapshotId);
  const living = [
    { kind: 'exists', key: keys.pin(job.snapshotId, job.pinId) } as const,
    { kind: 'modRevision', key: snapshot?.key ?? '', equals: snapshot?.revision ?? 0 } as const,
  ];
  const { segments, deltaLogs, segmentIndexes } = source;
  const first = await ids.allocate(Math.max(1, segments.length + deltaLogs.length + segmentIndexes.length));
  // Pages are made as they are asked for: ten thousand records at once would hold the thread, and the memory.
  await mapLimit(pagesOf(references(source, first)), PARALLEL_PAGES, async (page) => {
    if (turns.due) await turns.give();
    await store.mustCommit({ if: living, puts: page });
  });
}

/** The target's records, under ids from `next` on. */
function* references(source: CopySource, next: number): Generator<Put> {
  let id = next;
  for (const segment of source.segments) {
    const record = targetSegment(source, segment, id++);
    yield putRecord(keys.segment(record.collectionId, record.id), SegmentRecord, record);
    for (const build of source.buildsOf(segment.id)) {
      const made = targetBuild(source, build, record.id, id++);
      yield putRecord(keys.segmentIndex(made.collectionId, made.segmentId, made.indexId), SegmentIndexRecord, made);
    }
  }
  for (const log of source.deltaLogs) {
    const record = targetDeltaLog(source, log, id++, log.object);
    yield putRecord(keys.delta(record.collectionId, record.id), DeltaLogRecord, record);
  }
}
