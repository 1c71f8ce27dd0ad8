import { SystemRuntime, silentLogger } from '@cairn/base';
import { MemoryMetaStore } from '@cairn/meta';
import { LeaderRecord } from '@cairn/proto/cairn/meta';
import { expect, test } from 'vitest';
import { keys, LeaderWatch } from '../src/index.ts';

const runtime = new SystemRuntime();
const never = new AbortController().signal;

async function watched(): Promise<{ watch: LeaderWatch; lead(address: string | undefined): Promise<void>; close(): Promise<void> }> {
  const meta = new MemoryMetaStore(runtime);
  const lead = async (address: string | undefined): Promise<void> => {
    const key = keys.leader;
    const value = LeaderRecord.encode({ nodeId: 'c', address: address ?? '', epoch: 1 }).finish();
    await meta.txn({ then: [address === undefined ? { kind: 'delete', key } : { kind: 'put', key, value }] });
  };
  await lead('a:1');
  const watch = new LeaderWatch(meta, runtime, silentLogger);
  await watch.start();
  return {
    watch,
    lead,
    close: async () => {
      await watch.stop();
      await meta.close();
    },
  };
}

/** Work of a leader that is out of reach: it ends by its signal alone. */
const hanging = (signal: AbortSignal): Promise<string> =>
  new Promise((_, reject) => signal.addEventListener('abort', () => reject(new Error('cut')), { once: true }));

test('a call to a leader that another has followed is given up, long before its deadline', async () => {
  const { watch, lead, close } = await watched();
  const call = watch.whileLeading('a:1', never, hanging);
  await lead(undefined);
  await lead('b:1');
  await expect(call).rejects.toMatchObject({ codeName: 'ServiceNotReady', retriable: true });
  await expect.poll(() => watch.address).toBe('b:1');
  await close();
});

test('a call to a leader that the watch has yet to learn of is left alone, and so is one to a leader that is elected again', async () => {
  const { watch, lead, close } = await watched();
  const release = Promise.withResolvers<string>();
  const early = watch.whileLeading('b:1', never, (signal) => Promise.race([release.promise, hanging(signal)]));
  await lead(undefined);
  await lead('b:1');
  const again = watch.whileLeading('b:1', never, (signal) => Promise.race([release.promise, hanging(signal)]));
  await expect.poll(() => watch.address).toBe('b:1');
  await lead(undefined);
  await lead('b:1');
  await runtime.sleep(250);
  release.resolve('answer');
  expect(await Promise.all([early, again])).toEqual(['answer', 'answer']);
  await close();
});

test('who waits for a leader is woken when one is elected', async () => {
  const { watch, lead, close } = await watched();
  await lead(undefined);
  await expect.poll(() => watch.address).toBeUndefined();
  const woken = watch.changed(60_000, never);
  await lead('b:1');
  await woken;
  expect(watch.address).toBe('b:1');
  const leaving = new AbortController();
  const left = watch.changed(60_000, leaving.signal);
  leaving.abort();
  await left;
  await close();
});
