import { mapLimit } from '@cairn/base';
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
export async function stageReferences(store: LeaderStore, ids: Ids, job: RestoreJobRecord, source: CopySource): Promise<void> {
  const snapshot = store.state.snapshots.held(job.snapshotId);
  const living = [
    { kind: 'exists', key: keys.pin(job.snapshotId, job.pinId) } as const,
    { kind: 'modRevision', key: snapshot?.key ?? '', equals: snapshot?.revision ?? 0 } as const,
  ];
  const { segments, deltaLogs, segmentIndexes } = source;
  let next = await ids.allocate(Math.max(1, segments.length + deltaLogs.length + segmentIndexes.length));
  const puts: Put[] = [];
  for (const segment of segments) {
    const record = targetSegment(source, segment, next++);
    puts.push(putRecord(keys.segment(record.collectionId, record.id), SegmentRecord, record));
    for (const build of source.buildsOf(segment.id)) {
      const made = targetBuild(source, build, record.id, next++);
      puts.push(putRecord(keys.segmentIndex(made.collectionId, made.segmentId, made.indexId), SegmentIndexRecord, made));
    }
  }
  for (const log of deltaLogs) {
    const record = targetDeltaLog(source, log, next++, log.object);
    puts.push(putRecord(keys.delta(record.collectionId, record.id), DeltaLogRecord, record));
  }
  await mapLimit(pagesOf(puts), PARALLEL_PAGES, (page) => store.mustCommit({ if: living, puts: page }));
}
