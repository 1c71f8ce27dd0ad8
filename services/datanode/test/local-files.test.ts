import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CairnError, checksum, SystemRuntime, silentLogger } from '@cairn/base';
import { DiskObjectStore, MemoryObjectStore } from '@cairn/objects';
import { FaultyObjectStore } from '@cairn/objects/testing';
import type { ObjectRef } from '@cairn/proto/cairn/meta';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { LocalFiles } from '../src/local-files.ts';

const runtime = new SystemRuntime();

describe('objects as local files', () => {
  let dir: string;
  let store: FaultyObjectStore;

  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'cairn-files-'));
    store = new FaultyObjectStore(new MemoryObjectStore(runtime), runtime);
  });

  afterEach(async () => {
    await rm(dir, { recursive: true });
  });

  const filesOf = async (limitBytes: number): Promise<LocalFiles> => {
    const files = new LocalFiles({ objects: store, runtime, logger: silentLogger, dir, limitBytes });
    await files.start();
    return files;
  };
  const put = async (key: string, body: Uint8Array): Promise<ObjectRef> => {
    const info = await store.put(key, body);
    return { key, size: body.length, crc32c: checksum(body), etag: info.etag, role: 'index', fieldId: 1 };
  };

  test('a large object arrives by ranges, once for all who ask at the same time', async () => {
    const body = new Uint8Array((20 << 20) + 7).map((_, i) => i * 31);
    const ref = await put('indexes/a', body);
    let ranges = 0;
    store.faults(({ operation }) => {
      if (operation === 'getRange') ranges++;
      return undefined;
    });
    const files = await filesOf(1 << 30);
    const [first, second] = await Promise.all([files.open(ref), files.open(ref)]);
    expect(second.path).toBe(first.path);
    expect(checksum(await readFile(first.path))).toBe(ref.crc32c);
    expect(ranges).toBe(3);
  });

  test('files that nobody uses go, oldest first, when the cache is full; files in use stay', async () => {
    const files = await filesOf(250);
    const refs = await Promise.all([0, 1, 2, 3].map((i) => put(`o/${i}`, new Uint8Array(100).fill(i))));
    const held = await files.open(refs[0]);
    for (const ref of refs.slice(1)) await files.release(await files.open(ref));
    expect((await readdir(dir)).map((name) => name.slice(0, 3)).sort()).toEqual(['o_0', 'o_3']);
    expect((await readFile(held.path)).length).toBe(100);
  });

  test('a restart keeps what was downloaded, but not what was damaged meanwhile or half done', async () => {
    const ref = await put('o/1', new Uint8Array(100).fill(1));
    const before = await filesOf(1000);
    const { path } = await before.open(ref);
    await writeFile(join(dir, 'x.partial'), 'half');
    let ranges = 0;
    store.faults(({ operation }) => {
      if (operation === 'getRange') ranges++;
      return undefined;
    });
    await (await filesOf(1000)).open(ref);
    expect(ranges).toBe(0);
    expect(await readdir(dir)).toHaveLength(1);
    await writeFile(path, new Uint8Array(100).fill(2));
    await (await filesOf(1000)).open(ref);
    expect(ranges).toBe(1);
    expect(checksum(await readFile(path))).toBe(ref.crc32c);
  });

  test.each([
    ['flipped', { flip: 9 }],
    ['truncated', { truncate: 50 }],
  ])('an object that arrives %s is refused and named, and leaves no file', async (_, fault) => {
    const ref = await put('o/bad', new Uint8Array(100));
    store.faults(({ operation }) => (operation === 'getRange' ? fault : undefined));
    const files = await filesOf(1000);
    await expect(files.open(ref)).rejects.toMatchObject({ codeName: 'ObjectDamaged', message: expect.stringContaining('o/bad') });
    expect(await readdir(dir)).toEqual([]);
  });

  test('a store that is down for a moment delays; a missing object is named', async () => {
    const ref = await put('o/1', new Uint8Array(100));
    let fails = 2;
    store.faults(() => (fails-- > 0 ? { fail: new CairnError('StoreUnavailable', 'down') } : undefined));
    const files = await filesOf(1000);
    await files.open(ref);
    await expect(files.open({ ...ref, key: 'o/none' })).rejects.toMatchObject({
      codeName: 'ObjectNotFound',
      message: expect.stringContaining('o/none'),
    });
  });

  test('a store on this disk is used in place, and verified', async () => {
    const disk = new DiskObjectStore(dir, runtime);
    const body = new Uint8Array(5000).fill(3);
    const info = await disk.put('i/1', body);
    const ref = { key: 'i/1', size: 5000, crc32c: checksum(body), etag: info.etag, role: 'index', fieldId: 1 };
    const files = new LocalFiles({ objects: disk, runtime, logger: silentLogger, dir: join(dir, 'never'), limitBytes: 0 });
    await files.start();
    const file = await files.open(ref);
    expect(file.path).toBe(disk.localPath('i/1'));
    await files.release(file);
    expect((await readFile(file.path)).length).toBe(5000);
    await expect(files.open({ ...ref, crc32c: 1 })).rejects.toMatchObject({
      codeName: 'ObjectDamaged',
      message: expect.stringContaining('i/1'),
    });
  });
});
