import { CairnError } from '@cairn/base';

/** The promise, or Timeout when the caller's signal aborts first; what runs goes on. */
export async function within<T>(promise: Promise<T>, signal: AbortSignal, what: string): Promise<T> {
  const late = () => new CairnError('Timeout', `${what}: the deadline passed or the caller has gone`);
  if (signal.aborted) throw late();
  const { promise: aborted, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(late());
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
