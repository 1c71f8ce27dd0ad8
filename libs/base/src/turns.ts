import type { Runtime } from './runtime.ts';

/** Work between two turns of the event loop, ms: well below the 10 ms that no stretch may exceed. */
const STRETCH_MS = 3;

/**
 * Gives the event loop its turn in the middle of long work on the main thread. Share one between things that run side by side: then the stretch
 * counts for all of them together. Ask `due` every few dozen items:
 *
 *     if (turns.due) await turns.give();
 */
export class Turns {
  readonly #runtime: Runtime;
  readonly #stretchMs: number;
  #since: number;
  #next: Promise<void> | undefined;

  constructor(runtime: Runtime, stretchMs = STRETCH_MS) {
    this.#runtime = runtime;
    this.#stretchMs = stretchMs;
    this.#since = runtime.monotonic();
  }

  /** True when this has gone on for a stretch without a turn. */
  get due(): boolean {
    return this.#next !== undefined || this.#runtime.monotonic() - this.#since >= this.#stretchMs;
  }

  /** Resolves after everyone else had a turn. */
  give(): Promise<void> {
    this.#next ??= this.#runtime.turn().then(() => {
      this.#next = undefined;
      this.#since = this.#runtime.monotonic();
    });
    return this.#next;
  }

  /** A new stretch begins: after waiting for something else. */
  fresh(): void {
    this.#since = this.#runtime.monotonic();
  }
}
