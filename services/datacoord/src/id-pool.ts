import { CairnError } from '@cairn/base';
import { keys } from '@cairn/catalog';
import type { Ids } from './change-preparer.ts';
import type { LeaderStore } from './leader-store.ts';

/** Ids below it are the house's own (databases of every cluster, reserved fields). */
const FIRST_ID = 1_000;
const BATCH = 10_000;

/** Ids in batches reserved in the MetaStore; what a lost leader had reserved is never used. */
export class IdPool implements Ids {
  readonly #store: LeaderStore;
  #next = 0;
  #end = 0;
  #reserving: Promise<void> | undefined;

  constructor(store: LeaderStore) {
    this.#store = store;
  }

  async allocate(count: number): Promise<number> {
    for (;;) {
      const first = this.#next;
      if (first + count <= this.#end) {
        this.#next += count;
        return first;
      }
      this.#reserving ??= this.#reserve(count).finally(() => {
        this.#reserving = undefined;
      });
      await this.#reserving;
    }
  }

  async #reserve(count: number): Promise<void> {
    const entry = await this.#store.retrying(() => this.#store.meta.get(keys.idsNext));
    const first = entry ? Number(Buffer.from(entry.value).toString()) : FIRST_ID;
    const end = first + Math.max(BATCH, count);
    if (!Number.isSafeInteger(end)) throw new CairnError('Internal', `${keys.idsNext} is used up: ${first}`);
    const revision = await this.#store.commit({
      if: [{ kind: 'modRevision', key: keys.idsNext, equals: entry?.modRevision ?? 0 }],
      puts: [{ key: keys.idsNext, value: Buffer.from(end.toString()) }],
    });
    if (revision === undefined) return;
    this.#next = first;
    this.#end = end;
  }
}
