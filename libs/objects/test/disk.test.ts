import { mkdtemp, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SystemRuntime } from '@cairn/base';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { DiskObjectStore } from '../src/index.ts';
import { objectStoreContract } from './contract.ts';

objectStoreContract('disk', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'cairn-objects-'));
  const store = new DiskObjectStore(dir, new SystemRuntime());
  return {
    store,
    reopen: async () => new DiskObjectStore(dir, new SystemRuntime()),
    stop: async () => {
      await store.close();
      await rm(dir, { recursive: true });
    },
  };
});

describe('DiskObjectStore', () => {
  let dir: string;
  let store: DiskObjectStore;

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'cairn-objects-'));
    store = new DiskObjectStore(dir, new SystemRuntime());
  });

  afterAll(async () => {
    await rm(dir, { recursive: true });
  });

  test('an object is a file of its own content', async () => {
    await store.put('a/b', new TextEncoder().encode('mapped'));
    expect(await readFile(store.localPath('a/b'), 'utf8')).toBe('mapped');
  });

  test('a copy finds a byte that the disk has flipped, even when nothing else tells', async () => {
    const info = await store.put('rot/source', new Uint8Array(10_000).fill(7));
    const path = store.localPath('rot/source');
    const before = await stat(path);
    const bytes = await readFile(path);
    bytes[5000] ^= 4;
    await writeFile(path, bytes);
    await utimes(path, before.atime, before.mtime);
    await expect(store.copy('rot/source', 'rot/target', { ifMatch: info.etag })).rejects.toThrow(/rot\/source/);
    expect(await store.head('rot/target')).toBeUndefined();
  });

  test('what a crash left half written is not listed, and goes when the store opens later', async () => {
    await store.put('x/1', new Uint8Array(1));
    const partial = join(dir, '.partial', 'left-over');
    await writeFile(partial, 'half');
    expect((await store.list('')).objects.map((info) => info.key)).not.toContain('.partial/left-over');
    const old = new Date(Date.now() - 7_200_000);
    await utimes(partial, old, old);
    await new DiskObjectStore(dir, new SystemRuntime()).ping();
    await expect(stat(partial)).rejects.toThrow(/ENOENT/);
  });
});
