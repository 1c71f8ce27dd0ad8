import { CairnError, type Logger, type Runtime, type Service, type TimerHandle } from '@cairn/base';
import type { MetaStore } from '@cairn/meta';
import { LeaderRecord } from '@cairn/proto/cairn/meta';
import { keys } from './keys.ts';
import { RecordWatch } from './record-watch.ts';

/** The former leader's answer may be on its way when the record changes: it has this long, ms. */
const FORMER_LEADER_MS = 100;

/**
 * Who leads DataCoord, by a watch of its record. A hint that saves waiting: who leads is still asked of the store, and a leader is a leader by its
 * lease, but nobody waits for one that the store says is gone, nor polls while there is none.
 */
export class LeaderWatch implements Service {
  readonly name = 'leader watch';
  readonly #runtime: Runtime;
  readonly #watch: RecordWatch<LeaderRecord>;
  readonly #listeners = new Set<() => void>();

  constructor(meta: MetaStore, runtime: Runtime, logger: Logger) {
    this.#runtime = runtime;
    this.#watch = new RecordWatch({ meta, prefix: keys.leader, decode: (bytes) => LeaderRecord.decode(bytes), runtime, logger });
  }

  /** Resolves with the first state. */
  async start(): Promise<void> {
    await this.#watch.start();
    this.#watch.onChange(() => {
      for (const listener of [...this.#listeners]) listener();
    });
  }

  async stop(): Promise<void> {
    await this.#watch.stop();
  }

  /** Where the leader listens; undefined: nobody leads, as far as is known. */
  get address(): string | undefined {
    return this.#watch.records.get(keys.leader)?.address;
  }

  /** Resolves when the record changes, the time is up, or the signal aborts. */
  async changed(withinMs: number, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const wake = (): void => resolve();
    const timer = this.#runtime.after(withinMs, wake);
    this.#listeners.add(wake);
    signal.addEventListener('abort', wake, { once: true });
    await promise;
    timer.cancel();
    this.#listeners.delete(wake);
    signal.removeEventListener('abort', wake);
  }

  /** One try with the leader at `address`: given up (ServiceNotReady) soon after the record is gone or names another, however long its deadline. */
  async whileLeading<T>(address: string, signal: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const trying = new AbortController();
    const cancel = (): void => trying.abort();
    let gone = false;
    let timer: TimerHandle | undefined;
    const look = (): void => {
      if (this.address === address) {
        timer?.cancel();
        timer = undefined;
      } else
        timer ??= this.#runtime.after(FORMER_LEADER_MS, () => {
          gone = true;
          trying.abort();
        });
    };
    this.#listeners.add(look);
    signal.addEventListener('abort', cancel, { once: true });
    if (signal.aborted) cancel();
    try {
      return await work(trying.signal);
    } catch (error) {
      if (gone && !signal.aborted)
        throw new CairnError('ServiceNotReady', `the coordinator at ${address} no longer leads`, { cause: error });
      throw error;
    } finally {
      timer?.cancel();
      this.#listeners.delete(look);
      signal.removeEventListener('abort', cancel);
    }
  }
}
