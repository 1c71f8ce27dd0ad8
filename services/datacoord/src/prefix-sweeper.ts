import type { Logger, Runtime } from '@cairn/base';
import { keys } from '@cairn/catalog';
import type { ObjectStore } from '@cairn/objects';
import { PrefixRecord } from '@cairn/proto/cairn/meta';
import { putRecord } from './changes/change.ts';
import type { LeaderStore } from './leader-store.ts';
import type { DataCoordSettings } from './settings.ts';

/** How often all prefix records are read; in between only those that were marked here are looked at. */
const RESCAN_MS = 60_000;

/**
 * Deletes objects, the only way it is done: a prefix is first recorded as dead (no commit that names it can succeed any more), then the grace
 * time passes (late writers end), then its objects go, and its record last.
 */
export class PrefixSweeper {
  readonly #store: LeaderStore;
  readonly #objects: ObjectStore;
  readonly #runtime: Runtime;
  readonly #logger: Logger;
  readonly #settings: DataCoordSettings;
  readonly #stop: AbortSignal;
  readonly #dead = new Map<string, PrefixRecord>();
  #scannedAt = Number.NEGATIVE_INFINITY;

  constructor(store: LeaderStore, objects: ObjectStore, runtime: Runtime, logger: Logger, settings: DataCoordSettings, stop: AbortSignal) {
    this.#store = store;
    this.#objects = objects;
    this.#runtime = runtime;
    this.#logger = logger;
    this.#settings = settings;
    this.#stop = stop;
  }

  /** Records the prefix as dead. Nothing happens when it has no record or is dead already. */
  async markDead(prefix: string): Promise<void> {
    const key = keys.prefix(prefix);
    for (;;) {
      const entry = await this.#store.retrying(() => this.#store.meta.get(key));
      if (!entry) return;
      const before = PrefixRecord.decode(entry.value);
      const record: PrefixRecord = before.dead ? before : { ...before, dead: true, deadMs: this.#runtime.now() };
      if (!before.dead) {
        const revision = await this.#store.commit({
          if: [{ kind: 'modRevision', key, equals: entry.modRevision }],
          puts: [putRecord(key, PrefixRecord, record)],
        });
        if (revision === undefined) continue;
      }
      this.#dead.set(prefix, record);
      return;
    }
  }

  /** Deletes what has been dead for the grace time. */
  async sweep(): Promise<void> {
    if (this.#runtime.monotonic() - this.#scannedAt >= RESCAN_MS) await this.#scan();
    const due = this.#runtime.now() - this.#settings.gcGraceMs;
    for (const [prefix, record] of this.#dead) {
      if (this.#stop.aborted) return;
      if (record.deadMs > due) continue;
      await this.deleteObjects(prefix);
      await this.#store.mustCommit({ deletes: [keys.prefix(prefix)] });
      this.#dead.delete(prefix);
      this.#logger.debug({ prefix }, 'dead prefix deleted');
    }
  }

  async #scan(): Promise<void> {
    this.#scannedAt = this.#runtime.monotonic();
    for await (const page of this.#store.pages(keys.prefixes)) {
      for (const entry of page) {
        const record = PrefixRecord.decode(entry.value);
        if (record.dead) this.#dead.set(record.prefix, record);
      }
    }
  }

  /** Deletes every object whose key begins with the prefix. */
  async deleteObjects(prefix: string): Promise<void> {
    for (;;) {
      const page = await this.#objects.list(prefix);
      if (page.objects.length > 0) await this.#objects.delete(page.objects.map((object) => object.key));
      if (page.next === undefined || this.#stop.aborted) return;
    }
  }
}
