import { setImmediate as turn } from 'node:timers/promises';
import { CairnError } from '@cairn/base';
import { expect, test } from 'vitest';
import { Flusher, type FlusherOptions } from '../src/flusher.ts';
import type { Shard } from '../src/shard.ts';

test('ids that are not given before the ownership ends are nobody’s unhandled rejection, which would end the process', async () => {
  const unhandled: unknown[] = [];
  const heard = (error: unknown): void => void unhandled.push(error);
  process.on('unhandledRejection', heard);
  try {
    const over = new AbortController();
    over.abort();
    const flusher = new Flusher({
      ids: { take: () => Promise.reject(new CairnError('Cancelled', 'the ownership is over')) },
      signal: over.signal,
    } as unknown as FlusherOptions);
    const shard = { seal: () => ({ cut: 1, cutTs: 1, parts: [{}] }) } as unknown as Shard;
    const ticket = flusher.seal(shard, 1, 1);
    await turn();
    await turn();
    expect(unhandled).toEqual([]);
    // Whoever waits for them does hear of it.
    await expect(ticket?.segmentIds).rejects.toThrow('the ownership is over');
  } finally {
    process.off('unhandledRejection', heard);
  }
});
