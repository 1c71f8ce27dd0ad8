import { CairnError } from './errors.ts';

/** Runs tasks of one key one after another; tasks of different keys do not wait for each other. */
export class KeyedMutex {
  readonly #tails = new Map<string, Promise<unknown>>();

  async run<T>(key: string, task: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(key) ?? Promise.resolve();
    const mine = before.then(task, task);
    const settled = mine.catch(() => undefined);
    this.#tails.set(key, settled);
    try {
      return await mine;
    } finally {
      if (this.#tails.get(key) === settled) this.#tails.delete(key);
    }
  }
}

/** At most `permits` tasks at once; at most `queueLimit` wait, a further one is refused with TooManyRequests. */
export class Semaphore {
  #free: number;
  readonly #waiting: (() => void)[] = [];
  readonly #name: string;
  readonly #queueLimit: number;

  constructor(name: string, permits: number, queueLimit: number) {
    this.#name = name;
    this.#free = permits;
    this.#queueLimit = queueLimit;
  }

  async run<T>(task: () => Promise<T>): Promise<T> {
    if (this.#free > 0) this.#free--;
    else if (this.#waiting.length >= this.#queueLimit)
      throw new CairnError('TooManyRequests', `${this.#name}: ${this.#queueLimit} requests are waiting already`);
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await task();
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#free++;
    }
  }
}

/** Maps with at most `limit` calls at once; the first error stops new calls, waits for those under way and is thrown. */
export async function mapLimit<T, R>(items: Iterable<T>, limit: number, work: (item: T, index: number) => Promise<R>): Promise<R[]> {
  const count = Array.isArray(items) ? items.length : Number.POSITIVE_INFINITY;
  // Most searches read one segment: no lanes for it.
  if (count === 1) for (const item of items) return [await work(item, 0)];
  const results: R[] = [];
  const iterator = items[Symbol.iterator]();
  let index = 0;
  let failure: { error: unknown } | undefined;
  const lane = async (): Promise<void> => {
    for (;;) {
      if (failure) return;
      const next = iterator.next();
      if (next.done) return;
      const at = index++;
      try {
        results[at] = await work(next.value, at);
      } catch (error) {
        failure ??= { error };
        return;
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(count, Math.max(1, limit)) }, lane));
  if (failure) throw failure.error;
  return results;
}

/** A promise with its handles outside. */
export interface Deferred<T> {
  readonly promise: Promise<T>;
  resolve(value: T): void;
  reject(error: unknown): void;
}

export function deferred<T>(): Deferred<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  promise.catch(() => undefined);
  return { promise, resolve, reject };
}
