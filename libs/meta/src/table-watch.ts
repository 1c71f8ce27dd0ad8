import type { CairnError, Runtime } from '@cairn/base';
import type { MetaEntry, WatchBatch, WatchEvent } from './meta-store.ts';
import type { MetaTable } from './meta-table.ts';

/** Events a slow consumer may leave in the queue; beyond, the queue is dropped and a reset follows. */
export const WATCH_QUEUE_EVENTS = 10_000;
/** Entries read from the table in one go; between two of them others get their turn. */
const RESET_PAGE = 1000;

/** One watcher of an embedded table: the state of a prefix, then each transaction that touches it. */
export class TableWatch {
  readonly #table: MetaTable;
  readonly #runtime: Runtime;
  readonly #prefix: string;
  readonly #onEnd: () => void;
  #queue: WatchBatch[] = [];
  #queuedEvents = 0;
  #needsReset = true;
  /** Revision of the last reset. */
  #toldRevision = 0;
  #ended: { readonly error: CairnError | undefined } | undefined;
  #wake: (() => void) | undefined;

  constructor(table: MetaTable, runtime: Runtime, prefix: string, onEnd: () => void) {
    this.#table = table;
    this.#runtime = runtime;
    this.#prefix = prefix;
    this.#onEnd = onEnd;
  }

  /** Called by the engine with the events of one committed transaction. */
  offer(events: readonly WatchEvent[], revision: number): void {
    // A table can show a commit a moment before it is published here: what a reset has told is not told again.
    if (this.#needsReset || revision <= this.#toldRevision) return;
    // Most watches are told of nothing: no list is made for them.
    let mine: WatchEvent[] | undefined;
    for (const event of events) {
      if (!(event.kind === 'put' ? event.entry.key : event.key).startsWith(this.#prefix)) continue;
      mine ??= [];
      mine.push(event);
    }
    if (!mine) return;
    this.#queuedEvents += mine.length;
    if (this.#queuedEvents > WATCH_QUEUE_EVENTS) {
      this.#queue = [];
      this.#needsReset = true;
    } else {
      this.#queue.push({ kind: 'events', events: mine, revision });
    }
    this.#wake?.();
  }

  /** Ends the iteration with an error: the store is closed. */
  fail(error: CairnError): void {
    this.#end(error);
  }

  async *batches(signal: AbortSignal): AsyncGenerator<WatchBatch> {
    const onAbort = () => this.#end(undefined);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      if (signal.aborted) return;
      for (;;) {
        if (this.#ended) {
          if (this.#ended.error) throw this.#ended.error;
          return;
        }
        const batch = this.#needsReset ? await this.#reset() : this.#queue.shift();
        if (batch) {
          if (batch.kind === 'events') this.#queuedEvents -= batch.events.length;
          yield batch;
        } else {
          await new Promise<void>((resolve) => {
            this.#wake = resolve;
          });
          this.#wake = undefined;
        }
      }
    } finally {
      signal.removeEventListener('abort', onAbort);
      this.#end(undefined);
    }
  }

  async #reset(): Promise<WatchBatch> {
    // From here on offer() queues; in the same turn the snapshot is opened, so no revision falls between.
    this.#needsReset = false;
    this.#queue = [];
    this.#queuedEvents = 0;
    const snapshot = this.#table.snapshot(this.#prefix);
    this.#toldRevision = snapshot.revision;
    try {
      const entries: MetaEntry[] = [];
      for (;;) {
        const page = snapshot.next(RESET_PAGE);
        for (const entry of page) entries.push(entry);
        if (page.length < RESET_PAGE) break;
        await this.#runtime.sleep(0);
      }
      return { kind: 'reset', entries, revision: snapshot.revision };
    } finally {
      snapshot.close();
    }
  }

  #end(error: CairnError | undefined): void {
    if (this.#ended) return;
    this.#ended = { error };
    this.#queue = [];
    this.#onEnd();
    this.#wake?.();
  }
}
