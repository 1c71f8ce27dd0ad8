import { Worker } from 'node:worker_threads';
import { CairnError, type CodeName, type Deferred, deferred, type Runtime, Semaphore } from '@cairn/base';
import { ExaminerLine, type ExaminerTask } from './examiner-task.ts';
import { pause } from './object-bytes.ts';
import type { ExaminedSegment } from './segment-examiner.ts';

/** Segments that wait for an examiner. */
const WAITING = 100_000;

type Answer = { readonly result: ExaminedSegment | undefined } | { readonly codeName: CodeName; readonly message: string };

/** One examiner, for one user at a time. Its tasks are worked through in order. */
export interface Examiner {
  /**
   * Bytes are not copied: shared ones are the examiner's until it answers, those that have a buffer for themselves are moved, and the caller must not
   * touch them again.
   */
  run(task: ExaminerTask): Promise<ExaminedSegment | undefined>;
}

class WorkerExaminer implements Examiner {
  readonly #worker = new Worker(new URL('./examiner-worker.ts', import.meta.url), { execArgv: [] });
  readonly #waiting: Deferred<ExaminedSegment | undefined>[] = [];
  #ended: CairnError | undefined;

  constructor() {
    this.#worker.on('message', (answer: Answer) => {
      const waiting = this.#waiting.shift();
      // Only work under way keeps the process alive.
      if (this.#waiting.length === 0) this.#worker.unref();
      if ('result' in answer) waiting?.resolve(answer.result);
      else waiting?.reject(new CairnError(answer.codeName, answer.message));
    });
    this.#worker.on('error', (cause) => this.#end(new CairnError('Unavailable', 'a verifying worker thread failed', { cause })));
    this.#worker.on('exit', () => this.#end(new CairnError('Cancelled', 'a verifying worker thread was stopped')));
    this.#worker.unref();
  }

  get ended(): boolean {
    return this.#ended !== undefined;
  }

  run(task: ExaminerTask): Promise<ExaminedSegment | undefined> {
    if (this.#ended) return Promise.reject(this.#ended);
    const answer = deferred<ExaminedSegment | undefined>();
    this.#waiting.push(answer);
    this.#worker.ref();
    const bytes = 'bytes' in task ? task.bytes : undefined;
    const whole = bytes?.buffer instanceof ArrayBuffer && bytes.byteOffset === 0 && bytes.byteLength === bytes.buffer.byteLength;
    this.#worker.postMessage(task, whole && bytes.buffer instanceof ArrayBuffer ? [bytes.buffer] : []);
    return answer.promise;
  }

  async stop(): Promise<void> {
    await this.#worker.terminate();
  }

  #end(error: CairnError): void {
    this.#ended ??= error;
    for (const waiting of this.#waiting.splice(0)) waiting.reject(this.#ended);
  }
}

/** The same on the calling thread, in slices. */
class InlineExaminer implements Examiner {
  readonly #runtime: Runtime;
  readonly #line = new ExaminerLine();
  #last: Promise<unknown> = Promise.resolve();

  constructor(runtime: Runtime) {
    this.#runtime = runtime;
  }

  run(task: ExaminerTask): Promise<ExaminedSegment | undefined> {
    const work = this.#last.then(async () => {
      const steps = this.#line.run(task);
      let step = steps.next();
      while (!step.done) {
        await pause(this.#runtime);
        step = steps.next();
      }
      return step.value;
    });
    this.#last = work.catch(() => undefined);
    return work;
  }
}

/** Examiners in worker threads, started when there is work; under simulation on the calling thread. They do not keep the process alive. */
export class ExaminerPool {
  readonly size: number;
  readonly #runtime: Runtime;
  readonly #slots: Semaphore;
  readonly #idle: WorkerExaminer[] = [];
  readonly #all = new Set<WorkerExaminer>();

  constructor(runtime: Runtime, size: number) {
    this.#runtime = runtime;
    this.size = size;
    this.#slots = new Semaphore('verifying threads', size, WAITING);
  }

  /** Runs `work` with an examiner of its own. */
  use<T>(work: (examiner: Examiner) => Promise<T>): Promise<T> {
    if (this.#runtime.inline) return work(new InlineExaminer(this.#runtime));
    return this.#slots.run(async () => {
      const examiner = this.#idle.pop() ?? this.#start();
      try {
        return await work(examiner);
      } finally {
        if (!examiner.ended) this.#idle.push(examiner);
      }
    });
  }

  /** Ends the threads; work under way is Cancelled. */
  async stop(): Promise<void> {
    this.#idle.length = 0;
    await Promise.all([...this.#all].map((examiner) => examiner.stop()));
    this.#all.clear();
  }

  #start(): WorkerExaminer {
    const examiner = new WorkerExaminer();
    this.#all.add(examiner);
    return examiner;
  }
}
