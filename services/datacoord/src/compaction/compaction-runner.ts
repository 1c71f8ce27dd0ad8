import { asCairnError, CairnError, hasCode, isRetriable, type Logger, makeTimestamp, type Runtime } from '@cairn/base';
import { keys } from '@cairn/catalog';
import type { Compare } from '@cairn/meta';
import {
  type CollectionRecord,
  CompactionTaskRecord,
  PrefixRecord,
  SegmentIndexRecord,
  SegmentRecord,
  SegmentState,
} from '@cairn/proto/cairn/meta';
import type { CompactResult, TaskUpdate } from '@cairn/proto/cairn/services';
import { counter, gauge, histogram } from '@cairn/telemetry';
import type { Held } from '../catalog-state.ts';
import type { Ids } from '../change-preparer.ts';
import { putRecord } from '../changes/change.ts';
import type { ControlApplier } from '../control-applier.ts';
import type { LeaderStore, Put } from '../leader-store.ts';
import type { PrefixSweeper } from '../prefix-sweeper.ts';
import type { DataCoordSettings } from '../settings.ts';
import { publishedGroups } from '../snapshot-capture.ts';
import type { TaskRunner, TaskSlot } from '../task-runner.ts';
import { buildUnrecorded } from '../unrecorded-builds.ts';
import { CompactionHeld, type CompactionRules } from './compaction-rules.ts';
import { compactionPrefix, generationOf, stateAfter } from './compaction-task.ts';

const FIRST_RETRY_MS = 100;
const MAX_RETRY_MS = 5_000;
/** Between two tries of a commit that a snapshot holds. */
const HELD_RETRY_MS = 50;
/** Tries of one task on nodes. */
const ATTEMPTS = 4;

const tasksCount = counter('cairn_compaction_tasks', { description: 'Compactions by how they ended', unit: '{task}' });
const segmentsCount = counter('cairn_compaction_segments', { description: 'Segments that compactions replaced', unit: '{segment}' });
const purgedCount = counter('cairn_compaction_purged_rows', { description: 'Deleted rows that compactions left out', unit: '{row}' });
const readBytes = counter('cairn_compaction_read_bytes', { description: 'Bytes of compacted segments', unit: 'By' });
const writtenBytes = counter('cairn_compaction_written_bytes', { description: 'Bytes of segments that compactions made', unit: 'By' });
const seconds = histogram('cairn_compaction_seconds', {
  description: 'Time from the first dispatch of a compaction to its end',
  unit: 's',
});
const heldGauge = gauge('cairn_compaction_held', { description: 'Compactions whose commit waits for a snapshot now', unit: '{task}' });

export interface CompactionRunnerOptions {
  readonly store: LeaderStore;
  readonly applier: ControlApplier;
  readonly runtime: Runtime;
  readonly logger: Logger;
  readonly settings: DataCoordSettings;
  readonly ids: Ids;
  readonly tasks: TaskRunner;
  readonly prefixes: PrefixSweeper;
  readonly rules: CompactionRules;
  readonly stop: AbortSignal;
}

/** A dispatch: the task under its new epoch, its inputs as they were read then. */
interface Dispatch {
  readonly task: Held<CompactionTaskRecord>;
  readonly collection: CollectionRecord;
  readonly sources: readonly Held<SegmentRecord>[];
  readonly generation: string;
  readonly prefix: Held<PrefixRecord>;
}

interface Made {
  readonly result: CompactResult;
  readonly segment: SegmentRecord | undefined;
  readonly builds: readonly SegmentIndexRecord[];
}

export interface CompactionEnd {
  readonly outcome: 'completed' | 'kept' | 'failed';
  /** Delta logs that end before it are done with; of a task that ended well. */
  readonly deletesFrom: number;
}

/**
 * Runs one compaction to its end. A dispatch raises the task's epoch and records the prefix it will write; a datanode writes the segment, then datanodes
 * build its indexes, so that it can be searched as its inputs were from the moment it is seen. The commit is one transaction in the turn
 * of the catalog changes: the result appears and the inputs are dropped, if they are still what was read, the prefix lives, the task has
 * this epoch, and no snapshot of the collection is between its T and its commit.
 */
export class CompactionRunner {
  readonly #options: CompactionRunnerOptions;
  #held = 0;

  constructor(options: CompactionRunnerOptions) {
    this.#options = options;
  }

  /** Never throws but at the end of the term. A task that failed is FAILED where somebody asked for it, else forgotten. */
  async run(taskId: number): Promise<CompactionEnd> {
    const { runtime, logger, stop } = this.#options;
    const started = runtime.monotonic();
    let avoid: string | undefined;
    for (let attempt = 1; ; attempt++) {
      const slot = await this.#options.tasks.acquire('compact', stop, { avoid });
      try {
        const end = await this.#try(taskId, slot);
        seconds.record((runtime.monotonic() - started) / 1000);
        tasksCount.add(1, { outcome: end.outcome });
        return end;
      } catch (failure) {
        if (stop.aborted || hasCode(failure, 'ServiceNotReady')) throw failure;
        const error = asCairnError(failure);
        await this.#abandon(taskId);
        if (!isRetriable(error) || attempt >= ATTEMPTS) {
          logger.warn({ error, task: taskId, attempt }, 'a compaction failed; its inputs stay as they are');
          tasksCount.add(1, { outcome: 'failed' });
          await this.#end(taskId, error.message);
          return { outcome: 'failed', deletesFrom: 0 };
        }
        logger.info({ error, task: taskId, attempt, node: slot.node.id }, 'a compaction is tried again');
        avoid = slot.node.id;
      } finally {
        slot.release();
      }
      await runtime.sleep(Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** (attempt - 1)), stop);
    }
  }

  async #try(taskId: number, slot: TaskSlot): Promise<CompactionEnd> {
    // What an earlier dispatch wrote, here or under another leader, is nobody's.
    await this.#abandon(taskId);
    const dispatch = await this.#dispatch(taskId, slot);
    const made = await this.#make(dispatch, slot);
    const { deletesFrom } = made.result;
    if (made.result.kept) {
      await this.#abandon(taskId);
      await this.#end(taskId, '');
      return { outcome: 'kept', deletesFrom };
    }
    await this.#commit(dispatch, made);
    if (!made.segment) await this.#options.prefixes.markDead(dispatch.prefix.record.prefix);
    return { outcome: 'completed', deletesFrom };
  }

  #task(taskId: number): Held<CompactionTaskRecord> {
    const held = this.#options.store.state.compactionTasks.held(taskId);
    if (!held) throw new CairnError('Internal', `compaction task ${taskId} is not there`);
    return held;
  }

  async #dispatch(taskId: number, slot: TaskSlot): Promise<Dispatch> {
    const { store, rules, runtime } = this.#options;
    const before = this.#task(taskId);
    const { record } = before;
    const collection = rules.live(record.collectionId, record.partitionId);
    if (!collection)
      throw new CairnError('InvalidParameter', `collection ${record.collectionId} or its partition ${record.partitionId} is dropped`);
    const sources = await this.#sources(record);
    const expiredUpTo = rules.expiredUpTo(collection);
    const executing: CompactionTaskRecord = {
      ...record,
      state: stateAfter(record, 'dispatch'),
      epoch: record.epoch + 1,
      nodeId: slot.node.id,
      buildIds: [],
      expiredUpTo,
      sourceSegmentIds: sources.map((source) => source.record.id),
      // One that is alone is rewritten for its deleted rows only.
      minPurgedPercent: sources.length === 1 ? Math.max(1, record.minPurgedPercent) : record.minPurgedPercent,
    };
    const prefix: PrefixRecord = {
      prefix: compactionPrefix(executing),
      dead: false,
      createdMs: runtime.now(),
      deadMs: 0,
      purpose: `compaction ${taskId}`,
    };
    const prefixKey = keys.prefix(prefix.prefix);
    const revision = await store.mustCommit({
      if: [{ kind: 'modRevision', key: before.key, equals: before.revision }],
      puts: [putRecord(before.key, CompactionTaskRecord, executing), putRecord(prefixKey, PrefixRecord, prefix)],
    });
    return {
      task: { key: before.key, revision, record: executing },
      collection,
      sources,
      generation: generationOf(executing),
      prefix: { key: prefixKey, revision, record: prefix },
    };
  }

  /**
   * The inputs as the store has them now. One that was compacted since somebody asked is taken by what it became; InvalidParameter when one is
   * not sealed any more otherwise, or a plan of our own has changed.
   */
  async #sources(task: CompactionTaskRecord): Promise<Held<SegmentRecord>[]> {
    const { store } = this.#options;
    const published = publishedGroups(await store.list(keys.groups));
    const found = new Map<number, Held<SegmentRecord>>();
    for (const id of task.sourceSegmentIds) {
      let source = await this.#segment(task.collectionId, id);
      while (source && task.jobId > 0 && source.record.compactedInto > 0)
        source = await this.#segment(task.collectionId, source.record.compactedInto);
      if (source?.record.state !== SegmentState.SEGMENT_SEALED || !published.has(source.record.group))
        throw new CairnError('InvalidParameter', `segment ${id} was dropped or replaced meanwhile`);
      found.set(source.record.id, source);
    }
    return [...found.values()];
  }

  async #segment(collectionId: number, id: number): Promise<Held<SegmentRecord> | undefined> {
    const { store } = this.#options;
    const key = keys.segment(collectionId, id);
    const entry = await store.retrying(() => store.meta.get(key));
    return entry && { key, revision: entry.modRevision, record: SegmentRecord.decode(entry.value) };
  }

  async #make(dispatch: Dispatch, slot: TaskSlot): Promise<Made> {
    const { tasks, stop } = this.#options;
    const { task, collection, sources, prefix, generation } = dispatch;
    const { record } = task;
    const shard = collection.shards.find((one) => one.index === record.shard);
    if (!shard) throw new CairnError('Internal', `collection ${collection.name} has no shard ${record.shard}`);
    const value = {
      schema: collection.schema,
      collectionId: collection.id,
      vchannel: shard.vchannel,
      segments: sources.map((source) => source.record),
      prefix: prefix.record.prefix,
      purgeBeforeTs: record.purgeBeforeTs,
      minPurgedPercent: record.minPurgedPercent,
      expiredUpTo: record.expiredUpTo,
    };
    const update = await tasks.run(slot, { taskId: record.id, epoch: record.epoch, task: { $case: 'compact', value } }, stop);
    const result = update.compacted;
    if (!result) throw new CairnError('Unavailable', `datanode ${slot.node.id} answered compaction ${record.id} without a result`);
    if (result.kept || result.rows === 0) return { result, segment: undefined, builds: [] };
    const segment = this.#resultRecord(dispatch, update, result, generation);
    return { result, segment, builds: await this.#buildIndexes(dispatch, segment) };
  }

  #resultRecord(dispatch: Dispatch, update: TaskUpdate, result: CompactResult, generation: string): SegmentRecord {
    const { task, collection, prefix } = dispatch;
    const sources = dispatch.sources.map((source) => source.record);
    return {
      id: task.record.targetSegmentId,
      collectionId: collection.id,
      partitionId: task.record.partitionId,
      shard: task.record.shard,
      generation,
      prefix: prefix.record.prefix,
      rows: result.rows,
      minTs: result.minTs,
      maxTs: result.maxTs,
      objects: update.objects,
      state: SegmentState.SEGMENT_SEALED,
      droppedTs: 0,
      firstSequence: Math.min(...sources.map((source) => source.firstSequence)),
      lastSequence: Math.max(...sources.map((source) => source.lastSequence)),
      // Rows after the as_of of their input are gone: what is left needs no mask.
      asOf: 0,
      group: '',
      sorted: true,
      compactedFrom: sources.map((source) => source.id),
      commitTs: 0,
      contentHash: result.contentHash,
      schemaVersion: collection.schemaVersion,
      bytes: result.bytes,
      level: 1,
      compactedInto: 0,
      purgedTs: Math.max(result.purgedTs, ...sources.map((source) => source.purgedTs)),
      deletesFrom: result.deletesFrom,
    };
  }

  #buildIndexes({ collection, task }: Dispatch, segment: SegmentRecord): Promise<SegmentIndexRecord[]> {
    const { store, stop } = this.#options;
    const { id, epoch } = task.record;
    const indexes = store.state.indexesOf(collection.id);
    const announce = (buildIds: number[]): Promise<void> => this.#recordBuilds(id, buildIds);
    return buildUnrecorded(this.#options, { collection, indexes, segment, epoch, group: '', announce }, stop);
  }

  /** Before the builds begin: their objects have no other record yet. */
  async #recordBuilds(taskId: number, buildIds: number[]): Promise<void> {
    const before = this.#task(taskId);
    await this.#options.store.mustCommit({
      if: [{ kind: 'modRevision', key: before.key, equals: before.revision }],
      puts: [putRecord(before.key, CompactionTaskRecord, { ...before.record, buildIds })],
    });
  }

  /** Tries until no snapshot holds it. InvalidParameter when the race is lost: something it was made from is not what it was. */
  async #commit(dispatch: Dispatch, made: Made): Promise<void> {
    const { applier, runtime, rules, store, logger, stop } = this.#options;
    const { id, collectionId } = dispatch.task.record;
    for (;;) {
      try {
        const done = await applier.applyBeside((ts) => this.#transaction(dispatch, made, ts));
        if (!done) throw new CairnError('InvalidParameter', `an input of compaction ${id} changed meanwhile, or its prefix died`);
        const { result, segment } = made;
        segmentsCount.add(dispatch.sources.length);
        purgedCount.add(result.purgedRows);
        readBytes.add(dispatch.sources.reduce((sum, source) => sum + source.record.bytes, 0));
        writtenBytes.add(result.bytes);
        const sources = dispatch.sources.map((source) => source.record.id);
        const { rows, purgedRows } = result;
        logger.info({ task: id, collectionId, sources, target: segment?.id ?? 0, rows, purgedRows }, 'segments compacted');
        return;
      } catch (error) {
        if (!(error instanceof CompactionHeld)) throw error;
        heldGauge.record(++this.#held);
        await runtime.sleep(HELD_RETRY_MS, stop).finally(() => heldGauge.record(--this.#held));
        // A snapshot that was committed since may protect the inputs.
        await rules.protection(collectionId, makeTimestamp(runtime.now(), 0));
        if (store.state.compactionTasks.get(id) === undefined) throw new CairnError('Internal', `compaction task ${id} is gone`);
      }
    }
  }

  /** At its own timestamp, in its turn among the catalog changes: what the rules say now holds until it is done. */
  #transaction(dispatch: Dispatch, made: Made, ts: number): { if: Compare[]; puts: Put[]; deletes: string[] } {
    const { rules, store, runtime } = this.#options;
    const { collection, sources, prefix } = dispatch;
    const { segment, result } = made;
    const task = this.#task(dispatch.task.record.id);
    rules.require(
      collection.id,
      task.record.partitionId,
      sources.map((source) => source.record),
      ts,
    );
    rules.requireExpired(collection.id, task.record.expiredUpTo);
    const same = ({ key, revision }: Held<unknown>): Compare => ({ kind: 'modRevision', key, equals: revision });
    const dropped = sources.map(({ key, record }) =>
      putRecord(key, SegmentRecord, {
        ...record,
        state: SegmentState.SEGMENT_DROPPED,
        droppedTs: ts,
        compactedInto: segment?.id ?? 0,
        purgedTs: Math.max(record.purgedTs, result.purgedTs),
      }),
    );
    const living = new Set(store.state.indexesOf(collection.id).map((index) => index.id));
    const builds = made.builds
      .filter((build) => living.has(build.indexId))
      .map((build) => putRecord(keys.segmentIndex(collection.id, build.segmentId, build.indexId), SegmentIndexRecord, build));
    const ended: CompactionTaskRecord = {
      ...task.record,
      state: stateAfter(task.record, 'complete'),
      endedMs: runtime.now(),
      targetRows: result.rows,
      targetSegmentId: segment?.id ?? 0,
    };
    const asked = task.record.jobId > 0;
    return {
      if: [same(task), ...sources.map(same), ...(segment ? [same(prefix)] : [])],
      puts: [
        ...(segment ? [putRecord(keys.segment(collection.id, segment.id), SegmentRecord, segment)] : []),
        ...dropped,
        ...builds,
        ...(asked ? [putRecord(task.key, CompactionTaskRecord, ended)] : []),
      ],
      deletes: asked ? [] : [task.key],
    };
  }

  /** What the last dispatch wrote, if there was one, goes. */
  async #abandon(taskId: number): Promise<void> {
    const { record } = this.#task(taskId);
    if (record.epoch > 0) await this.#options.prefixes.markDead(compactionPrefix(record));
  }

  /** Without a commit: nothing changed. An empty reason: there was nothing to do. */
  async #end(taskId: number, reason: string): Promise<void> {
    const { store, runtime } = this.#options;
    const { key, revision, record } = this.#task(taskId);
    const same: Compare[] = [{ kind: 'modRevision', key, equals: revision }];
    if (record.jobId === 0) {
      await store.mustCommit({ if: same, deletes: [key] });
      return;
    }
    const state = stateAfter(record, reason === '' ? 'complete' : 'fail');
    const ended: CompactionTaskRecord = { ...record, state, reason, endedMs: runtime.now(), targetSegmentId: 0 };
    await store.mustCommit({ if: same, puts: [putRecord(key, CompactionTaskRecord, ended)] });
  }
}
