import { SystemRuntime, type TimerHandle } from '@cairn/base';
import { describe, expect, test } from 'vitest';
import { MemoryMetaStore } from '../src/index.ts';
import { metaStoreContract } from './contract.ts';

const runtime = new SystemRuntime();

metaStoreContract('memory', async () => {
  const store = new MemoryMetaStore(runtime);
  return {
    store,
    other: store.connect(runtime),
    history: false,
    loseLease: (lease) => store.loseLease(lease.id),
    close: () => store.close(),
  };
});

/** A process whose timers stop when it dies. */
class MortalRuntime extends SystemRuntime {
  readonly #timers = new Set<TimerHandle>();
  dead = false;

  override after(delayMs: number, callback: () => void): TimerHandle {
    const timer = super.after(delayMs, () => {
      if (!this.dead) callback();
    });
    this.#timers.add(timer);
    return timer;
  }
}

describe('MemoryMetaStore', () => {
  test('the leases of a dead instance run out, those of the others go on', async () => {
    const store = new MemoryMetaStore(runtime);
    const mortal = new MortalRuntime();
    const [dying, living] = [await store.connect(mortal).grantLease(200), await store.connect(runtime).grantLease(200)];
    await store.txn({
      then: [
        { kind: 'put', key: 'node/dying', value: new Uint8Array(1), lease: dying.id },
        { kind: 'put', key: 'node/living', value: new Uint8Array(1), lease: living.id },
      ],
    });
    await runtime.sleep(400);
    expect((await store.range({ prefix: 'node/' })).entries).toHaveLength(2);
    mortal.dead = true;
    await runtime.sleep(400);
    expect((await store.range({ prefix: 'node/' })).entries.map((entry) => entry.key)).toEqual(['node/living']);
    await store.close();
  });

  test('a closed store answers with a retriable error and ends its watches', async () => {
    const store = new MemoryMetaStore(runtime);
    const watch = store.watch('', new AbortController().signal)[Symbol.asyncIterator]();
    await watch.next();
    const next = watch.next();
    await store.close();
    await expect(next).rejects.toMatchObject({ codeName: 'StoreUnavailable' });
    await expect(store.get('a')).rejects.toMatchObject({ codeName: 'StoreUnavailable' });
    await expect(store.txn({ then: [] })).rejects.toMatchObject({ codeName: 'StoreUnavailable' });
  });
});
