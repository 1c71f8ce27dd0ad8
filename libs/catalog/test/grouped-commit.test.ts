import { SystemRuntime } from '@cairn/base';
import { MemoryMetaStore, type MetaStore } from '@cairn/meta';
import { FaultyMetaStore, type MetaFault } from '@cairn/meta/testing';
import { ChannelRecord, GroupRecord, SegmentRecord } from '@cairn/proto/cairn/meta';
import { beforeEach, describe, expect, test } from 'vitest';
import { type Commit, commit, groupedPut, keys, plainPut, putRecord, sweepGroup } from '../src/index.ts';

const runtime = new SystemRuntime();

describe('grouped commit', () => {
  let meta: MemoryMetaStore;
  let channelRevision: number;

  function work(segments: number): Commit {
    return {
      if: [{ kind: 'modRevision', key: keys.channel('c'), equals: channelRevision }],
      puts: [
        ...Array.from({ length: segments }, (_, id) =>
          groupedPut(keys.segment(1, id), SegmentRecord, SegmentRecord.create({ id, generation: 'x'.repeat(50) })),
        ),
        plainPut(keys.shard(1, 0), ChannelRecord, ChannelRecord.create({ channel: 'shard' })),
      ],
      deletes: ['old'],
    };
  }

  async function count(prefix: string): Promise<number> {
    return (await meta.range({ prefix, limit: 10_000 })).entries.length;
  }

  /** What a reader would see: records without a group or with a published one. */
  async function visible(): Promise<number> {
    const groups = new Set(
      (await meta.range({ prefix: keys.groups })).entries
        .map((entry) => GroupRecord.decode(entry.value))
        .flatMap((g) => (g.published ? [g.group] : [])),
    );
    const records = (await meta.range({ prefix: keys.allSegments, limit: 10_000 })).entries.map((entry) =>
      SegmentRecord.decode(entry.value),
    );
    return records.filter((record) => record.group === '' || groups.has(record.group)).length;
  }

  beforeEach(async () => {
    meta = new MemoryMetaStore(runtime);
    channelRevision = (
      await meta.txn({
        then: [
          putRecord(keys.channel('c'), ChannelRecord, ChannelRecord.create({ epoch: 1 })),
          { kind: 'put', key: 'old', value: new Uint8Array(1) },
        ],
      })
    ).revision;
  });

  test('what fits is one transaction without a group', async () => {
    expect((await commit(meta, runtime, work(50))).succeeded).toBe(true);
    expect([await count(keys.groups), await visible(), await meta.get('old')]).toEqual([0, 50, undefined]);
  });

  test('what does not fit becomes visible all at once', async () => {
    const result = await commit(meta, runtime, work(500));
    expect([result.succeeded, await count(keys.groups), await visible(), await count(keys.allShards)]).toEqual([true, 1, 500, 1]);
    expect(await meta.get('old')).toBeUndefined();
    expect((await meta.get(keys.shard(1, 0)))?.modRevision).toBe(result.revision);
  });

  test.each([50, 500])('a compare that fails leaves nothing behind (%i segments)', async (segments) => {
    await meta.txn({ then: [putRecord(keys.channel('c'), ChannelRecord, ChannelRecord.create({ epoch: 2 }))] });
    expect((await commit(meta, runtime, work(segments))).succeeded).toBe(false);
    expect([await count(keys.groups), await count(keys.allSegments), await count(keys.allShards), await count('old')]).toEqual([
      0, 0, 0, 1,
    ]);
  });

  test('deletes that no transaction can hold are a programming error and change nothing', async () => {
    const deletes = Array.from({ length: 200 }, (_, index) => `d${index}`);
    await expect(commit(meta, runtime, { ...work(500), deletes })).rejects.toMatchObject({ codeName: 'Internal' });
    expect([await count(keys.groups), await count(keys.allSegments)]).toEqual([0, 0]);
  });

  test('a fault at any call leaves all or nothing, and the answer is true', async () => {
    for (const kind of ['failBefore', 'timeoutAfter'] as const) {
      for (let at = 0; at < 10; at++) {
        meta = new MemoryMetaStore(runtime);
        channelRevision = (await meta.txn({ then: [putRecord(keys.channel('c'), ChannelRecord, ChannelRecord.create({ epoch: 1 }))] }))
          .revision;
        let calls = 0;
        const faulty: MetaStore = new FaultyMetaStore(meta, runtime, (): MetaFault | undefined => (calls++ === at ? { kind } : undefined));
        const outcome = await commit(faulty, runtime, work(500)).then(
          (result) => result.succeeded,
          (error) => {
            expect(error).toMatchObject({ codeName: 'StoreUnavailable' });
            return false;
          },
        );
        expect([kind, at, await visible()]).toEqual([kind, at, outcome ? 500 : 0]);
        if (!outcome) expect(await count(keys.allSegments)).toBe(0);
      }
    }
  });

  test('a sweep ends an unpublished group, so that its commit fails, and leaves a published one', async () => {
    const racing: MetaStore = new FaultyMetaStore(meta, runtime, ({ method, keys: touched }): MetaFault | undefined =>
      method === 'txn' && touched.includes(keys.shard(1, 0)) ? { kind: 'delay', ms: 50 } : undefined,
    );
    const pending = commit(racing, runtime, work(300));
    await runtime.sleep(20);
    const [entry] = (await meta.range({ prefix: keys.groups })).entries;
    const swept = await sweepGroup(meta, GroupRecord.decode(entry.value).group);
    expect([swept, (await pending).succeeded, await count(keys.allSegments), await count(keys.groups)]).toEqual([true, false, 0, 0]);
    await commit(meta, runtime, work(300));
    const [published] = (await meta.range({ prefix: keys.groups })).entries;
    expect([await sweepGroup(meta, GroupRecord.decode(published.value).group), await visible()]).toEqual([false, 300]);
  });
});
