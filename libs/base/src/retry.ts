import { asCairnError, CairnError, isRetriable } from './errors.ts';
import type { Runtime } from './runtime.ts';

export interface RetryPolicy {
  /** Attempts in all, the first one included. `Infinity` only where something outside ends the loop (the signal). */
  readonly attempts: number;
  readonly firstDelayMs: number;
  readonly maxDelayMs: number;
  /** Which errors are worth another try. Default: those whose code is retriable. */
  readonly retriable?: (error: unknown) => boolean;
  readonly onRetry?: (error: unknown, attempt: number) => void;
}

/** Calls `work` until it succeeds, the error is permanent, attempts run out, or the signal aborts. Delay doubles, with jitter of a half. */
export async function retry<T>(
  runtime: Runtime,
  policy: RetryPolicy,
  work: (attempt: number) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const worthIt = policy.retriable ?? isRetriable;
  for (let attempt = 1; ; attempt++) {
    if (signal?.aborted) throw new CairnError('Cancelled', 'operation was cancelled');
    try {
      return await work(attempt);
    } catch (error) {
      if (attempt >= policy.attempts || !worthIt(error)) throw asCairnError(error);
      policy.onRetry?.(error, attempt);
      const delay = Math.min(policy.maxDelayMs, policy.firstDelayMs * 2 ** (attempt - 1));
      await runtime.sleep(delay * (0.5 + runtime.random() / 2), signal);
    }
  }
}
