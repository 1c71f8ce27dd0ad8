import type { Logger, Runtime } from '@cairn/base';
import { keys } from '@cairn/catalog';
import type { ObjectStore } from '@cairn/objects';
import { PrefixRecord } from '@cairn/proto/cairn/meta';
import { putRecord } from './changes/change.ts';
import type { LeaderStore } from './leader-store.ts';
import type { DataCoordSettings } from './settings.ts';

/** Of dead prefixes that are due, those that may go. */
export type PrefixGuard = (due: readonly string[]) => Promise<readonly string[]>;

export interface Swept {
  readonly prefixes: number;
  readonly bytes: number;
}

/** How often all prefix records are read; in between only those that were marked here are looked at. */
const RESCAN_MS = 60_000;
const SWEEPS_PER_GRACE = 4;

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
  #sweptAt = Number.NEGATIVE_INFINITY;
  #guard: PrefixGuard = async (due) => due;
  #permit: () => Promise<void> = async () => {};

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

  /** Who has the last word on a deletion; without one nothing stands against it. */
  guard(guard: PrefixGuard): void {
    this.#guard = guard;
  }

  /** Asked before any deletion; throws when this bucket is not ours. */
  permit(permit: () => Promise<void>): void {
    this.#permit = permit;
  }

  /** A prefix that was recorded as dead just now. */
  buried(record: PrefixRecord): void {
    this.#dead.set(record.prefix, record);
  }

  /** Prefixes recorded as dead, as far as they are known here. */
  get dead(): ReadonlyMap<string, PrefixRecord> {
    return this.#dead;
  }

  /** Deletes what has been dead for the grace time; several times in that time, or at once when `now`. */
  async sweep(now = false): Promise<Swept> {
    const { gcGraceMs } = this.#settings;
    const swept = { prefixes: 0, bytes: 0 };
    const elapsed = this.#runtime.monotonic() - this.#sweptAt;
    if (!now && elapsed < Math.min(RESCAN_MS, gcGraceMs / SWEEPS_PER_GRACE)) return swept;
    this.#sweptAt = this.#runtime.monotonic();
    if (this.#runtime.monotonic() - this.#scannedAt >= RESCAN_MS) await this.#scan();
    const due = this.#runtime.now() - gcGraceMs;
    const old = [...this.#dead.values()].filter((record) => record.deadMs <= due).map((record) => record.prefix);
    if (old.length === 0) return swept;
    for (const prefix of await this.#guard(old)) {
      if (this.#stop.aborted) break;
      swept.bytes += await this.deleteObjects(prefix);
      swept.prefixes++;
      await this.#store.mustCommit({ deletes: [keys.prefix(prefix)] });
      this.#dead.delete(prefix);
      this.#logger.debug({ prefix }, 'dead prefix deleted');
    }
    return swept;
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

  /** Deletes every object under a prefix that ends in '/', else the one object of that key. Answers with the bytes. */
  async deleteObjects(prefix: string): Promise<number> {
    await this.#permit();
    if (!prefix.endsWith('/')) {
      const found = await this.#objects.head(prefix);
      if (found) await this.#objects.delete([prefix]);
      return found?.size ?? 0;
    }
    let bytes = 0;
    for (;;) {
      const page = await this.#objects.list(prefix);
      if (page.objects.length > 0) await this.#objects.delete(page.objects.map((object) => object.key));
      bytes += page.objects.reduce((sum, object) => sum + object.size, 0);
      if (page.next === undefined || this.#stop.aborted) return bytes;
    }
  }
}
