import { SystemRuntime, silentLogger } from '@cairn/base';
import { LeaderWatch } from '@cairn/catalog';
import { MemoryMetaStore } from '@cairn/meta';
import { InProcessNetwork } from '@cairn/rpc';
import { expect, test } from 'vitest';
import { Coordinator, IdReserve } from '../src/coordinator.ts';

const runtime = new SystemRuntime();

test('a write that waits for ids or a stamp of a coordinator that does not come fails retriably when its node steps down', async () => {
  const meta = new MemoryMetaStore(runtime);
  const leaders = new LeaderWatch(meta, runtime, silentLogger);
  await leaders.start();
  const stopping = new AbortController();
  const coordinator = new Coordinator(meta, new InProcessNetwork(runtime), runtime, leaders);
  const reserve = new IdReserve(coordinator, 100, stopping.signal);
  const waiting = [reserve.take(1), reserve.take(1_000), coordinator.allocTimestamps(1, stopping.signal)];
  runtime.after(50, () => stopping.abort());
  for (const one of await Promise.allSettled(waiting))
    expect(one).toMatchObject({ status: 'rejected', reason: { codeName: 'ServiceNotReady', retriable: true } });
  await leaders.stop();
  await meta.close();
});
