import { CairnError } from '@cairn/base';

/**
 * Permits for copies of a whole node, in turn by job: when all are taken, jobs that wait get the next free one one after another, whatever each has
 * queued. So ten restores at once share a node evenly, and a small one that comes late does not stand behind all objects of a large one.
 */
export class CopyLanes {
  readonly #permits: number;
  readonly #queueLimit: number;
  #running = 0;
  #queued = 0;
  /** Copies that wait, by job, the job whose turn is next first. */
  readonly #waiting = new Map<number, (() => void)[]>();

  constructor(permits: number, queueLimit: number) {
    this.#permits = permits;
    this.#queueLimit = queueLimit;
  }

  async run<T>(job: number, copy: () => Promise<T>): Promise<T> {
    if (this.#running < this.#permits) this.#running++;
    else await this.#queue(job);
    try {
      return await copy();
    } finally {
      this.#next();
    }
  }

  #queue(job: number): Promise<void> {
    if (this.#queued >= this.#queueLimit)
      throw new CairnError('TooManyRequests', `copies: ${this.#queueLimit} are waiting already at this datanode`);
    this.#queued++;
    return new Promise((resolve) => {
      const queue = this.#waiting.get(job);
      if (queue) queue.push(resolve);
      else this.#waiting.set(job, [resolve]);
    });
  }

  /** Hands the permit on, or gives it back. */
  #next(): void {
    for (const [job, queue] of this.#waiting) {
      const resolve = queue.shift();
      this.#waiting.delete(job);
      if (queue.length > 0) this.#waiting.set(job, queue);
      this.#queued--;
      resolve?.();
      return;
    }
    this.#running--;
  }
}
