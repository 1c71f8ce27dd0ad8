import { CairnError, type CodeName, endsRequest, hasCode, type Runtime } from '@cairn/base';
import type { RequestContext } from './request-context.ts';

const FIRST_DELAY_MS = 10;
const MAX_DELAY_MS = 400;

/** Outcomes that another try under the same request id can mend: the other side moved, or is not there for the moment. */
const MENDABLE: readonly CodeName[] = [
  'ChannelNotAvailable',
  'Unavailable',
  'ServiceNotReady',
  'NodeNotAvailable',
  'NodeNotMatch',
  'StoreUnavailable',
  'Timeout',
];

/**
 * Tries `work` until it succeeds, fails for good, or the caller's time is up; then the last error is the answer, which is retriable.
 * `before` runs ahead of each further try (look up who is responsible now).
 */
export async function retryWithin<T>(
  runtime: Runtime,
  context: RequestContext,
  work: () => Promise<T>,
  before: () => Promise<void> | void = () => undefined,
): Promise<T> {
  let delayMs = FIRST_DELAY_MS;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (!hasCode(error, ...MENDABLE) || endsRequest(error)) throw error;
      const pause = delayMs * (0.5 + runtime.random() / 2);
      if (context.signal.aborted) throw new CairnError('Cancelled', 'the caller has gone', { cause: error });
      if (context.remaining() <= pause) throw error;
      await runtime.sleep(pause, context.signal);
      delayMs = Math.min(MAX_DELAY_MS, delayMs * 2);
      await before();
    }
  }
}
