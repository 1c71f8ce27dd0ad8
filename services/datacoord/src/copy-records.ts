import { type DeltaLogRecord, type ObjectRef, type SegmentIndexRecord, type SegmentRecord, SegmentState } from '@cairn/proto/cairn/meta';
import type { CopySource } from './copy-source.ts';

/**
 * The records by which what a snapshot holds becomes the target's. Row timestamps, row ids and as_of are kept; WAL sequences are 0, for none of
 * it is in the target's WAL.
 */

export function targetSegment(source: CopySource, segment: SegmentRecord, id: number): SegmentRecord {
  return {
    ...segment,
    id,
    collectionId: source.target.id,
    partitionId: source.partitionId(segment.partitionId, `segment ${segment.id}`),
    state: SegmentState.SEGMENT_SEALED,
    droppedTs: 0,
    firstSequence: 0,
    lastSequence: 0,
    group: source.group,
    compactedFrom: [],
    compactedInto: 0,
    // Sequences of the source's WAL: the target's delta logs have none.
    deletesFrom: 0,
  };
}

export function targetBuild(source: CopySource, build: SegmentIndexRecord, segmentId: number, buildId: number): SegmentIndexRecord {
  return {
    ...build,
    buildId,
    indexId: source.indexId(build.indexId),
    collectionId: source.target.id,
    segmentId,
    group: source.group,
    epoch: 0,
  };
}

export function targetDeltaLog(source: CopySource, log: DeltaLogRecord, id: number, object: ObjectRef | undefined): DeltaLogRecord {
  return {
    ...log,
    id,
    collectionId: source.target.id,
    partitionId: log.partitionId === 0 ? 0 : source.partitionId(log.partitionId, `delta log ${log.id}`),
    object,
    firstSequence: 0,
    lastSequence: 0,
    droppedTs: 0,
    group: source.group,
  };
}
