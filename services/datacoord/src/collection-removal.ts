import { type Logger, type Runtime, timestampMs } from '@cairn/base';
import { keys, nextCollectionState } from '@cairn/catalog';
import { type CollectionRecord, CollectionState } from '@cairn/proto/cairn/meta';
import type { ControlApplier } from './control-applier.ts';
import { isOver } from './gc/references.ts';
import type { LeaderStore } from './leader-store.ts';
import type { DataCoordSettings } from './settings.ts';

/** Records in one transaction, beside catalog/applied. */
const DELETE_PAGE = 80;
/** Collections removed in one sweep. */
const PER_SWEEP = 50;

/**
 * Removes the catalog records of dropped collections once nothing refers to them: no snapshot, no restore, no record of a segment, delta log,
 * build or shard, no prefix in the bucket; and the orphan time has passed, so that whoever wrote for it has ended.
 */
export class CollectionRemoval {
  readonly #store: LeaderStore;
  readonly #applier: ControlApplier;
  readonly #runtime: Runtime;
  readonly #logger: Logger;
  readonly #settings: DataCoordSettings;

  constructor(store: LeaderStore, applier: ControlApplier, runtime: Runtime, logger: Logger, settings: DataCoordSettings) {
    this.#store = store;
    this.#applier = applier;
    this.#runtime = runtime;
    this.#logger = logger;
    this.#settings = settings;
  }

  async sweep(): Promise<void> {
    const { state } = this.#store;
    const before = this.#runtime.now() - this.#settings.gcOrphanMs;
    const wanted = new Set<number>();
    for (const collection of state.collections.values()) {
      const due = collection.state === CollectionState.COLLECTION_DROPPED && timestampMs(collection.droppedTs) < before;
      if (due && state.snapshotIndex.of(collection.id).length === 0) wanted.add(collection.id);
      if (wanted.size >= PER_SWEEP) break;
    }
    if (wanted.size === 0) return;
    for (const job of state.jobs.values()) if (!isOver(job.state)) wanted.delete(job.targetCollectionId);
    for (const intent of state.intents.values()) wanted.delete(intent.targetCollectionId);
    for (const id of wanted) {
      const collection = state.collections.get(id);
      if (collection && !(await this.#leftovers(id))) await this.#remove(collection);
    }
  }

  async #leftovers(id: number): Promise<boolean> {
    const { meta } = this.#store;
    const prefixes = [
      keys.segments(id),
      keys.deltas(id),
      keys.segmentIndexes(id),
      keys.shards(id),
      keys.prefix(`segments/${id}/`),
      keys.prefix(`deltas/${id}/`),
      keys.prefix(`snapshots/${id}/`),
    ];
    for (const prefix of prefixes) {
      const page = await this.#store.retrying(() => meta.range({ prefix, limit: 1 }));
      if (page.entries.length > 0) return true;
    }
    return false;
  }

  /** Partitions and indexes in pages, the collection last: until then the next sweep goes on. */
  async #remove(collection: CollectionRecord): Promise<void> {
    if (nextCollectionState(collection.state, 'remove') !== 'GONE') return;
    const parts = [...(await this.#store.list(keys.partitions(collection.id))), ...(await this.#store.list(keys.indexes(collection.id)))];
    const deletes = [...parts.map((entry) => entry.key), keys.load(collection.id), keys.collection(collection.id)];
    for (let at = 0; at < deletes.length; at += DELETE_PAGE)
      await this.#applier.applyBeside(() => ({ if: [], puts: [], deletes: deletes.slice(at, at + DELETE_PAGE) }));
    this.#logger.info({ collection: collection.name, id: collection.id }, 'catalog records of a dropped collection removed');
  }
}
