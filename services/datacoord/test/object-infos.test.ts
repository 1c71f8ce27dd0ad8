import { SystemRuntime } from '@cairn/base';
import { MemoryObjectStore } from '@cairn/objects';
import { describe, expect, test } from 'vitest';
import { infosOf } from '../src/check/object-infos.ts';

/** A store that counts what it is asked; `tags` false: its lists have none, as a disk's. */
async function storeOf(keys: readonly string[], tags: boolean) {
  const inner = new MemoryObjectStore(new SystemRuntime());
  for (const key of keys) await inner.put(key, Buffer.from(key));
  const calls = { heads: 0, lists: 0 };
  const objects = Object.assign(Object.create(inner) as MemoryObjectStore, {
    head: (key: string) => {
      calls.heads++;
      return inner.head(key);
    },
    list: async (prefix: string, options?: { after?: string }) => {
      calls.lists++;
      const page = await inner.list(prefix, { ...options, limit: 100 });
      return { ...page, objects: page.objects.map((info) => ({ ...info, etag: tags ? info.etag || 'tag' : '' })) };
    },
  });
  return { objects, calls };
}

const number = (i: number) => String(i).padStart(5, '0');
const all = Array.from({ length: 900 }, (_, i) => `segments/1/2/${number(i)}/g/scalars.arrow`);
const others = Array.from({ length: 60 }, (_, i) => `deltas/1/0/${number(i)}-g.arrow`);

describe('heads of many objects', () => {
  test('are read off few lists where the objects lie side by side', async () => {
    const { objects, calls } = await storeOf([...all, ...others], true);
    const infos = await infosOf(objects, [...all, ...others], 8);
    expect([...infos.keys()].sort()).toEqual([...all, ...others].sort());
    expect(infos.get(all[5] ?? '')).toMatchObject({ size: all[5]?.length });
    expect(calls.lists).toBeLessThan(15);
    expect(calls.heads).toBeLessThan(20);
  });

  test('miss nothing and invent nothing when some are gone, are far apart, or lists have no tags', async () => {
    for (const tags of [true, false]) {
      for (const every of [1, 3, 40]) {
        const there = all.filter((_, i) => i % 7 !== 3);
        const { objects, calls } = await storeOf([...there, ...others], tags);
        const wanted = [...all.filter((_, i) => i % every === 0), ...others, 'segments/9/9/00001/g/x', 'snapshots/1/metadata/2.json'];
        const infos = await infosOf(objects, wanted, 8);
        const expected = wanted.filter((key) => there.includes(key) || others.includes(key));
        expect([...infos.keys()].sort(), `${tags} ${every}`).toEqual(expected.sort());
        if (!tags) expect(calls.lists).toBeLessThanOrEqual(1);
      }
    }
  });
});
