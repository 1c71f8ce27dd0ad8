import { asCairnError, CairnError, type Config, type Logger, type Runtime, retry, Semaphore, type Service } from '@cairn/base';
import { type CatalogView, keys, LeaderWatch, NodeRegistration } from '@cairn/catalog';
import type { IndexPool } from '@cairn/index';
import type { MetaEntry, MetaStore } from '@cairn/meta';
import type { ObjectStore } from '@cairn/objects';
import { ChannelRecord } from '@cairn/proto/cairn/meta';
import type {
  FlushShardRequest,
  FlushShardResponse,
  ReleaseRequest,
  ReleaseResponse,
  ShardStatsRequest,
  ShardStatsResponse,
  StreamingDefinition,
} from '@cairn/proto/cairn/services';
import type { CallContext, Handlers, Transport } from '@cairn/rpc';
import type { WalStore } from '@cairn/wal';
import { type StreamingCatalog, streamingCatalog } from './catalog-face.ts';
import { ChannelOwner } from './channel-owner.ts';
import { Coordinator, IdReserve, type StampSource } from './coordinator.ts';
import { Drain } from './drain.ts';
import { flushedSegments } from './flushed-segments.ts';
import { growingBytes } from './measures.ts';
import { NodeLoads } from './node-loads.ts';
import { PrefixWatch } from './prefix-watch.ts';
import { ReadHandler } from './read-handler.ts';
import { type StreamingSettings, streamingSettings } from './settings.ts';
import { shardStats } from './shard-stats.ts';
import { within } from './waiting.ts';

/** Row ids reserved at once; segment and delta log ids reserved at once. */
const ROW_ID_BLOCK = 1 << 18;
const SEGMENT_ID_BLOCK = 64;
const FLUSHES_WAITING = 100_000;
const HAND_OVER = { attempts: Number.POSITIVE_INFINITY, firstDelayMs: 50, maxDelayMs: 2_000 };
/** Appends in flight have this long to resolve: when the coordinator asks for a channel, and when the node stops. */
const IN_FLIGHT_AT_RELEASE_MS = 2_000;
const IN_FLIGHT_AT_STOP_MS = 2_000;
/** Records of channels are given back within this at a stop; after it the end of the node's key says the same. */
const HAND_BACK_AT_STOP_MS = 500;
/** Unflushed bytes are counted anew after this long. */
const GROWING_BYTES_STALE_MS = 20;

export interface StreamingOptions {
  readonly nodeId: string;
  /** Where this node's handlers are served: `host:port` or `inproc:<name>`. */
  readonly address: string;
  readonly meta: MetaStore;
  readonly objects: ObjectStore;
  readonly wal: WalStore;
  readonly transport: Transport;
  /** The process's view of the catalog; started and stopped by whoever made it. */
  readonly catalog: CatalogView;
  /** The process's one; started and stopped by whoever made it. */
  readonly pool: IndexPool;
  readonly config: Config;
  readonly runtime: Runtime;
  readonly logger: Logger;
  /** Timestamps and ids; default: DataCoord's leader through `transport`. */
  readonly stamps?: StampSource;
}

/** A channel record and the revision that wrote it. */
interface Assignment {
  readonly record: ChannelRecord;
  readonly revision: number;
}

function assignmentOf(entry: MetaEntry | undefined): Assignment | undefined {
  return entry && { record: ChannelRecord.decode(entry.value), revision: entry.modRevision };
}

/** Owns physical channels: takes those over that DataCoord assigns to this node, and answers for their shards. */
export class StreamingService implements Service {
  readonly name = 'streaming';
  readonly handlers: Handlers<typeof StreamingDefinition> = {
    write: (request, context) => this.#ownerOf(request.vchannel).write(request, context),
    search: (request, context) => this.#reads.search(request, context),
    query: (request, context) => this.#reads.query(request, context),
    flush: (request, context) => this.#flush(request, context),
    barrier: (request, context) => this.#ownerOf(request.vchannel).barrier(request, context),
    shardStats: (request) => this.#shardStats(request),
    release: (request, context) => this.#release(request, context),
  };
  readonly #options: StreamingOptions;
  readonly #catalog: StreamingCatalog;
  readonly #settings: StreamingSettings;
  readonly #registration: NodeRegistration;
  readonly #watch: PrefixWatch;
  readonly #owners = new Map<string, ChannelOwner>();
  /** Channels whose record is being given back. */
  readonly #handingOver = new Map<string, Promise<void>>();
  readonly #stopping = new AbortController();
  readonly #leaders: LeaderWatch;
  readonly #stamps: StampSource;
  readonly #rowIds: IdReserve;
  readonly #segmentIds: IdReserve;
  readonly #flushSlots: Semaphore;
  readonly #loads: NodeLoads;
  readonly #reads: ReadHandler;
  #catalogSubscription: { close(): void } | undefined;
  #registeredRevision = 0;
  #growingBytes = { value: 0, atMs: Number.NEGATIVE_INFINITY };

  constructor(options: StreamingOptions) {
    const { meta, runtime, logger, config, transport, pool } = options;
    const catalog = streamingCatalog(options.catalog);
    this.#options = options;
    this.#catalog = catalog;
    this.#settings = streamingSettings(config);
    this.#registration = new NodeRegistration({
      ...{ meta, runtime, logger },
      ttlMs: config.node.leaseTtlMs,
      record: { id: options.nodeId, role: 'streaming', address: options.address, slots: 0 },
    });
    const onChange = (changed: readonly string[]): void => {
      for (const key of changed) this.#assigned(key.slice(keys.channels.length), assignmentOf(this.#watch.entries.get(key)));
    };
    this.#watch = new PrefixWatch({ meta, runtime, logger, prefix: keys.channels, onChange });
    this.#leaders = new LeaderWatch(meta, runtime, logger);
    this.#stamps = options.stamps ?? new Coordinator(meta, transport, runtime, this.#leaders);
    this.#rowIds = new IdReserve(this.#stamps, ROW_ID_BLOCK, this.#stopping.signal);
    this.#segmentIds = new IdReserve(this.#stamps, SEGMENT_ID_BLOCK, this.#stopping.signal);
    this.#flushSlots = new Semaphore('flushes', this.#settings.flushConcurrency, FLUSHES_WAITING);
    this.#loads = new NodeLoads({ meta, transport, catalog, runtime, logger, loadTimeoutMs: this.#settings.loadTimeoutMs });
    this.#reads = new ReadHandler({
      ...{ catalog, transport, pool, runtime, stamps: this.#stamps },
      loads: this.#loads,
      ownerOf: (vchannel) => this.#ownerOf(vchannel),
      leaseValidUntil: () => this.#registration.validUntil(),
    });
  }

  /** Aborts when the node's lease is lost: its channels go to others. */
  get lost(): AbortSignal {
    return this.#registration.lost;
  }

  async start(): Promise<void> {
    const { meta, nodeId } = this.#options;
    await Promise.all([this.#registration.start(), this.#leaders.start()]);
    this.lost.addEventListener('abort', () => this.#endAll('the lease of this node was lost'), { once: true });
    // Channels assigned to an earlier process under the same id are not ours: only what is assigned after we registered.
    this.#registeredRevision = (await meta.get(keys.node('streaming', nodeId)))?.createRevision ?? 0;
    this.#loads.start();
    this.#catalogSubscription = this.#catalog.onChange((collectionId) => this.#catalogChanged(collectionId));
    this.#watch.start();
  }

  /** Hands its channels over one by one while others can take them, serving meanwhile; what is left goes back, or with the node's key. */
  async stop(): Promise<void> {
    const { runtime, logger } = this.#options;
    await new Drain(this.#options, this.#registration, () => this.#owners.size).run().catch((error: unknown) => {
      logger.warn({ error: asCairnError(error) }, 'channels were not handed over before the stop');
    });
    await this.#watch.stop();
    this.#catalogSubscription?.close();
    const drained = Promise.all([...this.#owners.values()].map((owner) => owner.drain().catch(() => undefined)));
    await Promise.race([drained, runtime.sleep(IN_FLIGHT_AT_STOP_MS)]);
    this.#endAll('the node stops');
    await Promise.race([Promise.all(this.#handingOver.values()), runtime.sleep(HAND_BACK_AT_STOP_MS)]);
    await this.#loads.stop();
    this.#stopping.abort();
    await Promise.all([this.#registration.stop(), this.#leaders.stop()]);
  }

  #endAll(reason: string): void {
    for (const owner of [...this.#owners.values()]) owner.end(reason);
    this.#owners.clear();
  }

  /** The coordinator asks for a channel, to give it to another node. */
  async #release({ channel, epoch }: ReleaseRequest, { signal }: CallContext): Promise<ReleaseResponse> {
    const owner = this.#owners.get(channel);
    if (owner?.proof.epoch !== epoch)
      throw new CairnError('ChannelNotAvailable', `node ${this.#options.nodeId} does not own channel ${channel} at epoch ${epoch}`);
    const sequence = await owner.release(IN_FLIGHT_AT_RELEASE_MS, signal);
    await this.#handingOver.get(channel);
    return { sequence };
  }

  // ---- ownership

  #assigned(channel: string, assignment: Assignment | undefined): void {
    const { nodeId } = this.#options;
    const owner = this.#owners.get(channel);
    if (owner && owner.proof.revision === assignment?.revision) return;
    if (owner) {
      this.#owners.delete(channel);
      owner.end(
        assignment ? `epoch ${assignment.record.epoch} belongs to node ${assignment.record.nodeId || 'nobody'}` : 'the channel is gone',
      );
    }
    if (!assignment || assignment.record.nodeId !== nodeId || assignment.revision < this.#registeredRevision || this.lost.aborted) return;
    const { record, revision } = assignment;
    const next = new ChannelOwner({
      ...this.#options,
      catalog: this.#catalog,
      proof: { channel, epoch: record.epoch, revision },
      releasedSequence: record.releasedSequence,
      stamps: this.#stamps,
      rowIds: this.#rowIds,
      segmentIds: this.#segmentIds,
      flushSlots: this.#flushSlots,
      settings: this.#settings,
      views: this.#loads,
      growingBytes: () => this.#countGrowingBytes(),
      query: (query, context) => this.#reads.query(query, context),
      onEnded: (ended, reason) => this.#ended(ended, reason),
    });
    this.#owners.set(channel, next);
    void next.start();
  }

  /** A term that ended from inside, while the record still names us: the channel goes back, so that DataCoord assigns it anew. */
  #ended(owner: ChannelOwner, reason: string): void {
    const { channel } = owner.proof;
    if (this.#owners.get(channel) !== owner) return;
    this.#owners.delete(channel);
    const over = this.#handOver(owner, reason).finally(() => {
      if (this.#handingOver.get(channel) === over) this.#handingOver.delete(channel);
    });
    this.#handingOver.set(channel, over);
  }

  async #handOver(owner: ChannelOwner, reason: string): Promise<void> {
    const { channel, epoch, revision } = owner.proof;
    const { meta, logger, runtime } = this.#options;
    const { releasedSequence } = owner;
    const record = ChannelRecord.encode({ channel, epoch, nodeId: '', address: '', releasedSequence }).finish();
    const key = keys.channel(channel);
    const give = () => meta.txn({ if: [{ kind: 'modRevision', key, equals: revision }], then: [{ kind: 'put', key, value: record }] });
    try {
      // While this node lives nobody else may take it: given up too early, the channel would have no owner for good.
      await retry(runtime, HAND_OVER, give, AbortSignal.any([this.lost, this.#stopping.signal]));
    } catch (error) {
      // Whoever ended us is named already, or our key goes with our lease.
      logger.warn({ channel, epoch, reason, error: asCairnError(error) }, 'a channel could not be handed back');
    }
  }

  #catalogChanged(collectionId: number): void {
    for (const owner of this.#owners.values()) {
      owner.catalogChanged(collectionId).catch((error: unknown) => {
        // The shard is fetched again when it is first used.
        this.#options.logger.warn({ collectionId, error: asCairnError(error) }, 'a change of the catalog could not be followed yet');
      });
    }
  }

  /** ChannelNotAvailable when this node does not own the shard's channel. */
  #ownerOf(vchannel: string): ChannelOwner {
    const owner = this.#owners.get(vchannel.slice(0, Math.max(0, vchannel.lastIndexOf('_'))));
    if (!owner) throw new CairnError('ChannelNotAvailable', `node ${this.#options.nodeId} does not own the channel of shard ${vchannel}`);
    return owner;
  }

  #countGrowingBytes(): number {
    const nowMs = this.#options.runtime.monotonic();
    if (nowMs - this.#growingBytes.atMs > GROWING_BYTES_STALE_MS) {
      let value = 0;
      for (const owner of this.#owners.values()) for (const shard of owner.shards) value += shard.memoryBytes;
      this.#growingBytes = { value, atMs: nowMs };
      growingBytes.record(value);
    }
    return this.#growingBytes.value;
  }

  // ---- handlers

  async #flush(request: FlushShardRequest, context: CallContext): Promise<FlushShardResponse> {
    const owner = this.#ownerOf(request.vchannel);
    const { shard, tickets, ts } = await owner.seal(request, context.signal);
    const what = `${request.vchannel}: flush`;
    const segmentIds = (await within(Promise.all(tickets.map((ticket) => ticket.segmentIds)), context.signal, what)).flat();
    if (request.wait) await within(Promise.all(tickets.map((ticket) => ticket.done)), context.signal, what);
    const flushed = await flushedSegments(this.#options.meta, shard.collectionId, shard.index);
    const flushedSegmentIds = flushed.map((segment) => segment.id).filter((id) => !segmentIds.includes(id));
    return { segmentIds, flushTs: ts, flushedSegmentIds };
  }

  async #shardStats(request: ShardStatsRequest): Promise<ShardStatsResponse> {
    const asked = new Set(request.vchannels);
    const shards = [];
    for (const owner of this.#owners.values()) {
      for (const shard of owner.shards) {
        if (asked.size === 0 || asked.has(shard.vchannel))
          shards.push(await shardStats(this.#options.meta, owner, shard, this.#loads.viewOf(shard)));
      }
    }
    return { shards };
  }
}
