import type { MetaEntry } from './meta-store.ts';

/** One key of a commit: its new entry, or undefined when it is deleted. */
export interface TableChange {
  readonly key: string;
  readonly entry: MetaEntry | undefined;
  /** The key hangs on a lease; leases do not outlive the process, so a durable table remembers to delete it at the next open. */
  readonly leased: boolean;
}

/** A prefix as it was at one revision, read piece by piece. */
export interface TableSnapshot {
  readonly revision: number;
  /** The next entries in key order; empty at the end. */
  next(limit: number): MetaEntry[];
  close(): void;
}

/** Ordered keys of an embedded store. Reads are synchronous and see exactly the committed changes. */
export interface MetaTable {
  get(key: string): MetaEntry | undefined;
  /** Entries with this prefix after `after`, at most `limit`; `next` beyond `maxBytes` of values is left out (never the first). */
  range(
    prefix: string,
    after: string | undefined,
    limit: number,
    maxBytes: number,
  ): { entries: MetaEntry[]; more: boolean; revision: number };
  keys(prefix: string): string[];
  snapshot(prefix: string): TableSnapshot;
  revision(): number;
  /** Makes all changes at once, and durable where the table is: resolved means it will be there after a power cut. */
  commit(changes: readonly TableChange[], revision: number): Promise<void>;
  close(): Promise<void>;
}

/** A table of this process's memory. */
export class MemoryTable implements MetaTable {
  readonly #entries = new Map<string, MetaEntry>();
  /** Keys in order. */
  readonly #order: string[] = [];
  #revision = 1;

  get(key: string): MetaEntry | undefined {
    return this.#entries.get(key);
  }

  revision(): number {
    return this.#revision;
  }

  range(
    prefix: string,
    after: string | undefined,
    limit: number,
    maxBytes: number,
  ): { entries: MetaEntry[]; more: boolean; revision: number } {
    const entries: MetaEntry[] = [];
    let bytes = 0;
    let more = false;
    for (const entry of this.#from(prefix, after)) {
      bytes += entry.value.length;
      if (entries.length === limit || (bytes > maxBytes && entries.length > 0)) {
        more = true;
        break;
      }
      entries.push(entry);
    }
    return { entries, more, revision: this.#revision };
  }

  keys(prefix: string): string[] {
    return [...this.#from(prefix, undefined)].map((entry) => entry.key);
  }

  snapshot(prefix: string): TableSnapshot {
    // References only: entries are immutable, so this is the state of now however long the reader takes.
    const entries = [...this.#from(prefix, undefined)];
    let at = 0;
    return {
      revision: this.#revision,
      next: (limit) => {
        const from = at;
        at += limit;
        return entries.slice(from, at);
      },
      close: () => {},
    };
  }

  async commit(changes: readonly TableChange[], revision: number): Promise<void> {
    for (const { key, entry } of changes) {
      const at = this.#position(key);
      const there = this.#order[at] === key;
      if (entry) {
        this.#entries.set(key, entry);
        if (!there) this.#order.splice(at, 0, key);
      } else if (there) {
        this.#entries.delete(key);
        this.#order.splice(at, 1);
      }
    }
    this.#revision = revision;
  }

  async close(): Promise<void> {}

  *#from(prefix: string, after: string | undefined): Generator<MetaEntry> {
    let at = this.#position(after === undefined || after < prefix ? prefix : after);
    if (after !== undefined && this.#order[at] === after) at++;
    for (; at < this.#order.length && this.#order[at].startsWith(prefix); at++) {
      const entry = this.#entries.get(this.#order[at]);
      if (entry) yield entry;
    }
  }

  /** Index of the first key not below `key`. */
  #position(key: string): number {
    let low = 0;
    let high = this.#order.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#order[middle] < key) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
