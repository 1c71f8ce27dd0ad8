import { SystemRuntime } from '@cairn/base';
import { MemoryObjectStore } from '../src/index.ts';
import { objectStoreContract } from './contract.ts';

objectStoreContract('memory', async () => {
  const store = new MemoryObjectStore(new SystemRuntime());
  return { store, reopen: async () => store, stop: () => store.close() };
});
