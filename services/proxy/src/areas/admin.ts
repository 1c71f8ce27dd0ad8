import { CAIRN_VERSION, CairnError } from '@cairn/base';
import type { AdminDefinition } from '@cairn/proto/cairn/admin';
import type { CallContext, Handlers } from '@cairn/rpc';
import type { ProxyParts } from '../parts.ts';
import { RequestContext } from '../request-context.ts';
import { checkCollectionName, checkSnapshotName } from '../snapshot-rules.ts';
import { SERVER_VERSION } from './system.ts';

/** What the Milvus contract has no words for; errors travel as those of the house, by the trailer. */
export function adminHandlers(parts: ProxyParts): Handlers<AdminDefinition> {
  const { coordinator, owners, runtime, config } = parts;
  const open = (call: CallContext): RequestContext => new RequestContext(call, runtime, config.proxy.requestTimeoutMs);
  /** Restoring takes as long as it takes; a repeat under its request id gives the same job. */
  const unbounded = Number.POSITIVE_INFINITY;
  return {
    getStatus: async (_request, call) => {
      const context = open(call);
      const [cluster, shards] = await Promise.all([
        coordinator.call(context, (leader, options) => leader.getClusterStatus({}, options)),
        owners.allStats(context),
      ]);
      return { cluster, shards, version: SERVER_VERSION, cairnVersion: CAIRN_VERSION };
    },
    listSnapshots: async (request, call) => coordinator.call(open(call), (leader, options) => leader.listSnapshots(request, options)),
    describeSnapshot: async (request, call) => coordinator.call(open(call), (leader, options) => leader.describeSnapshot(request, options)),
    dropSnapshot: async (request, call) => coordinator.call(open(call), (leader, options) => leader.dropSnapshot(request, options)),
    pinSnapshot: async (request, call) => {
      const context = open(call);
      const once = { ...request, requestId: request.requestId || context.requestId };
      return coordinator.call(context, (leader, options) => leader.pinSnapshot(once, options));
    },
    restoreSnapshot: async ({ restore, dryRun }, call) => {
      const context = open(call);
      if (!restore?.snapshot) throw new CairnError('MissingParameter', 'restore without a snapshot');
      const { snapshot, targetCollection } = restore;
      // By id: that of the snapshot, which the coordinator knows.
      const targetDatabase = restore.targetDatabase || (snapshot.id > 0 ? '' : snapshot.database);
      checkCollectionName(targetCollection, config.limits.maxNameLength);
      const request = {
        ...restore,
        snapshot: snapshot.id > 0 ? snapshot : { ...snapshot, name: checkSnapshotName(snapshot.name) },
        targetDatabase,
        requestId: restore.requestId || context.requestId,
      };
      if (dryRun)
        return { jobId: 0, plan: await coordinator.call(context, (leader, options) => leader.planRestore(request, options), unbounded) };
      const { jobId } = await coordinator.call(context, (leader, options) => leader.restoreSnapshot(request, options), unbounded);
      return { jobId, plan: undefined };
    },
    getRestoreJob: async (request, call) => coordinator.call(open(call), (leader, options) => leader.getRestoreJob(request, options)),
    cancelRestoreJob: async (request, call) =>
      coordinator.call(open(call), (leader, options) => leader.cancelRestoreJob(request, options), unbounded),
    listRestoreJobs: async (request, call) => coordinator.call(open(call), (leader, options) => leader.listRestoreJobs(request, options)),
  };
}
