import { CairnError, checksum, SystemRuntime } from '@cairn/base';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ObjectExistsError, type ObjectInfo, type ObjectStore } from '../src/index.ts';
import { FaultyObjectStore } from '../src/testing.ts';

export interface Tenant {
  readonly store: ObjectStore;
  /** The same objects seen by another process or after a restart. */
  reopen(): Promise<ObjectStore>;
  stop(): Promise<void>;
}

/** Above it the tenant under test copies in parts; parts have 5 MiB, the least that S3 takes. */
export const TEST_SINGLE_COPY_BYTES = 6 << 20;
export const TEST_COPY_PART_BYTES = 5 << 20;

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);
const textOf = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);

/** Pseudo-random and cheap: parts that were swapped or lost show. */
function pattern(length: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(length / 4));
  for (let i = 0, x = 1; i < words.length; i++) words[i] = x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
  return new Uint8Array(words.buffer, 0, length);
}

async function codeOf(promise: Promise<unknown>): Promise<string> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  return error instanceof CairnError ? `${error.codeName} ${error.message}` : String(error);
}

/** What every ObjectStore promises. */
export function objectStoreContract(name: string, start: () => Promise<Tenant>): void {
  describe(`ObjectStore: ${name}`, () => {
    let tenant: Tenant;
    let store: ObjectStore;
    let next = 0;
    const fresh = (): string => `test/${++next}`;

    beforeAll(async () => {
      tenant = await start();
      store = tenant.store;
      await store.ping();
    });

    afterAll(async () => {
      await tenant?.stop();
    });

    test('what was put is what is got, whole and after a restart', async () => {
      const key = fresh();
      const body = pattern(100_003);
      const info = await store.put(key, body);
      expect(info).toMatchObject({ key, size: body.length, crc32c: checksum(body) });
      expect(info.etag).not.toBe('');
      const again = await tenant.reopen();
      expect(Buffer.compare(await again.get(key), body)).toBe(0);
      const seen = await again.head(key);
      expect(seen).toMatchObject({ key, size: body.length, etag: info.etag, crc32c: checksum(body) });
      if (again !== store) await again.close();
    });

    test('an object is read into room of the caller, and no byte beside it', async () => {
      const key = fresh();
      const body = pattern(100_003);
      await store.put(key, body);
      const room = new Uint8Array(100_100).fill(7);
      const bytes = await store.get(key, undefined, (length) => room.subarray(50, 50 + length));
      expect(bytes.buffer).toBe(room.buffer);
      expect(Buffer.compare(bytes, body)).toBe(0);
      expect(Buffer.compare(room.subarray(50, 50 + body.length), body)).toBe(0);
      expect([...room.subarray(0, 50), ...room.subarray(50 + body.length)].every((byte) => byte === 7)).toBe(true);
    });

    test('a body in parts is one object; empty bodies are objects too', async () => {
      const key = fresh();
      await store.put(key, [bytesOf('one'), new Uint8Array(0), bytesOf('two')]);
      expect(textOf(await store.get(key))).toBe('onetwo');
      const empty = fresh();
      expect((await store.put(empty, new Uint8Array(0))).size).toBe(0);
      expect((await store.get(empty)).length).toBe(0);
      expect((await store.head(empty))?.size).toBe(0);
      expect((await store.put(empty, [])).size).toBe(0);
    });

    test('a plain put replaces the object', async () => {
      const key = fresh();
      const first = await store.put(key, bytesOf('before'));
      const second = await store.put(key, bytesOf('after!'));
      expect(second.etag).not.toBe(first.etag);
      expect(textOf(await store.get(key))).toBe('after!');
      expect((await store.head(key))?.etag).toBe(second.etag);
    });

    test('of twenty puts if absent at once exactly one wins, and its bytes stay', async () => {
      const key = fresh();
      const outcomes = await Promise.allSettled(
        Array.from({ length: 20 }, (_, i) => store.put(key, bytesOf(`writer ${i}`), { ifAbsent: true })),
      );
      const winners = outcomes.flatMap((outcome, i) => (outcome.status === 'fulfilled' ? [i] : []));
      expect(winners).toHaveLength(1);
      for (const outcome of outcomes) if (outcome.status === 'rejected') expect(outcome.reason).toBeInstanceOf(ObjectExistsError);
      expect(textOf(await store.get(key))).toBe(`writer ${winners[0]}`);
      const refused = await store.put(key, bytesOf('late'), { ifAbsent: true }).catch((error: unknown) => error);
      expect(refused).toBeInstanceOf(ObjectExistsError);
      expect((refused as ObjectExistsError).key).toBe(key);
      expect((refused as ObjectExistsError).retriable).toBe(false);
      expect(textOf(await store.get(key))).toBe(`writer ${winners[0]}`);
    });

    test('ranges give the bytes asked for, and fewer at the end', async () => {
      const key = fresh();
      const body = pattern(1000);
      await store.put(key, body);
      expect(await store.getRange(key, 10, 20)).toEqual(body.subarray(10, 30));
      expect(await store.getRange(key, 990, 50)).toEqual(body.subarray(990));
      expect(await store.getRange(key, 0, 1000)).toEqual(body);
      expect((await store.getRange(key, 1000, 10)).length).toBe(0);
      expect((await store.getRange(key, 500, 0)).length).toBe(0);
    });

    test('a missing object is an error that names the key; head says undefined', async () => {
      const key = fresh();
      const expected = expect.stringMatching(new RegExp(`^ObjectNotFound .*${key}`));
      expect(await codeOf(store.get(key))).toEqual(expected);
      expect(await codeOf(store.getRange(key, 0, 5))).toEqual(expected);
      expect(await codeOf(store.getRange(key, 0, 0))).toEqual(expected);
      expect(await codeOf(store.copy(key, fresh()))).toEqual(expected);
      expect(await codeOf(store.copy(key, fresh(), { ifMatch: 'abc', size: 10 }))).toEqual(expected);
      expect(await store.head(key)).toBeUndefined();
    });

    test('keys that a tenant could not hold are refused', async () => {
      for (const key of ['', '/a', 'a/', 'a//b', 'a/../b', './a', 'a b', 'ä', 'a\n', 'x'.repeat(1100)]) {
        expect(await codeOf(store.put(key, bytesOf('x')))).toMatch(/not an object key/);
      }
    });

    test('a copy has the bytes and the tag of its source', async () => {
      const from = `${fresh()}/a+b=c@d%20.arrow`;
      const to = fresh();
      const body = pattern(70_000);
      const source = await store.put(from, body);
      const copied = await store.copy(from, to, { ifMatch: source.etag });
      expect(copied).toMatchObject({ key: to, size: body.length, etag: source.etag });
      expect(Buffer.compare(await store.get(to), body)).toBe(0);
      expect(await store.head(to)).toMatchObject({ etag: source.etag, crc32c: checksum(body) });
      // A second copy to the same key is the same object: copies can be repeated.
      expect((await store.copy(from, to, { ifMatch: source.etag })).etag).toBe(source.etag);
    });

    test('a copy from a source of another content fails, names the source and makes nothing', async () => {
      const from = fresh();
      const to = fresh();
      const before = await store.put(from, bytesOf('as recorded'));
      await store.put(from, bytesOf('as it is now'));
      expect(await codeOf(store.copy(from, to, { ifMatch: before.etag }))).toMatch(new RegExp(`^ObjectDamaged .*${from}`));
      expect(await store.head(to)).toBeUndefined();
    });

    test('a copy above the limit of one call goes in parts and is whole', async () => {
      const from = fresh();
      const to = fresh();
      const body = pattern(TEST_SINGLE_COPY_BYTES + TEST_COPY_PART_BYTES + 17);
      const source = await store.put(from, body);
      const copied = await store.copy(from, to, { ifMatch: source.etag, size: body.length });
      expect(copied.size).toBe(body.length);
      expect(checksum(await store.get(to))).toBe(checksum(body));
      const wrong = fresh();
      await store.put(from, body.subarray(1));
      expect(await codeOf(store.copy(from, wrong, { ifMatch: source.etag }))).toMatch(new RegExp(`^ObjectDamaged .*${from}`));
      expect(await store.head(wrong)).toBeUndefined();
    });

    test('lists come in key order, page by page, under the prefix alone', async () => {
      const base = fresh();
      const names = ['a', 'a-b', 'a.b', 'a/b', 'a/c/d', 'a/c/e', 'a0', 'b', 'b/1', 'c/x/y/z', 'ca'];
      await Promise.all(names.map((name) => (name === 'a' || name === 'b' ? undefined : store.put(`${base}/${name}`, bytesOf(name)))));
      const present = names.filter((name) => name !== 'a' && name !== 'b');
      await store.put(`${base}x`, bytesOf('beside'));
      for (const limit of [1, 2, 3, 100]) {
        const seen: ObjectInfo[] = [];
        let after: string | undefined;
        do {
          const page = await store.list(`${base}/`, { limit, ...(after === undefined ? {} : { after }) });
          expect(page.objects.length).toBeLessThanOrEqual(limit);
          seen.push(...page.objects);
          after = page.next;
        } while (after !== undefined);
        expect(seen.map((info) => info.key)).toEqual(present.map((name) => `${base}/${name}`).sort());
        expect(seen.map((info) => info.size)).toEqual(seen.map((info) => info.key.length - base.length - 1));
      }
      expect((await store.list(`${base}/a/c`)).objects.map((info) => info.key)).toEqual([`${base}/a/c/d`, `${base}/a/c/e`]);
      expect((await store.list(`${base}/c`)).objects.map((info) => info.key)).toEqual([`${base}/c/x/y/z`, `${base}/ca`]);
      expect((await store.list(`${base}/none`)).objects).toEqual([]);
      expect((await store.list(`${base}/`, { after: `${base}/a/c/d` })).objects[0].key).toBe(`${base}/a/c/e`);
    });

    test('delete removes what is there and does not mind what is not', async () => {
      const base = fresh();
      const some = Array.from({ length: 30 }, (_, i) => `${base}/${i % 3}/${i}`);
      await Promise.all(some.map((key) => store.put(key, bytesOf(key))));
      await store.delete([...some.slice(0, 29), `${base}/never/was`]);
      expect((await store.list(`${base}/`)).objects.map((info) => info.key)).toEqual([`${base}/2/29`]);
      await store.delete(some);
      await store.delete([]);
      expect((await store.list(`${base}/`)).objects).toEqual([]);
      // The place can be used again, by many at once, while neighbours go.
      await Promise.all([...some.map((key) => store.put(key, bytesOf('again'))), store.delete([`${base}/0/x`, `${base}/1/x`])]);
      expect((await store.list(`${base}/`)).objects).toHaveLength(30);
    });

    test('a cancelled read says so', async () => {
      const key = fresh();
      await store.put(key, bytesOf('x'));
      expect(await codeOf(store.get(key, AbortSignal.abort()))).toMatch(/^Cancelled/);
    });

    test('faults: before, after and in the bytes', async () => {
      const faulty = new FaultyObjectStore(store, new SystemRuntime());
      const down = new CairnError('StoreUnavailable', 'down');
      const key = fresh();
      faulty.faults(() => ({ fail: down }));
      await expect(faulty.put(key, bytesOf('one'))).rejects.toBe(down);
      expect(await store.head(key)).toBeUndefined();
      faulty.faults(() => ({ failAfter: down }));
      await expect(faulty.put(key, bytesOf('one'))).rejects.toBe(down);
      expect(textOf(await store.get(key))).toBe('one');
      faulty.faults(({ operation }) =>
        operation === 'get' ? { truncate: 2 } : operation === 'getRange' ? { flip: 0, delayMs: 1 } : undefined,
      );
      expect(textOf(await faulty.get(key))).toBe('on');
      expect((await faulty.getRange(key, 0, 3))[0]).toBe(bytesOf('one')[0] ^ 1);
      faulty.faults(({ to }) => (to ? { flip: 1 } : undefined));
      const target = fresh();
      await faulty.copy(key, target);
      expect(textOf(await store.get(target))).not.toBe('one');
    });
  });
}
