/**
 * The runtime seam: the only way to the clock, timers and random numbers. Services and libs take a Runtime through the constructor and never
 * touch Date, setTimeout or Math.random, so that a whole cluster can run in one process under a seed and be replayed.
 */
export interface TimerHandle {
  cancel(): void;
}

export interface Runtime {
  /** Wall clock, ms since the Unix epoch. May jump; only for stamps that people read and for the TSO. */
  now(): number;
  /** Monotonic clock, ms. For deadlines and leases. */
  monotonic(): number;
  /** Calls `callback` once after `delayMs`. Timers never keep the process alive. */
  after(delayMs: number, callback: () => void): TimerHandle;
  /** Resolves after `delayMs`, rejects with Cancelled when the signal aborts first. */
  sleep(delayMs: number, signal?: AbortSignal): Promise<void>;
  /**
   * For long work in slices: resolves when it is this slice's turn. Slices of a process take turns of the event loop one by one, so that eight
   * flushes side by side delay everyone else by one slice, not by eight.
   */
  turn(): Promise<void>;
  /** Uniform in [0, 1). */
  random(): number;
  randomBytes(length: number): Uint8Array;
  /** True under simulation: index, hash and encode work runs inline, never in worker threads. */
  readonly inline: boolean;
}

/** A crash of a simulated instance closes its seam: nothing it awaited ever settles again. */
export function randomId(runtime: Runtime): string {
  return Buffer.from(runtime.randomBytes(16)).toString('hex');
}
