import { type Column, hashKeys } from '@cairn/schema';
import type { LogWrite } from './log-write.ts';

/** Keys of a shard that somebody has read and means to write. */
export interface KeyWatch {
  /** Another write of one of the keys was stamped since. */
  readonly stale: boolean;
  close(): void;
}

/** What of a write tells which keys it touches. */
export type KeyedWrite = Pick<LogWrite, 'vchannel' | 'deletes'> & {
  readonly inserts: readonly Pick<LogWrite['inserts'][number], 'batch'>[];
};

class OpenWatch implements KeyWatch {
  stale = false;
  readonly vchannel: string;
  readonly pkFieldId: number;
  readonly hashes: ReadonlySet<number>;
  readonly #close: (watch: OpenWatch) => void;

  constructor(vchannel: string, pkFieldId: number, keys: Column, close: (watch: OpenWatch) => void) {
    this.vchannel = vchannel;
    this.pkFieldId = pkFieldId;
    this.hashes = new Set(hashKeys(keys));
    this.#close = close;
  }

  close(): void {
    this.#close(this);
  }
}

/**
 * Tells a partial update whether another write touched its keys between its read and its stamp. Stamps are given in the order of the log, and every
 * write notes itself as it gets its own: so a watch that is not stale then has seen what the log holds before it. By hash: two keys that share one
 * cost a second read, nothing else.
 */
export class KeyWatches {
  readonly #open = new Set<OpenWatch>();

  watch(vchannel: string, pkFieldId: number, keys: Column): KeyWatch {
    const watch = new OpenWatch(vchannel, pkFieldId, keys, (closed) => this.#open.delete(closed));
    this.#open.add(watch);
    return watch;
  }

  /** Called as the write gets its stamp; `own` is the watch it was made under. */
  note(write: KeyedWrite, own: KeyWatch | undefined): void {
    let written: Uint32Array[] | undefined;
    for (const watch of this.#open) {
      if (watch === own || watch.stale || watch.vchannel !== write.vchannel) continue;
      // Once for all watches of the shard: this runs as stamps are given, with nothing else in between.
      written ??= hashesOf(write, watch.pkFieldId);
      watch.stale = written.some((hashes) => isAnyIn(hashes, watch.hashes));
    }
  }
}

function hashesOf(write: KeyedWrite, pkFieldId: number): Uint32Array[] {
  const columns = [...write.inserts.map(({ batch }) => batch.columns.get(pkFieldId)), ...write.deletes.map(({ keys }) => keys)];
  return columns.flatMap((keys) => (keys === undefined ? [] : [hashKeys(keys)]));
}

function isAnyIn(hashes: Uint32Array, among: ReadonlySet<number>): boolean {
  for (let at = 0; at < hashes.length; at++) if (among.has(hashes[at] as number)) return true;
  return false;
}

/** One at a time for each key: partial updates of one key would otherwise make each other stale in turn. */
export class KeyTurns {
  readonly #tails = new Map<string, Promise<void>>();

  /** Resolves when all that came before with one of the keys are done. Whoever called must call `done`, also when it did not wait to the end. */
  take(vchannel: string, keys: Column): { readonly ready: Promise<unknown>; done(): void } {
    const names = [...new Set(hashKeys(keys))].map((hash) => `${vchannel}/${hash}`);
    const before = new Set(names.flatMap((name) => this.#tails.get(name) ?? []));
    const { promise, resolve } = Promise.withResolvers<void>();
    for (const name of names) this.#tails.set(name, promise);
    return {
      ready: Promise.all(before),
      done: () => {
        for (const name of names) if (this.#tails.get(name) === promise) this.#tails.delete(name);
        resolve();
      },
    };
  }
}
