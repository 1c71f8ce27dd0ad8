import { asCairnError, CairnError, hasCode, isRetriable, type Logger, mapLimit, type Runtime } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { TXN_MAX_OPS } from '@cairn/meta';
import {
  CopyTaskRecord,
  CopyTaskState,
  DeltaLogRecord,
  type ObjectRef,
  PrefixRecord,
  SegmentIndexRecord,
  SegmentRecord,
} from '@cairn/proto/cairn/meta';
import type { TaskUpdate } from '@cairn/proto/cairn/services';
import type { Held } from './catalog-state.ts';
import type { Ids } from './change-preparer.ts';
import { putRecord } from './changes/change.ts';
import { pagesOf } from './control-applier.ts';
import { type CopyOrder, orderCopies } from './copy-plan.ts';
import type { CopySource } from './copy-source.ts';
import type { LeaderStore } from './leader-store.ts';
import type { PrefixSweeper } from './prefix-sweeper.ts';
import { TaskMeasures } from './restore-metrics.ts';
import { orderRewrite } from './rewrite-plan.ts';
import type { DataCoordSettings } from './settings.ts';
import type { TaskOrder, TaskRecords } from './task-order.ts';
import type { TaskRunner, TaskSlot } from './task-runner.ts';

export interface CopySchedulerOptions {
  readonly store: LeaderStore;
  readonly runtime: Runtime;
  readonly logger: Logger;
  readonly settings: DataCoordSettings;
  readonly ids: Ids;
  readonly tasks: TaskRunner;
  readonly prefixes: PrefixSweeper;
}

/** Tasks of one job that wait for slots or run at once. */
const PARALLEL_TASKS = 64;
/** Ops of the transaction that completes a task, beside the records and prefixes: the task, its compare, leadership. */
const OTHER_OPS = 8;
const FIRST_RETRY_MS = 100;
const MAX_RETRY_MS = 5_000;

/** Sees how far a task is. */
export interface CopyProgress {
  /** Bytes and objects copied so far by the dispatch of a task that runs now. */
  running(taskId: number, bytes: number, objects: number): void;
  completed(task: CopyTaskRecord, objects: number): Promise<void>;
}

/**
 * Runs the copy tasks of a job on datanodes. Before a dispatch the task's epoch is raised, together with the records of the prefixes it will write;
 * after it the records of the copies are staged under the job's group and the task is COMPLETED, if its epoch is still the same. A lost node's
 * task goes to another one; what the lost dispatch wrote is dead.
 */
export class CopyScheduler {
  readonly #options: CopySchedulerOptions;
  readonly #measures = new TaskMeasures();

  constructor(options: CopySchedulerOptions) {
    this.#options = options;
  }

  /** Resolves when all are COMPLETED. Throws the first permanent failure; the signal cancels what runs. */
  async run(source: CopySource, tasks: readonly Held<CopyTaskRecord>[], progress: CopyProgress, signal: AbortSignal): Promise<void> {
    const open = tasks.filter((task) => task.record.state !== CopyTaskState.COPY_COMPLETED);
    const failed = new AbortController();
    const stop = () => failed.abort();
    signal.addEventListener('abort', stop, { once: true });
    if (signal.aborted) stop();
    try {
      await mapLimit(open, PARALLEL_TASKS, async (task) => {
        try {
          await this.#complete(source, task, progress, failed.signal);
        } catch (error) {
          failed.abort();
          throw error;
        }
      });
    } finally {
      signal.removeEventListener('abort', stop);
    }
  }

  async #complete(source: CopySource, first: Held<CopyTaskRecord>, progress: CopyProgress, signal: AbortSignal): Promise<void> {
    const { tasks, runtime, logger, settings } = this.#options;
    let task = first;
    let avoid = task.record.nodeId === '' ? undefined : task.record.nodeId;
    for (let attempt = 1; ; attempt++) {
      const waited = this.#measures.waits();
      const slot = await tasks.acquire(source.rewrite ? 'rewrite' : 'copy', signal, { avoid, owner: task.record.jobId }).finally(waited);
      const ran = this.#measures.runs();
      try {
        task = await this.#dispatch(source, task, slot, progress, signal);
        return;
      } catch (failure) {
        task = failure instanceof LostDispatch ? failure.task : task;
        const error = asCairnError(failure instanceof LostDispatch ? failure.cause : failure);
        if (signal.aborted || hasCode(error, 'Cancelled', 'ServiceNotReady') || !isRetriable(error) || attempt >= settings.taskAttempts)
          throw error;
        this.#measures.again();
        logger.info({ error, task: task.record.id, job: task.record.jobId, attempt, node: slot.node.id }, 'a copy task is tried again');
        avoid = slot.node.id;
      } finally {
        ran();
        slot.release();
      }
      progress.running(task.record.id, 0, 0);
      await runtime.sleep(Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** (attempt - 1)), signal);
    }
  }

  async #dispatch(
    source: CopySource,
    before: Held<CopyTaskRecord>,
    slot: TaskSlot,
    progress: CopyProgress,
    signal: AbortSignal,
  ): Promise<Held<CopyTaskRecord>> {
    const { store, ids, runtime, tasks, prefixes } = this.#options;
    const epoch = before.record.epoch + 1;
    const startedMs = runtime.monotonic();
    // What an earlier dispatch wrote, and may still write, is nobody's.
    if (before.record.epoch > 0)
      for (const prefix of this.#order(source, before.record, before.record.epoch, 0, signal).prefixes) await prefixes.markDead(prefix);
    const builds = before.record.sourceSegmentIds.reduce((sum, id) => sum + source.buildsOf(id).length, 0);
    const order = this.#order(source, before.record, epoch, await ids.allocate(Math.max(1, builds)), signal);
    const running: CopyTaskRecord = { ...before.record, state: CopyTaskState.COPY_IN_PROGRESS, nodeId: slot.node.id, epoch };
    const recorded = order.prefixes.map(
      (prefix): PrefixRecord => ({ prefix, dead: false, createdMs: runtime.now(), deadMs: 0, purpose: `restore ${running.jobId}` }),
    );
    const revision = await store.mustCommit({
      if: [{ kind: 'modRevision', key: before.key, equals: before.revision }],
      puts: [
        putRecord(before.key, CopyTaskRecord, running),
        ...recorded.map((record) => putRecord(keys.prefix(record.prefix), PrefixRecord, record)),
      ],
    });
    const task: Held<CopyTaskRecord> = { key: before.key, revision, record: running };
    try {
      const onUpdate = (update: TaskUpdate) => progress.running(running.id, update.doneBytes, update.doneObjects);
      const update = await tasks.run(slot, { taskId: running.id, epoch, task: order.work }, signal, onUpdate);
      const completed = await this.#adopt(task, order.prefixes, await order.records(update), revision);
      this.#measures.completed(runtime.monotonic() - startedMs, task.record.bytes, order.objects);
      await progress.completed(completed.record, order.objects);
      return completed;
    } catch (error) {
      throw new LostDispatch(task, error);
    }
  }

  /** `firstBuild`: ids for the target's index builds, from this one on, where their objects are copied. */
  #order(source: CopySource, task: CopyTaskRecord, epoch: number, firstBuild: number, signal: AbortSignal): TaskOrder {
    if (source.rewrite) return orderRewrite(this.#options, source, task, epoch, signal);
    let next = firstBuild;
    const order = orderCopies(source, task, epoch, () => next++);
    return {
      work: { $case: 'copy', value: { objects: order.objects, jobId: task.jobId } },
      prefixes: order.prefixes,
      objects: order.objects.length,
      records: async (update) => order.records(checkedCopies(order, update.objects)),
    };
  }

  /** Stages the records of the copies (invisible: their group is not published) and, with the last of them, marks the task COMPLETED. */
  async #adopt(
    task: Held<CopyTaskRecord>,
    prefixes: readonly string[],
    { segments, deltaLogs, builds }: TaskRecords,
    prefixRevision: number,
  ): Promise<Held<CopyTaskRecord>> {
    const { store } = this.#options;
    const mine = { kind: 'modRevision', key: task.key, equals: task.revision } as const;
    const puts = [
      ...segments.map((record) => putRecord(keys.segment(record.collectionId, record.id), SegmentRecord, record)),
      ...deltaLogs.map((record) => putRecord(keys.delta(record.collectionId, record.id), DeltaLogRecord, record)),
      ...builds.map((record) =>
        putRecord(keys.segmentIndex(record.collectionId, record.segmentId, record.indexId), SegmentIndexRecord, record),
      ),
    ];
    const pages = [...pagesOf(puts)];
    const last = pages.pop() ?? [];
    const record: CopyTaskRecord = { ...task.record, state: CopyTaskState.COPY_COMPLETED };
    const alive = prefixes.map((prefix) => ({ kind: 'modRevision', key: keys.prefix(prefix), equals: prefixRevision }) as const);
    if (last.length + alive.length > TXN_MAX_OPS - OTHER_OPS) pages.push(last.splice(0));
    for (const page of pages) await store.mustCommit({ if: [mine], puts: page });
    const revision = await store.mustCommit({ if: [mine, ...alive], puts: [putRecord(task.key, CopyTaskRecord, record), ...last] });
    return { key: task.key, revision, record };
  }
}

/** A dispatch that failed, and the task as it was recorded for it. */
class LostDispatch extends Error {
  override readonly name = 'LostDispatch';
  readonly task: Held<CopyTaskRecord>;

  constructor(task: Held<CopyTaskRecord>, cause: unknown) {
    super('dispatch failed', { cause });
    this.task = task;
  }
}

/** The copies as references of the target: the node's word on key, size and tag, the snapshot's on checksum, role and field. */
function checkedCopies(order: CopyOrder, copied: readonly ObjectRef[]): ObjectRef[] {
  if (copied.length !== order.objects.length)
    throw new CairnError('Internal', `copy task answered ${copied.length} objects for ${order.objects.length}`);
  return order.objects.map(({ source, targetKey }, position) => {
    const target = copied[position];
    if (!source) throw new CairnError('Internal', `copy to ${targetKey} has no source`);
    if (target.size !== source.size || target.crc32c !== source.crc32c) {
      throw new CairnError(
        'ObjectDamaged',
        `object ${source.key}: its copy ${targetKey} has ${target.size} bytes and checksum ${target.crc32c}, expected ${source.size} and ${source.crc32c}`,
      );
    }
    return { ...source, key: targetKey, size: target.size, etag: target.etag };
  });
}
