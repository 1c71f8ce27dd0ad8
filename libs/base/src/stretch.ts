import type { Runtime } from './runtime.ts';

/** Longest synchronous stretch on a thread that serves, ms: a rule of the house is 10. */
const STRETCH_MS = 6;

/** Work cut into stretches: asked every few hundred steps, it gives way to the event loop when the time of one is up. */
export class Stretch {
  readonly #runtime: Runtime;
  #until: number;

  constructor(runtime: Runtime) {
    this.#runtime = runtime;
    this.#until = runtime.monotonic() + STRETCH_MS;
  }

  /** Undefined while there is time, so that a loop need not await each step. */
  pause(): Promise<void> | undefined {
    return this.#runtime.monotonic() < this.#until ? undefined : this.#giveWay();
  }

  async #giveWay(): Promise<void> {
    await this.#runtime.sleep(0);
    this.#until = this.#runtime.monotonic() + STRETCH_MS;
  }
}
