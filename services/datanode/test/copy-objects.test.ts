import { CairnError, checksum, SystemRuntime } from '@cairn/base';
import { MemoryObjectStore, type ObjectInfo } from '@cairn/objects';
import { S3ObjectStore } from '@cairn/objects/s3';
import { FaultyObjectStore } from '@cairn/objects/testing';
import type { ObjectRef } from '@cairn/proto/cairn/meta';
import { describe, expect, test } from 'vitest';
import { serversAvailable, startMinio } from '../../../tests/support/servers.ts';
import { CopyLanes } from '../src/copy-lanes.ts';
import { type CopyParts, copyObjects } from '../src/copy-objects.ts';

const runtime = new SystemRuntime();
const available = await serversAvailable('minio');
const down = new CairnError('StoreUnavailable', 'the store is down');
const none = new AbortController().signal;

function lanesOf(permits: number): CopyParts['lanes'] {
  const lanes = new CopyLanes(permits, 1000);
  return { run: (bytes, copy) => lanes.run(1, bytes, copy) };
}

function refOf(info: ObjectInfo, body: Uint8Array): ObjectRef {
  return { key: info.key, size: info.size, crc32c: checksum(body), etag: info.etag, role: 'vector', fieldId: 101 };
}

async function stage(count: number): Promise<{ store: FaultyObjectStore; parts: CopyParts; task: Parameters<typeof copyObjects>[1] }> {
  const store = new FaultyObjectStore(new MemoryObjectStore(runtime), runtime);
  const objects = [];
  for (let i = 0; i < count; i++) {
    const body = new Uint8Array(100 + i).fill(i);
    objects.push({ source: refOf(await store.put(`source/${i}`, body), body), targetKey: `target/${i}` });
  }
  const parts = { objects: store, runtime, lanes: lanesOf(4), concurrency: 8 };
  return { store, parts, task: { objects, jobId: 1 } };
}

describe('copying objects', () => {
  test('every object arrives whole, answers come in the order asked, progress counts bytes', async () => {
    const { store, parts, task } = await stage(30);
    let bytes = 0;
    const copied = await copyObjects(
      parts,
      task,
      (size) => {
        bytes += size;
      },
      none,
    );
    expect(copied.map((ref) => ref.key)).toEqual(task.objects.map((object) => object.targetKey));
    for (const [i, ref] of copied.entries()) {
      expect(ref).toEqual({ ...task.objects[i].source, key: ref.key });
      expect(checksum(await store.get(ref.key))).toBe(ref.crc32c);
    }
    expect(bytes).toBe(copied.reduce((sum, ref) => sum + ref.size, 0));
  });

  test('a task that is repeated gives the same answer', async () => {
    const { parts, task } = await stage(5);
    const first = await copyObjects(parts, task, () => {}, none);
    expect(await copyObjects(parts, task, () => {}, none)).toEqual(first);
  });

  test('no more copies at once than the node has lanes', async () => {
    const { store, parts, task } = await stage(20);
    let running = 0;
    let most = 0;
    const copy = store.copy.bind(store);
    store.copy = async (...args) => {
      most = Math.max(most, ++running);
      await runtime.sleep(1);
      running--;
      return copy(...args);
    };
    await Promise.all([copyObjects(parts, task, () => {}, none), copyObjects(parts, task, () => {}, none)]);
    expect(most).toBe(4);
  });

  test('a store that fails now and then, also after it has copied, delays but does not fail the task', async () => {
    const { store, parts, task } = await stage(4);
    const seen = new Map<string, number>();
    store.faults(({ operation, key }) => {
      if (operation !== 'copy') return undefined;
      const count = (seen.get(key) ?? 0) + 1;
      seen.set(key, count);
      return count === 1 ? { fail: down } : count === 2 ? { failAfter: down } : undefined;
    });
    expect(await copyObjects(parts, task, () => {}, none)).toHaveLength(4);
  });

  test('a source that changed since it was recorded fails the task and is named', async () => {
    const { store, parts, task } = await stage(3);
    await store.put('source/1', new Uint8Array(101).fill(9));
    await expect(copyObjects(parts, task, () => {}, none)).rejects.toMatchObject({
      codeName: 'ObjectDamaged',
      message: expect.stringContaining('source/1'),
    });
    expect(await store.head('target/1')).toBeUndefined();
  });

  test('a missing source is named', async () => {
    const { store, parts, task } = await stage(3);
    await store.delete(['source/2']);
    await expect(copyObjects(parts, task, () => {}, none)).rejects.toMatchObject({
      codeName: 'ObjectNotFound',
      message: expect.stringContaining('source/2'),
    });
  });

  test.each([
    ['flipped', { flip: 50 }],
    ['truncated', { truncate: 60 }],
  ])('a copy that arrives %s fails the task and is named with its source', async (_, fault) => {
    const { store, parts, task } = await stage(3);
    store.faults(({ operation, key }) => (operation === 'copy' && key === 'source/0' ? fault : undefined));
    await expect(copyObjects(parts, task, () => {}, none)).rejects.toMatchObject({
      codeName: 'ObjectDamaged',
      message: expect.stringMatching(/source\/0.*target\/0/),
    });
  });

  test('a tag that differs though the bytes are the same (a copy in parts) is proved by checksum, read when the store has none', async () => {
    const { store, parts, task } = await stage(2);
    const { copy, head } = { copy: store.copy.bind(store), head: store.head.bind(store) };
    store.copy = async (...args) => ({ ...(await copy(...args)), etag: 'parts-2' });
    expect((await copyObjects(parts, task, () => {}, none)).map((ref) => ref.etag)).toEqual(['parts-2', 'parts-2']);
    store.head = async (key) => {
      const { crc32c: _, ...info } = (await head(key)) as ObjectInfo;
      return info;
    };
    expect(await copyObjects(parts, task, () => {}, none)).toHaveLength(2);
    store.faults(({ operation, key }) => (operation === 'getRange' && key === 'target/1' ? { flip: 3 } : undefined));
    await expect(copyObjects(parts, task, () => {}, none)).rejects.toMatchObject({
      codeName: 'ObjectDamaged',
      message: expect.stringContaining('source/1'),
    });
  });

  test('a cancelled task stops', async () => {
    const { store, parts, task } = await stage(3);
    store.faults(() => ({ fail: down }));
    const left = new AbortController();
    const running = copyObjects(parts, task, () => {}, left.signal);
    left.abort();
    await expect(running).rejects.toMatchObject({ codeName: 'Cancelled' });
  });
});

describe.skipIf(!available.ok)(`copying objects on MinIO ${available.reason}`, () => {
  test('small ones by one call, large ones in parts: all are proved, a changed source is named', async () => {
    const minio = await startMinio();
    const { endpoint, region, accessKeyId, secretAccessKey } = minio;
    const options = { endpoint, region, accessKeyId, secretAccessKey, bucket: 'cairn', root: 'files', pathStyle: true };
    const store = new S3ObjectStore({ ...options, multipartCopyBytes: 6 << 20, copyPartBytes: 5 << 20 }, runtime);
    try {
      await store.ping();
      const large = new Uint8Array(12 << 20).map((_, i) => i * 13);
      const small = large.subarray(0, 1000);
      const sources = [refOf(await store.put('source/small', small), small), refOf(await store.put('source/large', large), large)];
      const parts = { objects: store, runtime, lanes: lanesOf(4), concurrency: 8 };
      const task = { jobId: 1, objects: sources.map((source) => ({ source, targetKey: source.key.replace('source', 'target') })) };
      const copied = await copyObjects(parts, task, () => {}, none);
      for (const ref of copied) expect(checksum(await store.get(ref.key))).toBe(ref.crc32c);
      expect((await store.head('target/large'))?.etag).toBe(copied[1].etag);
      await store.put('source/large', large.subarray(1));
      await expect(copyObjects(parts, task, () => {}, none)).rejects.toMatchObject({
        codeName: 'ObjectDamaged',
        message: expect.stringContaining('source/large'),
      });
    } finally {
      await store.close();
      await minio.stop();
    }
  });
});
