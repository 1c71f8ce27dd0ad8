import type { Logger, Runtime } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { CollectionState, SegmentIndexRecord, SegmentRecord, SegmentState } from '@cairn/proto/cairn/meta';
import { putRecord } from './changes/change.ts';
import { pagesOf } from './control-applier.ts';
import type { LeaderStore, Put } from './leader-store.ts';
import { Periodic } from './periodic.ts';
import type { RestoreManager } from './restore-manager.ts';
import type { DataCoordSettings } from './settings.ts';
import { publishedGroups } from './snapshot-capture.ts';
import type { SnapshotManager } from './snapshot-manager.ts';

const DELETE_PAGE = 80;

/**
 * What follows a drop, in its own time: snapshots and restore jobs of a dropped collection end, segments of dropped collections and partitions are
 * marked dropped, index builds of dropped indexes are forgotten. No object is deleted here. The shard records of a dropped collection go last:
 * as long as one is there, a new leader does this again.
 */
export class DropFollower {
  readonly #store: LeaderStore;
  readonly #snapshots: SnapshotManager;
  readonly #restores: RestoreManager;
  readonly #logger: Logger;
  readonly #rounds: Periodic;
  readonly #done = new Set<string>();

  constructor(
    store: LeaderStore,
    snapshots: SnapshotManager,
    restores: RestoreManager,
    runtime: Runtime,
    logger: Logger,
    settings: DataCoordSettings,
    stop: AbortSignal,
  ) {
    this.#store = store;
    this.#snapshots = snapshots;
    this.#restores = restores;
    this.#logger = logger;
    this.#rounds = new Periodic('drops', settings.sweepPeriodMs, () => this.#round(), runtime, logger, stop);
  }

  poke(): void {
    this.#rounds.poke();
  }

  async #round(): Promise<void> {
    const { state } = this.#store;
    for (const collection of [...state.collections.values()]) {
      if (collection.state === CollectionState.COLLECTION_DROPPED) await this.#collection(collection.id, collection.droppedTs);
      else if (collection.state === CollectionState.COLLECTION_LIVE) await this.#parts(collection.id);
    }
  }

  async #collection(id: number, droppedTs: number): Promise<void> {
    if (this.#done.has(`collection/${id}`)) return;
    this.#restores.targetDropped(id);
    await this.#snapshots.collectionDropped(id);
    const shards = await this.#store.meta.range({ prefix: keys.shards(id) });
    if (shards.entries.length > 0) {
      await this.#dropSegments(id, () => droppedTs);
      for (let at = 0; at < shards.entries.length; at += DELETE_PAGE) {
        await this.#store.mustCommit({ deletes: shards.entries.slice(at, at + DELETE_PAGE).map((entry) => entry.key) });
      }
    }
    this.#done.add(`collection/${id}`);
  }

  async #parts(id: number): Promise<void> {
    const dropped = new Map(
      this.#store.state
        .allPartitionsOf(id)
        .filter((partition) => partition.droppedTs > 0 && !this.#done.has(`partition/${partition.id}`))
        .map((partition) => [partition.id, partition.droppedTs]),
    );
    if (dropped.size > 0) await this.#dropSegments(id, (partitionId) => dropped.get(partitionId));
    for (const partitionId of dropped.keys()) this.#done.add(`partition/${partitionId}`);
    await this.#forgetBuilds(id);
  }

  /** Marks sealed segments dropped where `droppedTs` of their partition gives a time. */
  async #dropSegments(collectionId: number, droppedTs: (partitionId: number) => number | undefined): Promise<void> {
    let count = 0;
    // What a restore has staged is its undo's to remove; once published it is as any other.
    const published = publishedGroups(await this.#store.list(keys.groups));
    for await (const page of this.#store.pages(keys.segments(collectionId))) {
      const puts: Put[] = [];
      for (const entry of page) {
        const record = SegmentRecord.decode(entry.value);
        const ts = droppedTs(record.partitionId);
        if (ts === undefined || record.state !== SegmentState.SEGMENT_SEALED || !published.has(record.group)) continue;
        puts.push(putRecord(entry.key, SegmentRecord, { ...record, state: SegmentState.SEGMENT_DROPPED, droppedTs: ts }));
      }
      for (const few of pagesOf(puts)) await this.#store.mustCommit({ puts: few });
      count += puts.length;
    }
    if (count > 0) this.#logger.info({ collectionId, segments: count }, 'segments marked dropped');
  }

  /** Build records whose index is gone. Their objects stay: a snapshot may name them. */
  async #forgetBuilds(collectionId: number): Promise<void> {
    const signature = `builds/${collectionId}/${this.#store.state.indexesOf(collectionId).map((index) => index.id)}`;
    if (this.#done.has(signature)) return;
    const gone: string[] = [];
    for await (const page of this.#store.pages(keys.segmentIndexes(collectionId))) {
      // Looked up after the page was read: a build is recorded only once its index is in the state.
      const now = new Set(this.#store.state.indexesOf(collectionId).map((index) => index.id));
      for (const entry of page) if (!now.has(SegmentIndexRecord.decode(entry.value).indexId)) gone.push(entry.key);
    }
    for (let at = 0; at < gone.length; at += DELETE_PAGE) await this.#store.mustCommit({ deletes: gone.slice(at, at + DELETE_PAGE) });
    this.#done.add(signature);
  }
}
