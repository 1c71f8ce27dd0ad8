import { asCairnError, CairnError, type Deferred, deferred, type Logger, type Runtime } from '@cairn/base';
import { DataKind, DataRecord } from '@cairn/proto/cairn/wal';
import { decodeFrame } from '@cairn/schema';
import { deletesOf } from '@cairn/segment';
import { decodeRecord, TrimmedError, type WalRecord, type WalStore } from '@cairn/wal';
import type { TailDelete } from './delete-history.ts';

export interface DeleteTailOptions {
  readonly wal: WalStore;
  readonly runtime: Runtime;
  readonly logger: Logger;
  readonly channel: string;
  readonly vchannel: string;
  /** Deletes at or before this sequence are applied already. */
  readonly applied: number;
  /** Applies the deletes of one write. Synchronous, so that no reader sees a part of them. */
  readonly apply: (deletes: readonly TailDelete[]) => void;
  /** The stream begins behind what is needed: makes up for it from delta logs and answers up to which sequence. */
  readonly reload: (applied: number) => Promise<number>;
}

const RETRY_FIRST_MS = 50;
const RETRY_MAX_MS = 2000;

interface Waiter {
  readonly sequence: number;
  readonly done: Deferred<void>;
}

/**
 * Follows a shard's delete subject and applies each write's deletes as a whole, in order. Where the stream has been trimmed away under it, it
 * reloads from delta logs; it never skips.
 */
export class DeleteTail {
  readonly #options: DeleteTailOptions;
  readonly #stopping = new AbortController();
  readonly #waiters = new Set<Waiter>();
  #applied: number;
  /** Records of a write whose last one has not come. */
  #batch: { readonly key: string; readonly deletes: TailDelete[] } | undefined;
  #epoch = 0;
  #running: Promise<void> | undefined;

  constructor(options: DeleteTailOptions) {
    this.#options = options;
    this.#applied = options.applied;
  }

  /** Sequence up to which deletes are applied. */
  get applied(): number {
    return this.#applied;
  }

  start(): void {
    this.#running ??= this.#run();
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
    const gone = new CairnError('ChannelNotAvailable', `shard ${this.#options.vchannel} was released while a read waited for its deletes`);
    for (const waiter of this.#waiters) waiter.done.reject(gone);
  }

  /** Waits until deletes up to `sequence` are applied. Timeout (retriable) after `timeoutMs`. */
  async waitFor(sequence: number, timeoutMs: number, signal?: AbortSignal): Promise<void> {
    if (this.#applied >= sequence) return;
    const { vchannel, runtime } = this.#options;
    const waiter: Waiter = { sequence, done: deferred<void>() };
    this.#waiters.add(waiter);
    const tooLate = (): void => {
      const state = `deletes are applied up to ${this.#applied}, the read needs ${sequence}`;
      waiter.done.reject(new CairnError('Timeout', `shard ${vchannel}: ${state}; waited ${Math.round(timeoutMs)} ms`));
    };
    const cancelled = (): void => waiter.done.reject(new CairnError('Cancelled', `shard ${vchannel}: the read was cancelled`));
    const timer = Number.isFinite(timeoutMs) ? runtime.after(timeoutMs, tooLate) : undefined;
    signal?.addEventListener('abort', cancelled, { once: true });
    if (signal?.aborted) cancelled();
    if (this.#stopping.signal.aborted) waiter.done.reject(new CairnError('ChannelNotAvailable', `shard ${vchannel} was released`));
    try {
      await waiter.done.promise;
    } finally {
      timer?.cancel();
      signal?.removeEventListener('abort', cancelled);
      this.#waiters.delete(waiter);
    }
  }

  async #run(): Promise<void> {
    const { logger, runtime, vchannel, reload } = this.#options;
    const { signal } = this.#stopping;
    let delayMs = RETRY_FIRST_MS;
    while (!signal.aborted) {
      try {
        await this.#follow(() => {
          delayMs = RETRY_FIRST_MS;
        });
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof TrimmedError) {
          const from = this.#applied;
          const reloaded = await reload(from).catch((failure: unknown) => {
            logger.warn({ vchannel, applied: from, error: asCairnError(failure) }, 'delta logs could not be reloaded yet');
          });
          if (reloaded !== undefined) {
            logger.info({ vchannel, applied: from, reloaded }, 'deletes were trimmed from the log; reloaded from delta logs');
            this.#advance(reloaded);
            if (reloaded > from) delayMs = RETRY_FIRST_MS;
          }
        } else logger.warn({ vchannel, applied: this.#applied, error: asCairnError(error) }, 'following deletes was cut; goes on');
      }
      await runtime.sleep(delayMs, signal).catch(() => undefined);
      delayMs = Math.min(RETRY_MAX_MS, delayMs * 2);
    }
  }

  async #follow(onProgress: () => void): Promise<void> {
    const { wal, channel, vchannel } = this.#options;
    // A write that was cut in the middle is read again as a whole.
    this.#batch = undefined;
    const stream = wal.follow(channel, { from: this.#applied + 1, subject: `del.${vchannel}`, signal: this.#stopping.signal });
    for await (const records of stream) {
      if (this.#stopping.signal.aborted) return;
      for (const stored of records) this.#take(decodeRecord(channel, stored));
      onProgress();
    }
  }

  #take(record: WalRecord): void {
    // What a deposed owner wrote behind a later owner's fence does not count.
    if (record.kind !== 'data' || record.epoch < this.#epoch || record.sequence <= this.#applied) return;
    this.#epoch = record.epoch;
    const data = DataRecord.decode(record.payload);
    if (data.kind !== DataKind.DATA_DELETE) return;
    const entry: TailDelete = {
      sequence: record.sequence,
      partitionId: data.partitionId,
      deletes: deletesOf(keysOf(data, record), data.ts, data.readTs),
      bytes: record.payload.length,
    };
    const key = `${record.epoch}/${data.ts}/${data.requestId}`;
    // Another write while the last one is not whole: its owner died in the middle, and it stays invisible.
    if (this.#batch?.key !== key) this.#batch = { key, deletes: [] };
    this.#batch.deletes.push(entry);
    if (!data.lastOnSubject && data.batchSize > 1) return;
    const whole = this.#batch.deletes;
    this.#batch = undefined;
    this.#options.apply(whole);
    this.#advance(record.sequence);
  }

  #advance(sequence: number): void {
    this.#applied = Math.max(this.#applied, sequence);
    for (const waiter of this.#waiters) if (waiter.sequence <= this.#applied) waiter.done.resolve();
  }
}

function keysOf(data: DataRecord, record: WalRecord): Parameters<typeof deletesOf>[0] {
  const [keys] = decodeFrame(data.columns).columns.values();
  if (keys?.length !== data.rows) {
    throw new CairnError(
      'ObjectDamaged',
      `delete record ${record.sequence} of ${data.vchannel} holds ${keys?.length ?? 0} keys, says ${data.rows}`,
    );
  }
  return keys;
}
