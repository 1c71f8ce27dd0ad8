import type { Logger, Runtime } from '@cairn/base';
import { keys } from '@cairn/catalog';
import type { MetaEntry, MetaStore } from '@cairn/meta';
import { DeltaLogRecord, GroupRecord, IndexBuildState, SegmentIndexRecord, SegmentRecord, SegmentState } from '@cairn/proto/cairn/meta';
import type { Flushed } from './flusher.ts';
import { PrefixWatch } from './prefix-watch.ts';

interface Grouped {
  readonly group: string;
}

/** Records of one kind under a prefix: those that are seen in the store, and those that this node committed a moment ago. */
class Records<T extends Grouped> {
  readonly watch: PrefixWatch;
  readonly #decode: (bytes: Uint8Array) => T;
  readonly #isPublished: (group: string) => boolean;
  readonly #decoded = new Map<string, { entry: MetaEntry; record: T }>();
  readonly #committed = new Map<string, T>();

  constructor(
    watch: (onChange: (changed: readonly string[]) => void) => PrefixWatch,
    decode: (bytes: Uint8Array) => T,
    isPublished: (group: string) => boolean,
  ) {
    this.#decode = decode;
    this.#isPublished = isPublished;
    this.watch = watch((changed) => this.#take(changed));
  }

  /** Known here before the watch brings it. */
  add(key: string, record: T): void {
    if (!this.watch.entries.has(key)) this.#committed.set(key, record);
  }

  *visible(): Iterable<T> {
    for (const { record } of this.#decoded.values()) if (record.group === '' || this.#isPublished(record.group)) yield record;
    yield* this.#committed.values();
  }

  #take(changed: readonly string[]): void {
    for (const key of changed) {
      this.#committed.delete(key);
      const entry = this.watch.entries.get(key);
      if (entry) this.#decoded.set(key, { entry, record: this.#decode(entry.value) });
      else this.#decoded.delete(key);
    }
  }
}

/** Segments, delta logs and index builds of one collection as the store has them. Records of unpublished groups do not show. */
export class CollectionSegments {
  readonly #collectionId: number;
  readonly #groups: PrefixWatch;
  readonly #segments: Records<SegmentRecord>;
  readonly #deltaLogs: Records<DeltaLogRecord>;
  readonly #builds: Records<SegmentIndexRecord>;
  readonly #published = new Set<string>();
  readonly ready: Promise<void>;
  #bySegment: Map<number, SegmentIndexRecord[]> | undefined;

  constructor(meta: MetaStore, runtime: Runtime, logger: Logger, collectionId: number, onChange: () => void) {
    this.#collectionId = collectionId;
    const changed = (): void => {
      if (this.isReady) onChange();
    };
    const watch = (prefix: string) => (take: (keys: readonly string[]) => void) =>
      new PrefixWatch({
        ...{ meta, runtime, logger, prefix },
        onChange: (keysChanged) => {
          take(keysChanged);
          this.#bySegment = undefined;
          changed();
        },
      });
    const isPublished = (group: string): boolean => this.#published.has(group);
    this.#groups = watch(keys.groups)((groupKeys) => this.#takeGroups(groupKeys));
    this.#segments = new Records(watch(keys.segments(collectionId)), (bytes) => SegmentRecord.decode(bytes), isPublished);
    this.#deltaLogs = new Records(watch(keys.deltas(collectionId)), (bytes) => DeltaLogRecord.decode(bytes), isPublished);
    this.#builds = new Records(watch(keys.segmentIndexes(collectionId)), (bytes) => SegmentIndexRecord.decode(bytes), isPublished);
    this.ready = Promise.all(this.#watches.map((one) => one.start().ready)).then(() => undefined);
  }

  get #watches(): PrefixWatch[] {
    return [this.#groups, this.#segments.watch, this.#deltaLogs.watch, this.#builds.watch];
  }

  get isReady(): boolean {
    return this.#watches.every((watch) => watch.isReady);
  }

  /** Sealed segments of a shard. */
  sealed(shard: number): SegmentRecord[] {
    return [...this.#segments.visible()].filter(
      (record) => record.shard === shard && record.state === SegmentState.SEGMENT_SEALED && record.droppedTs === 0,
    );
  }

  deltaLogs(shard: number): DeltaLogRecord[] {
    return [...this.#deltaLogs.visible()].filter((record) => record.shard === shard && record.droppedTs === 0);
  }

  /** Finished builds with an object. */
  indexes(segmentId: number): SegmentIndexRecord[] {
    if (!this.#bySegment) {
      this.#bySegment = new Map();
      for (const build of this.#builds.visible()) {
        if (build.state !== IndexBuildState.INDEX_BUILD_FINISHED || !build.object) continue;
        const builds = this.#bySegment.get(build.segmentId);
        if (builds) builds.push(build);
        else this.#bySegment.set(build.segmentId, [build]);
      }
    }
    return this.#bySegment.get(segmentId) ?? [];
  }

  /** What this node has just committed. */
  add({ segments, deltaLogs }: Flushed): void {
    for (const record of segments) this.#segments.add(keys.segment(this.#collectionId, record.id), record);
    for (const record of deltaLogs) this.#deltaLogs.add(keys.delta(this.#collectionId, record.id), record);
  }

  close(): void {
    for (const watch of this.#watches) void watch.stop();
  }

  #takeGroups(groupKeys: readonly string[]): void {
    for (const key of groupKeys) {
      const entry = this.#groups.entries.get(key);
      const group = key.slice(keys.groups.length);
      if (entry && GroupRecord.decode(entry.value).published) this.#published.add(group);
      else this.#published.delete(group);
    }
  }
}
