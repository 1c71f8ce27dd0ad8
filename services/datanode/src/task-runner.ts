import { asCairnError, CairnError, type Deferred, deferred, type Logger, type Runtime, Semaphore } from '@cairn/base';
import type { IndexPool } from '@cairn/index';
import type { ObjectStore } from '@cairn/objects';
import type { ObjectRef } from '@cairn/proto/cairn/meta';
import type { CompactResult, RewrittenSegment, TaskRequest, TaskUpdate } from '@cairn/proto/cairn/services';
import { buildIndex } from './build-index.ts';
import { compactSegments } from './compact-segments.ts';
import { CopyLanes } from './copy-lanes.ts';
import { copyObjects } from './copy-objects.ts';
import type { DeltaLogs } from './delta-logs.ts';
import type { SegmentOpener } from './held-shard.ts';
import { rewriteSegments } from './rewrite-segments.ts';

export interface TaskRunnerOptions {
  readonly objects: ObjectStore;
  readonly pool: Pick<IndexPool, 'build' | 'buildScalar'>;
  readonly runtime: Runtime;
  readonly logger: Logger;
  readonly open: SegmentOpener;
  readonly deltaLogs: Pick<DeltaLogs, 'flushed' | 'apply'>;
  readonly scratchDir: string;
  /** Tasks at once, but for those that only copy inside the store; further ones wait, up to a limit. */
  readonly slots: number;
  readonly buildConcurrency: number;
  readonly copyConcurrency: number;
}

interface TaskResult {
  readonly objects: ObjectRef[];
  readonly rows: number;
  readonly compacted?: CompactResult;
  readonly rewritten?: RewrittenSegment[];
}

/** Tasks that may wait for a slot. */
const WAITING_LIMIT = 256;
/** Time between two updates of a task. */
const UPDATE_MS = 200;

/** What a task has done so far, for its updates. */
class TaskProgress {
  bytes = 0;
  objects = 0;
  #changed: Deferred<void> = deferred<void>();

  add(bytes: number): void {
    this.bytes += bytes;
    this.objects++;
    this.#changed.resolve();
  }

  /** Resolves at the next `add`. */
  next(): Promise<void> {
    this.#changed = deferred<void>();
    return this.#changed.promise;
  }
}

/** Runs tasks of DataCoord in bounded slots. A task ends when its caller goes: the coordinator gives it out again under a new epoch. */
export class TaskRunner {
  readonly #options: TaskRunnerOptions;
  readonly #slots: Semaphore;
  readonly #builds: Semaphore;
  readonly #copies: CopyLanes;
  readonly #stopping = new AbortController();
  readonly #underWay = new Set<Promise<unknown>>();

  constructor(options: TaskRunnerOptions) {
    this.#options = options;
    this.#slots = new Semaphore('task slots', options.slots, WAITING_LIMIT);
    this.#builds = new Semaphore('index builds', options.buildConcurrency, WAITING_LIMIT);
    // Every waiting task may bring as many copies as run at once.
    this.#copies = new CopyLanes(options.copyConcurrency, WAITING_LIMIT * options.copyConcurrency);
  }

  async *run(request: TaskRequest, caller: AbortSignal): AsyncGenerator<TaskUpdate> {
    const left = new AbortController();
    const signal = AbortSignal.any([caller, left.signal, this.#stopping.signal]);
    const progress = new TaskProgress();
    const execute = () => this.#execute(request, progress, signal);
    // Copies cost this node next to nothing but their lanes, and those are shared by job.
    const work = request.task?.$case === 'copy' ? execute() : this.#slots.run(execute);
    const settled = work.then(
      () => undefined,
      () => undefined,
    );
    this.#underWay.add(settled);
    try {
      let ended = false;
      void settled.then(() => {
        ended = true;
      });
      while (!ended) {
        const changed = progress.next();
        await Promise.race([settled, changed]);
        if (!ended) await Promise.race([settled, this.#options.runtime.sleep(UPDATE_MS)]);
        if (!ended) yield update(progress, false);
      }
      yield { ...update(progress, true), ...(await work) };
    } finally {
      left.abort();
      this.#underWay.delete(settled);
    }
  }

  /** Cancels what runs and waits for its end. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    await Promise.all(this.#underWay);
  }

  async #execute(request: TaskRequest, progress: TaskProgress, signal: AbortSignal): Promise<TaskResult> {
    const { logger, runtime } = this.#options;
    const started = runtime.monotonic();
    const about = { task: request.taskId, epoch: request.epoch, kind: request.task?.$case ?? 'none' };
    if (signal.aborted) throw new CairnError('Cancelled', `task ${request.taskId} was cancelled while it waited for a slot`);
    try {
      const result = await this.#dispatch(request, progress, signal);
      logger.info({ ...about, objects: result.objects.length, ms: Math.round(runtime.monotonic() - started) }, 'task done');
      return result;
    } catch (error) {
      logger.warn({ ...about, error: asCairnError(error) }, 'task failed');
      throw error;
    }
  }

  async #dispatch({ task, taskId }: TaskRequest, progress: TaskProgress, signal: AbortSignal): Promise<TaskResult> {
    switch (task?.$case) {
      case 'copy': {
        const { jobId } = task.value;
        const lanes = { run: <T>(bytes: number, copy: () => Promise<T>) => this.#copies.run(jobId, bytes, copy) };
        const parts = { ...this.#options, lanes, concurrency: this.#options.copyConcurrency };
        return { objects: await copyObjects(parts, task.value, (bytes) => progress.add(bytes), signal), rows: 0 };
      }
      case 'buildIndex': {
        const { object, rows } = await this.#builds.run(() => buildIndex(this.#options, task.value, signal));
        progress.add(object.size);
        return { objects: [object], rows };
      }
      case 'compact': {
        const { objects, result } = await compactSegments(this.#options, task.value, signal);
        for (const object of objects) progress.add(object.size);
        return { objects, rows: result.rows, compacted: result };
      }
      case 'rewrite': {
        const { segments, prefixes } = task.value;
        const bytes = segments.reduce((sum, record) => record.objects.reduce((all, object) => all + object.size, sum), 0);
        const perShard = Math.floor(bytes / prefixes.length);
        const rewritten = await rewriteSegments(this.#options, task.value, () => progress.add(perShard), signal);
        return { objects: [], rows: rewritten.reduce((sum, segment) => sum + segment.rows, 0), rewritten };
      }
      default:
        throw new CairnError('NotSupported', `not supported: task ${taskId} of an unknown kind`);
    }
  }
}

function update(progress: TaskProgress, finished: boolean): TaskUpdate {
  return { doneBytes: progress.bytes, doneObjects: progress.objects, finished, objects: [], rows: 0, compacted: undefined, rewritten: [] };
}
