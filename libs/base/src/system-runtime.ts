import { randomFillSync } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import { CairnError } from './errors.ts';
import type { Runtime, TimerHandle } from './runtime.ts';
import { TurnQueue } from './turn-queue.ts';

/** The real clock, timers and randomness of this process. */
export class SystemRuntime implements Runtime {
  readonly inline = false;
  readonly turns = new TurnQueue(() => performance.now());

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
