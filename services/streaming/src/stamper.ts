import { asCairnError, CairnError, type Runtime } from '@cairn/base';
import type { StampSource } from './coordinator.ts';

/** Writes of one call for timestamps. */
const MAX_BATCH_WRITES = 1024;
/** Between two tries when the oracle is still behind the floor (a read raised it by another clock). */
const BEHIND_FLOOR_WAIT_MS = 1;

/** Something that waits for its timestamp. */
export interface Stampable {
  /** Its caller has gone: it is passed over. */
  readonly abandoned: boolean;
  /** Called once, in timestamp order. Must hand the write to the log before it returns. */
  stamp(ts: number): void;
  fail(error: unknown): void;
}

/**
 * Gives timestamps to the writes of one channel. They are taken after the write has arrived, one call for all that wait, never from a cache: so a
 * write sent after another was acknowledged has the greater stamp on any shard, and a cut at T respects real time.
 */
export class Stamper {
  readonly #source: StampSource;
  readonly #runtime: Runtime;
  readonly #signal: AbortSignal;
  readonly #waiting: Stampable[] = [];
  #running = false;
  #pauses = 0;
  #resume: { promise: Promise<void>; resolve: () => void } | undefined;
  #floor = 0;
  #ended: unknown;

  /** `signal` ends the stamper; call `end` to fail what waits. */
  constructor(source: StampSource, runtime: Runtime, signal: AbortSignal) {
    this.#source = source;
    this.#runtime = runtime;
    this.#signal = signal;
  }

  /** No stamp at or below it is given out any more. */
  get floor(): number {
    return this.#floor;
  }

  /** Stamps taken and not used that are not above `ts` are thrown away and taken anew. */
  raiseFloor(ts: number): void {
    if (ts > this.#floor) this.#floor = ts;
  }

  submit(write: Stampable): void {
    if (this.#ended !== undefined) {
      write.fail(this.#ended);
      return;
    }
    this.#waiting.push(write);
    if (!this.#running) void this.#run();
  }

  /** No stamp is used while `work` runs. */
  async paused<T>(work: () => Promise<T>): Promise<T> {
    this.#pauses++;
    this.#resume ??= Promise.withResolvers<void>();
    try {
      return await work();
    } finally {
      if (--this.#pauses === 0) {
        this.#resume?.resolve();
        this.#resume = undefined;
      }
    }
  }

  /** Fails what waits and what comes later. */
  end(error: unknown): void {
    this.#ended ??= error;
    for (const write of this.#waiting.splice(0)) write.fail(this.#ended);
  }

  async #run(): Promise<void> {
    this.#running = true;
    try {
      while (this.#waiting.length > 0 && this.#ended === undefined) await this.#round();
    } finally {
      this.#running = false;
    }
  }

  async #round(): Promise<void> {
    const batch = this.#waiting.splice(0, MAX_BATCH_WRITES).filter((write) => !write.abandoned);
    if (batch.length === 0) return;
    let unstamped = batch;
    try {
      const first = await this.#source.allocTimestamps(batch.length, this.#signal);
      while (this.#resume !== undefined) await this.#resume.promise;
      if (this.#ended !== undefined) throw this.#ended;
      unstamped = batch.filter((write, at) => !this.#use(write, first + at));
      if (unstamped.length === 0) return;
      await this.#runtime.sleep(BEHIND_FLOOR_WAIT_MS, this.#signal);
      if (this.#ended !== undefined) throw this.#ended;
      this.#waiting.unshift(...unstamped);
    } catch (error) {
      // The term may be over before it said so here: what was not stamped has not happened, and goes to the next owner.
      const over = this.#signal.aborted
        ? new CairnError('ChannelNotAvailable', 'the term of this owner is over', { cause: error })
        : undefined;
      const reason = this.#ended ?? over ?? asCairnError(error);
      for (const write of unstamped) write.fail(reason);
    }
  }

  /** False when the stamp must be thrown away. */
  #use(write: Stampable, ts: number): boolean {
    if (write.abandoned) return true;
    if (ts <= this.#floor) return false;
    this.#floor = ts;
    try {
      write.stamp(ts);
    } catch (error) {
      write.fail(error);
    }
    return true;
  }
}
