import { assert, type Runtime } from '@cairn/base';
import type { CoordinatorClient } from './coordinator-client.ts';
import { RequestContext } from './request-context.ts';

/** Ids reserved at once: few calls for many rows. What is left when the process ends is lost, never given twice. */
const ID_BLOCK = 20_000;
/** Longest wait for a timestamp that several requests share, DataCoord's fail-over included. */
const SHARED_CALL_TIMEOUT_MS = 10_000;

/** Auto ids, from blocks reserved in DataCoord. */
export class AutoIds {
  readonly #coordinator: CoordinatorClient;
  #next = 0;
  #end = 0;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(coordinator: CoordinatorClient) {
    this.#coordinator = coordinator;
  }

  /** First of `count` consecutive ids. */
  take(count: number, context: RequestContext): Promise<number> {
    const mine = this.#turn.then(() => this.#take(count, context));
    this.#turn = mine.catch(() => undefined);
    return mine;
  }

  async #take(count: number, context: RequestContext): Promise<number> {
    if (this.#end - this.#next < count) {
      const wanted = Math.max(count, ID_BLOCK);
      const { first } = await this.#coordinator.call(context, (leader, options) => leader.allocIds({ count: wanted }, options));
      this.#next = first;
      this.#end = first + wanted;
    }
    const first = this.#next;
    this.#next += count;
    assert(this.#next <= this.#end, 'ids beyond the reserved block');
    return first;
  }
}

/**
 * Timestamps for strong reads: greater than every one given out before the request came. Requests that wait at the same moment share one call;
 * a request never uses a call that was sent before it came.
 */
export class ReadTimestamps {
  readonly #coordinator: CoordinatorClient;
  readonly #runtime: Runtime;
  readonly #stopped: AbortSignal;
  #running: Promise<number> | undefined;
  #next: Promise<number> | undefined;

  constructor(coordinator: CoordinatorClient, runtime: Runtime, stopped: AbortSignal) {
    this.#coordinator = coordinator;
    this.#runtime = runtime;
    this.#stopped = stopped;
  }

  now(): Promise<number> {
    if (!this.#running) return this.#start();
    this.#next ??= this.#running.then(
      () => this.#start(),
      () => this.#start(),
    );
    return this.#next;
  }

  #start(): Promise<number> {
    this.#next = undefined;
    // The call serves several requests, so none of them may cut it.
    const context = new RequestContext(
      { signal: this.#stopped, metadata: new Map(), remaining: () => Number.POSITIVE_INFINITY },
      this.#runtime,
      SHARED_CALL_TIMEOUT_MS,
    );
    const running = this.#coordinator
      .call(context, async (leader, options) => (await leader.allocTimestamps({ count: 1 }, options)).first)
      .finally(() => {
        if (this.#running === running) this.#running = undefined;
      });
    this.#running = running;
    return running;
  }
}
