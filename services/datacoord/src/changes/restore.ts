import { CairnError } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { CollectionState, GroupRecord, RestoreJobRecord, RestoreJobState } from '@cairn/proto/cairn/meta';
import type { RestoreSnapshot } from '@cairn/proto/cairn/wal';
import { type ChangeHandler, effects, putRecord } from './change.ts';

/**
 * Makes the job and, with it, ends the intent: from here the job answers for what was made. Idempotent by job id. The group of the target's
 * records begins unpublished.
 */
export const restoreSnapshot: ChangeHandler<RestoreSnapshot> = (state, change, { nowMs }) => {
  const { job } = change;
  if (!job) throw new CairnError('InvalidParameter', 'restore snapshot without a job');
  if (state.jobs.get(job.id)) return effects(job.id);
  if (!state.intents.get(job.id)) throw new CairnError('InvalidParameter', `restore job ${job.id} has no intent`);
  const target = state.collections.get(job.targetCollectionId);
  if (target?.state !== CollectionState.COLLECTION_RESTORING || target.restoreJobId !== job.id) {
    throw new CairnError('InvalidParameter', `collection ${job.targetCollectionName} is not the target of restore job ${job.id}`);
  }
  const record: RestoreJobRecord = { ...job, state: RestoreJobState.RESTORE_PENDING };
  const group: GroupRecord = { group: job.group, published: false, createdMs: nowMs };
  return effects(job.id, {
    puts: [putRecord(keys.restoreJob(job.id), RestoreJobRecord, record), putRecord(keys.group(job.group), GroupRecord, group)],
    deletes: [keys.restoreIntent(job.id)],
  });
};
