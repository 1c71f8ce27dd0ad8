import { randomFillSync } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import { CairnError } from './errors.ts';
import type { Runtime, TimerHandle } from './runtime.ts';

/** Who waits for a turn of the event loop; each turn lets one of them go on. */
class TurnQueue {
  readonly #waiting: (() => void)[] = [];

  take(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      if (this.#waiting.length === 1) setImmediate(() => this.#next());
    });
  }

  #next(): void {
    const resolve = this.#waiting.shift();
    // Before it goes on, which may bring it here again: it stands behind the others.
    if (this.#waiting.length > 0) setImmediate(() => this.#next());
    resolve?.();
  }
}

/** The real clock, timers and randomness of this process. */
export class SystemRuntime implements Runtime {
  readonly inline = false;
  readonly turns = new TurnQueue();

  now(): number {
    return Date.now();
  }

  monotonic(): number {
    return performance.now();
  }

  after(delayMs: number, callback: () => void): TimerHandle {
    const timer = setTimeout(callback, delayMs);
    timer.unref();
    return { cancel: () => clearTimeout(timer) };
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(new CairnError('Cancelled', 'sleep was cancelled'));
      const onAbort = () => {
        clearTimeout(timer);
        reject(new CairnError('Cancelled', 'sleep was cancelled'));
      };
      const timer = setTimeout(() => {
        signal?.removeEventListener('abort', onAbort);
        resolve();
      }, delayMs);
      signal?.addEventListener('abort', onAbort, { once: true });
    });
  }

  turn(): Promise<void> {
    return this.turns.take();
  }

  random(): number {
    return Math.random();
  }

  randomBytes(length: number): Uint8Array {
    return randomFillSync(new Uint8Array(length));
  }
}
