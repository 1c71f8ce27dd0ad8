import type { Logger, Runtime } from '@cairn/base';
import { keys } from '@cairn/catalog';
import type { MetaEntry, MetaStore } from '@cairn/meta';
import { GroupRecord, SegmentIndexRecord, SegmentRecord, SegmentState } from '@cairn/proto/cairn/meta';
import type { Held } from './catalog-state.ts';
import { followPrefix } from './prefix-follower.ts';

/** Sealed segments, their index builds and groups, as the store has them: others write them, so they are watched. */
export class SegmentWatch {
  readonly #segments = new Map<number, Map<string, SegmentRecord>>();
  readonly #builds = new Map<string, Held<SegmentIndexRecord>>();
  readonly #published = new Set<string>();
  readonly #listeners: (() => void)[] = [];

  async start(meta: MetaStore, runtime: Runtime, logger: Logger, stop: AbortSignal): Promise<void> {
    const changed = () => {
      for (const listener of this.#listeners) listener();
    };
    const segments = {
      reset: () => this.#segments.clear(),
      put: (entry: MetaEntry) => this.#putSegment(entry),
      delete: (key: string) => {
        const collectionId = Number(key.slice(keys.allSegments.length).split('/')[0]);
        const ofCollection = this.#segments.get(collectionId);
        ofCollection?.delete(key);
        if (ofCollection?.size === 0) this.#segments.delete(collectionId);
      },
      changed,
    };
    const builds = {
      reset: () => this.#builds.clear(),
      put: (entry: MetaEntry) => this.putBuild(entry.key, SegmentIndexRecord.decode(entry.value), entry.modRevision),
      delete: (key: string) => this.#builds.delete(key),
      changed,
    };
    const groups = {
      reset: () => this.#published.clear(),
      put: (entry: MetaEntry) => {
        const record = GroupRecord.decode(entry.value);
        if (record.published) this.#published.add(record.group);
      },
      delete: (key: string) => this.#published.delete(key.slice(keys.groups.length)),
      changed,
    };
    await followPrefix(meta, keys.groups, groups, runtime, logger, stop);
    await followPrefix(meta, keys.allSegmentIndexes, builds, runtime, logger, stop);
    await followPrefix(meta, keys.allSegments, segments, runtime, logger, stop);
  }

  onChange(listener: () => void): void {
    this.#listeners.push(listener);
  }

  #putSegment(entry: MetaEntry): void {
    const record = SegmentRecord.decode(entry.value);
    const ofCollection = this.#segments.get(record.collectionId) ?? new Map<string, SegmentRecord>();
    this.#segments.set(record.collectionId, ofCollection);
    ofCollection.set(entry.key, record);
  }

  /** Sealed, published segments of a collection in these partitions. */
  segmentsOf(collectionId: number, partitions: ReadonlySet<number>): SegmentRecord[] {
    return [...(this.#segments.get(collectionId)?.values() ?? [])].filter(
      (record) =>
        record.state === SegmentState.SEGMENT_SEALED &&
        partitions.has(record.partitionId) &&
        (record.group === '' || this.#published.has(record.group)),
    );
  }

  segment(collectionId: number, id: number): SegmentRecord | undefined {
    return this.#segments.get(collectionId)?.get(keys.segment(collectionId, id));
  }

  build(key: string): Held<SegmentIndexRecord> | undefined {
    return this.#builds.get(key);
  }

  /** Also called with what was just committed, so that no one waits for the watch. */
  putBuild(key: string, record: SegmentIndexRecord, revision: number): void {
    const before = this.#builds.get(key);
    if (!before || before.revision <= revision) this.#builds.set(key, { key, record, revision });
  }
}
