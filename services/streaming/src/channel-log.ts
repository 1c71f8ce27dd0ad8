import { type Deferred, deferred, hasCode } from '@cairn/base';
import type { AppendEntry, ChannelWriter } from '@cairn/wal';
import type { LogEvent } from './log-write.ts';

type Unwritten<E> = E extends LogEvent ? Omit<E, 'sequence'> : never;
/** An event before the log has given it a place. */
export type PendingEvent = Unwritten<LogEvent>;

interface InFlight {
  readonly event: PendingEvent;
  readonly done: Deferred<number>;
  sequence: number;
}

/**
 * The one line through which everything enters a channel: appended in timestamp order, applied to memory in log order, and only when durable.
 * What is applied is what readers see and what acknowledgements promise.
 */
export class ChannelLog {
  readonly #writer: ChannelWriter;
  readonly #apply: (event: LogEvent) => void;
  readonly #fail: (error: unknown) => void;
  readonly #inFlight: InFlight[] = [];
  #appliedSequence: number;
  #appliedTs: number;
  #bytesInFlight = 0;
  #ended: unknown;

  /** `fail` is told the first error of the log; nothing is appended after it. */
  constructor(
    writer: ChannelWriter,
    start: { sequence: number; ts: number },
    apply: (event: LogEvent) => void,
    fail: (error: unknown) => void,
  ) {
    this.#writer = writer;
    this.#appliedSequence = start.sequence;
    this.#appliedTs = start.ts;
    this.#apply = apply;
    this.#fail = fail;
  }

  /** Every record at or before it is in memory. */
  get appliedSequence(): number {
    return this.#appliedSequence;
  }

  /** Timestamp of the last applied event; every event at or below it is applied. */
  get appliedTs(): number {
    return this.#appliedTs;
  }

  get bytesInFlight(): number {
    return this.#bytesInFlight;
  }

  get eventsInFlight(): number {
    return this.#inFlight.length;
  }

  /** Resolves with the sequence of the last record when the event is durable and applied. Calls come in timestamp order. */
  append(event: PendingEvent, entries: readonly AppendEntry[]): Promise<number> {
    const item: InFlight = { event, done: deferred<number>(), sequence: 0 };
    if (this.#ended !== undefined) {
      item.done.reject(this.#ended);
      return item.done.promise;
    }
    this.#inFlight.push(item);
    this.#bytesInFlight += event.bytes;
    this.#writer.append(entries).then(
      (sequence) => {
        item.sequence = sequence;
        this.#advance();
      },
      (error: unknown) => {
        // Refused before anything was written: the writer's queue is full, the log itself is well.
        if (hasCode(error, 'TooManyRequests')) this.#refuse(item, error);
        else this.end(error);
      },
    );
    return item.done.promise;
  }

  /** Resolves when every event at or below `ts` that is in flight now is applied. */
  async settled(ts: number): Promise<void> {
    const last = this.#inFlight.findLast((item) => item.event.ts <= ts);
    await last?.done.promise.catch(ignoreRefusal);
  }

  /** Resolves when nothing is in flight of what is in flight now. */
  async drained(): Promise<void> {
    await this.#inFlight.at(-1)?.done.promise.catch(ignoreRefusal);
  }

  /** The end of ownership: what is in flight fails (its outcome is unknown to the caller), later appends too. */
  end(error: unknown): void {
    if (this.#ended !== undefined) return;
    this.#ended = error;
    for (const item of this.#inFlight.splice(0)) item.done.reject(error);
    this.#bytesInFlight = 0;
    this.#fail(error);
  }

  #refuse(item: InFlight, error: unknown): void {
    const at = this.#inFlight.indexOf(item);
    if (at < 0) return;
    this.#inFlight.splice(at, 1);
    this.#bytesInFlight -= item.event.bytes;
    item.done.reject(error);
    this.#advance();
  }

  #advance(): void {
    for (let head = this.#inFlight[0]; head !== undefined && head.sequence > 0; head = this.#inFlight[0]) {
      this.#inFlight.shift();
      this.#bytesInFlight -= head.event.bytes;
      try {
        this.#apply({ ...head.event, sequence: head.sequence });
      } catch (error) {
        head.done.reject(error);
        this.end(error);
        return;
      }
      this.#appliedSequence = head.sequence;
      // A barrier's T may lie below stamps that were in flight when it came.
      this.#appliedTs = Math.max(this.#appliedTs, head.event.ts);
      head.done.resolve(head.sequence);
    }
  }
}

/** A refused write is out of the log; whoever waited for it goes on. */
function ignoreRefusal(error: unknown): void {
  if (!hasCode(error, 'TooManyRequests')) throw error;
}
