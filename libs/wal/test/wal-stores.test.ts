import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LmdbWalStore, MemoryWalStore } from '../src/index.ts';
import { describeWal, logger } from './wal-contract.ts';

describeWal('MemoryWalStore', async () => ({ durable: false, open: async () => new MemoryWalStore(), stop: async () => undefined }));

describeWal('LmdbWalStore', async () => {
  const path = await mkdtemp(join(tmpdir(), 'cairn-wal-'));
  return { durable: true, open: async () => new LmdbWalStore({ path, logger }), stop: () => rm(path, { recursive: true, force: true }) };
});
