import { asCairnError, type CodeName, type Config, hasCode, type Logger, type Runtime, Semaphore, type Service } from '@cairn/base';
import { type CatalogView, LeaderWatch } from '@cairn/catalog';
import type { MetaStore } from '@cairn/meta';
import { AdminDefinition } from '@cairn/proto/cairn/admin';
import { UpkeepDefinition } from '@cairn/proto/cairn/upkeep';
import { ClientTelemetryServiceDefinition, MilvusServiceDefinition } from '@cairn/proto/milvus/milvus';
import { type CallContext, type Handlers, RpcServer, type Transport } from '@cairn/rpc';
import { counter, histogram } from '@cairn/telemetry';
import { adminHandlers } from './areas/admin.ts';
import { aliasArea } from './areas/alias.ts';
import { collectionArea } from './areas/collection.ts';
import { compactionArea } from './areas/compaction.ts';
import { dataArea } from './areas/data.ts';
import { databaseArea } from './areas/database.ts';
import { flushArea } from './areas/flush.ts';
import { indexArea } from './areas/index.ts';
import { partitionArea } from './areas/partition.ts';
import { readArea } from './areas/read.ts';
import { snapshotArea } from './areas/snapshot.ts';
import { systemArea } from './areas/system.ts';
import { upkeepHandlers } from './areas/upkeep.ts';
import { CoordinatorClient } from './coordinator-client.ts';
import { failureReply, type MilvusHandlers, milvusCodecs, milvusMethods, RAW_UNIMPLEMENTED } from './milvus-methods.ts';
import type { ProxyParts } from './parts.ts';
import { ProxyCatalog } from './proxy-catalog.ts';
import { Quota } from './quota.ts';
import { RequestContext } from './request-context.ts';
import { AutoIds, ReadTimestamps } from './sequences.ts';
import { ShardOwners } from './shard-owners.ts';
import { notSupported, OK, toStatus } from './status.ts';

const requests = counter('cairn_proxy_requests', { description: 'Public requests answered, by method and outcome.', unit: '{request}' });
const durations = histogram('cairn_proxy_request_duration_seconds', {
  description: 'Time from a decoded public request to its reply.',
  unit: 's',
});

/** Requests that may wait for a free place, beyond those under way. */
const WAITING_REQUESTS = 4_096;
/** Time that requests under way have at stop, ms. */
const STOP_GRACE_MS = 3_000;

export interface ProxyOptions {
  /** Started by whoever made it. */
  readonly catalog: CatalogView;
  readonly meta: MetaStore;
  readonly transport: Transport;
  readonly runtime: Runtime;
  readonly logger: Logger;
  readonly config: Config;
  /** False: no port; whoever made it calls `handlers` (simulation). */
  readonly listen?: boolean;
}

type AnyArea = Readonly<Record<string, ((request: never, context: RequestContext) => Promise<unknown>) | undefined>>;

/** Methods that do not sync the view before they use it. */
const BY_THE_VIEW: ReadonlySet<string> = new Set(['search', 'hybridSearch', 'query', 'insert', 'upsert', 'delete']);

/** Methods that change the catalog: `quota.ddlPerSecond`. */
const DDL: ReadonlySet<string> = new Set([
  ...['createCollection', 'dropCollection', 'renameCollection', 'alterCollection', 'alterCollectionField', 'addCollectionField'],
  ...['createPartition', 'dropPartition', 'createIndex', 'dropIndex', 'alterIndex', 'createAlias', 'dropAlias', 'alterAlias'],
  ...['createDatabase', 'dropDatabase', 'alterDatabase', 'loadCollection', 'releaseCollection', 'loadPartitions', 'releasePartitions'],
]);

/** The public face: Milvus's service, its telemetry service and `cairn.admin.v1` on one port. Keeps no state that is not in the catalog. */
export class ProxyService implements Service {
  readonly name = 'proxy';
  readonly #options: ProxyOptions;
  readonly #parts: ProxyParts;
  readonly #leaders: LeaderWatch;
  readonly #places: Semaphore;
  readonly #stopping = new AbortController();
  #server: RpcServer | undefined;
  #port = 0;

  constructor(options: ProxyOptions) {
    this.#options = options;
    const { catalog, meta, transport, runtime, config } = options;
    const logger = options.logger.child({ part: 'proxy' });
    this.#leaders = new LeaderWatch(meta, runtime, logger);
    const coordinator = new CoordinatorClient(meta, transport, runtime, this.#leaders);
    this.#parts = {
      catalog: new ProxyCatalog(catalog),
      coordinator,
      owners: new ShardOwners(meta, transport, runtime, logger),
      quota: new Quota(config, runtime),
      autoIds: new AutoIds(coordinator),
      readTimestamps: new ReadTimestamps(coordinator, runtime, this.#stopping.signal),
      runtime,
      logger,
      config,
    };
    this.#places = new Semaphore('proxy requests', config.proxy.maxConcurrentRequests, WAITING_REQUESTS);
  }

  /** Port that it listens on, once started. */
  get port(): number {
    return this.#port;
  }

  async start(): Promise<void> {
    const { runtime, config } = this.#options;
    await Promise.all([this.#parts.owners.start(), this.#leaders.start()]);
    if (this.#options.listen === false) return;
    const server = new RpcServer(runtime, this.#parts.logger, {
      maxReceiveBytes: config.rpc.maxMessageBytes,
      onMalformed: (method, error) => failureReply(method, toStatus(error)),
    });
    server.add(MilvusServiceDefinition, this.handlers(), milvusCodecs);
    server.add(ClientTelemetryServiceDefinition, {
      clientHeartbeat: async () => ({ status: OK, serverTimestamp: BigInt(Math.floor(runtime.now())), commands: [] }),
    });
    server.add(AdminDefinition, this.admin());
    server.add(UpkeepDefinition, this.upkeep());
    this.#port = await server.listen(config.proxy.host, config.proxy.port);
    this.#server = server;
  }

  async stop(): Promise<void> {
    await this.#server?.stop(STOP_GRACE_MS);
    this.#stopping.abort();
    await Promise.all([this.#parts.owners.stop(), this.#leaders.stop()]);
  }

  /** The calls that the Milvus contract has no words for. */
  admin(): Handlers<AdminDefinition> {
    return adminHandlers(this.#parts);
  }

  /** Garbage, checks and contents. */
  upkeep(): Handlers<UpkeepDefinition> {
    return upkeepHandlers(this.#parts);
  }

  /** The Milvus service: every method of it, built ones and those that say they are not. */
  handlers(): MilvusHandlers {
    const parts = this.#parts;
    const built: AnyArea = {
      ...systemArea(parts),
      ...databaseArea(parts),
      ...collectionArea(parts),
      ...partitionArea(parts),
      ...indexArea(parts),
      ...aliasArea(parts),
      ...dataArea(parts),
      ...readArea(parts),
      ...flushArea(parts),
      ...snapshotArea(parts),
      ...compactionArea(parts),
    };
    const handlers: Record<string, unknown> = {};
    for (const [name, method] of Object.entries(milvusMethods)) {
      if (RAW_UNIMPLEMENTED.has(name)) continue;
      const work = built[name];
      const answer = (request: never, call: CallContext): Promise<unknown> => this.#answer(name, work, request, call);
      handlers[name] = method.responseStream
        ? async function* (request: never, call: CallContext) {
            yield await answer(request, call);
          }
        : answer;
    }
    return handlers as unknown as MilvusHandlers;
  }

  /**
   * The data path uses the view of the catalog as it is. What it refuses by it may be right by a change that another proxy answered a moment ago (a new
   * field, an alias that was moved, a collection made anew): so the view is synced, and if it has changed the request is looked at once more. Writes
   * keep their request id, so nothing is done twice.
   */
  async #current(name: string, work: () => Promise<unknown>): Promise<unknown> {
    try {
      return await work();
    } catch (error) {
      if (!BY_THE_VIEW.has(name) || !hasCode(error, 'InvalidParameter', 'CollectionNotFound', 'FieldNotFound', 'ChannelNotFound'))
        throw error;
      const { catalog } = this.#parts;
      const before = catalog.revision;
      await catalog.sync();
      if (catalog.revision === before) throw error;
      return work();
    }
  }

  /** Runs one request; whatever it throws becomes the Status of its reply. */
  async #answer(name: string, work: AnyArea[string], request: never, call: CallContext): Promise<unknown> {
    const method = milvusMethods[name];
    const { runtime, config } = this.#options;
    const start = runtime.monotonic();
    let outcome: CodeName | 'ok' = 'ok';
    try {
      if (!work) throw notSupported(method.name);
      if (DDL.has(name)) this.#parts.quota.ddl();
      const context = new RequestContext(call, runtime, config.proxy.requestTimeoutMs);
      return await this.#places.run(() => this.#current(name, () => work(request, context)));
    } catch (thrown) {
      const error = asCairnError(thrown);
      outcome = error.codeName;
      if (outcome === 'Unexpected' || outcome === 'Internal') {
        this.#parts.logger.error({ method: method.name, error: thrown }, 'request failed unexpectedly');
      } else {
        this.#parts.logger.debug({ method: method.name, code: error.code, reason: error.message }, 'request was answered with an error');
      }
      return failureReply(method, toStatus(error));
    } finally {
      requests.add(1, { method: method.name, outcome });
      durations.record((runtime.monotonic() - start) / 1_000, { method: method.name });
    }
  }
}
