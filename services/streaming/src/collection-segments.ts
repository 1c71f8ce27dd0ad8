import { asCairnError, type Logger, type Runtime } from '@cairn/base';
import { keys, RecordWatch } from '@cairn/catalog';
import type { MetaStore } from '@cairn/meta';
import { DeltaLogRecord, IndexBuildState, SegmentIndexRecord, SegmentRecord, SegmentState } from '@cairn/proto/cairn/meta';
import type { Flushed } from './flusher.ts';

/** Records of one kind: those that are seen in the store, and those that this node committed a moment ago. */
class Records<T> {
  readonly watch: RecordWatch<T>;
  readonly #committed = new Map<string, T>();

  constructor(watch: RecordWatch<T>, onChange: () => void) {
    this.watch = watch;
    watch.onChange((changes) => {
      for (const { key } of changes) this.#committed.delete(key);
      onChange();
    });
  }

  /** Known here before the watch brings it. */
  add(key: string, record: T): void {
    if (!this.watch.records.has(key)) this.#committed.set(key, record);
  }

  get(key: string): T | undefined {
    return this.watch.records.get(key) ?? this.#committed.get(key);
  }

  *all(): Iterable<T> {
    yield* this.watch.records.values();
    yield* this.#committed.values();
  }
}

/** Segments, delta logs and index builds of one collection as the store has them. Records of unpublished groups do not show. */
export class CollectionSegments {
  readonly #collectionId: number;
  readonly #segments: Records<SegmentRecord>;
  readonly #deltaLogs: Records<DeltaLogRecord>;
  readonly #builds: Records<SegmentIndexRecord>;
  /** Resolves when the first listings are taken. */
  readonly ready: Promise<void>;
  #isReady = false;
  #bySegment: Map<number, SegmentIndexRecord[]> | undefined;

  constructor(meta: MetaStore, runtime: Runtime, logger: Logger, collectionId: number, onChange: () => void) {
    this.#collectionId = collectionId;
    const changed = (): void => {
      this.#bySegment = undefined;
      if (this.#isReady) onChange();
    };
    const watch = <T extends { readonly group: string }>(prefix: string, decode: (bytes: Uint8Array) => T) =>
      new Records(
        new RecordWatch<T>({ meta, runtime, logger, prefix, decode: (bytes) => decode(bytes), groupOf: (record) => record.group }),
        changed,
      );
    this.#segments = watch(keys.segments(collectionId), (bytes) => SegmentRecord.decode(bytes));
    this.#deltaLogs = watch(keys.deltas(collectionId), (bytes) => DeltaLogRecord.decode(bytes));
    this.#builds = watch(keys.segmentIndexes(collectionId), (bytes) => SegmentIndexRecord.decode(bytes));
    this.ready = Promise.all(this.#watches.map((one) => one.start())).then(() => {
      this.#isReady = true;
    });
    this.ready.catch((error: unknown) =>
      logger.debug({ collectionId, error: asCairnError(error) }, 'segments of a collection are not followed any more'),
    );
  }

  get #watches() {
    return [this.#segments.watch, this.#deltaLogs.watch, this.#builds.watch];
  }

  get isReady(): boolean {
    return this.#isReady;
  }

  /** Sealed segments of a shard. */
  sealed(shard: number): SegmentRecord[] {
    return [...this.#segments.all()].filter(
      (record) => record.shard === shard && record.state === SegmentState.SEGMENT_SEALED && record.droppedTs === 0,
    );
  }

  /** Any segment of the collection, dropped ones too for as long as their record is there. */
  segment(id: number): SegmentRecord | undefined {
    return this.#segments.get(keys.segment(this.#collectionId, id));
  }

  deltaLogs(shard: number): DeltaLogRecord[] {
    return [...this.#deltaLogs.all()].filter((record) => record.shard === shard && record.droppedTs === 0);
  }

  /** Finished builds with an object. */
  indexes(segmentId: number): SegmentIndexRecord[] {
    if (!this.#bySegment) {
      this.#bySegment = new Map();
      for (const build of this.#builds.all()) {
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
}
