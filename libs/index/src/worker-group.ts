import { Worker } from 'node:worker_threads';
import { CairnError, type CodeName, type Deferred, deferred } from '@cairn/base';
import type { EngineResult, EngineTask } from './vector-engine.ts';

interface Waiting {
  readonly task: EngineTask;
  readonly answer: Deferred<EngineResult>;
}
interface Member {
  readonly worker: Worker;
  current: Deferred<EngineResult> | undefined;
  /** Releases to tell this worker when it is free. */
  readonly releases: string[];
}
type Answer = { readonly result: EngineResult } | { readonly codeName: CodeName; readonly message: string };

/** Worker threads with one queue. They start when there is work, one at a time as it piles up, and do not keep the process alive while idle. */
export class WorkerGroup {
  readonly #size: number;
  readonly #queueLimit: number;
  readonly #openLimit: number;
  readonly #members = new Set<Member>();
  readonly #queue: Waiting[] = [];
  #stopped = false;

  constructor(size: number, queueLimit: number, openLimit: number) {
    this.#size = size;
    this.#queueLimit = queueLimit;
    this.#openLimit = openLimit;
  }

  run(task: EngineTask): Promise<EngineResult> {
    if (this.#stopped) throw new CairnError('ServiceNotReady', 'vector workers are stopped');
    if (this.#queue.length >= this.#queueLimit)
      throw new CairnError('TooManyRequests', `vector work: ${this.#queueLimit} tasks are waiting already`);
    const answer = deferred<EngineResult>();
    this.#queue.push({ task, answer });
    this.#dispatch();
    return answer.promise;
  }

  /** Tells every worker that lives to close an index file. */
  release(path: string): void {
    for (const member of this.#members) member.releases.push(path);
    this.#dispatch();
  }

  /** Ends the threads; work under way is Cancelled. */
  async stop(): Promise<void> {
    this.#stopped = true;
    for (const { answer } of this.#queue.splice(0)) answer.reject(new CairnError('Cancelled', 'vector workers were stopped'));
    await Promise.all([...this.#members].map((member) => member.worker.terminate()));
  }

  #dispatch(): void {
    for (const member of this.#members) if (!member.current) this.#feed(member);
    while (this.#queue.length > 0 && this.#members.size < this.#size) this.#feed(this.#start());
  }

  #feed(member: Member): void {
    const path = member.releases.shift();
    const next = path === undefined ? this.#queue.shift() : { task: { op: 'release', path } as const, answer: deferred<EngineResult>() };
    if (!next) {
      member.worker.unref();
      return;
    }
    member.current = next.answer;
    member.worker.ref();
    try {
      member.worker.postMessage(next.task);
    } catch (error) {
      member.current = undefined;
      next.answer.reject(new CairnError('Internal', `vector task ${next.task.op} cannot be sent to a worker`, { cause: error }));
    }
  }

  #start(): Member {
    const worker = new Worker(new URL('./vector-worker.ts', import.meta.url), { workerData: { openLimit: this.#openLimit }, execArgv: [] });
    const member: Member = { worker, current: undefined, releases: [] };
    this.#members.add(member);
    worker.on('message', (answer: Answer) => {
      const waiting = member.current;
      member.current = undefined;
      if ('result' in answer) waiting?.resolve(answer.result);
      else waiting?.reject(new CairnError(answer.codeName, answer.message));
      this.#feed(member);
    });
    let cause: unknown;
    worker.on('error', (error) => {
      cause = error;
    });
    worker.on('exit', () => {
      this.#members.delete(member);
      const reason = cause instanceof Error ? `: ${cause.message}` : '';
      member.current?.reject(
        new CairnError(this.#stopped ? 'Cancelled' : 'Unavailable', `a vector worker ended while it worked${reason}`, { cause }),
      );
      if (!this.#stopped) this.#dispatch();
    });
    return member;
  }
}
