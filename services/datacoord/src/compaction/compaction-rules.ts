import { asCairnError, CairnError, type Runtime, timestampMs } from '@cairn/base';
import { expiredUpTo } from '@cairn/catalog';
import { type CollectionRecord, CollectionState, type SegmentRecord, type SnapshotRecord, SnapshotState } from '@cairn/proto/cairn/meta';
import { numberOf, type ReferenceSet } from '../gc/reference-set.ts';
import type { SnapshotReferences } from '../gc/snapshot-references.ts';
import type { LeaderStore } from '../leader-store.ts';

/** Told from a refusal: the same commit may succeed later, as it is. */
export class CompactionHeld extends Error {
  override readonly name = 'CompactionHeld';
}

/**
 * When compaction has to stand back. Asked twice: as plans are made, so that no work is done in vain, and in the turn of the commit among all
 * catalog changes, where the answer cannot change any more.
 */
export class CompactionRules {
  readonly #store: LeaderStore;
  readonly #references: SnapshotReferences;
  readonly #runtime: Runtime;
  readonly #ttlGraceMs: number;

  constructor(store: LeaderStore, references: SnapshotReferences, runtime: Runtime, ttlGraceMs: number) {
    this.#store = store;
    this.#references = references;
    this.#runtime = runtime;
    this.#ttlGraceMs = ttlGraceMs;
  }

  /** The collection while it may be compacted: live, its partition too. undefined: not any more, or not yet. */
  live(collectionId: number, partitionId: number): CollectionRecord | undefined {
    const { state } = this.#store;
    const collection = state.collections.get(collectionId);
    if (collection?.state !== CollectionState.COLLECTION_LIVE) return undefined;
    return state.partition(collectionId, partitionId)?.droppedTs === 0 ? collection : undefined;
  }

  /**
   * A snapshot whose T is taken and that is not committed: until its capture nothing may be replaced, or rows that were deleted after T would
   * be missing from it.
   */
  heldBy(collectionId: number): SnapshotRecord | undefined {
    return this.#store.state.snapshotIndex.of(collectionId).find((snapshot) => snapshot.state === SnapshotState.SNAPSHOT_PENDING);
  }

  /** Snapshots of the collection that keep their segments from being compacted at that time of the oracle. */
  #protecting(collectionId: number, ts: number): SnapshotRecord[] {
    return this.#store.state.snapshotIndex
      .of(collectionId)
      .filter(
        (snapshot) =>
          snapshot.state === SnapshotState.SNAPSHOT_COMMITTED &&
          snapshot.compactionProtectionSeconds > 0 &&
          timestampMs(snapshot.ts) + snapshot.compactionProtectionSeconds * 1000 > timestampMs(ts),
      );
  }

  /**
   * Tells which segments of a collection are protected. What a snapshot refers to and cannot be read now must be taken for everything: then
   * Unavailable (retriable), and the collection is not compacted.
   */
  async protection(collectionId: number, ts: number): Promise<(segment: SegmentRecord) => boolean> {
    const sets: ReferenceSet[] = [];
    for (const snapshot of this.#protecting(collectionId, ts)) {
      try {
        sets.push(await this.#references.of(snapshot));
      } catch (error) {
        const why = asCairnError(error).message;
        throw new CairnError('Unavailable', `segments of the protecting snapshot ${snapshot.name} (${snapshot.id}) are not known: ${why}`);
      }
    }
    return (segment) => {
      const number = numberOf(segment.prefix);
      return sets.some((set) => set.has(number));
    };
  }

  /** Rows of the collection with a timestamp at or below it outlived their time, and the grace after it; 0: none did. */
  expiredUpTo(collection: CollectionRecord): number {
    return expiredUpTo(collection.properties, this.#runtime.now() - this.#ttlGraceMs);
  }

  /** For the commit's turn: rows were left out as expired; a longer time to live since then shows them again, and the race is lost. */
  requireExpired(collectionId: number, upTo: number): void {
    const collection = this.#store.state.collections.get(collectionId);
    if (upTo > 0 && (!collection || this.expiredUpTo(collection) < upTo))
      throw new CairnError('InvalidParameter', `the time to live of collection ${collectionId} was raised meanwhile`);
  }

  /** For the commit's turn, at its own timestamp. Throws CompactionHeld, or InvalidParameter for a race that is lost. */
  require(collectionId: number, partitionId: number, sources: readonly SegmentRecord[], ts: number): void {
    if (!this.live(collectionId, partitionId))
      throw new CairnError('InvalidParameter', `collection ${collectionId} or its partition ${partitionId} was dropped meanwhile`);
    const holder = this.heldBy(collectionId);
    if (holder) throw new CompactionHeld(`snapshot ${holder.name} (${holder.id}) is being made`);
    for (const snapshot of this.#protecting(collectionId, ts)) {
      const set = this.#references.known(snapshot.id);
      // It was committed since the plan was made: looked at before the next try.
      if (!set) throw new CompactionHeld(`segments of snapshot ${snapshot.name} (${snapshot.id}) are not known yet`);
      const segment = sources.find((one) => set.has(numberOf(one.prefix)));
      if (segment)
        throw new CairnError('InvalidParameter', `segment ${segment.id} is protected from compaction by snapshot ${snapshot.name}`);
    }
  }
}
