/**
 * The longest stretch of the main thread without a turn, in CPU time: what a busy machine does to the clock on the wall does not count. An upper
 * bound: the CPU time between two firings of a 1 ms timer.
 */
export class Stretches {
  #timer: NodeJS.Timeout | undefined;
  #last = 0;
  #longestMs = 0;

  start(): void {
    this.#last = cpuMs();
    this.#timer = setInterval(() => {
      const now = cpuMs();
      this.#longestMs = Math.max(this.#longestMs, now - this.#last);
      this.#last = now;
    }, 1);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  get longestMs(): number {
    return this.#longestMs;
  }
}

/** CPU time of this thread, ms. */
export function cpuMs(): number {
  const { user, system } = process.threadCpuUsage();
  return (user + system) / 1_000;
}
