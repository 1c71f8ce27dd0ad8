import type { AdminDefinition } from '@cairn/proto/cairn/admin';
import type { CallContext, Handlers } from '@cairn/rpc';
import type { ProxyParts } from '../parts.ts';
import { RequestContext } from '../request-context.ts';
import { SERVER_VERSION } from './system.ts';

/** What the Milvus contract has no words for; errors travel as those of the house, by the trailer. */
export function adminHandlers(parts: ProxyParts): Handlers<AdminDefinition> {
  const { coordinator, owners, runtime, config } = parts;
  const open = (call: CallContext): RequestContext => new RequestContext(call, runtime, config.proxy.requestTimeoutMs);
  return {
    getStatus: async (_request, call) => {
      const context = open(call);
      const [cluster, shards] = await Promise.all([
        coordinator.call(context, (leader, options) => leader.getClusterStatus({}, options)),
        owners.allStats(context),
      ]);
      return { cluster, shards, version: SERVER_VERSION };
    },
    listSnapshots: async (request, call) => coordinator.call(open(call), (leader, options) => leader.listSnapshots(request, options)),
    describeSnapshot: async (request, call) => coordinator.call(open(call), (leader, options) => leader.describeSnapshot(request, options)),
    listRestoreJobs: async (request, call) => coordinator.call(open(call), (leader, options) => leader.listRestoreJobs(request, options)),
  };
}
