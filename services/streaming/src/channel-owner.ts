import { asCairnError, CairnError, deferred, type Logger, type Runtime, type Semaphore } from '@cairn/base';
import type { MetaStore } from '@cairn/meta';
import type { ObjectStore } from '@cairn/objects';
import type {
  BarrierRequest,
  BarrierResponse,
  FlushShardRequest,
  QueryResult,
  ShardQueryRequest,
  WriteRequest,
  WriteResponse,
} from '@cairn/proto/cairn/services';
import type { CallContext } from '@cairn/rpc';
import { withSpan } from '@cairn/telemetry';
import { type ChannelWriter, openChannelWriter, type WalStore } from '@cairn/wal';
import type { StreamingCatalog } from './catalog-face.ts';
import { ChannelKeeper } from './channel-keeper.ts';
import { ChannelLog } from './channel-log.ts';
import type { IdReserve, StampSource } from './coordinator.ts';
import { FlushCommitter, type OwnerProof } from './flush-commit.ts';
import { type Flushed, Flusher, type FlushTicket } from './flusher.ts';
import { LogMeter } from './log-meter.ts';
import { BatchAssembler, barrierEntry, type LogEvent } from './log-write.ts';
import { takeOverSeconds } from './measures.ts';
import { OwnedShards } from './owned-shards.ts';
import type { StreamingSettings } from './settings.ts';
import type { Shard } from './shard.ts';
import { Stamper } from './stamper.ts';
import { within } from './waiting.ts';
import { WriteIntake } from './write-intake.ts';

/** A flush that is under way when the channel is asked for has this long to end; without it the next owner replays more. */
const FLUSHES_BEFORE_RELEASE_MS = 1_000;
/** Replay yields to other work of the process after this long. */
const REPLAY_SLICE_MS = 8;

/** Who keeps the views of loaded shards. */
export interface ViewKeeper {
  /** The shard is in memory, or its collection changed. */
  refresh(shard: Shard): void;
  /** Readers use the shard, so flushed rows stay until a datanode has them. */
  isServed(shard: Shard): boolean;
  flushed(shard: Shard, flushed: Flushed): void;
  remove(shard: Shard): void;
}

export interface OwnerOptions {
  readonly proof: OwnerProof;
  /** Last sequence that the owner before acknowledged, if it handed the channel over in good order; else 0. */
  readonly releasedSequence: number;
  readonly meta: MetaStore;
  readonly objects: ObjectStore;
  readonly wal: WalStore;
  readonly catalog: StreamingCatalog;
  readonly stamps: StampSource;
  readonly rowIds: IdReserve;
  readonly segmentIds: IdReserve;
  readonly flushSlots: Semaphore;
  readonly runtime: Runtime;
  readonly logger: Logger;
  readonly settings: StreamingSettings;
  readonly views: ViewKeeper;
  /** Bytes of rows in memory, of all channels of the node. */
  growingBytes(): number;
  /** Reads of the node's shards, growing and sealed rows. */
  query(request: ShardQueryRequest, context: CallContext): Promise<QueryResult>;
  /** Ownership ended from inside: deposed, or the log failed. */
  onEnded(owner: ChannelOwner, reason: string): void;
}

/** What there is once the channel is replayed. */
interface Serving {
  readonly log: ChannelLog;
  readonly intake: WriteIntake;
  readonly keeper: ChannelKeeper;
}

/**
 * One term of ownership of a physical channel: fence, replay, then writes, flushes and barriers until the term ends. A term never comes back: an
 * owner that has ended fails all that waits with ChannelNotAvailable, and its commits are refused.
 */
export class ChannelOwner {
  readonly proof: OwnerProof;
  readonly #options: OwnerOptions;
  readonly #logger: Logger;
  readonly #over = new AbortController();
  readonly #ready = deferred<void>();
  readonly #shards: OwnedShards;
  readonly #stamper: Stamper;
  readonly #flusher: Flusher;
  readonly #meter = new LogMeter();
  readonly #barriersOpen = new Map<string, Promise<number>>();
  /** Calls for barriers that are not answered yet. */
  #barriersUnderWay = 0;
  #releasedSequence = 0;
  #writer: ChannelWriter | undefined;
  /** From the end of the replay on. */
  #serving: Serving | undefined;

  constructor(options: OwnerOptions) {
    this.#options = options;
    this.proof = options.proof;
    this.#logger = options.logger.child({ channel: options.proof.channel, epoch: options.proof.epoch });
    const { meta, objects, runtime, segmentIds, flushSlots, views, catalog, settings } = options;
    this.#shards = new OwnedShards({
      ...{ meta, catalog, channel: options.proof.channel, limits: settings, signal: this.#over.signal },
      onChanged: (shard) => views.refresh(shard),
      onRemoved: (shard) => views.remove(shard),
    });
    this.#stamper = new Stamper(options.stamps, runtime, this.#over.signal);
    this.#flusher = new Flusher({
      objects,
      committer: new FlushCommitter(meta, runtime, options.proof, this.#over.signal),
      ids: segmentIds,
      proof: options.proof,
      runtime,
      logger: this.#logger,
      slots: flushSlots,
      signal: this.#over.signal,
      isServed: (shard) => views.isServed(shard),
      onFlushed: (shard, flushed) => views.flushed(shard, flushed),
      onGone: (shard) => this.#shards.remove(shard),
      onDeposed: (reason) => this.end(reason),
    });
  }

  /** Takes the channel over. Resolves when the owner serves or its term has ended; errors end the term. */
  async start(): Promise<void> {
    try {
      await this.#takeOver();
      this.#ready.resolve();
      this.#serving?.keeper.start();
    } catch (error) {
      this.#logger.warn({ error }, 'taking the channel over failed');
      this.end(`taking over failed: ${asCairnError(error).message}`);
    }
  }

  get ended(): boolean {
    return this.#over.signal.aborted;
  }

  get shards(): Iterable<Shard> {
    return this.#shards;
  }

  /** Last sequence in memory. */
  get appliedSequence(): number {
    return this.#serving?.log.appliedSequence ?? 0;
  }

  /** Ends the term: all that waits fails, retriably; nothing more is appended or committed. */
  end(reason: string): void {
    if (this.ended) return;
    const error = new CairnError('ChannelNotAvailable', `channel ${this.proof.channel}: this node no longer owns it (${reason})`);
    this.#logger.info({ reason }, 'ownership of a channel ends');
    this.#over.abort(error);
    this.#ready.reject(error);
    this.#stamper.end(error);
    this.#flusher.end(error);
    this.#serving?.log.end(error);
    this.#serving?.keeper.end();
    this.#writer?.close();
    this.#shards.clear();
    this.#options.onEnded(this, reason);
  }

  /** Last sequence of the term, once it was handed over; else 0. */
  get releasedSequence(): number {
    return this.#releasedSequence;
  }

  /**
   * Hand-over to another node: what is on its way to the object store gets there (in bounds), no write is stamped any more, what is in flight
   * resolves, the term ends. Reads end with it, before anyone else can be named. ServiceNotReady, and all goes on, when a barrier runs or the log
   * does not answer within `timeoutMs`.
   */
  async release(timeoutMs: number, signal: AbortSignal): Promise<number> {
    const { runtime, proof } = this.#options;
    await this.#isReady(signal);
    const flushes = [...this.#shards].flatMap((shard) => this.#flusher.pending(shard).map((ticket) => ticket.done));
    const flushed = Promise.all(flushes).catch(() => undefined);
    if (flushes.length > 0) await Promise.race([flushed, runtime.sleep(FLUSHES_BEFORE_RELEASE_MS)]);
    const later = (why: string) => new CairnError('ServiceNotReady', `channel ${proof.channel} is not released now: ${why}`);
    if (this.#barriersUnderWay > 0) throw later('a barrier runs');
    return this.#stamper.paused(async () => {
      const { log } = this.#live();
      const drained = await Promise.race([log.drained().then(() => true), runtime.sleep(timeoutMs).then(() => false)]);
      if (!drained) throw later(`${log.eventsInFlight} appends are in flight after ${timeoutMs} ms`);
      this.#live();
      this.#releasedSequence = log.appliedSequence;
      this.end('it was handed over');
      return this.#releasedSequence;
    });
  }

  /** Resolves when what is in flight is durable; for a clean stop. */
  async drain(): Promise<void> {
    await this.#stamper.paused(async () => this.#serving?.log.drained());
  }

  // ---- take-over

  async #takeOver(): Promise<void> {
    const { wal, runtime, catalog, proof, releasedSequence } = this.#options;
    const startedMs = runtime.monotonic();
    this.#writer = await openChannelWriter(wal, proof.channel, proof.epoch, {
      runtime,
      logger: this.#logger,
      signal: this.#over.signal,
      maxQueuedBytes: this.#options.settings.maxQueuedBytes,
    });
    const writer = this.#writer;
    if (writer.fenceSequence <= releasedSequence)
      this.#logger.error({ fence: writer.fenceSequence, releasedSequence }, 'the log ends before what the owner before had acknowledged');
    writer.deposed.addEventListener('abort', () => this.end('a higher epoch was seen in the log'), { once: true });
    // Only now: with the epoch raised no old owner moves a checkpoint, and with the fence written none adds a record for a shard not seen here.
    await catalog.sync();
    await this.#shards.readAll();
    const { firstSequence } = await wal.state(proof.channel);
    const ts = await this.#replay(writer, firstSequence);
    if (this.ended) throw this.#over.signal.reason;
    this.#stamper.raiseFloor(ts);
    const log = new ChannelLog(
      writer,
      { sequence: writer.fenceSequence, ts },
      (event) => this.#apply(event),
      (error) => this.end(asCairnError(error).message),
    );
    const parts = { ...this.#options, stamper: this.#stamper, flusher: this.#flusher, meter: this.#meter, shards: this.#shards };
    this.#serving = {
      log,
      intake: new WriteIntake(parts, log, writer.maxPayloadBytes),
      keeper: new ChannelKeeper({ ...parts, channel: proof.channel, logger: this.#logger }, log, firstSequence),
    };
    for (const shard of this.#shards) this.#options.views.refresh(shard);
    const tookMs = Math.round(runtime.monotonic() - startedMs);
    takeOverSeconds.record(tookMs / 1000);
    this.#logger.info({ fence: writer.fenceSequence, shards: this.#shards.size, tookMs }, 'channel taken over');
  }

  /** Everything the log still has, up to our fence. Below a shard's checkpoint only request ids and barriers count. The highest timestamp. */
  async #replay(writer: ChannelWriter, firstSequence: number): Promise<number> {
    const { runtime } = this.#options;
    const assembler = new BatchAssembler();
    let sliceMs = runtime.monotonic();
    for await (const records of writer.replay(firstSequence)) {
      for (const record of records) {
        const event = assembler.add(record);
        if (event) this.#replayEvent(event);
        if (runtime.monotonic() - sliceMs < REPLAY_SLICE_MS) continue;
        await runtime.sleep(0, this.#over.signal);
        sliceMs = runtime.monotonic();
      }
    }
    let ts = assembler.highestTs;
    for (const shard of this.#shards) ts = Math.max(ts, shard.record.checkpointTs);
    return ts;
  }

  #replayEvent(event: LogEvent): void {
    const nowMs = this.#options.runtime.monotonic();
    this.#meter.add(event.sequence, event.bytes, nowMs);
    const vchannel = event.kind === 'write' ? event.write.vchannel : event.barrier.vchannel;
    this.#shards.get(vchannel)?.apply(event, nowMs);
  }

  // ---- shards and writes

  /** The shard, in memory once the replay is done. CollectionNotFound, ChannelNotFound. */
  async shard(vchannel: string, collectionId: number, signal: AbortSignal): Promise<Shard> {
    await this.#isReady(signal);
    return this.#shards.get(vchannel) ?? (await this.#shards.find(vchannel, collectionId));
  }

  /** A collection changed: new shards come, those of a dropped one go. Before the take-over is done there is nothing to change. */
  async catalogChanged(collectionId: number): Promise<void> {
    if (this.#serving && !this.ended) await this.#shards.catalogChanged(collectionId);
  }

  /** Appends the write and answers when it is durable and readable. A repeat of a request id gets the first one's answer. */
  async write(request: WriteRequest, context: CallContext): Promise<WriteResponse> {
    const shard = await this.shard(request.vchannel, request.collectionId, context.signal);
    return this.#live().intake.write(shard, request, context);
  }

  async #isReady(signal: AbortSignal): Promise<void> {
    await within(this.#ready.promise, signal, `channel ${this.proof.channel} is being taken over`);
  }

  #live(): Serving {
    if (this.ended) throw this.#over.signal.reason;
    if (!this.#serving) throw new CairnError('ChannelNotAvailable', `channel ${this.proof.channel} is being taken over`);
    return this.#serving;
  }

  #apply(event: LogEvent): void {
    const nowMs = this.#options.runtime.monotonic();
    this.#meter.add(event.sequence, event.bytes, nowMs);
    const vchannel = event.kind === 'write' ? event.write.vchannel : event.barrier.vchannel;
    const shard = this.#shards.get(vchannel);
    // Its collection was dropped while the write was on its way.
    if (!shard) return;
    shard.apply(event, nowMs);
    const ts = Math.max(event.ts, this.appliedTs);
    if (event.kind === 'barrier') this.#flusher.seal(shard, event.sequence, ts);
    else this.#serving?.keeper.sealFull(shard, event.sequence, ts);
  }

  /** Every event at or below it is in memory. */
  get appliedTs(): number {
    return this.#serving?.log.appliedTs ?? 0;
  }

  // ---- reads

  /**
   * A timestamp at which this channel can be read now: at least `guarantee` and all that was acknowledged. Raises the floor of stamps, so that
   * nothing can come below it any more, and waits for what is in flight below it.
   */
  async readTimestamp(guarantee: number, signal: AbortSignal): Promise<number> {
    await this.#isReady(signal);
    const { log } = this.#live();
    if (guarantee > log.appliedTs) {
      this.#stamper.raiseFloor(guarantee);
      await within(log.settled(guarantee), signal, `channel ${this.proof.channel}: writes below the guarantee timestamp`);
    }
    return Math.max(guarantee, log.appliedTs);
  }

  // ---- flush and barrier

  /** Seals what grows now. `tickets`: that and what is sealed already and under way. */
  async seal(request: FlushShardRequest, signal: AbortSignal): Promise<{ shard: Shard; tickets: readonly FlushTicket[]; ts: number }> {
    const shard = await this.shard(request.vchannel, request.collectionId, signal);
    const { log } = this.#live();
    this.#flusher.seal(shard, log.appliedSequence, log.appliedTs);
    return { shard, tickets: this.#flusher.pending(shard), ts: log.appliedTs };
  }

  /** Ids of segments that are sealed and whose flush is not committed yet. */
  async sealedUnflushed(shard: Shard): Promise<number[]> {
    return (await Promise.all(this.#flusher.pending(shard).map((ticket) => ticket.segmentIds))).flat();
  }

  /** Puts Barrier{snapshot, T} into the log and flushes the shard up to it. Repeating it is safe. */
  async barrier(request: BarrierRequest, context: CallContext): Promise<BarrierResponse> {
    const { vchannel, collectionId, snapshotId } = request;
    return withSpan('streaming.barrier', { 'cairn.vchannel': vchannel, 'cairn.snapshot': snapshotId }, async () => {
      this.#barriersUnderWay++;
      try {
        const shard = await this.shard(vchannel, collectionId, context.signal);
        const sequence =
          shard.barriers.get(snapshotId) ?? (await within(this.#barrierOnce(request), context.signal, `${vchannel}: barrier`));
        await within(this.#flushThrough(shard, sequence), context.signal, `${vchannel}: flush up to the barrier of snapshot ${snapshotId}`);
        return { sequence };
      } finally {
        this.#barriersUnderWay--;
      }
    });
  }

  #barrierOnce(request: BarrierRequest): Promise<number> {
    const key = `${request.vchannel}/${request.snapshotId}`;
    const open = this.#barriersOpen.get(key);
    if (open) return open;
    const first = this.#appendBarrier(request).finally(() => this.#barriersOpen.delete(key));
    this.#barriersOpen.set(key, first);
    return first;
  }

  async #appendBarrier(request: BarrierRequest): Promise<number> {
    const { vchannel, collectionId, snapshotId, ts } = request;
    const { log } = this.#live();
    // Within the pause nothing is stamped; after it only above T. What was in flight stands before the barrier.
    const appended = await this.#stamper.paused(async () => {
      this.#stamper.raiseFloor(ts);
      await log.drained();
      const entry = barrierEntry({ vchannel, collectionId, snapshotId }, ts);
      return { done: log.append({ kind: 'barrier', ts, bytes: entry.payload.length, barrier: { vchannel, snapshotId } }, [entry]) };
    });
    return appended.done;
  }

  /** Resolves when everything of the shard at or before `sequence`, the end of an event, is flushed. */
  async #flushThrough(shard: Shard, sequence: number): Promise<void> {
    while (shard.checkpoint < sequence && this.#shards.has(shard)) {
      const { log } = this.#live();
      if (shard.hasUnsealedUpTo(sequence)) this.#flusher.seal(shard, log.appliedSequence, log.appliedTs);
      const pending = this.#flusher.pending(shard);
      if (pending.length > 0) await Promise.all(pending.map((ticket) => ticket.done));
      else await this.#flusher.advance(shard, sequence, log.appliedTs);
    }
    if (!this.#shards.has(shard) && !this.ended)
      throw new CairnError('CollectionNotFound', `collection not found[collection=${shard.collectionId}]`);
  }
}
