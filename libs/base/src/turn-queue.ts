/** Time of others for each slice, ms, where turns are long. */
const SHARE_MS = 8;
/** Slices in one turn of the event loop, however long the turn before was. */
const MAX_SLICES = 2;

/**
 * Who waits for a turn of the event loop with a slice of long work. Each turn lets one of them go on, in the order they came; after a long turn two:
 * else a thread that is busy with others would make flushes slower than what is written.
 */
export class TurnQueue {
  readonly #monotonic: () => number;
  readonly #waiting: (() => void)[] = [];
  #lastMs = 0;

  /** `monotonic`: a clock, ms. */
  constructor(monotonic: () => number) {
    this.#monotonic = monotonic;
  }

  take(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      if (this.#waiting.length > 1) return;
      this.#lastMs = this.#monotonic();
      setImmediate(() => this.#next());
    });
  }

  #next(): void {
    const nowMs = this.#monotonic();
    const count = Math.min(MAX_SLICES, Math.max(1, Math.floor((nowMs - this.#lastMs) / SHARE_MS)));
    this.#lastMs = nowMs;
    const now = this.#waiting.splice(0, count);
    // Before they go on, which may bring them here again: they stand behind the others.
    if (this.#waiting.length > 0) setImmediate(() => this.#next());
    for (const resolve of now) resolve();
  }
}
