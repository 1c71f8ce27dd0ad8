import { asCairnError, CairnError, type Logger, makeTimestamp, type Runtime } from '@cairn/base';
import { keys } from '@cairn/catalog';
import type { MetaStore } from '@cairn/meta';
import {
  type CollectionRecord,
  CollectionState,
  CompactionJobRecord,
  CompactionTaskRecord,
  CompactionTaskState,
  IndexBuildState,
  type IndexRecord,
  type SegmentRecord,
} from '@cairn/proto/cairn/meta';
import type { CompactRequest, CompactResponse, GetCompactionResponse } from '@cairn/proto/cairn/services';
import { gauge } from '@cairn/telemetry';
import type { Ids } from '../change-preparer.ts';
import { putRecord } from '../changes/change.ts';
import type { ControlApplier } from '../control-applier.ts';
import { pagesOf } from '../control-applier.ts';
import type { LeaderStore, Put } from '../leader-store.ts';
import { Periodic } from '../periodic.ts';
import type { PrefixSweeper } from '../prefix-sweeper.ts';
import type { SegmentWatch } from '../segment-watch.ts';
import type { DataCoordSettings } from '../settings.ts';
import type { TaskRunner } from '../task-runner.ts';
import { type CompactionPlan, planAll, planAutomatic, ShardDeletes } from './compaction-plan.ts';
import type { CompactionRules } from './compaction-rules.ts';
import { CompactionRunner } from './compaction-runner.ts';
import { groupOf, isOpen } from './compaction-task.ts';
import { DeltaRetirement } from './delta-retirement.ts';
import { DeltaWatch } from './delta-watch.ts';

/** Tasks that are recorded and not ended, those that were asked for excepted: more would only wait for slots. */
const MAX_AUTOMATIC = 64;
/** Plans of one request. */
const MAX_PLANS = 1_000;
/** Records deleted in one transaction. */
const DELETE_PAGE = 80;
/** Collections gone through before the event loop has its turn. */
const STRETCH = 100;
/** Property by which a collection is left to those who ask for compaction. */
const AUTOMATIC_PROPERTY = 'collection.autocompaction.enabled';

const openGauge = gauge('cairn_compaction_open', { description: 'Compactions that are planned or run', unit: '{task}' });
const blockedGauge = gauge('cairn_compaction_blocked', {
  description: 'Collections that are not compacted since the segments of a protecting snapshot are not known',
  unit: '{collection}',
});

export interface CompactorOptions {
  readonly store: LeaderStore;
  readonly meta: MetaStore;
  readonly applier: ControlApplier;
  readonly runtime: Runtime;
  readonly logger: Logger;
  readonly settings: DataCoordSettings;
  readonly ids: Ids;
  readonly tasks: TaskRunner;
  readonly prefixes: PrefixSweeper;
  readonly rules: CompactionRules;
  readonly segments: SegmentWatch;
  readonly stop: AbortSignal;
}

/**
 * Keeps segments few and free of deleted rows: looks at each partition of each shard, records a task for what should become one segment, and has
 * it run, one at a time for each of them. Tasks are recorded before anything is done, so a new leader goes on with those it finds.
 */
export class Compactor {
  readonly #options: CompactorOptions;
  readonly #runner: CompactionRunner;
  readonly #deltas: DeltaWatch;
  readonly #retirement: DeltaRetirement;
  readonly #rounds: Periodic;
  /** Groups with a task that runs here. */
  readonly #running = new Set<string>();
  /** By collection, segments that a worker counted and left as they are: delta logs that end before this sequence need not be looked at again. */
  readonly #looked = new Map<number, Map<number, number>>();
  /** By group; entries of the past go with the next round. */
  readonly #pausedUntil = new Map<string, number>();
  #turn = 0;

  constructor(options: CompactorOptions) {
    this.#options = options;
    const { runtime, logger, stop, settings } = options;
    this.#runner = new CompactionRunner(options);
    this.#deltas = new DeltaWatch(() => undefined);
    this.#retirement = new DeltaRetirement(options);
    this.#rounds = new Periodic('compaction', settings.compactionIntervalMs, () => this.#round(), runtime, logger, stop);
  }

  async start(): Promise<void> {
    const { meta, runtime, logger, stop } = this.#options;
    await this.#deltas.start(meta, runtime, logger, stop);
    this.#rounds.poke();
  }

  /** Plans for what was asked and answers; nothing to do is an answer too: a job without tasks, which is completed. */
  async begin(request: CompactRequest): Promise<CompactResponse> {
    const { store, ids, settings, rules, runtime } = this.#options;
    const collection = store.state.collections.get(request.collectionId);
    if (collection?.state !== CollectionState.COLLECTION_LIVE)
      throw new CairnError('CollectionNotFound', `collection not found[collection=${request.collectionId}]`);
    const shard = request.vchannel === '' ? undefined : collection.shards.find((one) => one.vchannel === request.vchannel);
    if (request.vchannel !== '' && !shard) throw new CairnError('ChannelNotFound', `channel not found[channel=${request.vchannel}]`);
    const targetBytes = request.targetBytes === 0 ? settings.compactionTargetBytes : request.targetBytes;
    const limits = { targetBytes, maxSegments: settings.compactionMaxSegments };
    const isProtected = await rules.protection(collection.id, makeTimestamp(runtime.now(), 0));
    const only = new Set(request.segmentIds);
    const plans: { of: CompactionPlan; group: SegmentRecord }[] = [];
    const deletesOf = this.#deletesOf(collection);
    for (const segments of this.#groups(collection)) {
      const wanted = segments.filter(
        (segment) =>
          (request.partitionId === 0 || segment.partitionId === request.partitionId) &&
          (!shard || segment.shard === shard.index) &&
          (only.size === 0 || only.has(segment.id)) &&
          !isProtected(segment),
      );
      const [group] = wanted;
      if (!group) continue;
      for (const of of planAll(wanted, deletesOf(group.shard), limits, rules.expiredUpTo(collection))) plans.push({ of, group });
    }
    if (plans.length > MAX_PLANS)
      throw new CairnError('InvalidParameter', `${plans.length} compactions at once, at most ${MAX_PLANS}: name a partition or a channel`);
    const jobId = await ids.allocate(1);
    const createdMs = runtime.now();
    const job: CompactionJobRecord = { id: jobId, collectionId: collection.id, tasks: plans.length, createdMs };
    // The job first: tasks that a crash kept from being recorded count as failed.
    const puts = [putRecord(keys.compactionJob(jobId), CompactionJobRecord, job)];
    for (const { of, group } of plans) puts.push(await this.#taskFor(of, group, jobId, 0));
    for (const page of pagesOf(puts)) await store.mustCommit({ puts: page });
    this.#rounds.poke();
    return { jobId, tasks: plans.length };
  }

  /** InvalidParameter for an id that is not known, or not any more. */
  job(jobId: number): GetCompactionResponse {
    const { state } = this.#options.store;
    const job = state.compactionJobs.get(jobId);
    if (!job) throw new CairnError('InvalidParameter', `compaction not found[compactionID=${jobId}]`);
    return { job, tasks: [...state.compactionTasks.values()].filter((task) => task.jobId === jobId) };
  }

  async #round(): Promise<void> {
    const { store, settings, stop, runtime } = this.#options;
    await this.#forgetOld();
    this.#forgetLooks();
    this.#turn++;
    let blocked = 0;
    let seen = 0;
    const open = [...store.state.compactionTasks.values()].filter(isOpen);
    let room = MAX_AUTOMATIC - open.filter((task) => task.jobId === 0).length;
    for (const collection of [...store.state.collections.values()]) {
      if (stop.aborted) return;
      if (++seen % STRETCH === 0) await runtime.sleep(0);
      if (collection.state !== CollectionState.COLLECTION_LIVE) continue;
      if (settings.compactionEnabled && room > 0 && isAutomatic(collection)) {
        const planned = await this.#inspect(collection, room);
        if (planned === undefined) blocked++;
        else room -= planned;
      }
      await this.#retirement.retire(collection, this.#deltas.of(collection.id), this.#segmentsOf(collection));
    }
    blockedGauge.record(blocked);
    this.#runOpen();
  }

  /** Records plans of a collection, `room` at most; undefined: what protects its segments is not known. */
  async #inspect(collection: CollectionRecord, room: number): Promise<number | undefined> {
    const { store, rules, runtime, settings, logger } = this.#options;
    const open = new Set<string>();
    for (const task of store.state.compactionTasks.values()) if (isOpen(task)) open.add(groupOf(task));
    const groups = this.#groups(collection).filter(([group]) => group && !open.has(groupOf(group)) && !this.#isBusy(groupOf(group)));
    if (groups.length === 0 || rules.heldBy(collection.id)) return 0;
    let isProtected: (segment: SegmentRecord) => boolean;
    try {
      isProtected = await rules.protection(collection.id, makeTimestamp(runtime.now(), 0));
    } catch (error) {
      logger.warn({ error: asCairnError(error), collection: collection.name }, 'a collection is not compacted');
      return undefined;
    }
    const purgeBeforeTs = Math.max(1, makeTimestamp(runtime.now() - settings.compactionRetentionMs, 0));
    const limits = {
      targetBytes: settings.compactionTargetBytes,
      minSegments: settings.compactionMinSegments,
      maxSegments: settings.compactionMaxSegments,
      deletedPercent: settings.compactionDeletedPercent,
    };
    const deletesOf = this.#deletesOf(collection);
    const indexes = store.state.indexesOf(collection.id);
    let planned = 0;
    for (const segments of groups) {
      const free = segments.filter((segment) => !isProtected(segment) && !this.#isIndexing(indexes, segment));
      const [group] = free;
      if (!group || planned >= room) continue;
      const plan = planAutomatic(free, deletesOf(group.shard), purgeBeforeTs, limits, this.#turn, rules.expiredUpTo(collection));
      if (!plan) continue;
      await store.mustCommit({ puts: [await this.#taskFor(plan, group, 0, purgeBeforeTs)] });
      planned++;
    }
    return planned;
  }

  /** A task of it runs here, or it failed a moment ago. */
  #isBusy(group: string): boolean {
    return this.#running.has(group) || (this.#pausedUntil.get(group) ?? 0) > this.#options.runtime.monotonic();
  }

  /** An index of it is being built: it is left alone until then, or the work would be for nothing. */
  #isIndexing(indexes: readonly IndexRecord[], segment: SegmentRecord): boolean {
    return indexes.some((index) => {
      const build = this.#options.segments.build(keys.segmentIndex(segment.collectionId, segment.id, index.id));
      return build?.record.state === IndexBuildState.INDEX_BUILD_PENDING;
    });
  }

  #segmentsOf(collection: CollectionRecord): SegmentRecord[] {
    const partitions = new Set(this.#options.store.state.partitionsOf(collection.id).map((partition) => partition.id));
    return this.#options.segments.segmentsOf(collection.id, partitions);
  }

  /** Sealed segments by partition and shard. Those whose rows are read at another time than they were written are left as they are. */
  #groups(collection: CollectionRecord): SegmentRecord[][] {
    const groups = new Map<string, SegmentRecord[]>();
    for (const segment of this.#segmentsOf(collection)) {
      if (segment.commitTs > 0) continue;
      const group = groups.get(groupOf(segment));
      if (group) group.push(segment);
      else groups.set(groupOf(segment), [segment]);
    }
    return [...groups.values()];
  }

  /** By shard; each is made once. */
  #deletesOf(collection: CollectionRecord): (shard: number) => ShardDeletes {
    const byShard = new Map<number, ShardDeletes>();
    const segments = Map.groupBy(this.#segmentsOf(collection), (segment) => segment.shard);
    const logs = Map.groupBy(this.#deltas.of(collection.id), (log) => log.shard);
    const looked = this.#looked.get(collection.id);
    const appliedBefore = (segment: SegmentRecord): number => Math.max(segment.deletesFrom, looked?.get(segment.id) ?? 0);
    return (shard) => {
      const made = byShard.get(shard) ?? new ShardDeletes(segments.get(shard) ?? [], logs.get(shard) ?? [], appliedBefore);
      byShard.set(shard, made);
      return made;
    };
  }

  async #taskFor(plan: CompactionPlan, group: SegmentRecord, jobId: number, purgeBeforeTs: number): Promise<Put> {
    const { ids, runtime } = this.#options;
    const id = await ids.allocate(2);
    const task = CompactionTaskRecord.fromPartial({
      id,
      jobId,
      state: CompactionTaskState.COMPACTION_PENDING,
      collectionId: group.collectionId,
      partitionId: group.partitionId,
      shard: group.shard,
      sourceSegmentIds: plan.segments.map((segment) => segment.id),
      targetSegmentId: id + 1,
      purgeBeforeTs,
      minPurgedPercent: plan.minPurgedPercent,
      createdMs: runtime.now(),
      sourceRows: plan.segments.reduce((sum, segment) => sum + segment.rows, 0),
      sourceBytes: plan.segments.reduce((sum, segment) => sum + segment.bytes, 0),
    });
    return putRecord(keys.compactionTask(id), CompactionTaskRecord, task);
  }

  /** Begins the oldest open task of every group that has none under way. */
  #runOpen(): void {
    const { store, stop, logger } = this.#options;
    const open = [...store.state.compactionTasks.values()].filter(isOpen).sort((a, b) => a.id - b.id);
    openGauge.record(open.length);
    for (const task of open) {
      const group = groupOf(task);
      if (this.#running.has(group)) continue;
      this.#running.add(group);
      this.#run(task, group)
        .catch((error: unknown) => {
          if (!stop.aborted) logger.warn({ error, task: task.id }, 'a compaction ended without a result; it is looked at again');
          this.#pause(group);
        })
        .finally(() => {
          this.#running.delete(group);
          this.#rounds.poke();
        });
    }
  }

  async #run(task: CompactionTaskRecord, group: string): Promise<void> {
    const { outcome, deletesFrom } = await this.#runner.run(task.id);
    if (outcome === 'failed' && task.jobId === 0) this.#pause(group);
    const looked = this.#looked.get(task.collectionId) ?? new Map<number, number>();
    for (const id of task.sourceSegmentIds) {
      if (outcome === 'kept') looked.set(id, deletesFrom);
      else looked.delete(id);
    }
    this.#looked.set(task.collectionId, looked);
  }

  #pause(group: string): void {
    const { runtime, settings } = this.#options;
    this.#pausedUntil.set(group, runtime.monotonic() + settings.compactionPauseMs);
  }

  /** What was noted of segments and collections that are gone, and pauses that are over. */
  #forgetLooks(): void {
    const { runtime, segments, store } = this.#options;
    for (const [group, until] of this.#pausedUntil) if (until <= runtime.monotonic()) this.#pausedUntil.delete(group);
    for (const [collectionId, looked] of this.#looked) {
      for (const id of looked.keys()) if (!segments.segment(collectionId, id)) looked.delete(id);
      if (looked.size === 0 || !store.state.collections.get(collectionId)) this.#looked.delete(collectionId);
    }
    this.#retirement.forget();
  }

  /** Jobs that ended long ago, with their tasks. */
  async #forgetOld(): Promise<void> {
    const { store, runtime, settings } = this.#options;
    const { compactionJobs, compactionTasks } = store.state;
    const oldest = runtime.now() - settings.compactionJobRetentionMs;
    for (const job of [...compactionJobs.values()]) {
      if (job.createdMs > oldest) continue;
      const tasks = [...compactionTasks.values()].filter((task) => task.jobId === job.id);
      if (tasks.some((task) => isOpen(task) || task.endedMs > oldest)) continue;
      const gone = [...tasks.map((task) => keys.compactionTask(task.id)), keys.compactionJob(job.id)];
      for (let at = 0; at < gone.length; at += DELETE_PAGE) await store.mustCommit({ deletes: gone.slice(at, at + DELETE_PAGE) });
    }
  }
}

function isAutomatic(collection: CollectionRecord): boolean {
  return collection.properties.find((property) => property.key === AUTOMATIC_PROPERTY)?.value.toLowerCase() !== 'false';
}
