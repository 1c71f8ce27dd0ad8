import { SystemRuntime, silentLogger } from '@cairn/base';
import { MemoryMetaStore } from '@cairn/meta';
import { FaultyMetaStore, randomFaults } from '@cairn/meta/testing';
import { GroupRecord, SegmentRecord } from '@cairn/proto/cairn/meta';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { keys, putRecord, RecordWatch } from '../src/index.ts';

const runtime = new SystemRuntime();
const segment = (id: number, group = '') =>
  putRecord(keys.segment(1, id), SegmentRecord, SegmentRecord.create({ id, collectionId: 1, group }));
const group = (name: string, published: boolean) =>
  putRecord(keys.group(name), GroupRecord, GroupRecord.create({ group: name, published }));

describe('RecordWatch', () => {
  let meta: MemoryMetaStore;
  let watch: RecordWatch<SegmentRecord>;
  let sizes: number[];
  const ids = () => [...watch.records.values()].map((record) => record.id).sort((a, b) => a - b);

  async function open(store = meta as ConstructorParameters<typeof RecordWatch>[0]['meta']): Promise<void> {
    watch = new RecordWatch({
      ...{ meta: store, prefix: keys.allSegments, runtime, logger: silentLogger },
      decode: (bytes) => SegmentRecord.decode(bytes),
      groupOf: (record) => record.group,
    });
    sizes = [];
    watch.onChange(() => sizes.push(watch.records.size));
    await watch.start();
  }

  beforeEach(() => {
    meta = new MemoryMetaStore(runtime);
  });
  afterEach(async () => {
    await watch.stop();
    await meta.close();
  });

  test('shows what is there, then every change; a damaged record does not hide the others', async () => {
    await meta.txn({ then: [segment(1), { kind: 'put', key: keys.segment(1, 9), value: Uint8Array.of(8) }] });
    await open();
    expect(ids()).toEqual([1]);
    await meta.txn({ then: [segment(2), segment(3)] });
    await meta.txn({ then: [{ kind: 'delete', key: keys.segment(1, 1) }] });
    await runtime.sleep(20);
    expect(ids()).toEqual([2, 3]);
    expect(sizes).toEqual([1, 3, 2]);
  });

  test('records of a group appear together when it is published, and stay when they are cleaned', async () => {
    await open();
    await meta.txn({ then: [group('g', false)] });
    await meta.txn({ then: [segment(1, 'g'), segment(2, 'g')] });
    await meta.txn({ then: [segment(3, 'g'), segment(4)] });
    await runtime.sleep(20);
    expect(ids()).toEqual([4]);
    await meta.txn({ then: [group('g', true)] });
    await runtime.sleep(20);
    expect(ids()).toEqual([1, 2, 3, 4]);
    expect(sizes).toEqual([1, 4]);
    await meta.txn({ then: [{ kind: 'delete', key: keys.group('g') }] });
    await runtime.sleep(20);
    await meta.txn({ then: [segment(1), segment(2), segment(3)] });
    await runtime.sleep(20);
    expect(ids()).toEqual([1, 2, 3, 4]);
    expect(sizes.every((size) => size === 1 || size === 4)).toBe(true);
  });

  test('a group that is never published is never seen', async () => {
    await meta.txn({ then: [group('g', false), segment(1, 'g')] });
    await open();
    await meta.txn({
      then: [
        { kind: 'delete', key: keys.group('g') },
        { kind: 'delete', key: keys.segment(1, 1) },
      ],
    });
    await runtime.sleep(20);
    expect([ids(), sizes]).toEqual([[], []]);
  });

  test('a group is seen whole or not at all, however slow the watch is', async () => {
    const slow = new FaultyMetaStore(meta, runtime, randomFaults(runtime, { delay: 0.5, maxDelayMs: 5 }));
    await open(slow);
    for (let round = 0; round < 20; round++) {
      const name = `g${round}`;
      await meta.txn({ then: [group(name, false)] });
      for (let page = 0; page < 5; page++)
        await meta.txn({ then: Array.from({ length: 10 }, (_, index) => segment(round * 50 + page * 10 + index, name)) });
      await meta.txn({ then: [group(name, true)] });
      if (round % 3 === 0) await runtime.sleep(3);
    }
    for (let tries = 0; tries < 200 && watch.records.size < 1000; tries++) await runtime.sleep(10);
    expect(watch.records.size).toBe(1000);
    expect(sizes.filter((size) => size % 50 !== 0)).toEqual([]);
  });
});
