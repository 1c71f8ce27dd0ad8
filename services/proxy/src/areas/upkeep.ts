import type { UpkeepDefinition } from '@cairn/proto/cairn/upkeep';
import type { CallContext, Handlers } from '@cairn/rpc';
import type { ProxyParts } from '../parts.ts';
import { RequestContext } from '../request-context.ts';

/** Time a check or a round of garbage collection has when its caller names none. */
const DEFAULT_TIMEOUT_MS = 600_000;

/** Passed on to the leading coordinator as it is. */
export function upkeepHandlers(parts: ProxyParts): Handlers<UpkeepDefinition> {
  const { coordinator, runtime } = parts;
  const open = (call: CallContext): RequestContext => new RequestContext(call, runtime, DEFAULT_TIMEOUT_MS);
  return {
    gcPlan: (request, call) => coordinator.upkeep(open(call), (leader, options) => leader.gcPlan(request, options)),
    gcRun: (request, call) => coordinator.upkeep(open(call), (leader, options) => leader.gcRun(request, options)),
    check: (request, call) => coordinator.upkeep(open(call), (leader, options) => leader.check(request, options)),
    verifySnapshot: (request, call) => coordinator.upkeep(open(call), (leader, options) => leader.verifySnapshot(request, options)),
    startDrill: (request, call) => coordinator.upkeep(open(call), (leader, options) => leader.startDrill(request, options)),
    getDrill: (request, call) => coordinator.upkeep(open(call), (leader, options) => leader.getDrill(request, options)),
    listCertificates: (request, call) => coordinator.upkeep(open(call), (leader, options) => leader.listCertificates(request, options)),
    diffSnapshots: (request, call) => coordinator.upkeep(open(call), (leader, options) => leader.diffSnapshots(request, options)),
    snapshotSizes: (request, call) => coordinator.upkeep(open(call), (leader, options) => leader.snapshotSizes(request, options)),
    findSnapshots: (request, call) => coordinator.upkeep(open(call), (leader, options) => leader.findSnapshots(request, options)),
  };
}
