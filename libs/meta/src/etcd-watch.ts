import { asCairnError, CairnError, isRetriable, type Logger } from '@cairn/base';
import type { IKeyValue, IWatchResponse } from 'etcd3';
import type { EtcdClient } from './etcd-client.ts';
import type { MetaEntry, RangePage, WatchBatch, WatchEvent } from './meta-store.ts';
import { WATCH_QUEUE_EVENTS } from './table-watch.ts';

const RETRY_FIRST_MS = 50;
const RETRY_MAX_MS = 1000;
/** Of failures in a row every so many-th is logged. */
const WARN_EVERY = 10;
/** A member that has not begun a watch by then is given up. */
const CREATED_WITHIN_MS = 5000;

export interface EtcdWatchOptions {
  readonly client: EtcdClient;
  readonly logger: Logger;
  readonly key: Buffer;
  readonly keyEnd: Buffer;
  entry(kv: IKeyValue): MetaEntry;
  page(after: string | undefined, revision: number | undefined): Promise<RangePage>;
}

type Outcome = 'reset' | 'reconnect';

/**
 * One prefix, followed for ever: the state read at one revision, then a watch stream from the next one. A broken stream goes on from the last
 * revision that was handed over; where etcd has compacted that, or the consumer is too slow, the state is read again.
 */
export class EtcdWatch {
  readonly #options: EtcdWatchOptions;
  /** First revision not yet handed over; undefined: the state must be read. */
  #next: number | undefined;

  constructor(options: EtcdWatchOptions) {
    this.#options = options;
  }

  async *batches(signal: AbortSignal, closing: AbortSignal): AsyncGenerator<WatchBatch> {
    const { client, logger } = this.#options;
    const stop = AbortSignal.any([signal, closing]);
    let failures = 0;
    while (!stop.aborted) {
      try {
        if (this.#next === undefined) {
          const reset = await this.#readState();
          this.#next = reset.revision + 1;
          yield reset;
        }
        for await (const batch of this.#follow(this.#next, stop)) {
          failures = 0;
          yield batch;
        }
      } catch (error) {
        if (stop.aborted) break;
        if (!isRetriable(error)) throw asCairnError(error);
        if (failures % WARN_EVERY === 0)
          logger.warn({ error, prefix: this.#options.key.toString(), next: this.#next }, 'watch: cut off, trying again');
      }
      if (stop.aborted) break;
      const delay = Math.min(RETRY_MAX_MS, RETRY_FIRST_MS * 2 ** Math.min(failures++, 10));
      await client.runtime.sleep(delay * (0.5 + client.runtime.random() / 2), stop).catch(() => undefined);
    }
    if (!signal.aborted) throw new CairnError('StoreUnavailable', 'meta store is closed');
  }

  async #readState(): Promise<WatchBatch> {
    const entries: MetaEntry[] = [];
    let revision: number | undefined;
    let after: string | undefined;
    for (;;) {
      const page: RangePage = await this.#options.page(after, revision);
      revision ??= page.revision;
      for (const entry of page.entries) entries.push(entry);
      if (!page.more) return { kind: 'reset', entries, revision };
      after = entries.at(-1)?.key;
    }
  }

  /** One stream, until it breaks, is cancelled by etcd, or its consumer is too slow. */
  async *#follow(from: number, stop: AbortSignal): AsyncGenerator<WatchBatch> {
    const { client, key, keyEnd } = this.#options;
    const member = await client.member('watch');
    const stream = await member.client.watchClient.watch();
    let queue: WatchBatch[] = [];
    let queued = 0;
    let outcome: Outcome | undefined;
    let wake = () => {};
    const finish = (how: Outcome) => {
      outcome ??= how;
      wake();
    };
    const broken = () => {
      if (outcome) return;
      finish('reconnect');
      client.suspect(member);
    };
    const unanswered = client.runtime.after(CREATED_WITHIN_MS, broken);
    stream.on('data', (response) => {
      unanswered.cancel();
      if (outcome) return;
      if (response.canceled) return finish(Number(response.compact_revision) > 0 ? 'reset' : 'reconnect');
      for (const batch of this.#split(response)) {
        queue.push(batch);
        queued += batch.kind === 'events' ? batch.events.length : 0;
      }
      if (queued > WATCH_QUEUE_EVENTS) {
        queue = [];
        return finish('reset');
      }
      wake();
    });
    stream.on('error', broken);
    stream.on('end', broken);
    const onStop = () => finish('reconnect');
    stop.addEventListener('abort', onStop, { once: true });
    // Found silent by others: this stream may be so too, and would learn it only from its own pings.
    member.left.addEventListener('abort', onStop, { once: true });
    if (member.left.aborted) onStop();
    try {
      stream.write({ create_request: { key, range_end: keyEnd, start_revision: from, progress_notify: true } });
      for (;;) {
        const batch = queue.shift();
        if (stop.aborted) return;
        if (batch) {
          this.#next = batch.revision + 1;
          if (batch.kind !== 'events') continue;
          queued -= batch.events.length;
          // A progress notice: nothing happened up to its revision, which keeps the place to resume ahead of compaction.
          if (batch.events.length > 0) yield batch;
        } else if (outcome) {
          if (outcome === 'reset') this.#next = undefined;
          return;
        } else {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      }
    } finally {
      unanswered.cancel();
      stop.removeEventListener('abort', onStop);
      member.left.removeEventListener('abort', onStop);
      outcome ??= 'reconnect';
      stream.cancel();
    }
  }

  /** The transactions of one response; a progress notice becomes a batch without events. */
  *#split(response: IWatchResponse): Generator<WatchBatch> {
    if (response.events.length === 0) {
      if (!response.created) yield { kind: 'events', events: [], revision: Number(response.header.revision) };
      return;
    }
    let events: WatchEvent[] = [];
    let revision = 0;
    for (const event of response.events) {
      const of = Number(event.kv.mod_revision);
      if (of !== revision && events.length > 0) {
        yield { kind: 'events', events, revision };
        events = [];
      }
      revision = of;
      events.push(
        event.type === 'Delete'
          ? { kind: 'delete', key: this.#options.entry(event.kv).key, modRevision: of }
          : { kind: 'put', entry: this.#options.entry(event.kv) },
      );
    }
    yield { kind: 'events', events, revision };
  }
}
