import { deferred, type Logger, type Runtime, retry } from '@cairn/base';
import type { MetaEntry, MetaStore, WatchBatch } from '@cairn/meta';

const RETRY = { attempts: Number.POSITIVE_INFINITY, firstDelayMs: 50, maxDelayMs: 2000 };

export interface PrefixWatchOptions {
  readonly meta: MetaStore;
  readonly prefix: string;
  readonly runtime: Runtime;
  readonly logger: Logger;
  /** Told once per batch, after all of it is taken; keys that were put or are gone. */
  onChange(changed: readonly string[]): void;
}

/** The entries under a prefix, as they are now, until stopped. */
export class PrefixWatch {
  readonly #options: PrefixWatchOptions;
  readonly #entries = new Map<string, MetaEntry>();
  readonly #ready = deferred<void>();
  readonly #stopping = new AbortController();
  #isReady = false;
  #running: Promise<void> = Promise.resolve();

  constructor(options: PrefixWatchOptions) {
    this.#options = options;
  }

  get entries(): ReadonlyMap<string, MetaEntry> {
    return this.#entries;
  }

  /** The first listing is taken. */
  get isReady(): boolean {
    return this.#isReady;
  }

  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  start(): this {
    const { runtime, logger, prefix } = this.#options;
    const { signal } = this.#stopping;
    const onRetry = (error: unknown): void => logger.warn({ prefix, error }, 'a watch was cut, it goes on');
    this.#running = retry(runtime, { ...RETRY, retriable: () => !signal.aborted, onRetry }, () => this.#follow(signal), signal).catch(
      () => undefined,
    );
    return this;
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#running;
  }

  async #follow(signal: AbortSignal): Promise<void> {
    for await (const batch of this.#options.meta.watch(this.#options.prefix, signal)) {
      if (signal.aborted) return;
      const changed = batch.kind === 'reset' ? this.#reset(batch.entries) : this.#take(batch);
      this.#isReady = true;
      this.#options.onChange(changed);
      this.#ready.resolve();
    }
  }

  #reset(entries: readonly MetaEntry[]): string[] {
    const before = new Map(this.#entries);
    this.#entries.clear();
    const changed: string[] = [];
    for (const entry of entries) {
      this.#entries.set(entry.key, entry);
      if (before.get(entry.key)?.modRevision !== entry.modRevision) changed.push(entry.key);
      before.delete(entry.key);
    }
    return [...changed, ...before.keys()];
  }

  #take(batch: Extract<WatchBatch, { kind: 'events' }>): string[] {
    return batch.events.map((event) => {
      if (event.kind === 'delete') {
        this.#entries.delete(event.key);
        return event.key;
      }
      this.#entries.set(event.entry.key, event.entry);
      return event.entry.key;
    });
  }
}
