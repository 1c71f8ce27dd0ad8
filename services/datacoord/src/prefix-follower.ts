import type { Logger, Runtime } from '@cairn/base';
import type { MetaEntry, MetaStore } from '@cairn/meta';

/** Keeps a copy of a prefix. Called synchronously, one batch at a time; `changed` after each batch. */
export interface PrefixFollower {
  /** Forget everything: the entries that follow are all there is. */
  reset(): void;
  put(entry: MetaEntry): void;
  delete(key: string): void;
  changed(): void;
}

const RESTART_MS = 500;
/** Between two batches: others had their turn. */
const IDLE_MS = 1;
/** Work on batches without a pause, ms, after which others have a turn. */
const STRETCH_MS = 3;

/** Follows a prefix until the signal aborts, across broken watches. Resolves when the first listing is in (or the signal aborts). */
export function followPrefix(
  meta: MetaStore,
  prefix: string,
  follower: PrefixFollower,
  runtime: Runtime,
  logger: Logger,
  stop: AbortSignal,
): Promise<void> {
  const ready = Promise.withResolvers<void>();
  let workedMs = 0;
  let ended = 0;
  const follow = async (): Promise<void> => {
    while (!stop.aborted) {
      try {
        for await (const batch of meta.watch(prefix, stop)) {
          const began = runtime.monotonic();
          if (began - ended >= IDLE_MS) workedMs = 0;
          if (batch.kind === 'reset') {
            follower.reset();
            for (const entry of batch.entries) follower.put(entry);
          } else {
            for (const event of batch.events) {
              if (event.kind === 'put') follower.put(event.entry);
              else follower.delete(event.key);
            }
          }
          follower.changed();
          ready.resolve();
          // Thousands of records may come in pages that are all there already. What comes now and then is
          // followed at once.
          ended = runtime.monotonic();
          workedMs += ended - began;
          if (workedMs < STRETCH_MS) continue;
          workedMs = 0;
          await runtime.sleep(0);
        }
      } catch (error) {
        if (!stop.aborted) logger.warn({ error, prefix }, 'a watch broke; starting it again');
      }
      await runtime.sleep(RESTART_MS, stop).catch(() => undefined);
    }
  };
  void follow();
  stop.addEventListener('abort', () => ready.resolve(), { once: true });
  return ready.promise;
}
