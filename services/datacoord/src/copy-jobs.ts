import { asCairnError, CairnError, isRetriable, KeyedMutex, type Logger, type Runtime, retry, Turns } from '@cairn/base';
import { keys } from '@cairn/catalog';
import type { ObjectStore } from '@cairn/objects';
import {
  CollectionRecord,
  CollectionState,
  CopyTaskRecord,
  CopyTaskState,
  GroupRecord,
  RestoreJobRecord,
  RestoreJobState,
} from '@cairn/proto/cairn/meta';
import { readSnapshot, type SnapshotBundle } from '@cairn/segment';
import type { Held } from './catalog-state.ts';
import type { Ids } from './change-preparer.ts';
import { putRecord } from './changes/change.ts';
import { type ControlApplier, pagesOf } from './control-applier.ts';
import type { ControlChannel } from './control-channel.ts';
import { idsToPlan, planTasks } from './copy-plan.ts';
import { stageReferences } from './copy-references.ts';
import { CopyScheduler } from './copy-scheduler.ts';
import { CopySource, rewriteTotals, totalsOf } from './copy-source.ts';
import type { LeaderStore, Put } from './leader-store.ts';
import type { PinBoard } from './pin-board.ts';
import type { PrefixSweeper } from './prefix-sweeper.ts';
import { recordEnd, recordJobs, recordPublish } from './restore-metrics.ts';
import { idsToRewrite, planRewrites, REWRITE_TASK_BYTES } from './rewrite-plan.ts';
import type { DataCoordSettings } from './settings.ts';
import type { TaskRunner } from './task-runner.ts';

export interface CopyJobsOptions {
  readonly store: LeaderStore;
  readonly objects: ObjectStore;
  readonly runtime: Runtime;
  readonly logger: Logger;
  readonly settings: DataCoordSettings;
  readonly ids: Ids;
  readonly control: ControlChannel;
  readonly applier: ControlApplier;
  readonly pins: PinBoard;
  readonly prefixes: PrefixSweeper;
  readonly tasks: TaskRunner;
  readonly stop: AbortSignal;
}

const DELETE_PAGE = 80;
const PATIENT = { attempts: Number.POSITIVE_INFINITY, firstDelayMs: 100, maxDelayMs: 5_000, retriable: isRetriable };
/** Reads of the snapshot itself are tried so often before its store counts as a reason to fail. */
const READ = { attempts: 6, firstDelayMs: 100, maxDelayMs: 2_000 };

interface Running {
  readonly cancel: AbortController;
  /** Resolves when nothing runs for the job any more. */
  ended: Promise<void>;
  /** Bytes and objects of dispatches under way, by task. */
  readonly live: Map<number, { bytes: number; objects: number }>;
  /** Tasks that are not COMPLETED. */
  open: number;
  publishing: boolean;
  /** Greatest progress ever told: it never goes back, though a lost task starts again. */
  shownBytes: number;
  shownObjects: number;
}

export function isOver(job: RestoreJobRecord): boolean {
  return (
    job.state === RestoreJobState.RESTORE_COMPLETED ||
    job.state === RestoreJobState.RESTORE_FAILED ||
    job.state === RestoreJobState.RESTORE_CANCELLED
  );
}

/**
 * Drives restore jobs: plan (tasks recorded before the job says Executing), copy, publish in one small transaction. A failure records its reason
 * first and then undoes everything, so that a new leader goes on undoing.
 */
export class CopyJobs {
  readonly #options: CopyJobsOptions;
  readonly #scheduler: CopyScheduler;
  readonly #running = new Map<number, Running>();
  readonly #locks = new KeyedMutex();
  readonly #published: (() => void)[] = [];

  constructor(options: CopyJobsOptions) {
    this.#options = options;
    this.#scheduler = new CopyScheduler(options);
  }

  onPublished(listener: () => void): void {
    this.#published.push(listener);
  }

  /** Drives the job to its end, unless that is under way already. `bundle`: the snapshot's contents where they were just read. */
  drive(job: RestoreJobRecord, bundle?: SnapshotBundle): void {
    if (this.#running.has(job.id) || isOver(job)) return;
    const { runtime, stop, logger } = this.#options;
    const running: Running = {
      cancel: new AbortController(),
      ended: Promise.resolve(),
      live: new Map(),
      open: 0,
      publishing: false,
      shownBytes: job.copiedBytes,
      shownObjects: job.copiedObjects,
    };
    this.#running.set(job.id, running);
    this.#measure();
    const end = () => running.cancel.abort(new CairnError('ServiceNotReady', 'this coordinator no longer leads'));
    stop.addEventListener('abort', end, { once: true });
    const timer = runtime.after(Math.max(0, job.deadlineMs - runtime.now()), () =>
      running.cancel.abort(new CairnError('Timeout', `restore job ${job.id} was not complete within its time limit`)),
    );
    running.ended = this.#run(job.id, running, bundle)
      .catch((error: unknown) => {
        if (!stop.aborted) logger.error({ error, job: job.id }, 'a restore job stopped before its end; the next sweep takes it up');
      })
      .finally(() => {
        timer.cancel();
        stop.removeEventListener('abort', end);
        this.#running.delete(job.id);
        this.#measure();
      });
  }

  /** Ends the job as cancelled, unless it is Completed before. Resolves when nothing runs for it any more. */
  async cancel(job: RestoreJobRecord, reason: string): Promise<void> {
    this.drive(job);
    const running = this.#running.get(job.id);
    running?.cancel.abort(new CairnError('Cancelled', reason));
    await running?.ended;
  }

  /** The job with its progress of this moment. */
  shown(job: RestoreJobRecord): RestoreJobRecord {
    const running = this.#running.get(job.id);
    if (!running || isOver(job)) return job;
    const live = [...running.live.values()];
    const bytes = job.copiedBytes + live.reduce((sum, task) => sum + task.bytes, 0);
    const objects = job.copiedObjects + live.reduce((sum, task) => sum + task.objects, 0);
    running.shownBytes = Math.max(running.shownBytes, Math.min(bytes, job.totalBytes));
    running.shownObjects = Math.max(running.shownObjects, Math.min(objects, job.totalObjects));
    const state = running.publishing ? RestoreJobState.RESTORE_PUBLISHING : job.state;
    return { ...job, state, copiedBytes: running.shownBytes, copiedObjects: running.shownObjects };
  }

  async #run(jobId: number, running: Running, bundle: SnapshotBundle | undefined): Promise<void> {
    const { signal } = running.cancel;
    const { stop, runtime, logger } = this.#options;
    try {
      const { record } = this.#held(jobId);
      // An earlier leader had begun to undo it.
      if (record.reason !== '') throw new CairnError(record.reason.startsWith('cancelled') ? 'Cancelled' : 'Unexpected', record.reason);
      const source = await this.#source(record, bundle);
      const fresh = bundle !== undefined;
      if (record.mode === 'reference') await this.#refer(record, source, fresh);
      else {
        const tasks = await this.#plan(record, source, fresh);
        running.open = tasks.filter((task) => task.record.state !== CopyTaskState.COPY_COMPLETED).length;
        await this.#scheduler.run(source, tasks, this.#progress(jobId, running), signal);
      }
      // Not recorded: publishing is one transaction, and a new leader begins it anew.
      running.publishing = true;
      this.#measure();
      const copiedMs = runtime.monotonic();
      await this.#publish(jobId, signal);
      recordPublish(runtime.monotonic() - copiedMs);
      this.#ended(jobId);
      logger.info({ job: jobId, target: record.targetCollectionName, segments: source.segments.length }, 'restore completed');
      for (const listener of this.#published) listener();
    } catch (error) {
      if (stop.aborted) return;
      running.publishing = false;
      const reason = asCairnError(signal.aborted ? signal.reason : error);
      await retry(runtime, PATIENT, () => this.#undo(jobId, reason), stop);
    }
  }

  #held(jobId: number): Held<RestoreJobRecord> {
    const held = this.#options.store.state.jobs.held(jobId);
    if (!held) throw new CairnError('RestoreJobNotFound', `restore job not found: jobID=${jobId}`);
    return held;
  }

  /** `beside` is written in the same transaction. Returns its revision. */
  #update(jobId: number, change: (job: RestoreJobRecord) => RestoreJobRecord, beside: readonly Put[] = []): Promise<number> {
    return this.#locks.run(jobId.toString(), async () => {
      const held = this.#held(jobId);
      return this.#options.store.mustCommit({
        if: [{ kind: 'modRevision', key: held.key, equals: held.revision }],
        puts: [putRecord(held.key, RestoreJobRecord, change(held.record)), ...beside],
      });
    });
  }

  async #source(job: RestoreJobRecord, read: SnapshotBundle | undefined): Promise<CopySource> {
    const { store, objects, runtime, stop } = this.#options;
    const snapshot = store.state.snapshots.get(job.snapshotId);
    if (!snapshot) throw new CairnError('InvalidParameter', `snapshot ${job.snapshotName} is gone`);
    const target = store.state.collections.get(job.targetCollectionId);
    if (target?.state !== CollectionState.COLLECTION_RESTORING)
      throw new CairnError('Cancelled', `cancelled: target collection ${job.targetCollectionName} was dropped`);
    const reading = () => readSnapshot(objects, snapshot.metadataKey, { withSegments: true, turns: new Turns(runtime) });
    const bundle = read ?? (await retry(runtime, READ, reading, stop));
    return new CopySource({
      bundle,
      target,
      partitions: store.state.partitionsOf(target.id),
      indexes: store.state.indexesOf(target.id),
      withIndexes: !job.noIndex,
      rewrite: job.rewriteData,
      group: job.group,
      only: job.partitions,
    });
  }

  /** A clone: what an earlier leader had staged goes, then all is staged at once. */
  async #refer(job: RestoreJobRecord, source: CopySource, fresh: boolean): Promise<void> {
    const { store, ids, runtime } = this.#options;
    const target = source.target.id;
    if (!fresh)
      for (const prefix of [keys.segments(target), keys.deltas(target), keys.segmentIndexes(target)]) await this.#deleteAll(prefix);
    const { segments, rows } = totalsOf(source);
    const state = RestoreJobState.RESTORE_EXECUTING;
    const executing = this.#update(job.id, (record) => ({ ...record, state, totalSegments: segments, totalRows: rows }));
    const outcomes = await Promise.allSettled([executing, stageReferences(store, ids, job, source, new Turns(runtime))]);
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  }

  /** The job's tasks: those recorded when it is Executing, else planned now. Tasks first, then the job, so Executing means that all are there. */
  async #plan(job: RestoreJobRecord, source: CopySource, fresh: boolean): Promise<Held<CopyTaskRecord>[]> {
    const { store, settings, ids } = this.#options;
    if (job.state !== RestoreJobState.RESTORE_PENDING) return this.#recordedTasks(job.id);
    if (!fresh) await this.#deleteAll(keys.copyTasksOf(job.id));
    let next = await ids.allocate(Math.max(1, source.rewrite ? idsToRewrite(source) : idsToPlan(source)));
    const limits = { bytes: settings.copyTaskBytes, items: settings.copyTaskItems };
    const tasks = source.rewrite
      ? planRewrites(source, job.id, { ...limits, bytes: Math.min(limits.bytes, REWRITE_TASK_BYTES) }, () => next++)
      : planTasks(source, job.id, limits, () => next++);
    const held: Held<CopyTaskRecord>[] = [];
    const hold = (page: readonly Put[], revision: number): void => {
      for (const put of page) held.push({ key: put.key, revision, record: CopyTaskRecord.decode(put.value) });
    };
    const pages = [...pagesOf(tasks.map((task) => putRecord(keys.copyTask(job.id, task.id), CopyTaskRecord, task)))];
    const last = pages.pop() ?? [];
    for (const page of pages) hold(page, await store.mustCommit({ puts: page }));
    const totals = source.rewrite ? rewriteTotals(source) : totalsOf(source);
    const executing = (record: RestoreJobRecord): RestoreJobRecord => ({
      ...record,
      state: RestoreJobState.RESTORE_EXECUTING,
      totalSegments: totals.segments,
      totalBytes: totals.bytes,
      totalRows: totals.rows,
      totalObjects: totals.objects,
    });
    hold(last, await this.#update(job.id, executing, last));
    return held;
  }

  async #recordedTasks(jobId: number): Promise<Held<CopyTaskRecord>[]> {
    return (await this.#options.store.list(keys.copyTasksOf(jobId))).map((entry) => ({
      key: entry.key,
      revision: entry.modRevision,
      record: CopyTaskRecord.decode(entry.value),
    }));
  }

  #progress(jobId: number, running: Running) {
    return {
      running: (taskId: number, bytes: number, objects: number) => {
        running.live.set(taskId, { bytes, objects });
      },
      completed: async (task: CopyTaskRecord, objects: number) => {
        // The last one's progress is recorded by the transaction that publishes.
        if (--running.open === 0) return void running.live.set(task.id, { bytes: task.bytes, objects });
        await this.#update(jobId, (job) => ({
          ...job,
          copiedSegments: job.copiedSegments + task.sourceSegmentIds.length,
          copiedBytes: Math.min(job.totalBytes, job.copiedBytes + task.bytes),
          copiedObjects: job.copiedObjects + objects,
        }));
        running.live.delete(task.id);
      },
    };
  }

  /** One transaction: group published, collection Live, job Completed, pin released. Before it nothing of the target is visible, after it all is. */
  async #publish(jobId: number, signal: AbortSignal): Promise<void> {
    const { store, applier, runtime } = this.#options;
    if (signal.aborted) throw asCairnError(signal.reason);
    const done = await applier.applyBeside((ts) => {
      if (signal.aborted) throw asCairnError(signal.reason);
      const job = this.#held(jobId);
      const target = store.state.collections.held(job.record.targetCollectionId);
      if (target?.record.state !== CollectionState.COLLECTION_RESTORING) {
        throw new CairnError('Cancelled', `cancelled: target collection ${job.record.targetCollectionName} was dropped`);
      }
      const { totalBytes, totalObjects, totalSegments } = job.record;
      const completed: RestoreJobRecord = {
        ...job.record,
        state: RestoreJobState.RESTORE_COMPLETED,
        copiedBytes: totalBytes,
        copiedObjects: totalObjects,
        copiedSegments: totalSegments,
        endMs: runtime.now(),
      };
      const live: CollectionRecord = { ...target.record, state: CollectionState.COLLECTION_LIVE, restoreJobId: 0, updatedTs: ts };
      const group: GroupRecord = { group: job.record.group, published: true, createdMs: runtime.now() };
      return {
        if: [
          { kind: 'modRevision', key: job.key, equals: job.revision },
          { kind: 'modRevision', key: target.key, equals: target.revision },
          { kind: 'exists', key: keys.group(job.record.group) },
        ],
        puts: [
          putRecord(target.key, CollectionRecord, live),
          putRecord(keys.group(job.record.group), GroupRecord, group),
          putRecord(job.key, RestoreJobRecord, completed),
        ],
        deletes: [keys.pin(job.record.snapshotId, job.record.pinId)],
      };
    });
    if (!done) throw new CairnError('Internal', `restore job ${jobId}: its target or its group changed while it was published`);
  }

  /**
   * Undoes the job in reverse: reason recorded, target dropped (its name is free from here), staged records removed, their prefixes dead, job
   * Failed and pin released. Every step may be repeated.
   */
  async #undo(jobId: number, reason: CairnError): Promise<void> {
    const { store, control, prefixes, runtime, logger } = this.#options;
    if (isOver(this.#held(jobId).record)) return;
    await this.#update(jobId, (job) => ({ ...job, reason: job.reason === '' ? reason.message : job.reason }));
    const job = this.#held(jobId).record;
    const target = job.targetCollectionId;
    const value = { database: job.targetDatabaseName, name: job.targetCollectionName, collectionId: target };
    await control.submit(`restore-${jobId}-undo`, { $case: 'dropCollection', value });
    for (const prefix of [keys.segments(target), keys.deltas(target), keys.segmentIndexes(target)]) await this.#deleteAll(prefix);
    for (const prefix of [`segments/${target}/`, `deltas/${target}/`]) {
      for (const entry of await this.#options.store.list(keys.prefix(prefix)))
        await prefixes.markDead(entry.key.slice(keys.prefixes.length));
    }
    await this.#deleteAll(keys.copyTasksOf(jobId));
    const state = reason.codeName === 'Cancelled' ? RestoreJobState.RESTORE_CANCELLED : RestoreJobState.RESTORE_FAILED;
    const held = this.#held(jobId);
    await store.mustCommit({
      if: [{ kind: 'modRevision', key: held.key, equals: held.revision }],
      puts: [putRecord(held.key, RestoreJobRecord, { ...held.record, state, endMs: runtime.now() })],
      deletes: [keys.pin(job.snapshotId, job.pinId), keys.group(job.group)],
    });
    this.#ended(jobId);
    logger.warn({ job: jobId, reason: job.reason, target: job.targetCollectionName }, 'restore failed and was undone');
  }

  #ended(jobId: number): void {
    const job = this.#options.store.state.jobs.get(jobId);
    if (job) recordEnd(job);
  }

  #measure(): void {
    recordJobs([...this.#options.store.state.jobs.values()].map((job) => this.shown(job)));
  }

  /** Forgets the tasks of completed jobs, and jobs that ended before the retention. */
  async sweep(): Promise<void> {
    const { store, runtime, settings } = this.#options;
    const oldest = runtime.now() - settings.restoreJobRetentionMs;
    for (const job of [...store.state.jobs.values()]) {
      if (!isOver(job)) this.drive(job);
      else if (job.endMs <= oldest) {
        await this.#deleteAll(keys.copyTasksOf(job.id));
        await store.mustCommit({ deletes: [keys.restoreJob(job.id)] });
      }
    }
    this.#measure();
  }

  async #deleteAll(prefix: string): Promise<void> {
    const entries = await this.#options.store.list(prefix);
    for (let at = 0; at < entries.length; at += DELETE_PAGE) {
      await this.#options.store.mustCommit({ deletes: entries.slice(at, at + DELETE_PAGE).map((entry) => entry.key) });
    }
  }
}
