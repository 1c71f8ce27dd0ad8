import { CairnError } from '@cairn/base';
import { nextCompactionTaskState, paths } from '@cairn/catalog';
import { type CompactionTaskRecord, CompactionTaskState } from '@cairn/proto/cairn/meta';

/** Generation of the segment that this dispatch of the task writes: a late worker of an earlier one writes elsewhere. */
export function generationOf(task: CompactionTaskRecord): string {
  return `c${task.id}e${task.epoch}`;
}

/** Where this dispatch of the task writes. */
export function compactionPrefix(task: CompactionTaskRecord): string {
  return paths.segment(task.collectionId, task.partitionId, task.targetSegmentId, generationOf(task));
}

export function stateAfter(task: CompactionTaskRecord, event: 'dispatch' | 'complete' | 'fail'): CompactionTaskState {
  const next = nextCompactionTaskState(task.state, event);
  if (next === 'GONE') throw new CairnError('Internal', `compaction task ${task.id}: ${event} is no end`);
  return next;
}

/** Not ended yet. */
export function isOpen(task: CompactionTaskRecord): boolean {
  return task.state === CompactionTaskState.COMPACTION_PENDING || task.state === CompactionTaskState.COMPACTION_EXECUTING;
}

/** What is compacted one plan at a time. */
export function groupOf(of: { readonly collectionId: number; readonly partitionId: number; readonly shard: number }): string {
  return `${of.collectionId}/${of.partitionId}/${of.shard}`;
}
