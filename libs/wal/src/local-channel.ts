import type { FollowOptions, ReadOptions, StoredRecord } from './wal.ts';
import { TrimmedError } from './wal-errors.ts';

/** Where one channel of an in-process store begins and ends, and who waits for its next record. */
export class LocalChannel {
  readonly name: string;
  /** First sequence still kept. */
  first: number;
  /** Last durable sequence: what readers see. */
  last: number;
  /** Last sequence given out to an append; ahead of `last` while appends are in flight. */
  tail: number;
  deleted = false;
  readonly #waiting = new Set<() => void>();

  constructor(name: string, first: number, last: number) {
    this.name = name;
    this.first = first;
    this.last = last;
    this.tail = last;
  }

  wake(): void {
    for (const wake of this.#waiting) wake();
    this.#waiting.clear();
  }

  /** Resolves at the next wake, or when the signal aborts. */
  async next(signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const wake = (): void => resolve();
    this.#waiting.add(wake);
    signal.addEventListener('abort', wake, { once: true });
    await promise;
    // So that a long-lived signal does not collect them.
    signal.removeEventListener('abort', wake);
    this.#waiting.delete(wake);
  }
}

/** One page of a scan: the matching records from `from` on, and the last sequence it has looked at (at most `to`). */
export interface Page {
  readonly records: readonly StoredRecord[];
  readonly through: number;
}

export type Scan = (channel: LocalChannel, from: number, to: number, subjects: readonly string[] | undefined) => Page;

/** `WalStore.read` over a page scan. `pause` lets other work of the thread in between pages. */
export async function* readLocal(
  channel: LocalChannel,
  options: ReadOptions,
  scan: Scan,
  pause: () => Promise<void>,
): AsyncGenerator<readonly StoredRecord[]> {
  const to = Math.min(options.to ?? channel.last, channel.last);
  for (let next = options.from; next <= to; ) {
    options.signal?.throwIfAborted();
    if (next < channel.first) throw new TrimmedError(channel.name, next, channel.first);
    const page = scan(channel, next, to, options.subjects);
    next = page.through + 1;
    if (page.records.length > 0) yield page.records;
    if (next <= to) await pause();
  }
}

/** `WalStore.follow` over a page scan and the channel's wake-ups. */
export async function* followLocal(
  channel: LocalChannel,
  options: FollowOptions,
  scan: Scan,
  pause: () => Promise<void>,
): AsyncGenerator<readonly StoredRecord[]> {
  const subjects = [options.subject];
  for (let next = options.from; !options.signal.aborted && !channel.deleted; ) {
    if (next < channel.first) throw new TrimmedError(channel.name, next, channel.first);
    if (next > channel.last) {
      await channel.next(options.signal);
      continue;
    }
    const page = scan(channel, next, channel.last, subjects);
    next = page.through + 1;
    if (page.records.length > 0) yield page.records;
    await pause();
  }
}
