import type { TimerHandle } from '@cairn/base';
import { type ConsumerMessages, DeliverPolicy } from '@nats-io/jetstream';
import { asWalError, type ChannelStream } from './jetstream-connection.ts';
import type { FollowOptions, StoredRecord } from './wal.ts';
import { TrimmedError } from './wal-errors.ts';

/** Bytes that the server may have under way to one follower. */
const PULL_BYTES = 4 << 20;
/** Bytes that wait here for the reader before the pump pauses. */
const MAX_WAITING_BYTES = 16 << 20;
const RETRY_FIRST_MS = 50;
const RETRY_MAX_MS = 2000;
/** Idle looks that find an undelivered record before the consumer is made anew. */
const STALLED_LOOKS = 2;

/**
 * `WalStore.follow` by ordered consumers. A consumer that starts at a trimmed position silently begins later, and records may be trimmed while
 * it runs; so after each batch the channel's first sequence is compared with the position before it. While nothing comes, the position is
 * moved by looking: no record of the subject at or behind it, the tail read before that look.
 */
export async function* followStream(
  stream: ChannelStream,
  options: FollowOptions,
  idleMs: number,
): AsyncGenerator<readonly StoredRecord[]> {
  const { signal } = options;
  const position = new FollowPosition(stream, options);
  const { firstSequence } = await stream.state();
  if (options.from < firstSequence) throw new TrimmedError(stream.channel, options.from, firstSequence);
  for (let delay = RETRY_FIRST_MS; !signal.aborted; ) {
    let pump: Pump | undefined;
    try {
      pump = await Pump.start(stream, options.subject, position.next, signal);
      position.restarted();
      while (!signal.aborted) {
        const batch = await pump.take(idleMs);
        if (signal.aborted) return;
        if (batch.length === 0) {
          if (pump.ended) break;
          await position.look();
          if (position.stalled) {
            stream.logger.warn(
              { channel: stream.channel, subject: options.subject, next: position.next },
              'follower gets nothing though there is something, starting it again',
            );
            break;
          }
          continue;
        }
        const fresh = await position.accept(batch);
        delay = RETRY_FIRST_MS;
        if (fresh.length > 0) yield fresh;
      }
    } catch (error) {
      const failure = asWalError(error, stream.channel, 'follow');
      if (signal.aborted) return;
      if (failure.codeName !== 'StoreUnavailable') throw failure;
      stream.logger.warn({ channel: stream.channel, subject: options.subject, error }, 'follower lost the write-ahead log, will go on');
    } finally {
      pump?.stop();
    }
    await stream.runtime.sleep(delay, signal).catch(() => undefined);
    delay = Math.min(delay * 2, RETRY_MAX_MS);
  }
}

/** Where a follower stands: every record of the subject before `next` was delivered. */
class FollowPosition {
  next: number;
  readonly #stream: ChannelStream;
  readonly #subject: string;
  #tailSeen = 0;
  #undelivered = 0;

  constructor(stream: ChannelStream, options: FollowOptions) {
    this.#stream = stream;
    this.#subject = options.subject;
    this.next = options.from;
  }

  get stalled(): boolean {
    return this.#undelivered >= STALLED_LOOKS;
  }

  restarted(): void {
    this.#undelivered = 0;
  }

  /** The records of a batch that are new, after making sure that none before or between them was trimmed away. */
  async accept(batch: readonly StoredRecord[]): Promise<readonly StoredRecord[]> {
    this.#undelivered = 0;
    const fresh = batch.filter((record) => record.sequence >= this.next);
    const last = fresh.at(-1);
    if (!last) return fresh;
    if (last.sequence !== this.next + fresh.length - 1) {
      const { firstSequence } = await this.#stream.state();
      if (firstSequence > this.next) throw new TrimmedError(this.#stream.channel, this.next, firstSequence);
    }
    this.next = last.sequence + 1;
    return fresh;
  }

  /** Moves `next` over records of other subjects. */
  async look(): Promise<void> {
    const { connection, stream, subjectPrefix } = this.#stream;
    const tailBefore = this.#tailSeen;
    const last = await connection.manager.streams.getMessage(stream, { last_by_subj: `${subjectPrefix}${this.#subject}` });
    const { firstSequence, lastSequence } = await this.#stream.state();
    this.#tailSeen = lastSequence;
    if (firstSequence > this.next) throw new TrimmedError(this.#stream.channel, this.next, firstSequence);
    if (last && last.seq >= this.next) this.#undelivered++;
    else this.next = Math.max(this.next, tailBefore + 1);
  }
}

/** Takes messages off a consumer into a bounded queue, and hands them out in batches. */
class Pump {
  readonly #messages: ConsumerMessages;
  readonly #stream: ChannelStream;
  readonly #signal: AbortSignal;
  #waiting: StoredRecord[] = [];
  #bytes = 0;
  #wake: (() => void) | undefined;
  #room: (() => void) | undefined;
  #failure: unknown;
  ended = false;

  private constructor(stream: ChannelStream, messages: ConsumerMessages, signal: AbortSignal) {
    this.#stream = stream;
    this.#messages = messages;
    this.#signal = signal;
    signal.addEventListener('abort', this.#onAbort, { once: true });
    void this.#run();
  }

  static async start(stream: ChannelStream, subject: string, from: number, signal: AbortSignal): Promise<Pump> {
    const consumer = await stream.connection.client.consumers.get(stream.stream, {
      filter_subjects: [`${stream.subjectPrefix}${subject}`],
      deliver_policy: DeliverPolicy.StartSequence,
      opt_start_seq: from,
    });
    return new Pump(stream, await consumer.consume({ max_bytes: PULL_BYTES }), signal);
  }

  readonly #onAbort = (): void => {
    this.#messages.stop();
    this.#wake?.();
    this.#room?.();
  };

  async #run(): Promise<void> {
    try {
      for await (const message of this.#messages) {
        this.#waiting.push({
          sequence: message.seq,
          subject: message.subject.slice(this.#stream.subjectPrefix.length),
          bytes: message.data,
        });
        this.#bytes += message.data.byteLength;
        this.#wake?.();
        if (this.#bytes >= MAX_WAITING_BYTES && !this.#signal.aborted) {
          await new Promise<void>((resolve) => {
            this.#room = resolve;
          });
        }
      }
    } catch (error) {
      this.#failure = error;
    }
    this.ended = true;
    this.#wake?.();
  }

  /** All that waits; empty after `idleMs` without anything, at the end, or on abort. Throws what ended the consumer. */
  async take(idleMs: number): Promise<StoredRecord[]> {
    if (this.#waiting.length === 0 && !this.ended && !this.#signal.aborted) {
      let timer: TimerHandle | undefined;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        timer = this.#stream.runtime.after(idleMs, resolve);
      });
      timer?.cancel();
      this.#wake = undefined;
    }
    const batch = this.#waiting;
    if (batch.length === 0 && this.#failure !== undefined) throw this.#failure;
    this.#waiting = [];
    this.#bytes = 0;
    this.#room?.();
    this.#room = undefined;
    return batch;
  }

  stop(): void {
    this.#signal.removeEventListener('abort', this.#onAbort);
    this.#messages.stop();
    this.#room?.();
  }
}
