import { asCairnError, CairnError, hasCode, isRetriable, type Logger, type Runtime } from '@cairn/base';
import { keys } from '@cairn/catalog';
import type { MetaStore } from '@cairn/meta';
import {
  type CollectionRecord,
  CollectionState,
  IndexBuildState,
  type IndexRecord,
  PrefixRecord,
  SegmentIndexRecord,
  type SegmentRecord,
  SegmentState,
} from '@cairn/proto/cairn/meta';
import type { IndexProgress } from '@cairn/proto/cairn/services';
import { DataType, decodeSchema } from '@cairn/schema';
import type { Held } from './catalog-state.ts';
import type { Ids } from './change-preparer.ts';
import { putRecord } from './changes/change.ts';
import type { LeaderStore, Put } from './leader-store.ts';
import { Periodic } from './periodic.ts';
import { SegmentWatch } from './segment-watch.ts';
import type { DataCoordSettings } from './settings.ts';
import type { TaskRunner } from './task-runner.ts';

export interface IndexBuilderOptions {
  readonly store: LeaderStore;
  readonly meta: MetaStore;
  readonly runtime: Runtime;
  readonly logger: Logger;
  readonly settings: DataCoordSettings;
  readonly ids: Ids;
  readonly tasks: TaskRunner;
  readonly stop: AbortSignal;
}

const ROUND_MS = 5_000;
const FIRST_RETRY_MS = 100;
const MAX_RETRY_MS = 10_000;

/** What is to be built: one index of one segment. */
interface Build {
  readonly key: string;
  readonly collection: CollectionRecord;
  readonly segment: SegmentRecord;
  readonly index: IndexRecord;
}

/**
 * Keeps every sealed segment indexed: sees a segment without a build record for an index, records one, has a datanode build it,
 * commits the object. Each try has its own epoch in record and key, so a late worker changes nothing. Segments that are small, or whose index is
 * FLAT, are finished without an object: they are searched exactly.
 */
export class IndexBuilder {
  readonly #options: IndexBuilderOptions;
  readonly #watch = new SegmentWatch();
  readonly #rounds: Periodic;
  /** Builds under way, and what ends them. */
  readonly #active = new Map<string, { readonly build: Build; readonly gone: AbortController }>();

  constructor(options: IndexBuilderOptions) {
    this.#options = options;
    const { runtime, logger, stop } = options;
    this.#rounds = new Periodic('index inspection', ROUND_MS, () => this.#inspect(), runtime, logger, stop);
  }

  async start(): Promise<void> {
    const { meta, runtime, logger, stop } = this.#options;
    this.#watch.onChange(() => {
      this.#endUseless();
      this.#rounds.poke();
    });
    await this.#watch.start(meta, runtime, logger, stop);
    this.#rounds.poke();
  }

  poke(): void {
    this.#rounds.poke();
  }

  /** What it knows of segments and builds; follows the store from `start` on. */
  get segments(): SegmentWatch {
    return this.#watch;
  }

  /** Rows of sealed segments and how many of them are indexed, per index. */
  progress(collectionId: number): IndexProgress[] {
    const { state } = this.#options.store;
    const collection = state.collections.get(collectionId);
    if (!collection) return [];
    const fields = indexedFieldIds(collection);
    const segments = this.#segmentsOf(collection);
    const totalRows = segments.reduce((sum, segment) => sum + segment.rows, 0);
    return state.indexesOf(collectionId).map((index) => {
      const builds = segments.map((segment) => ({
        segment,
        build: this.#watch.build(keys.segmentIndex(collectionId, segment.id, index.id))?.record,
      }));
      const finished = builds.filter(({ build }) => build?.state === IndexBuildState.INDEX_BUILD_FINISHED || !fields.has(index.fieldId));
      const failed = builds.find(({ build }) => build?.state === IndexBuildState.INDEX_BUILD_FAILED);
      const indexedRows = finished.reduce((sum, { segment }) => sum + segment.rows, 0);
      return { indexId: index.id, totalRows, indexedRows, failure: failed?.build?.reason ?? '' };
    });
  }

  #segmentsOf(collection: CollectionRecord): SegmentRecord[] {
    const partitions = new Set(this.#options.store.state.partitionsOf(collection.id).map((partition) => partition.id));
    return this.#watch.segmentsOf(collection.id, partitions);
  }

  async #inspect(): Promise<void> {
    const { state } = this.#options.store;
    for (const collection of [...state.collections.values()]) {
      if (collection.state !== CollectionState.COLLECTION_LIVE) continue;
      const fields = indexedFieldIds(collection);
      const indexes = state.indexesOf(collection.id).filter((index) => fields.has(index.fieldId));
      if (indexes.length === 0) continue;
      for (const segment of this.#segmentsOf(collection)) {
        for (const index of indexes) {
          if (this.#options.stop.aborted) return;
          await this.#consider({ key: keys.segmentIndex(collection.id, segment.id, index.id), collection, segment, index });
        }
      }
    }
  }

  async #consider(build: Build): Promise<void> {
    const known = this.#watch.build(build.key) ?? (await this.#record(build));
    if (known?.record.state !== IndexBuildState.INDEX_BUILD_PENDING || this.#active.has(build.key)) return;
    const gone = new AbortController();
    this.#active.set(build.key, { build, gone });
    void this.#run(build, gone.signal)
      .catch((error: unknown) => {
        if (!this.#options.stop.aborted)
          this.#options.logger.warn({ error, build: build.key }, 'an index build ended without a result; it is looked at again');
      })
      .finally(() => this.#active.delete(build.key));
  }

  /** First record of a build: PENDING, or finished at once where there is nothing to build. undefined when segment or index are gone. */
  async #record(build: Build): Promise<Held<SegmentIndexRecord> | undefined> {
    const { ids, settings } = this.#options;
    const { collection, segment, index } = build;
    const indexType = typeOf(index);
    const nothing = indexType === 'FLAT' || segment.rows < settings.indexMinRows;
    const record: SegmentIndexRecord = {
      buildId: await ids.allocate(1),
      indexId: index.id,
      collectionId: collection.id,
      segmentId: segment.id,
      fieldId: index.fieldId,
      state: nothing ? IndexBuildState.INDEX_BUILD_FINISHED : IndexBuildState.INDEX_BUILD_PENDING,
      object: undefined,
      rows: segment.rows,
      reason: '',
      group: '',
      epoch: 0,
      indexType,
    };
    return this.#put(build, undefined, record);
  }

  /** Writes a build record if segment and index are still there and nobody changed the record. */
  async #put(
    build: Build,
    before: Held<SegmentIndexRecord> | undefined,
    record: SegmentIndexRecord,
    prefix?: Held<PrefixRecord>,
  ): Promise<Held<SegmentIndexRecord> | undefined> {
    const { collection, segment, index, key } = build;
    const revision = await this.#options.store.commit({
      if: [
        { kind: 'modRevision', key, equals: before?.revision ?? 0 },
        { kind: 'exists', key: keys.segment(collection.id, segment.id) },
        { kind: 'exists', key: keys.index(collection.id, index.id) },
        ...(prefix ? [{ kind: 'modRevision', key: prefix.key, equals: prefix.revision } as const] : []),
      ],
      puts: [putRecord(key, SegmentIndexRecord, record)],
    });
    if (revision === undefined) return undefined;
    this.#watch.putBuild(key, record, revision);
    return { key, record, revision };
  }

  /** A segment that was compacted or dropped meanwhile needs no index; its prefix may soon be dead. */
  #endUseless(): void {
    for (const { build, gone } of this.#active.values()) {
      const { collectionId, id } = build.segment;
      if (this.#watch.segment(collectionId, id)?.state !== SegmentState.SEGMENT_SEALED) gone.abort();
    }
  }

  async #run(build: Build, gone: AbortSignal): Promise<void> {
    const { tasks, runtime, logger, settings } = this.#options;
    const stop = AbortSignal.any([this.#options.stop, gone]);
    let avoid: string | undefined;
    for (let attempt = 1; ; attempt++) {
      const slot = await tasks.acquire('build', stop, { avoid });
      try {
        if (await this.#try(build, slot, stop)) return;
      } catch (error) {
        if (stop.aborted || hasCode(error, 'Cancelled', 'ServiceNotReady')) return;
        if (!isRetriable(error) || attempt >= settings.taskAttempts) return await this.#failed(build, asCairnError(error));
        logger.info({ error, build: build.key, attempt, node: slot.node.id }, 'an index build is tried again');
        avoid = slot.node.id;
      } finally {
        slot.release();
      }
      await runtime.sleep(Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** (attempt - 1)), stop);
    }
  }

  /** One try at one node. True when nothing is left to do: finished, or segment, index or record are gone. */
  async #try(build: Build, slot: Awaited<ReturnType<TaskRunner['acquire']>>, stop: AbortSignal): Promise<boolean> {
    const { tasks } = this.#options;
    const { collection, segment, index } = build;
    const before = this.#watch.build(build.key);
    if (before?.record.state !== IndexBuildState.INDEX_BUILD_PENDING) return true;
    const prefix = await this.#livingPrefix(segment.prefix);
    const pending = await this.#put(build, before, { ...before.record, epoch: before.record.epoch + 1 }, prefix);
    if (!pending) return true;
    const { buildId, epoch } = pending.record;
    const key = `${segment.prefix}index.${index.fieldId}.${buildId}e${epoch}`;
    const value = { schema: collection.schema, segment, index, buildId, key };
    const update = await tasks.run(slot, { taskId: buildId, epoch, task: { $case: 'buildIndex', value } }, stop);
    const object = update.objects[0];
    const finished: SegmentIndexRecord = {
      ...pending.record,
      state: IndexBuildState.INDEX_BUILD_FINISHED,
      object,
      rows: update.rows || segment.rows,
    };
    await this.#put(build, pending, finished, prefix);
    return true;
  }

  /** The record that lets objects be written under the segment's prefix. */
  async #livingPrefix(prefix: string): Promise<Held<PrefixRecord>> {
    const { store, runtime } = this.#options;
    const key = keys.prefix(prefix);
    const entry = await store.retrying(() => store.meta.get(key));
    if (entry) {
      const record = PrefixRecord.decode(entry.value);
      if (record.dead) throw new CairnError('Unavailable', `prefix ${prefix} is dead`);
      return { key, record, revision: entry.modRevision };
    }
    const record: PrefixRecord = { prefix, dead: false, createdMs: runtime.now(), deadMs: 0, purpose: 'index' };
    const puts: Put[] = [putRecord(key, PrefixRecord, record)];
    const revision = await store.commit({ if: [{ kind: 'missing', key }], puts });
    if (revision === undefined) throw new CairnError('Unavailable', `prefix ${prefix} was recorded by another just now`);
    return { key, record, revision };
  }

  async #failed(build: Build, error: CairnError): Promise<void> {
    const before = this.#watch.build(build.key);
    if (before?.record.state !== IndexBuildState.INDEX_BUILD_PENDING) return;
    this.#options.logger.warn({ error, build: build.key }, 'an index build failed for good');
    await this.#put(build, before, { ...before.record, state: IndexBuildState.INDEX_BUILD_FAILED, reason: error.message });
  }
}

/** Index type in capitals. */
export function typeOf(index: IndexRecord): string {
  return index.indexParams.find((param) => param.key === 'index_type')?.value.toUpperCase() ?? 'AUTOINDEX';
}

const indexedFields = new WeakMap<CollectionRecord, ReadonlySet<number>>();

/** Fields whose segments get an index of their own, vectors and scalars; lists of vectors are searched exactly. */
export function indexedFieldIds(collection: CollectionRecord): ReadonlySet<number> {
  let ids = indexedFields.get(collection);
  if (!ids) {
    const { fields } = decodeSchema(collection.schema);
    ids = new Set(fields.flatMap((field) => (field.type === DataType.ArrayOfVector ? [] : [field.id])));
    indexedFields.set(collection, ids);
  }
  return ids;
}
