import type { DeltaLogRecord, SegmentIndexRecord, SegmentRecord } from '@cairn/proto/cairn/meta';
import type { TaskRequest, TaskUpdate } from '@cairn/proto/cairn/services';

/** Records that make what a task wrote part of the target, invisible until its group is published. */
export interface TaskRecords {
  readonly segments: readonly SegmentRecord[];
  readonly deltaLogs: readonly DeltaLogRecord[];
  readonly builds: readonly SegmentIndexRecord[];
}

/** One dispatch of a task of a restore: what a datanode does, where it writes, and what comes of it. */
export interface TaskOrder {
  readonly work: NonNullable<TaskRequest['task']>;
  /** Prefixes of the object store that it writes. */
  readonly prefixes: readonly string[];
  /** Objects of the snapshot that it is about, for progress. */
  readonly objects: number;
  /** `update`: the datanode's last word. Throws where that is not what was asked for; what it throws decides whether the task is tried again. */
  records(update: TaskUpdate): Promise<TaskRecords>;
}
