import { assert, CairnError } from '@cairn/base';
import type { Compare, MetaStore } from '@cairn/meta';
import { keys } from './keys.ts';

/** Ids below are for what the house itself may need. */
export const FIRST_ID = 1000;
const DEFAULT_BATCH = 1000;
/** Lost races for the counter before it is an error: other allocators are few. */
const RACE_LIMIT = 100;

export interface IdAllocatorOptions {
  /** Ids reserved at once; what is left of them is lost with the process. Default 1000. */
  readonly batch?: number;
  /** Compares that every reservation carries, such as leadership. Their failure is Unavailable. */
  readonly only?: () => readonly Compare[];
}

/** Ids that never repeat, for the whole cluster: safe integers, from batches reserved in the MetaStore under ids/next. */
export class IdAllocator {
  readonly #meta: MetaStore;
  readonly #batch: number;
  readonly #only: () => readonly Compare[];
  #next = 0;
  #end = 0;
  #tail: Promise<unknown> = Promise.resolve();

  constructor(meta: MetaStore, options: IdAllocatorOptions = {}) {
    this.#meta = meta;
    this.#batch = options.batch ?? DEFAULT_BATCH;
    this.#only = options.only ?? (() => []);
  }

  /** First of `count` ids in a row. */
  async allocate(count = 1): Promise<number> {
    assert(Number.isSafeInteger(count) && count > 0, `${count} ids asked for`);
    if (this.#end - this.#next >= count) return this.#take(count);
    const turn = this.#tail.then(async () => {
      if (this.#end - this.#next < count) await this.#reserve(count);
      return this.#take(count);
    });
    this.#tail = turn.catch(() => undefined);
    return await turn;
  }

  #take(count: number): number {
    const first = this.#next;
    this.#next += count;
    return first;
  }

  async #reserve(count: number): Promise<void> {
    const size = Math.max(count, this.#batch);
    for (let race = 0; race < RACE_LIMIT; race++) {
      const entry = await this.#meta.get(keys.idsNext);
      const first = entry ? Number(Buffer.from(entry.value).toString()) : FIRST_ID;
      assert(
        Number.isSafeInteger(first) && Number.isSafeInteger(first + size),
        `${keys.idsNext} holds ${entry && Buffer.from(entry.value).toString()}`,
      );
      const only = this.#only();
      const result = await this.#meta.txn({
        if: [{ kind: 'modRevision', key: keys.idsNext, equals: entry?.modRevision ?? 0 }, ...only],
        then: [{ kind: 'put', key: keys.idsNext, value: Buffer.from(String(first + size)) }],
        else: [{ kind: 'get', key: keys.idsNext }],
      });
      if (result.succeeded) {
        // A batch that follows the one before goes on with it; else what was left is too short and is lost.
        if (first !== this.#end) this.#next = first;
        this.#end = first + size;
        return;
      }
      if ((result.gets[0]?.modRevision ?? 0) === (entry?.modRevision ?? 0))
        throw new CairnError('Unavailable', 'ids cannot be reserved: this process no longer leads');
    }
    throw new CairnError('Unavailable', `ids cannot be reserved: ${RACE_LIMIT} races lost`);
  }
}
