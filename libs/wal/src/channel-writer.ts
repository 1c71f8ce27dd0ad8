import { asCairnError, CairnError, type Deferred, deferred, hasCode, isRetriable, type Logger, type Runtime } from '@cairn/base';
import { takeOver } from './take-over.ts';
import { MAX_IN_FLIGHT, type WalStore } from './wal.ts';
import { checkRecordSize, checkSubject, DeposedError } from './wal-errors.ts';
import { decodeRecord, ENVELOPE_BYTES, encodeRecord, type WalRecord } from './wal-record.ts';

/**
 * Owner's side of a channel: take-over by fence, appends with retry, and the end of ownership. The rules (architecture.md, "Taking over a
 * channel") are here once, for data channels and the control channel alike.
 */
export interface ChannelWriter {
  readonly channel: string;
  readonly epoch: number;
  /** Sequence of this owner's own fence. Everything before it may be replayed; nothing but this owner's records comes after it. */
  readonly fenceSequence: number;
  /** Last sequence known to be written by this owner (or the fence). */
  readonly lastSequence: number;
  /** Bytes a payload may have, so that its record fits. */
  readonly maxPayloadBytes: number;
  /** True while outcomes are unknown and the writer reads the log; no new timestamp should be given out until it is false. */
  readonly inDoubt: boolean;
  /**
   * Appends the entries contiguously, in order; resolves with the sequence of the last one when all are durable. Calls are ordered among each
   * other. On a wrong expectation or an unknown outcome the writer reads the stream from its last known sequence, counts its own records (by
   * epoch and index) as written and goes on; a higher epoch there deposes it. DeposedError: this owner's days are over and none of the
   * entries that follow will ever be written. TooManyRequests: too much waits already, nothing of this call was written.
   */
  append(entries: readonly AppendEntry[]): Promise<number>;
  /** Resolves when no append is in flight and all outcomes are known (or the writer is deposed or closed). */
  drain(): Promise<void>;
  /** Records from `from` up to this owner's fence, or to `to`. Unavailability of the store is waited out; TrimmedError when they are gone. */
  replay(from: number, to?: number): AsyncIterable<readonly WalRecord[]>;
  /** Aborts when a higher epoch was seen. */
  readonly deposed: AbortSignal;
  /** Gives the channel up without a word; appends that are open reject with an unknown outcome. */
  close(): void;
}

export interface AppendEntry {
  readonly subject: string;
  readonly payload: Uint8Array;
}

export interface ChannelWriterOptions {
  readonly runtime: Runtime;
  readonly logger: Logger;
  /** Ends a take-over that waits for the store. */
  readonly signal?: AbortSignal;
  /** wal.maxInFlight: appends open at the store at once; at most (and by default) MAX_IN_FLIGHT. */
  readonly maxInFlight?: number;
  /** wal.maxInFlightBytes: bytes open at the store at once (one record always may be). */
  readonly maxInFlightBytes?: number;
  /** wal.maxQueuedBytes: bytes that wait in the writer, those in flight included. */
  readonly maxQueuedBytes?: number;
}

const DEFAULT_MAX_IN_FLIGHT_BYTES = 16 << 20;
const DEFAULT_MAX_QUEUED_BYTES = 128 << 20;
const RETRY_FIRST_MS = 5;
const RETRY_MAX_MS = 1000;

/**
 * Takes the channel over: appends a fence with `epoch` and returns once it is durable; the caller replays then. `epoch` must be one that
 * DataCoord has just raised: DeposedError when the log's end already carries it or a higher one. Waits for a store that is unavailable until
 * `signal` aborts.
 */
export async function openChannelWriter(
  store: WalStore,
  channel: string,
  epoch: number,
  options: ChannelWriterOptions,
): Promise<ChannelWriter> {
  const fenceSequence = await takeOver(store, channel, epoch, options);
  return new StoreChannelWriter(store, channel, epoch, fenceSequence, options);
}

interface Entry {
  readonly subject: string;
  readonly bytes: Uint8Array;
  readonly index: number;
  /** Of the call; only the last entry of a call settles it. */
  readonly call: Deferred<number>;
  readonly last: boolean;
}

/** First in, first out, without moving all that wait at each step. */
class EntryQueue {
  #items: Entry[] = [];
  #head = 0;

  get length(): number {
    return this.#items.length - this.#head;
  }

  at(position: number): Entry {
    return this.#items[this.#head + position];
  }

  push(entry: Entry): void {
    this.#items.push(entry);
  }

  /** Forgets the first `count`. */
  drop(count: number): void {
    this.#items.fill(undefined as unknown as Entry, this.#head, this.#head + count);
    this.#head += count;
    if (this.#head * 2 > this.#items.length) {
      this.#items = this.#items.slice(this.#head);
      this.#head = 0;
    }
  }
}

class StoreChannelWriter implements ChannelWriter {
  readonly channel: string;
  readonly epoch: number;
  readonly fenceSequence: number;
  readonly maxPayloadBytes: number;
  readonly #store: WalStore;
  readonly #runtime: Runtime;
  readonly #logger: Logger;
  readonly #maxInFlight: number;
  readonly #maxInFlightBytes: number;
  readonly #maxQueuedBytes: number;
  readonly #deposal = new AbortController();
  readonly #closing = new AbortController();
  /** Entries without a known outcome, in order; the first has index `#known + 1`, the first `#sent` of them were given to the store. */
  readonly #entries = new EntryQueue();
  #sent = 0;
  #sentBytes = 0;
  #queuedBytes = 0;
  /** Appends that the store has not answered yet, those of entries with a known outcome included. */
  #open = 0;
  #nextIndex = 1;
  /** Index of the last own record known to be written. Its sequence is fenceSequence + index: nothing else stands behind the fence. */
  #known = 0;
  #doubt: CairnError | undefined;
  #doubtDelayMs = RETRY_FIRST_MS;
  #end: CairnError | undefined;
  #drained: Deferred<void> | undefined;

  constructor(store: WalStore, channel: string, epoch: number, fenceSequence: number, options: ChannelWriterOptions) {
    this.channel = channel;
    this.epoch = epoch;
    this.fenceSequence = fenceSequence;
    this.maxPayloadBytes = store.maxRecordBytes - ENVELOPE_BYTES;
    this.#store = store;
    this.#runtime = options.runtime;
    this.#logger = options.logger;
    this.#maxInFlight = Math.max(1, Math.min(options.maxInFlight ?? MAX_IN_FLIGHT, MAX_IN_FLIGHT));
    this.#maxInFlightBytes = options.maxInFlightBytes ?? DEFAULT_MAX_IN_FLIGHT_BYTES;
    this.#maxQueuedBytes = options.maxQueuedBytes ?? DEFAULT_MAX_QUEUED_BYTES;
  }

  get lastSequence(): number {
    return this.fenceSequence + this.#known;
  }

  get inDoubt(): boolean {
    return this.#doubt !== undefined;
  }

  get deposed(): AbortSignal {
    return this.#deposal.signal;
  }

  append(entries: readonly AppendEntry[]): Promise<number> {
    if (this.#end) return Promise.reject(this.#end);
    if (entries.length === 0) return Promise.resolve(this.lastSequence);
    let size = 0;
    try {
      for (const { subject, payload } of entries) {
        checkSubject(subject);
        checkRecordSize(this.channel, payload.byteLength + ENVELOPE_BYTES, this.#store.maxRecordBytes);
        size += payload.byteLength + ENVELOPE_BYTES;
      }
    } catch (error) {
      return Promise.reject(asCairnError(error));
    }
    if (this.#queuedBytes > 0 && this.#queuedBytes + size > this.#maxQueuedBytes) {
      const limit = `wal.maxQueuedBytes ${this.#maxQueuedBytes}`;
      return Promise.reject(
        new CairnError(
          'TooManyRequests',
          `channel ${this.channel}: ${this.#queuedBytes} bytes wait to be appended, ${size} more are above ${limit}`,
        ),
      );
    }
    const call = deferred<number>();
    for (const [at, { subject, payload }] of entries.entries()) {
      const index = this.#nextIndex++;
      this.#entries.push({
        subject,
        index,
        call,
        last: at === entries.length - 1,
        bytes: encodeRecord('data', this.epoch, index, payload),
      });
    }
    this.#queuedBytes += size;
    this.#pump();
    return call.promise;
  }

  async drain(): Promise<void> {
    if (this.#entries.length === 0 || this.#end) return;
    this.#drained ??= deferred<void>();
    await this.#drained.promise;
  }

  async *replay(from: number, to = this.fenceSequence): AsyncGenerator<readonly WalRecord[]> {
    let next = from;
    let delay = RETRY_FIRST_MS;
    while (next <= to) {
      try {
        for await (const batch of this.#store.read(this.channel, { from: next, to, signal: this.#closing.signal })) {
          const records = batch.map((stored) => decodeRecord(this.channel, stored));
          for (const record of records) {
            if (record.sequence !== next)
              throw new CairnError('ObjectDamaged', `channel ${this.channel}: record ${record.sequence} came where ${next} was due`);
            next++;
          }
          delay = RETRY_FIRST_MS;
          yield records;
        }
        if (next <= to) throw new CairnError('StoreUnavailable', `channel ${this.channel}: record ${next} of ${to} is not readable yet`);
      } catch (error) {
        if (!hasCode(error, 'StoreUnavailable', 'Timeout', 'Unavailable') || this.#closing.signal.aborted) throw error;
        this.#logger.warn({ channel: this.channel, next, to, error }, 'replay waits for the write-ahead log');
        await this.#runtime.sleep(delay, this.#closing.signal);
        delay = Math.min(delay * 2, RETRY_MAX_MS);
      }
    }
  }

  close(): void {
    this.#finish(new CairnError('ChannelNotAvailable', `channel ${this.channel}: the writer of epoch ${this.epoch} is closed`));
  }

  /** Hands queued entries to the store, with consecutive expectations, up to the limits. */
  #pump(): void {
    while (!this.#end && !this.#doubt && this.#sent < this.#entries.length && this.#sent < this.#maxInFlight) {
      const entry = this.#entries.at(this.#sent);
      if (this.#sent > 0 && this.#sentBytes + entry.bytes.byteLength > this.#maxInFlightBytes) return;
      this.#sent++;
      this.#sentBytes += entry.bytes.byteLength;
      this.#open++;
      void this.#send(entry);
    }
  }

  async #send(entry: Entry): Promise<void> {
    const sequence = this.fenceSequence + entry.index;
    try {
      const written = await this.#store.append(this.channel, entry.subject, entry.bytes, sequence - 1);
      if (written === sequence) this.#written(entry.index);
      else
        this.#enterDoubt(
          new CairnError(
            'StoreUnavailable',
            `channel ${this.channel}: record ${entry.index} was due at ${sequence} and is said to be at ${written}`,
          ),
        );
    } catch (error) {
      if (entry.index > this.#known) this.#enterDoubt(asCairnError(error));
    } finally {
      this.#open--;
      if (this.#doubt && this.#open === 0 && !this.#end) void this.#resolveDoubt();
      else this.#pump();
    }
  }

  /** All records up to `index` are written: behind the fence each expects the one before it. */
  #written(index: number): void {
    let settled = 0;
    for (; settled < this.#entries.length; ) {
      const entry = this.#entries.at(settled);
      if (entry.index > index) break;
      settled++;
      this.#known = entry.index;
      this.#queuedBytes -= entry.bytes.byteLength;
      if (settled <= this.#sent) this.#sentBytes -= entry.bytes.byteLength;
      if (entry.last) entry.call.resolve(this.fenceSequence + entry.index);
    }
    if (settled === 0) return;
    this.#doubtDelayMs = RETRY_FIRST_MS;
    this.#entries.drop(settled);
    this.#sent = Math.max(0, this.#sent - settled);
    if (this.#entries.length === 0) {
      this.#drained?.resolve();
      this.#drained = undefined;
    }
  }

  /** Stops sending. Reading starts when the store has answered (or given up on) all that is open. */
  #enterDoubt(error: CairnError): void {
    if (this.#end) return;
    if (!isRetriable(error)) {
      this.#depose(new DeposedError(this.channel, this.epoch, `the store refuses its appends: ${error.message}`));
      return;
    }
    if (!this.#doubt) this.#logger.debug({ channel: this.channel, epoch: this.epoch, error }, 'append in doubt, reading the log');
    this.#doubt ??= error;
  }

  /** Reads the log from the last known sequence: own records there are written, a higher epoch ends this owner, the rest is sent again. */
  async #resolveDoubt(): Promise<void> {
    while (!this.#end) {
      const delay = this.#doubtDelayMs * (0.5 + this.#runtime.random() / 2);
      this.#doubtDelayMs = Math.min(this.#doubtDelayMs * 2, RETRY_MAX_MS);
      try {
        const progress = await this.#readOwn();
        if (this.#end) return;
        this.#sent = 0;
        this.#sentBytes = 0;
        // Nothing new in the log: the expectation may have failed against a tail that this read could not see yet.
        if (!progress) await this.#runtime.sleep(delay, this.#closing.signal);
        if (this.#end) return;
        this.#doubt = undefined;
        this.#pump();
        return;
      } catch (error) {
        if (this.#end) return;
        const failure = asCairnError(error);
        if (!isRetriable(failure) || failure.codeName === 'ChannelNotAvailable')
          return this.#depose(new DeposedError(this.channel, this.epoch, failure.message));
        this.#logger.warn(
          { channel: this.channel, epoch: this.epoch, error },
          'outcome of appends is unknown, waiting for the write-ahead log',
        );
        await this.#runtime.sleep(delay, this.#closing.signal).catch(() => undefined);
      }
    }
  }

  /** True when own records were found behind the last known one. */
  async #readOwn(): Promise<boolean> {
    const from = this.lastSequence + 1;
    const { lastSequence } = await this.#store.state(this.channel);
    if (lastSequence < from) return false;
    let known = this.#known;
    for await (const batch of this.#store.read(this.channel, { from, to: lastSequence, signal: this.#closing.signal })) {
      for (const stored of batch) {
        const record = decodeRecord(this.channel, stored);
        if (record.epoch > this.epoch) {
          this.#written(known);
          this.#depose(new DeposedError(this.channel, this.epoch, `epoch ${record.epoch} stands at ${record.sequence}`));
          return true;
        }
        if (record.epoch < this.epoch || record.index !== known + 1 || record.sequence !== this.fenceSequence + record.index) {
          throw new CairnError(
            'Internal',
            `record ${record.index} of epoch ${record.epoch} stands at ${record.sequence}, behind record ${known} of epoch ${this.epoch}`,
          );
        }
        known = record.index;
      }
    }
    const progress = known > this.#known;
    this.#written(known);
    return progress;
  }

  #depose(error: DeposedError): void {
    if (this.#end) return;
    this.#logger.warn({ channel: this.channel, epoch: this.epoch, error }, 'deposed');
    this.#finish(error);
    this.#deposal.abort(error);
  }

  #finish(error: CairnError): void {
    if (this.#end) return;
    this.#end = error;
    this.#closing.abort();
    for (let at = 0; at < this.#entries.length; at++) this.#entries.at(at).call.reject(error);
    this.#entries.drop(this.#entries.length);
    this.#sent = 0;
    this.#sentBytes = 0;
    this.#queuedBytes = 0;
    this.#drained?.resolve();
    this.#drained = undefined;
  }
}
