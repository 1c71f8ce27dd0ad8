import { asCairnError, CairnError, deferred, type Logger, type Runtime, type Semaphore, type TimerHandle } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { type MetaEntry, type MetaStore, scan } from '@cairn/meta';
import type { ObjectStore } from '@cairn/objects';
import { CollectionState, ShardRecord } from '@cairn/proto/cairn/meta';
import type { BarrierRequest, BarrierResponse, FlushShardRequest, WriteRequest, WriteResponse } from '@cairn/proto/cairn/services';
import type { CallContext } from '@cairn/rpc';
import { withSpan } from '@cairn/telemetry';
import { type ChannelWriter, openChannelWriter, type WalStore } from '@cairn/wal';
import type { StreamingCatalog } from './catalog-face.ts';
import { ChannelLog } from './channel-log.ts';
import type { IdReserve, StampSource } from './coordinator.ts';
import { FlushCommitter, type OwnerProof } from './flush-commit.ts';
import { type Flushed, Flusher, type FlushTicket } from './flusher.ts';
import { LogMeter } from './log-meter.ts';
import { BatchAssembler, barrierEntry, decodeWrite, type LogEvent, type LogWrite, RecordDrafts } from './log-write.ts';
import { takeOverSeconds, writeSeconds, writtenBytes, writtenRows } from './measures.ts';
import { PendingWrite } from './pending-write.ts';
import type { StreamingSettings } from './settings.ts';
import { Shard } from './shard.ts';
import { Stamper } from './stamper.ts';
import { within } from './waiting.ts';
import { checkWrite, liveCollection } from './write-check.ts';

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
  /** Unflushed bytes of all channels of the node. */
  growingBytes(): number;
  /** Ownership ended from inside: deposed, or the log failed. */
  onEnded(owner: ChannelOwner, reason: string): void;
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
  readonly #shards = new Map<string, Shard>();
  readonly #stamper: Stamper;
  readonly #flusher: Flusher;
  readonly #meter = new LogMeter();
  /** Writes under way by shard and request id: a repeat that comes meanwhile gets the same answer. */
  readonly #open = new Map<string, Promise<WriteResponse>>();
  readonly #barriersOpen = new Map<string, Promise<number>>();
  #writer: ChannelWriter | undefined;
  #log: ChannelLog | undefined;
  #waitingBytes = 0;
  #waitingWrites = 0;
  #timer: TimerHandle | undefined;
  #trimmedTo = 0;

  constructor(options: OwnerOptions) {
    this.#options = options;
    this.proof = options.proof;
    this.#logger = options.logger.child({ channel: options.proof.channel, epoch: options.proof.epoch });
    const { meta, objects, runtime, segmentIds, flushSlots, views } = options;
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
      onGone: (shard) => this.#remove(shard),
      onDeposed: (reason) => this.end(reason),
    });
  }

  /** Takes the channel over. Resolves when the owner serves or its term has ended; errors end the term. */
  async start(): Promise<void> {
    try {
      await this.#takeOver();
      this.#ready.resolve();
      this.#tick();
    } catch (error) {
      this.#logger.warn({ error }, 'taking the channel over failed');
      this.end(`taking over failed: ${asCairnError(error).message}`);
    }
  }

  get ended(): boolean {
    return this.#over.signal.aborted;
  }

  get shards(): Iterable<Shard> {
    return this.#shards.values();
  }

  /** Last sequence in memory. */
  get appliedSequence(): number {
    return this.#log?.appliedSequence ?? 0;
  }

  /** Ends the term: all that waits fails, retriably; nothing more is appended or committed. */
  end(reason: string): void {
    if (this.ended) return;
    const error = new CairnError('ChannelNotAvailable', `channel ${this.proof.channel}: this node no longer owns it (${reason})`);
    this.#logger.info({ reason }, 'ownership of a channel ends');
    this.#over.abort(error);
    this.#timer?.cancel();
    this.#ready.reject(error);
    this.#stamper.end(error);
    this.#flusher.end(error);
    this.#log?.end(error);
    this.#writer?.close();
    for (const shard of this.#shards.values()) this.#options.views.remove(shard);
    this.#shards.clear();
    this.#options.onEnded(this, reason);
  }

  /** Resolves when what is in flight is durable; for a clean stop. */
  async drain(): Promise<void> {
    await this.#stamper.paused(async () => this.#log?.drained());
  }

  // ---- take-over

  async #takeOver(): Promise<void> {
    const { wal, runtime, catalog, proof } = this.#options;
    const startedMs = runtime.monotonic();
    this.#writer = await openChannelWriter(wal, proof.channel, proof.epoch, {
      runtime,
      logger: this.#logger,
      signal: this.#over.signal,
      maxQueuedBytes: this.#options.settings.maxQueuedBytes,
    });
    const writer = this.#writer;
    writer.deposed.addEventListener('abort', () => this.end('a higher epoch was seen in the log'), { once: true });
    // Only now: with the epoch raised no old owner moves a checkpoint, and with the fence written none adds a record for a shard not seen here.
    await catalog.sync();
    await this.#readShards();
    const applied = await this.#replay(writer);
    if (this.ended) throw this.#over.signal.reason;
    this.#stamper.raiseFloor(applied.ts);
    this.#log = new ChannelLog(
      writer,
      applied,
      (event) => this.#apply(event),
      (error) => this.end(asCairnError(error).message),
    );
    for (const shard of this.#shards.values()) this.#options.views.refresh(shard);
    const tookMs = Math.round(runtime.monotonic() - startedMs);
    takeOverSeconds.record(tookMs / 1000);
    this.#logger.info({ fence: writer.fenceSequence, shards: this.#shards.size, tookMs }, 'channel taken over');
  }

  async #readShards(): Promise<void> {
    for await (const page of scan(this.#options.meta, keys.allShards)) {
      for (const entry of page) this.#adopt(entry);
    }
  }

  /** A shard record of this channel, of a collection that lives, becomes a shard in memory. */
  #adopt(entry: MetaEntry): Shard | undefined {
    const record = ShardRecord.decode(entry.value);
    if (record.channel !== this.proof.channel) return undefined;
    const existing = this.#shards.get(record.vchannel);
    if (existing) return existing;
    const { catalog, settings } = this.#options;
    const collection = catalog.collection(record.collectionId);
    if (!collection || collection.record.state === CollectionState.COLLECTION_DROPPED) return undefined;
    // The last known one stays in force for a collection that is dropped while its rows are applied.
    let last = collection;
    const schemaInForce = () => {
      last = catalog.collection(record.collectionId) ?? last;
      return { schema: last.schema, version: last.record.schemaVersion };
    };
    const shard = new Shard(record, entry.value, schemaInForce, settings);
    this.#shards.set(record.vchannel, shard);
    return shard;
  }

  /** Everything the log still has, up to our fence. Below a shard's checkpoint only request ids and barriers count. */
  async #replay(writer: ChannelWriter): Promise<{ sequence: number; ts: number }> {
    const { wal, runtime } = this.#options;
    const assembler = new BatchAssembler();
    const { firstSequence } = await wal.state(this.proof.channel);
    this.#trimmedTo = firstSequence;
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
    for (const shard of this.#shards.values()) ts = Math.max(ts, shard.record.checkpointTs);
    return { sequence: writer.fenceSequence, ts };
  }

  #replayEvent(event: LogEvent): void {
    const nowMs = this.#options.runtime.monotonic();
    this.#meter.add(event.sequence, event.bytes, nowMs);
    const vchannel = event.kind === 'write' ? event.write.vchannel : event.barrier.vchannel;
    this.#shards.get(vchannel)?.apply(event, nowMs);
  }

  // ---- shards

  /** The shard, in memory once the replay is done. CollectionNotFound, ChannelNotFound. */
  async shard(vchannel: string, collectionId: number, signal: AbortSignal): Promise<Shard> {
    await within(this.#ready.promise, signal, `channel ${this.proof.channel} is being taken over`);
    const known = this.#shards.get(vchannel);
    if (known) return known;
    const { record } = await liveCollection(this.#options.catalog, collectionId);
    const shard = await this.#fetchShard(record.id, record.shards.find((entry) => entry.vchannel === vchannel)?.index);
    if (!shard)
      throw new CairnError('ChannelNotFound', `shard ${vchannel} is not one of collection ${record.name} on channel ${this.proof.channel}`);
    return shard;
  }

  async #fetchShard(collectionId: number, index: number | undefined): Promise<Shard | undefined> {
    if (index === undefined) return undefined;
    const entry = await this.#options.meta.get(keys.shard(collectionId, index));
    if (this.ended) throw this.#over.signal.reason;
    const shard = entry && this.#adopt(entry);
    if (shard) this.#options.views.refresh(shard);
    return shard;
  }

  /** A collection changed: new shards come, those of a dropped one go. */
  async catalogChanged(collectionId: number): Promise<void> {
    if (!this.#log) return;
    const collection = this.#options.catalog.collection(collectionId);
    if (!collection || collection.record.state === CollectionState.COLLECTION_DROPPED) {
      for (const shard of this.#shards.values()) if (shard.collectionId === collectionId) this.#remove(shard);
      return;
    }
    for (const { vchannel, channel, index } of collection.record.shards) {
      if (channel !== this.proof.channel) continue;
      const known = this.#shards.get(vchannel);
      if (known) this.#options.views.refresh(known);
      else await this.#fetchShard(collectionId, index);
    }
  }

  #remove(shard: Shard): void {
    this.#shards.delete(shard.vchannel);
    this.#options.views.remove(shard);
  }

  // ---- writes

  /** Appends the write and answers when it is durable and readable. A repeat of a request id gets the first one's answer. */
  async write(request: WriteRequest, context: CallContext): Promise<WriteResponse> {
    const shard = await this.shard(request.vchannel, request.collectionId, context.signal);
    if (request.requestId === '') return within(this.#writeOnce(shard, request, context), context.signal, `${request.vchannel}: write`);
    const kept = shard.repeats.get(request.requestId);
    if (kept) return { ts: kept.ts, sequence: kept.sequence };
    const key = `${request.vchannel}/${request.requestId}`;
    const open = this.#open.get(key);
    if (open) return within(open, context.signal, `${request.vchannel}: the first write of request ${request.requestId}`);
    const first = this.#writeOnce(shard, request, context);
    this.#open.set(key, first);
    const forget = (): unknown => this.#open.delete(key);
    first.then(forget, forget);
    return within(first, context.signal, `${request.vchannel}: write`);
  }

  async #writeOnce(shard: Shard, request: WriteRequest, context: CallContext): Promise<WriteResponse> {
    const log = this.#live();
    const { runtime } = this.#options;
    const arrivedMs = runtime.monotonic();
    const decoded = decodeWrite(request);
    await checkWrite(this.#options.catalog, request, decoded);
    const rows = decoded.inserts.reduce((sum, part) => sum + part.batch.length, 0);
    if (rows === 0 && decoded.deletes.length === 0) return { ts: log.appliedTs, sequence: log.appliedSequence };
    const bytes = request.inserts.reduce((sum, part) => sum + part.columns.length, request.deletes.length);
    this.#admit(shard, bytes);
    this.#waitingBytes += bytes;
    this.#waitingWrites++;
    try {
      let rowId = rows === 0 ? 0 : await within(this.#options.rowIds.take(rows), context.signal, `${shard.vchannel}: row ids`);
      const inserts = decoded.inserts.map((part) => {
        const numbered = { ...part, firstRowId: rowId };
        rowId += part.batch.length;
        return numbered;
      });
      const write: LogWrite = { ...decoded, inserts };
      const drafts = await RecordDrafts.of(request, write, (this.#writer as ChannelWriter).maxPayloadBytes, runtime);
      const pending = new PendingWrite(log, write, drafts, context.signal);
      this.#stamper.submit(pending);
      const answer = await pending.answer;
      writtenBytes.add(bytes);
      writtenRows.add(rows, { kind: 'insert' });
      writtenRows.add(request.deleteRows, { kind: 'delete' });
      writeSeconds.record((runtime.monotonic() - arrivedMs) / 1000);
      return answer;
    } finally {
      this.#waitingBytes -= bytes;
      this.#waitingWrites--;
    }
  }

  #admit(shard: Shard, bytes: number): void {
    const { settings } = this.#options;
    const refuse = (what: string): never => {
      throw new CairnError('RateLimit', `request is rejected by rate limiter, ${shard.vchannel}: ${what}, please retry later`);
    };
    if (this.#waitingWrites >= settings.maxWaitingWrites) refuse(`${this.#waitingWrites} writes wait for the log`);
    if (this.#waitingBytes > 0 && this.#waitingBytes + bytes > settings.maxWaitingBytes) {
      refuse(`${this.#waitingBytes} bytes wait for the log, ${settings.maxWaitingBytes} may`);
    }
    const growing = this.#options.growingBytes();
    if (growing > settings.maxGrowingBytes)
      refuse(`${growing} bytes are not flushed yet, streaming.maxGrowingBytes is ${settings.maxGrowingBytes}`);
  }

  #live(): ChannelLog {
    if (this.ended) throw this.#over.signal.reason;
    if (!this.#log) throw new CairnError('ChannelNotAvailable', `channel ${this.proof.channel} is being taken over`);
    return this.#log;
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
    else this.#sealFull(shard, event.sequence, ts);
  }

  /** Every event at or below it is in memory. */
  get appliedTs(): number {
    return this.#log?.appliedTs ?? 0;
  }

  // ---- reads

  /**
   * A timestamp at which this channel can be read now: at least `guarantee` and all that was acknowledged. Raises the floor of stamps, so that
   * nothing can come below it any more, and waits for what is in flight below it.
   */
  async readTimestamp(guarantee: number, signal: AbortSignal): Promise<number> {
    await within(this.#ready.promise, signal, `channel ${this.proof.channel} is being taken over`);
    const log = this.#live();
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
    const log = this.#live();
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
      const shard = await this.shard(vchannel, collectionId, context.signal);
      const sequence = shard.barriers.get(snapshotId) ?? (await within(this.#barrierOnce(request), context.signal, `${vchannel}: barrier`));
      await within(this.#flushThrough(shard, sequence), context.signal, `${vchannel}: flush up to the barrier of snapshot ${snapshotId}`);
      return { sequence };
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
    const log = this.#live();
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
    while (shard.checkpoint < sequence && this.#shards.has(shard.vchannel)) {
      const log = this.#live();
      if (shard.hasUnsealedUpTo(sequence)) this.#flusher.seal(shard, log.appliedSequence, log.appliedTs);
      const pending = this.#flusher.pending(shard);
      if (pending.length > 0) await Promise.all(pending.map((ticket) => ticket.done));
      else await this.#flusher.advance(shard, sequence, log.appliedTs);
    }
    if (!this.#shards.has(shard.vchannel) && !this.ended)
      throw new CairnError('CollectionNotFound', `collection not found[collection=${shard.collectionId}]`);
  }

  // ---- housekeeping

  #sealFull(shard: Shard, sequence: number, ts: number): void {
    const { settings } = this.#options;
    const { bytes, rows } = shard.openSize();
    if (bytes >= settings.segmentMaxBytes || rows >= settings.segmentMaxRows) this.#flusher.seal(shard, sequence, ts);
    if (this.#meter.bytesAfter(this.#oldestUnsealed() - 1) < settings.maxReplayBytes / 2) return;
    // The log that a take-over would replay grows too long: the shard that holds it back goes first.
    for (const other of this.#shards.values()) {
      if (other.hasUnsealedUpTo(this.#oldestUnsealed())) {
        this.#flusher.seal(other, sequence, ts);
        return;
      }
    }
  }

  #oldestUnsealed(): number {
    let oldest = Number.MAX_SAFE_INTEGER;
    for (const shard of this.#shards.values()) oldest = Math.min(oldest, shard.unsealedSince?.sequence ?? oldest);
    return oldest;
  }

  #tick(): void {
    if (this.ended) return;
    this.#timer = this.#options.runtime.after(this.#options.settings.checkIntervalMs, () => {
      this.#housekeep()
        .catch((error: unknown) => this.#logger.warn({ error }, 'housekeeping of a channel failed, it is tried again'))
        .finally(() => this.#tick());
    });
  }

  async #housekeep(): Promise<void> {
    const { settings, runtime } = this.#options;
    const log = this.#live();
    const nowMs = runtime.monotonic();
    for (const shard of [...this.#shards.values()]) {
      shard.repeats.sweep(shard.checkpoint, nowMs);
      const since = shard.unsealedSince?.atMs;
      if (since !== undefined && nowMs - since >= settings.segmentMaxAgeMs) this.#flusher.seal(shard, log.appliedSequence, log.appliedTs);
      const lag = this.#meter.bytesAfter(shard.checkpoint);
      const idle = shard.isFlushed && shard.checkpoint < log.appliedSequence;
      if (idle && (lag > settings.maxReplayBytes / 4 || shard.checkpoint + 1 < this.#trimmedTo)) {
        await this.#flusher.advance(shard, log.appliedSequence, log.appliedTs);
      }
    }
    await this.#trim(log, nowMs);
  }

  /** Forgets the log below every checkpoint, but for what later owners need to know repeats by. */
  async #trim(log: ChannelLog, nowMs: number): Promise<void> {
    const { catalog, settings, wal } = this.#options;
    for (const record of catalog.collections()) {
      if (record.state === CollectionState.COLLECTION_DROPPED) continue;
      // A shard that is about to come into memory: its checkpoint counts too.
      if (record.shards.some((shard) => shard.channel === this.proof.channel && !this.#shards.has(shard.vchannel))) return;
    }
    let checkpoint = log.appliedSequence;
    for (const shard of this.#shards.values()) checkpoint = Math.min(checkpoint, shard.checkpoint);
    const before = this.#meter.keepFrom(checkpoint, settings.repeatLogBytes, settings.repeatWindowMs, nowMs);
    if (before <= this.#trimmedTo) return;
    await wal.trim(this.proof.channel, before);
    this.#trimmedTo = before;
    this.#meter.trim(before);
  }
}
