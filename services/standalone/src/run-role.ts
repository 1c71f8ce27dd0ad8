import { availableParallelism } from 'node:os';
import { type Config, Lifecycle, type Service } from '@cairn/base';
import { CatalogView } from '@cairn/catalog';
import { IndexPool } from '@cairn/index';
import { ProxyService } from '@cairn/proxy';
import { CallTransport, type Handlers, InProcessNetwork, RpcServer, type ServiceDefinition, type Transport } from '@cairn/rpc';
import { HealthServer, logTraceIds, startTelemetry } from '@cairn/telemetry';
import { openProcess, type ProcessParts } from './process-parts.ts';
import { Readiness } from './readiness.ts';
import { type InnerRole, makeRole, type RoleHost, type RoleParts } from './roles.ts';

export type Role = InnerRole | 'proxy' | 'standalone';

const INNER_ROLES: readonly InnerRole[] = ['datacoord', 'datanode', 'streaming'];
/** Calls under way at a stop have this long, ms; with the rest of a stop it stays under 5 s. */
const STOP_GRACE_MS = 1_500;

/** All roles of this process meet in-process. */
class LocalHost implements RoleHost {
  readonly #network: InProcessNetwork;

  constructor(network: InProcessNetwork) {
    this.#network = network;
  }

  address(role: InnerRole): string {
    return `inproc:${role}`;
  }

  serve<D extends ServiceDefinition>(role: InnerRole, definition: D, handlers: Handlers<D>): void {
    this.#network.serve(this.address(role), definition, handlers);
  }
}

/** The one role of this process listens on a port. */
class PortHost implements RoleHost {
  readonly server: RpcServer;
  readonly #address: string;

  constructor(server: RpcServer, address: string) {
    this.server = server;
    this.#address = address;
  }

  address(): string {
    return this.#address;
  }

  serve<D extends ServiceDefinition>(_role: InnerRole, definition: D, handlers: Handlers<D>): void {
    this.server.add(definition, handlers);
  }
}

/** Runs one role, or all of them in this process, until SIGTERM or SIGINT; resolves when everything has stopped. */
export async function runRole(role: Role, config: Config): Promise<void> {
  const stop = new AbortController();
  const ended = Promise.withResolvers<void>();
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.once(signal, () => {
      stop.abort();
      ended.resolve();
    });
  }
  const parts = await openProcess(role, config, stop.signal, logTraceIds);
  const { runtime, logger, nodeId } = parts;
  // A promise nobody awaits is a bug of ours, never a reason to end: what it belonged to is retried or answered elsewhere.
  process.on('unhandledRejection', (error) => logger.error({ error }, 'a rejection that nobody handled'));
  const lifecycle = new Lifecycle(logger);
  try {
    const telemetry = await startTelemetry({
      service: `cairn-${role}`,
      nodeId,
      otlpEndpoint: config.telemetry.otlpEndpoint,
      samplePercent: config.telemetry.samplePercent,
      runtime,
      logger,
    });
    lifecycle.add(telemetry);
    const readiness = new Readiness(parts);
    lifecycle.add(
      new HealthServer({ host: config.http.host, port: config.http.port, metrics: telemetry, checks: readiness.checks, runtime, logger }),
    );
    compose(role, parts, lifecycle, readiness);
    await lifecycle.start();
    readiness.started();
    logger.info(
      {
        ...(role === 'proxy' || role === 'standalone' ? { milvus: `${config.proxy.host}:${config.proxy.port}` } : {}),
        http: `${config.http.host}:${config.http.port}`,
      },
      `cairn ${role} is up`,
    );
    await ended.promise;
    logger.info({}, 'stopping');
  } finally {
    await lifecycle.stop();
    await parts.close();
    logger.info({}, 'stopped');
  }
  // Worker threads and sockets of libraries are not waited for: everything of ours has stopped and is durable.
  process.exit(0);
}

function compose(role: Role, process: ProcessParts, lifecycle: Lifecycle, readiness: Readiness): void {
  const { config, runtime, logger } = process;
  const standalone = role === 'standalone';
  const network = standalone ? new InProcessNetwork(runtime, { timeoutMs: config.rpc.callTimeoutMs }) : undefined;
  const transport: Transport = network ?? new CallTransport(runtime, { ...config.rpc, timeoutMs: config.rpc.callTimeoutMs });
  lifecycle.add({ name: 'transport', start: async () => undefined, stop: async () => transport.close() });

  const catalog = lifecycle.add(new CatalogView(process.meta, runtime, logger));
  const pool = new IndexPool({ threads: config.index.workers || availableParallelism(), runtime });
  if (role !== 'proxy' && role !== 'datacoord') lifecycle.add(pool);
  const parts: RoleParts = { ...process, transport, catalog, pool };

  if (network) {
    const host = new LocalHost(network);
    for (const inner of INNER_ROLES) lifecycle.add(makeRole(inner, parts, host));
  } else if (role !== 'proxy' && role !== 'standalone') {
    lifecycle.add(listeningRole(role, parts));
  }
  if (standalone || role === 'proxy') {
    readiness.needs('coordinator', 'channels');
    lifecycle.add(new ProxyService(parts));
  }
}

/** A role behind its own port. It listens before its service is made, since the service tells others the port. */
function listeningRole(role: InnerRole, parts: RoleParts): Service {
  const { node } = parts.config;
  const server = new RpcServer(parts.runtime, parts.logger, { calls: true });
  let service: Service | undefined;
  return {
    name: role,
    start: async () => {
      const port = await server.listen(node.host, node.port);
      service = makeRole(role, parts, new PortHost(server, `${node.advertiseHost || node.host}:${port}`));
      await service.start();
    },
    stop: async () => {
      await service?.stop();
      await server.stop(STOP_GRACE_MS);
    },
  };
}
