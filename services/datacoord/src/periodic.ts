import type { Logger, Runtime, TimerHandle } from '@cairn/base';

/**
 * Runs `work` one at a time: now and then, and soon after `poke`. A poke while it runs makes it run once more. Failures are logged and tried
 * again at the next turn.
 */
export class Periodic {
  readonly #name: string;
  readonly #runtime: Runtime;
  readonly #logger: Logger;
  readonly #periodMs: number;
  readonly #work: () => Promise<void>;
  readonly #stop: AbortSignal;
  #running = false;
  #poked = false;
  #timer: TimerHandle | undefined;

  constructor(name: string, periodMs: number, work: () => Promise<void>, runtime: Runtime, logger: Logger, stop: AbortSignal) {
    this.#name = name;
    this.#periodMs = periodMs;
    this.#work = work;
    this.#runtime = runtime;
    this.#logger = logger;
    this.#stop = stop;
    stop.addEventListener('abort', () => this.#timer?.cancel(), { once: true });
  }

  poke(): void {
    if (this.#stop.aborted) return;
    this.#poked = true;
    if (!this.#running) void this.#run();
  }

  async #run(): Promise<void> {
    this.#running = true;
    this.#timer?.cancel();
    while (this.#poked && !this.#stop.aborted) {
      this.#poked = false;
      try {
        await this.#work();
      } catch (error) {
        if (!this.#stop.aborted) this.#logger.warn({ error, job: this.#name }, 'a periodic job failed; it is tried again');
        break;
      }
    }
    this.#running = false;
    if (!this.#stop.aborted) this.#timer = this.#runtime.after(this.#periodMs, () => this.poke());
  }
}
