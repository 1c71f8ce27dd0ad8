import { CairnError, isRetriable } from '@cairn/base';
import type { Area } from '../milvus-methods.ts';
import type { ProxyParts } from '../parts.ts';
import { DEFAULT_DATABASE } from '../request-context.ts';
import { OK } from '../status.ts';
import { wireTimestamp } from './wire-forms.ts';

type SystemMethods = 'connect' | 'getVersion' | 'checkHealth' | 'allocTimestamp' | 'getMetrics' | 'loadBalance';

/** SDKs and milvus-backup read this as "a server with snapshots". */
export const SERVER_VERSION = '3.0.0';
/** Longest wait for DataCoord in a health check, ms. */
const HEALTH_TIMEOUT_MS = 3_000;

/** Handshake, health, clock. */
export function systemArea(parts: ProxyParts): Area<SystemMethods> {
  const { catalog, coordinator, runtime, logger } = parts;
  // Sessions are told apart in logs only; the number need not outlive this process.
  let lastIdentifier = BigInt(Math.floor(runtime.now())) << 16n;
  return {
    connect: async (request, context) => {
      // SDKs learn here that the database they were given is not there. The default one always is, and costs no look.
      const database = context.database('');
      if (database !== DEFAULT_DATABASE) await catalog.retrySynced(() => catalog.database(database));
      lastIdentifier++;
      const { sdkType, sdkVersion, user, host } = request.clientInfo ?? { sdkType: '', sdkVersion: '', user: '', host: '' };
      logger.debug({ sdkType, sdkVersion, user, host, identifier: lastIdentifier.toString() }, 'client connected');
      return {
        status: OK,
        serverInfo: {
          buildTags: SERVER_VERSION,
          buildTime: '',
          gitCommit: '',
          goVersion: '',
          deployMode: 'STANDALONE',
          reserved: {},
        },
        identifier: lastIdentifier,
      };
    },

    getVersion: async () => ({ status: OK, version: SERVER_VERSION }),

    checkHealth: async (_request, context) => {
      const reasons: string[] = [];
      try {
        await coordinator.call(context, (leader, options) => leader.getClusterStatus({}, { ...options, timeoutMs: HEALTH_TIMEOUT_MS }));
      } catch (error) {
        if (!isRetriable(error)) throw error;
        reasons.push(`datacoord: ${error instanceof Error ? error.message : String(error)}`);
      }
      return { status: OK, isHealthy: reasons.length === 0, reasons, quotaStates: [] };
    },

    allocTimestamp: async () => ({ status: OK, timestamp: wireTimestamp(await parts.readTimestamps.now()) }),

    getMetrics: async (request, context) => {
      const metric = metricType(request.request);
      if (metric !== 'system_info')
        throw new CairnError('InvalidParameter', `metric type ${JSON.stringify(metric)} is not known, expected system_info`);
      const status = await coordinator.call(context, (leader, options) => leader.getClusterStatus({}, options));
      const nodes = status.nodes.map((node) => ({
        identifier: node.id,
        name: `${node.role}${node.id}`,
        infos: { has_error: false, name: node.role, type: node.role === 'datanode' ? 'querynode' : node.role, ip: node.address },
      }));
      return { status: OK, response: JSON.stringify({ nodes_info: nodes }), componentName: 'proxy' };
    },

    loadBalance: async (request, context) => {
      await catalog.sync();
      catalog.resolve(context.database(request.dbName), request.collectionName);
      throw new CairnError('NotSupported', 'not supported: LoadBalance: placement follows the nodes that live');
    },
  };
}

function metricType(text: string): unknown {
  try {
    const request: unknown = JSON.parse(text);
    return typeof request === 'object' && request !== null ? (request as Record<string, unknown>)['metric_type'] : undefined;
  } catch {
    throw new CairnError('InvalidParameter', `the metrics request is not JSON: ${text.slice(0, 200)}`);
  }
}
