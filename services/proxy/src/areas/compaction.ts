import { CairnError } from '@cairn/base';
import { type CompactionTaskRecord, CompactionTaskState } from '@cairn/proto/cairn/meta';
import type { GetCompactionResponse } from '@cairn/proto/cairn/services';
import { CompactionState } from '@cairn/proto/milvus/common';
import type { Area } from '../milvus-methods.ts';
import type { ProxyParts } from '../parts.ts';
import { OK } from '../status.ts';

type CompactionMethods = 'manualCompaction' | 'getCompactionState' | 'getCompactionStateWithPlans';

const MiB = 2 ** 20;
/** Largest segment that may be asked for; a datanode needs about as much memory to make it. */
const MAX_TARGET_MIB = 4096;

/** Compaction that is asked for. Major and L0 compaction are words for kinds that are one here: merge what is small, purge what is deleted. */
export function compactionArea(parts: ProxyParts): Area<CompactionMethods> {
  const { catalog, coordinator, config } = parts;
  return {
    manualCompaction: async (request, context) => {
      await catalog.sync();
      const database = context.database(request.dbName);
      const entry =
        request.collectionName === ''
          ? catalog.byId(database, Number(request.collectionID))
          : catalog.resolve(database, request.collectionName);
      const compact = {
        collectionId: entry.record.id,
        partitionId: Number(request.partitionId),
        vchannel: request.channel,
        segmentIds: request.segmentIds.map(Number),
        targetBytes: targetBytes(Number(request.targetSize), config.compaction.targetBytes),
      };
      const { jobId, tasks } = await coordinator.call(context, (leader, options) => leader.compact(compact, options));
      return { status: OK, compactionID: BigInt(jobId), compactionPlanCount: tasks };
    },

    getCompactionState: async (request, context) => {
      const jobId = Number(request.compactionID);
      const found = await coordinator.call(context, (leader, options) => leader.getCompaction({ jobId }, options));
      const count = (...states: CompactionTaskState[]): number => found.tasks.filter((task) => states.includes(task.state)).length;
      const executing = count(CompactionTaskState.COMPACTION_PENDING, CompactionTaskState.COMPACTION_EXECUTING);
      const completed = count(CompactionTaskState.COMPACTION_COMPLETED);
      return {
        status: OK,
        state: stateOf(found),
        executingPlanNo: BigInt(executing),
        timeoutPlanNo: 0n,
        completedPlanNo: BigInt(completed),
        failedPlanNo: BigInt((found.job?.tasks ?? found.tasks.length) - executing - completed),
      };
    },

    getCompactionStateWithPlans: async (request, context) => {
      const jobId = Number(request.compactionID);
      const found = await coordinator.call(context, (leader, options) => leader.getCompaction({ jobId }, options));
      return {
        status: OK,
        state: stateOf(found),
        mergeInfos: found.tasks.map((task) => ({ sources: task.sourceSegmentIds.map(BigInt), target: BigInt(task.targetSegmentId) })),
      };
    },
  };
}

/** Milvus has no word for failed: a job is completed when nothing of it is under way, and the counts say how its plans ended. */
function stateOf({ tasks }: GetCompactionResponse): CompactionState {
  return tasks.some(isOpen) ? CompactionState.Executing : CompactionState.Completed;
}

function isOpen({ state }: CompactionTaskRecord): boolean {
  return state === CompactionTaskState.COMPACTION_PENDING || state === CompactionTaskState.COMPACTION_EXECUTING;
}

/** As in Milvus, smaller segments than the configured size cannot be asked for. 0: the configured size. */
function targetBytes(targetMiB: number, configured: number): number {
  if (targetMiB === 0) return 0;
  const bytes = targetMiB * MiB;
  if (targetMiB < 0 || bytes < configured)
    throw new CairnError('InvalidParameter', `targetSize ${targetMiB} MB is smaller than the configured ${Math.ceil(configured / MiB)} MB`);
  if (targetMiB > MAX_TARGET_MIB)
    throw new CairnError('InvalidParameter', `targetSize ${targetMiB} MB is above the limit of ${MAX_TARGET_MIB} MB`);
  return bytes;
}
