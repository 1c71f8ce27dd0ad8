import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { CairnError, type Config, type Logger, type Runtime, type Service } from '@cairn/base';
import { NodeRegistration } from '@cairn/catalog';
import type { IndexPool } from '@cairn/index';
import type { MetaStore } from '@cairn/meta';
import type { ObjectStore } from '@cairn/objects';
import type {
  DataNodeDefinition,
  LoadSegmentsRequest,
  QueryResult,
  ReleaseSegmentsRequest,
  SearchResult,
  SegmentQueryRequest,
  SegmentReadScope,
  SegmentSearchRequest,
  TaskRequest,
} from '@cairn/proto/cairn/services';
import { encodeQueryResult, encodeSearchResult, executeQuery, executeSearch } from '@cairn/query';
import type { CallContext, Handlers } from '@cairn/rpc';
import { VectorMemory } from '@cairn/segment';
import type { WalStore } from '@cairn/wal';
import { DeltaLogs } from './delta-logs.ts';
import { HeldShard, type SegmentOpener, segmentOpener } from './held-shard.ts';
import { HeldSweeper } from './held-sweeper.ts';
import { LocalFiles } from './local-files.ts';
import { TaskRunner } from './task-runner.ts';

export interface DataNodeOptions {
  readonly nodeId: string;
  /** Where this node's handlers are served: `host:port` or `inproc:<name>`. */
  readonly address: string;
  readonly meta: MetaStore;
  readonly objects: ObjectStore;
  readonly wal: WalStore;
  /** The process's one; started and stopped by whoever made it. */
  readonly pool: IndexPool;
  readonly config: Config;
  readonly runtime: Runtime;
  readonly logger: Logger;
  /** How segments are opened; default: libs/segment. */
  readonly open?: SegmentOpener;
}

const OPEN_CONCURRENCY = 8;
const MAX_HISTORY_BYTES = 64 << 20;

/** Serves sealed segments and runs tasks. What it holds is derived: a node that starts anew is empty, and the shards' owners load it again. */
export class DataNodeService implements Service {
  readonly name = 'datanode';
  readonly handlers: Handlers<typeof DataNodeDefinition> = {
    loadSegments: (request, context) => this.#load(request, context),
    releaseSegments: (request) => this.#release(request),
    search: (request, context) => this.#search(request, context),
    query: (request, context) => this.#query(request, context),
    runTask: (request: TaskRequest, context: CallContext) => this.#tasks.run(request, context.signal),
  };
  readonly #options: DataNodeOptions;
  readonly #registration: NodeRegistration;
  readonly #files: LocalFiles;
  readonly #tasks: TaskRunner;
  readonly #deltaLogs: DeltaLogs;
  readonly #open: SegmentOpener;
  readonly #leftovers: readonly string[];
  readonly #shards = new Map<string, HeldShard>();
  readonly #sweeper: HeldSweeper;

  constructor(options: DataNodeOptions) {
    const { meta, objects, runtime, logger, config, pool } = options;
    this.#options = options;
    const cacheDir = join(config.dataDir, 'cache');
    // Without a disk of the store's own, vectors are read from copies here; a simulation keeps them in memory.
    const segmentCache = objects.localPath || runtime.inline ? undefined : join(cacheDir, 'segments');
    this.#leftovers = [join(cacheDir, 'segments'), join(cacheDir, 'builds')];
    this.#open = options.open ?? segmentOpener(objects, runtime, segmentCache, new VectorMemory(config.index.vectorBytes));
    this.#files = new LocalFiles({ objects, runtime, logger, dir: join(cacheDir, 'indexes'), limitBytes: config.index.cacheBytes });
    this.#deltaLogs = new DeltaLogs(meta, objects, runtime);
    this.#sweeper = new HeldSweeper({
      ...{ meta, runtime, logger },
      shards: () => this.#shards.values(),
      release: (vchannel, segmentIds) => this.#release({ vchannel, segmentIds: [...segmentIds] }),
    });
    this.#tasks = new TaskRunner({
      ...{ objects, pool, runtime, logger, open: this.#open, deltaLogs: this.#deltaLogs },
      scratchDir: join(cacheDir, 'builds'),
      slots: config.node.slots,
      buildConcurrency: config.index.buildConcurrency,
      copyConcurrency: config.restore.copyConcurrency,
    });
    this.#registration = new NodeRegistration({
      ...{ meta, runtime, logger },
      ttlMs: config.node.leaseTtlMs,
      record: { id: options.nodeId, role: 'datanode', address: options.address, slots: config.node.slots },
    });
  }

  /** Aborts when the node's lease is lost: owners have given its segments to others. */
  get lost(): AbortSignal {
    return this.#registration.lost;
  }

  async start(): Promise<void> {
    // What a crash left: copies and half-built indexes that nobody will ask for. The data directory is this process's alone.
    if (!this.#options.runtime.inline) for (const directory of this.#leftovers) await rm(directory, { recursive: true, force: true });
    await this.#files.start();
    await this.#registration.start();
    this.#sweeper.start();
  }

  async stop(): Promise<void> {
    // The key goes first, so that owners turn to other nodes.
    await this.#registration.stop();
    this.#sweeper.stop();
    await this.#tasks.stop();
    await Promise.all([...this.#shards.values()].map((shard) => shard.release([])));
    this.#shards.clear();
  }

  async #load(request: LoadSegmentsRequest, context: CallContext): Promise<Record<never, never>> {
    const { vchannel, segments } = request;
    const started = this.#options.runtime.monotonic();
    let shard = this.#shardFor(vchannel);
    while (!(await shard.load(request))) {
      // It was released while this call waited its turn.
      if (this.#shards.get(vchannel) === shard) this.#shards.delete(vchannel);
      if (context.signal.aborted) throw new CairnError('Cancelled', `load of shard ${vchannel} was cancelled`);
      shard = this.#shardFor(vchannel);
    }
    await shard.waitForDeletes(request.deleteSequence, this.#patience(context), context.signal);
    const ms = Math.round(this.#options.runtime.monotonic() - started);
    this.#options.logger.debug({ vchannel, segments: segments.length, held: shard.segmentIds.length, ms }, 'segments loaded');
    return {};
  }

  #shardFor(vchannel: string): HeldShard {
    const there = this.#shards.get(vchannel);
    if (there) return there;
    const { wal, runtime, logger, pool } = this.#options;
    const shard = new HeldShard(vchannel, {
      ...{ wal, runtime, logger, pool, deltaLogs: this.#deltaLogs, files: this.#files, open: this.#open },
      openConcurrency: OPEN_CONCURRENCY,
      maxHistoryBytes: MAX_HISTORY_BYTES,
    });
    this.#shards.set(vchannel, shard);
    return shard;
  }

  async #release({ vchannel, segmentIds }: ReleaseSegmentsRequest): Promise<Record<never, never>> {
    const shard = this.#shards.get(vchannel);
    if (!shard) return {};
    // A load that comes meanwhile makes a new shard.
    if (segmentIds.length === 0) this.#shards.delete(vchannel);
    if ((await shard.release(segmentIds)) && this.#shards.get(vchannel) === shard) this.#shards.delete(vchannel);
    return {};
  }

  async #search({ scope, plan }: SegmentSearchRequest, context: CallContext): Promise<SearchResult> {
    if (!scope || !plan) throw new CairnError('InvalidParameter', 'search of segments without scope or plan');
    const { pool, runtime } = this.#options;
    const { readTs, expiredTs } = scope;
    const shard = await this.#ready(scope, context);
    return shard.read(scope.segmentIds, async (segments) =>
      encodeSearchResult(await executeSearch({ segments, schema: shard.schema, plan, readTs, expiredTs, pool, runtime }), readTs),
    );
  }

  async #query({ scope, plan }: SegmentQueryRequest, context: CallContext): Promise<QueryResult> {
    if (!scope || !plan) throw new CairnError('InvalidParameter', 'query of segments without scope or plan');
    const { readTs, expiredTs } = scope;
    const { runtime } = this.#options;
    const shard = await this.#ready(scope, context);
    return shard.read(scope.segmentIds, async (segments) =>
      encodeQueryResult(await executeQuery({ segments, schema: shard.schema, plan, readTs, expiredTs, runtime }), readTs, runtime),
    );
  }

  /** The shard, once deletes up to what the owner has acknowledged are applied. */
  async #ready(scope: SegmentReadScope, context: CallContext): Promise<HeldShard> {
    const shard = this.#shards.get(scope.vchannel);
    if (!shard)
      throw new CairnError('SegmentNotFound', `segment ${scope.segmentIds[0]} of shard ${scope.vchannel} is not loaded on this node`);
    // Nearly always they are: neither a timer nor a signal is made for it.
    if (scope.deleteSequence > shard.appliedDeletes)
      await shard.waitForDeletes(scope.deleteSequence, this.#patience(context), context.signal);
    return shard;
  }

  /** ms that a call may wait: to its deadline, or to the default one. */
  #patience(context: CallContext): number {
    return Math.min(context.remaining(), this.#options.config.rpc.callTimeoutMs);
  }
}
