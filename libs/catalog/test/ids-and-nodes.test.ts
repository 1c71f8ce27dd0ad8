import { SystemRuntime, silentLogger } from '@cairn/base';
import { type Compare, MemoryMetaStore, type MetaStore } from '@cairn/meta';
import { FaultyMetaStore, randomFaults } from '@cairn/meta/testing';
import { NodeRecord } from '@cairn/proto/cairn/meta';
import { describe, expect, test } from 'vitest';
import { FIRST_ID, IdAllocator, keys, NodeRegistration } from '../src/index.ts';

const runtime = new SystemRuntime();

describe('IdAllocator', () => {
  test('ids begin at 1000 and never repeat, over several allocators and lost answers', async () => {
    const meta = new MemoryMetaStore(runtime);
    const faulty = new FaultyMetaStore(meta, runtime, randomFaults(runtime, { failBefore: 0.1, timeoutAfter: 0.1 }));
    const seen = new Set<number>();
    let given = 0;
    await Promise.all(
      [1, 2, 3].map(async () => {
        const allocator = new IdAllocator(faulty, { batch: 10 });
        await Promise.all(
          Array.from({ length: 100 }, async (_, index) => {
            const size = (index % 25) + 1;
            const first = await allocator.allocate(size).catch(() => undefined);
            if (first === undefined) return;
            expect(first).toBeGreaterThanOrEqual(FIRST_ID);
            for (let id = first; id < first + size; id++) seen.add(id);
            given += size;
          }),
        );
      }),
    );
    expect(given).toBeGreaterThan(1000);
    expect(seen.size).toBe(given);
  });

  test('who no longer leads gets no ids', async () => {
    const meta = new MemoryMetaStore(runtime);
    const only: Compare[] = [{ kind: 'exists', key: 'leader' }];
    await expect(new IdAllocator(meta, { only: () => only }).allocate()).rejects.toMatchObject({ codeName: 'Unavailable' });
    await meta.txn({ then: [{ kind: 'put', key: 'leader', value: new Uint8Array() }] });
    expect(await new IdAllocator(meta, { only: () => only }).allocate()).toBe(FIRST_ID);
  });
});

describe('NodeRegistration', () => {
  const register = (meta: MetaStore, id = 'a') =>
    new NodeRegistration({
      meta,
      runtime,
      logger: silentLogger,
      ttlMs: 300,
      record: { id, role: 'datanode', address: '127.0.0.1:5', slots: 2 },
    });

  test('the key is there while the process lives, and gone at once when it stops', async () => {
    const meta = new MemoryMetaStore(runtime);
    const node = register(meta);
    await node.start();
    await runtime.sleep(700);
    const entry = await meta.get(keys.node('datanode', 'a'));
    expect(entry && NodeRecord.decode(entry.value)).toMatchObject({ id: 'a', role: 'datanode', address: '127.0.0.1:5', slots: 2 });
    expect(node.validUntil()).toBeGreaterThan(runtime.monotonic());
    expect(node.lost.aborted).toBe(false);
    await node.stop();
    expect(await meta.get(keys.node('datanode', 'a'))).toBeUndefined();
  });

  test('a lost lease is told once and for all: the node steps down and does not register again', async () => {
    const meta = new MemoryMetaStore(runtime);
    const node = register(meta);
    await node.start();
    await meta.loseLease('1');
    expect(node.lost.aborted).toBe(true);
    expect(node.validUntil()).toBe(0);
    await runtime.sleep(200);
    expect(await meta.get(keys.node('datanode', 'a'))).toBeUndefined();
  });

  test('a process under the id of one that died waits for its key to run out, and has a life of its own', async () => {
    const meta = new MemoryMetaStore(runtime);
    const { revision } = await meta.txn({ then: [{ kind: 'put', key: keys.node('datanode', 'a'), value: new Uint8Array(1) }] });
    const node = register(meta);
    const starting = node.start();
    await runtime.sleep(150);
    await meta.txn({ then: [{ kind: 'delete', key: keys.node('datanode', 'a') }] });
    await starting;
    expect((await meta.get(keys.node('datanode', 'a')))?.createRevision).toBeGreaterThan(revision);
    await node.stop();
  });

  test('a node that shares no protocol version with a living one does not join, and says so; one that shares a version does', async () => {
    const meta = new MemoryMetaStore(runtime);
    const join = (id: string, min: number, max: number) =>
      new NodeRegistration({
        ...{ meta, runtime, logger: silentLogger, ttlMs: 300, protocol: { min, max } },
        record: { id, role: 'streaming', address: '127.0.0.1:5', slots: 0 },
      });
    const first = join('first', 1, 2);
    await first.start();
    const far = join('far', 3, 3);
    await expect(far.start()).rejects.toMatchObject({
      codeName: 'NodeNotMatch',
      message: expect.stringMatching(/streaming\/first speaks the inner protocol 1-2, this program 3-3: the other is too old/),
    });
    const near = join('near', 2, 3);
    await near.start();
    await first.stop();
    await far.start();
    for (const node of [near, far]) await node.stop();
  });

  test('a lost answer at registration does not stand in its own way', async () => {
    const meta = new MemoryMetaStore(runtime);
    let faults = 1;
    const faulty = new FaultyMetaStore(meta, runtime, ({ method }) =>
      method === 'txn' && faults-- > 0 ? { kind: 'timeoutAfter' } : undefined,
    );
    const node = register(faulty);
    await node.start();
    expect(await meta.get(keys.node('datanode', 'a'))).toBeDefined();
    await node.stop();
  });
});
