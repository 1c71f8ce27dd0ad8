import { asCairnError, CairnError, deferred, type Logger, type Runtime, retry, type Service } from '@cairn/base';
import { type MetaEntry, type MetaStore, scan, type WatchBatch } from '@cairn/meta';
import { GroupRecord } from '@cairn/proto/cairn/meta';
import { keys } from './keys.ts';

export interface RecordWatchOptions<T> {
  readonly meta: MetaStore;
  readonly prefix: string;
  decode(bytes: Uint8Array, key: string): T;
  /** Group of a record that may have one; '' is none. With it, records of groups that are not published are hidden. */
  groupOf?(record: T): string;
  readonly runtime: Runtime;
  readonly logger: Logger;
}

/** A change of what is visible: before undefined, it appeared; after undefined, it is gone. */
export interface RecordChange<T> {
  readonly key: string;
  readonly before: T | undefined;
  readonly after: T | undefined;
}

interface Known<T> {
  readonly record: T;
  readonly modRevision: number;
}

/**
 * The records of a prefix, kept current. What listeners see is whole transactions, and whole groups: when a group is published all its records
 * appear at once.
 */
export class RecordWatch<T> implements Service {
  readonly name: string;
  readonly #options: RecordWatchOptions<T>;
  readonly #known = new Map<string, Known<T>>();
  readonly #visible = new Map<string, T>();
  /** Groups seen published. They stay when their record is deleted: that happens when their records no longer name them. */
  readonly #published = new Set<string>();
  readonly #listeners = new Set<(changes: readonly RecordChange<T>[]) => void>();
  readonly #stopping = new AbortController();
  readonly #ready = deferred<void>();
  #loops: Promise<unknown> | undefined;
  #revision = 0;

  constructor(options: RecordWatchOptions<T>) {
    this.name = `watch of ${options.prefix}`;
    this.#options = options;
  }

  /** Visible records by key. */
  get records(): ReadonlyMap<string, T> {
    return this.#visible;
  }

  /** Revision up to which the watch has come. */
  get revision(): number {
    return this.#revision;
  }

  /** Resolves with the first state; waits as long as the store is away. */
  async start(): Promise<void> {
    const { meta, prefix, groupOf } = this.#options;
    const loops: Promise<void>[] = [];
    if (groupOf) {
      // Groups first: a group known as published may have no records yet, but no record of a published group is ever taken for hidden.
      const groups = deferred<void>();
      loops.push(this.#follow(meta.watch(keys.groups, this.#stopping.signal), (batch) => this.#applyGroups(batch), groups));
      await groups.promise;
    }
    loops.push(this.#follow(meta.watch(prefix, this.#stopping.signal), async (batch) => this.#apply(batch), this.#ready));
    this.#loops = Promise.all(loops);
    await this.#ready.promise;
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    await this.#loops;
  }

  /** Called after each batch that changed something visible. Does not tell what is there already. */
  onChange(listener: (changes: readonly RecordChange<T>[]) => void): { close(): void } {
    this.#listeners.add(listener);
    return { close: () => this.#listeners.delete(listener) };
  }

  async #follow(
    batches: AsyncIterable<WatchBatch>,
    apply: (batch: WatchBatch) => Promise<void>,
    first: { resolve(): void; reject(error: unknown): void },
  ): Promise<void> {
    try {
      for await (const batch of batches) {
        await apply(batch);
        first.resolve();
      }
      first.reject(new CairnError('Cancelled', `${this.name} was stopped`));
    } catch (error) {
      first.reject(error);
      if (!this.#stopping.signal.aborted) this.#options.logger.error({ error, prefix: this.#options.prefix }, 'watch of records ended');
    }
  }

  #apply(batch: WatchBatch): void {
    const touched = new Set<string>();
    if (batch.kind === 'reset') {
      const there = new Set(batch.entries.map((entry) => entry.key));
      for (const key of [...this.#known.keys()]) {
        if (there.has(key)) continue;
        this.#known.delete(key);
        touched.add(key);
      }
      for (const entry of batch.entries) this.#learn(entry, touched);
    } else {
      for (const event of batch.events) {
        if (event.kind === 'put') this.#learn(event.entry, touched);
        else if ((this.#known.get(event.key)?.modRevision ?? 0) < event.modRevision) {
          this.#known.delete(event.key);
          touched.add(event.key);
        }
      }
    }
    this.#revision = Math.max(this.#revision, batch.revision);
    this.#show(touched);
  }

  /** Older news than what is known is no news: a listing may have run ahead of the watch. */
  #learn(entry: MetaEntry, touched: Set<string>): void {
    const known = this.#known.get(entry.key);
    if (known && known.modRevision >= entry.modRevision) return;
    try {
      this.#known.set(entry.key, { record: this.#options.decode(entry.value, entry.key), modRevision: entry.modRevision });
      touched.add(entry.key);
    } catch (error) {
      // One damaged record must not blind this process for all others.
      this.#options.logger.error({ error: asCairnError(error), key: entry.key }, 'record cannot be decoded and is passed over');
    }
  }

  async #applyGroups(batch: WatchBatch): Promise<void> {
    const entries = batch.kind === 'reset' ? batch.entries : batch.events.flatMap((event) => (event.kind === 'put' ? [event.entry] : []));
    const fresh = new Set<string>();
    for (const entry of entries) {
      const record = GroupRecord.decode(entry.value);
      if (record.published && !this.#published.has(record.group)) fresh.add(record.group);
    }
    if (fresh.size === 0) return;
    // The two watches run apart: records of the group may not have come yet. Read them, so that the group appears whole.
    if (this.#loops) await this.#catchUp();
    for (const group of fresh) this.#published.add(group);
    const touched = new Set<string>();
    for (const [key, { record }] of this.#known) if (fresh.has(this.#groupOf(record))) touched.add(key);
    this.#show(touched);
  }

  async #catchUp(): Promise<void> {
    const { meta, prefix, runtime, logger } = this.#options;
    const policy = {
      attempts: Number.POSITIVE_INFINITY,
      firstDelayMs: 20,
      maxDelayMs: 1000,
      onRetry: (error: unknown) => logger.warn({ error, prefix }, 'records of a group cannot be read, trying again'),
    };
    const entries = await retry(
      runtime,
      policy,
      async () => {
        const found: MetaEntry[] = [];
        for await (const page of scan(meta, prefix)) for (const entry of page) found.push(entry);
        return found;
      },
      this.#stopping.signal,
    );
    const touched = new Set<string>();
    // What the watch has told already it has told rightly, deletions too.
    for (const entry of entries) if (entry.modRevision > this.#revision) this.#learn(entry, touched);
    this.#show(touched);
  }

  #groupOf(record: T): string {
    return this.#options.groupOf?.(record) ?? '';
  }

  #show(touched: ReadonlySet<string>): void {
    const changes: RecordChange<T>[] = [];
    for (const key of touched) {
      const before = this.#visible.get(key);
      const record = this.#known.get(key)?.record;
      const group = record === undefined ? '' : this.#groupOf(record);
      const after = group === '' || this.#published.has(group) ? record : undefined;
      if (before === after) continue;
      if (after === undefined) this.#visible.delete(key);
      else this.#visible.set(key, after);
      changes.push({ key, before, after });
    }
    if (changes.length === 0) return;
    for (const listener of [...this.#listeners]) {
      try {
        listener(changes);
      } catch (error) {
        this.#options.logger.error({ error: asCairnError(error), prefix: this.#options.prefix }, 'listener of a watch failed');
      }
    }
  }
}
