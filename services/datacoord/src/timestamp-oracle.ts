import { CairnError, EPOCH_MS, type Logger, makeTimestamp, type Runtime, type TimerHandle, type Timestamp } from '@cairn/base';
import { keys } from '@cairn/catalog';
import type { Leadership } from '@cairn/meta';
import type { LeaderStore, Put } from './leader-store.ts';

/** How far ahead of the clock the saved limit is: what a restart may skip, and the longest a deposed leader could go on. */
const SAVE_AHEAD_MS = 3_000;
/** Ahead of what was given out, at least. */
const MARGIN_MS = 50;
/** The limit is raised when less than this is left. */
const RAISE_BELOW_MS = 1_500;
/** Timestamps that one call may take. */
export const MAX_TIMESTAMPS_PER_CALL = 1_000_000;
const PER_MS = 4_096;

/**
 * The hybrid clock of the cluster. Gives out timestamps that grow for ever: below a limit that is saved in the MetaStore (by transactions that
 * compare leadership) before any below it is given out, and only while the leader's lease is certainly valid. So no two leaders ever give out
 * the same one, and one given out by a new leader is greater than any that its predecessor gave or still gives.
 */
export class TimestampOracle {
  readonly #store: LeaderStore;
  readonly #leadership: Leadership;
  readonly #runtime: Runtime;
  readonly #logger: Logger;
  #last: Timestamp = 0;
  #limit: Timestamp = 0;
  #raising: Promise<void> | undefined;
  #timer: TimerHandle | undefined;
  #stopped = false;

  constructor(store: LeaderStore, leadership: Leadership, runtime: Runtime, logger: Logger) {
    this.#store = store;
    this.#leadership = leadership;
    this.#runtime = runtime;
    this.#logger = logger;
  }

  /** Reads what earlier leaders may have given out. Before it, and before `start`, nothing is given out. */
  async load(): Promise<void> {
    const saved = await this.#store.retrying(() => this.#store.meta.get(keys.timestampLimit));
    this.#limit = saved ? decodeLimit(saved.value) : 0;
    this.#last = this.#limit;
  }

  /** A first limit for a transaction of the caller, so that a new leader needs one less; `start` takes what it returned once that is committed. */
  firstLimit(): { readonly limit: Timestamp; readonly put: Put } {
    const limit = this.#nextLimit(0);
    return { limit, put: { key: keys.timestampLimit, value: encodeLimit(limit) } };
  }

  start(limit: Timestamp): void {
    this.#limit = limit;
    this.#tick();
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  /** First of `count` consecutive timestamps, each greater than any given out before, by this leader or an earlier one. */
  async allocate(count: number): Promise<Timestamp> {
    if (!Number.isSafeInteger(count) || count < 1 || count > MAX_TIMESTAMPS_PER_CALL) {
      throw new CairnError('InvalidParameter', `timestamp count ${count} is out of range 1..${MAX_TIMESTAMPS_PER_CALL}`);
    }
    for (;;) {
      if (this.#stopped || this.#leadership.lost.aborted || this.#runtime.monotonic() >= this.#leadership.lease.validUntil()) {
        throw new CairnError('ServiceNotReady', 'no timestamps: this coordinator is not certain to lead');
      }
      const first = Math.max(this.#last + 1, this.#now());
      if (first + count <= this.#limit) {
        this.#last = first + count - 1;
        return first;
      }
      await this.#raise(count);
    }
  }

  #now(): Timestamp {
    return makeTimestamp(Math.max(EPOCH_MS, Math.floor(this.#runtime.now())), 0);
  }

  /**
   * Saves a limit SAVE_AHEAD_MS ahead of the clock; only a little ahead of what was given out when that runs before the clock (after a restart, or
   * when the clock went back), so that restart after restart does not carry us away. One save at a time.
   */
  #raise(count: number): Promise<void> {
    // `finally` of a promise runs later than the assignment, also when there was nothing to save.
    this.#raising ??= this.#save(count).finally(() => {
      this.#raising = undefined;
    });
    return this.#raising;
  }

  #nextLimit(count: number): Timestamp {
    return Math.max(this.#limit, this.#now() + SAVE_AHEAD_MS * PER_MS, this.#last + count + MARGIN_MS * PER_MS);
  }

  async #save(count: number): Promise<void> {
    const limit = this.#nextLimit(count);
    if (limit <= this.#limit) return;
    await this.#store.mustCommit({ puts: [{ key: keys.timestampLimit, value: encodeLimit(limit) }] });
    this.#limit = limit;
  }

  #tick(): void {
    if (this.#stopped) return;
    this.#timer = this.#runtime.after(RAISE_BELOW_MS / 3, () => {
      const left = this.#limit - Math.max(this.#last, this.#now());
      const raised = left < RAISE_BELOW_MS * PER_MS ? this.#raise(0) : Promise.resolve();
      raised
        .catch((error: unknown) => {
          if (!this.#stopped) this.#logger.warn({ error }, 'timestamp limit could not be saved');
        })
        .finally(() => this.#tick());
    });
  }
}

function encodeLimit(limit: Timestamp): Uint8Array {
  return Buffer.from(limit.toString());
}

function decodeLimit(bytes: Uint8Array): Timestamp {
  const limit = Number(Buffer.from(bytes).toString());
  if (!Number.isSafeInteger(limit))
    throw new CairnError('Internal', `${keys.timestampLimit} holds "${Buffer.from(bytes).toString()}", not a timestamp`);
  return limit;
}
