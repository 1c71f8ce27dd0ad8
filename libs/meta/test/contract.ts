import { CairnError, hasCode, SystemRuntime } from '@cairn/base';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createElection, KEY_MAX_BYTES, type Lease, type MetaStore, scan, type Txn, type WatchBatch } from '../src/index.ts';
import { FaultyMetaStore, type MetaFault } from '../src/testing.ts';

/** A tenant under test. */
export interface Tenant {
  readonly store: MetaStore;
  /** The same store as another process sees it. */
  readonly other: MetaStore;
  /** Cuts a lease off from outside, as if its holder's keep-alives no longer came. */
  loseLease(lease: Lease): Promise<void>;
  /** Whether `range` reads at past revisions. */
  readonly history: boolean;
  close(): Promise<void>;
}

const runtime = new SystemRuntime();
const bytes = (text: string): Uint8Array => Buffer.from(text);
const put = (key: string, value = 'x', lease?: string) => ({
  kind: 'put' as const,
  key,
  value: bytes(value),
  ...(lease === undefined ? {} : { lease }),
});
const text = (value: Uint8Array | undefined): string | undefined => value && Buffer.from(value).toString();

/** Reads batches of a watch one by one, and the state they add up to. */
export class WatchReader {
  readonly state = new Map<string, string>();
  readonly batches: WatchBatch[] = [];
  readonly #stop = new AbortController();
  readonly #iterator: AsyncIterator<WatchBatch>;

  constructor(store: MetaStore, prefix: string) {
    this.#iterator = store.watch(prefix, this.#stop.signal)[Symbol.asyncIterator]();
  }

  async next(): Promise<WatchBatch> {
    const { value, done } = await this.#iterator.next();
    if (done) throw new Error('watch ended');
    const batch: WatchBatch = value;
    this.batches.push(batch);
    if (batch.kind === 'reset') {
      this.state.clear();
      for (const entry of batch.entries) this.state.set(entry.key, text(entry.value) ?? '');
    } else {
      for (const event of batch.events) {
        if (event.kind === 'put') this.state.set(event.entry.key, text(event.entry.value) ?? '');
        else this.state.delete(event.key);
      }
    }
    return batch;
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await this.next();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#iterator.return?.();
  }
}

export function metaStoreContract(name: string, open: () => Promise<Tenant>): void {
  describe(`MetaStore contract: ${name}`, () => {
    let tenant: Tenant;
    let store: MetaStore;
    let count = 0;
    const fresh = (): string => `t${count++}/`;

    beforeAll(async () => {
      tenant = await open();
      store = tenant.store;
    });
    afterAll(async () => tenant?.close());

    test('a transaction runs then or else, and what it answers is what is stored', async () => {
      const at = fresh();
      const first = await store.txn({ if: [{ kind: 'missing', key: `${at}a` }], then: [put(`${at}a`, '1')], else: [put(`${at}b`, '2')] });
      expect(first.succeeded).toBe(true);
      const a = await store.get(`${at}a`);
      expect(a).toMatchObject({ key: `${at}a`, createRevision: first.revision, modRevision: first.revision });
      expect(text(a?.value)).toBe('1');
      const second = await store.txn({
        if: [{ kind: 'missing', key: `${at}a` }],
        then: [put(`${at}c`)],
        else: [put(`${at}a`, '3'), put(`${at}b`, '2')],
      });
      expect(second.succeeded).toBe(false);
      expect(second.revision).toBeGreaterThan(first.revision);
      expect(await store.get(`${at}c`)).toBeUndefined();
      expect(await tenant.other.get(`${at}a`)).toMatchObject({ createRevision: first.revision, modRevision: second.revision });
    });

    test('gets answer in order, also for missing keys, and see the ops before them', async () => {
      const at = fresh();
      await store.txn({ then: [put(`${at}a`, '1')] });
      const result = await store.txn({
        then: [{ kind: 'get', key: `${at}a` }, put(`${at}b`, '2'), { kind: 'get', key: `${at}none` }, { kind: 'get', key: `${at}b` }],
      });
      expect(result.gets.map((entry) => text(entry?.value))).toEqual(['1', undefined, '2']);
    });

    test('every kind of compare, on a key that is there and on one that is not', async () => {
      const at = fresh();
      const { revision } = await store.txn({ then: [put(`${at}a`, '1')] });
      const { revision: changed } = await store.txn({ then: [put(`${at}a`, '2')] });
      const holds = async (compare: NonNullable<Txn['if']>[number]) => (await store.txn({ if: [compare], then: [] })).succeeded;
      const there = `${at}a`;
      const not = `${at}none`;
      expect(await holds({ kind: 'exists', key: there })).toBe(true);
      expect(await holds({ kind: 'exists', key: not })).toBe(false);
      expect(await holds({ kind: 'missing', key: there })).toBe(false);
      expect(await holds({ kind: 'missing', key: not })).toBe(true);
      expect(await holds({ kind: 'createRevision', key: there, equals: revision })).toBe(true);
      expect(await holds({ kind: 'createRevision', key: there, equals: changed })).toBe(false);
      expect(await holds({ kind: 'createRevision', key: not, equals: 0 })).toBe(true);
      expect(await holds({ kind: 'modRevision', key: there, equals: changed })).toBe(true);
      expect(await holds({ kind: 'modRevision', key: there, equals: revision })).toBe(false);
      expect(await holds({ kind: 'modRevision', key: not, equals: 0 })).toBe(true);
      expect(await holds({ kind: 'value', key: there, equals: bytes('2') })).toBe(true);
      expect(await holds({ kind: 'value', key: there, equals: bytes('1') })).toBe(false);
      expect(await holds({ kind: 'value', key: not, equals: bytes('') })).toBe(false);
    });

    test('of many racing compare-and-puts on one key exactly one wins', async () => {
      const key = `${fresh()}a`;
      const results = await Promise.all(
        Array.from({ length: 50 }, (_, index) =>
          (index % 2 ? store : tenant.other).txn({ if: [{ kind: 'missing', key }], then: [put(key, String(index))] }),
        ),
      );
      expect(results.filter((result) => result.succeeded)).toHaveLength(1);
      expect(text((await store.get(key))?.value)).toBe(String(results.findIndex((result) => result.succeeded)));
    });

    test('deletePrefix deletes exactly the prefix; a key made again is a new one', async () => {
      const at = fresh();
      await store.txn({ then: [put(`${at}p/1`), put(`${at}p/2`), put(`${at}p`), put(`${at}p0`)] });
      await store.txn({ then: [{ kind: 'deletePrefix', prefix: `${at}p/` }] });
      expect((await store.range({ prefix: at })).entries.map((entry) => entry.key)).toEqual([`${at}p`, `${at}p0`]);
      const { revision } = await store.txn({ then: [put(`${at}p/1`)] });
      expect((await store.get(`${at}p/1`))?.createRevision).toBe(revision);
    });

    test('a transaction over the limits, or that writes a key twice, is a programming error and changes nothing', async () => {
      const at = fresh();
      const refused = async (txn: Txn) => {
        const error = await store.txn(txn).then(
          () => undefined,
          (failure: unknown) => failure,
        );
        expect(hasCode(error, 'Internal')).toBe(true);
      };
      await refused({ then: Array.from({ length: 101 }, (_, index) => put(`${at}${index}`)) });
      await refused({ if: [{ kind: 'missing', key: at }], then: Array.from({ length: 100 }, (_, index) => put(`${at}${index}`)) });
      await refused({ then: [{ kind: 'put', key: `${at}a`, value: new Uint8Array(1_000_000) }] });
      await refused({ then: [put(`${at}a`), put(`${at}a`)] });
      await refused({ then: [put(`${at}a`), { kind: 'delete', key: `${at}a` }] });
      await refused({ then: [put(`${at}a`), { kind: 'deletePrefix', prefix: at }] });
      await refused({ then: [put('k'.repeat(KEY_MAX_BYTES + 1))] });
      expect((await store.range({ prefix: at })).entries).toEqual([]);
      await store.txn({ then: Array.from({ length: 100 }, (_, index) => put(`${at}${index}`, 'y'.repeat(9900))) });
      expect((await store.range({ prefix: at })).entries).toHaveLength(100);
    });

    test('a range comes in pages, in key order, each page below its limits', async () => {
      const at = fresh();
      for (let page = 0; page < 13; page++) {
        await store.txn({
          then: Array.from({ length: 90 }, (_, index) => put(`${at}${String(page * 90 + index).padStart(5, '0')}`, 'v'.repeat(10))),
        });
      }
      const first = await store.range({ prefix: at, limit: 400 });
      expect([first.entries.length, first.more, first.entries[0].key]).toEqual([400, true, `${at}00000`]);
      const rest = await store.range({ prefix: at, after: `${at}01100`, limit: 400, revision: first.revision });
      expect([rest.entries.length, rest.more, rest.entries[0].key]).toEqual([69, false, `${at}01101`]);
      const keys: string[] = [];
      for await (const entries of scan(store, at, 100)) keys.push(...entries.map((entry) => entry.key));
      expect(keys).toEqual(Array.from({ length: 1170 }, (_, index) => `${at}${String(index).padStart(5, '0')}`));
      expect((await store.range({ prefix: `${at}9` })).entries).toEqual([]);
      expect(await store.range({ prefix: at, after: `${at}01169` })).toMatchObject({ entries: [], more: false });
    });

    test('large values: a page ends before 2 MB, and all of them can be read', async () => {
      const at = fresh();
      for (let index = 0; index < 8; index++)
        await store.txn({ then: [{ kind: 'put', key: `${at}${index}`, value: new Uint8Array(900_000).fill(index) }] });
      const page = await store.range({ prefix: at });
      expect([page.entries.length, page.more]).toEqual([2, true]);
      let read = 0;
      for await (const entries of scan(store, at)) for (const entry of entries) expect(entry.value[899_999]).toBe(read++);
      expect(read).toBe(8);
      await store.txn({ then: [{ kind: 'deletePrefix', prefix: at }] });
    });

    test('paging at a revision shows the state of that revision, where the tenant has history', async ({ skip }) => {
      if (!tenant.history) skip('this tenant keeps no history');
      const at = fresh();
      const { revision } = await store.txn({ then: [put(`${at}a`, 'old'), put(`${at}b`, 'old')] });
      await store.txn({ then: [put(`${at}a`, 'new'), { kind: 'delete', key: `${at}b` }] });
      const page = await store.range({ prefix: at, revision });
      expect(page.entries.map((entry) => text(entry.value))).toEqual(['old', 'old']);
      expect(page.revision).toBe(revision);
    });

    test('a watch begins with the state, then tells each transaction whole and in order', async () => {
      const at = fresh();
      const before = await store.txn({ then: [put(`${at}a`, '1')] });
      const reader = new WatchReader(tenant.other, at);
      const reset = await reader.next();
      expect(reset.kind).toBe('reset');
      expect(reset.revision).toBeGreaterThanOrEqual(before.revision);
      expect([...reader.state]).toEqual([[`${at}a`, '1']]);
      const one = await store.txn({
        then: [put(`${at}b`, '2'), { kind: 'delete', key: `${at}a` }, put(`${at}c`, '3'), put(`other${at}`, 'no')],
      });
      const two = await store.txn({ then: [put(`${at}b`, '4')] });
      await store.txn({ then: [{ kind: 'delete', key: `${at}missing` }] });
      const first = await reader.next();
      expect(
        first.kind === 'events' && first.events.map((event) => (event.kind === 'put' ? `put ${event.entry.key}` : `delete ${event.key}`)),
      ).toEqual([`put ${at}b`, `delete ${at}a`, `put ${at}c`]);
      const second = await reader.next();
      expect([first.revision, second.revision]).toEqual([one.revision, two.revision]);
      expect(Object.fromEntries(reader.state)).toEqual({ [`${at}b`]: '4', [`${at}c`]: '3' });
      await reader.stop();
    });

    test('a watch opened amid writes misses none and tells none twice', async () => {
      const at = fresh();
      let running = true;
      const writer = (async () => {
        let index = 0;
        while (running) {
          await store.txn({
            then: [put(`${at}${String(index++ % 50).padStart(3, '0')}`, String(index)), put(`${at}count`, String(index))],
          });
          // A memory tenant answers without giving timers a turn.
          if (index % 10 === 0) await runtime.sleep(0);
        }
        return index;
      })();
      const readers = Array.from({ length: 5 }, () => new WatchReader(store, at));
      for (const reader of readers) await reader.next();
      await runtime.sleep(100);
      running = false;
      const last = String(await writer);
      for (const reader of readers) {
        await reader.until(() => reader.state.get(`${at}count`) === last);
        const revisions = reader.batches.map((batch) => batch.revision);
        expect(revisions).toEqual([...new Set(revisions)].sort((a, b) => a - b));
        await reader.stop();
      }
      const stored = Object.fromEntries((await store.range({ prefix: at })).entries.map((entry) => [entry.key, text(entry.value)]));
      for (const reader of readers) expect(Object.fromEntries(reader.state)).toEqual(stored);
    });

    test('a consumer that reads slowly is reset when more than 10,000 events would wait, and ends with the right state', async () => {
      const at = fresh();
      const reader = new WatchReader(store, at);
      await reader.next();
      for (let round = 0; round < 110; round++) {
        await store.txn({ then: Array.from({ length: 100 }, (_, index) => put(`${at}${index}`, String(round))) });
      }
      await runtime.sleep(100);
      await reader.until(() => [...reader.state.values()].every((value) => value === '109') && reader.state.size === 100);
      expect(reader.batches.length).toBeLessThan(110);
      await reader.stop();
    });

    test('a watch ends when its signal aborts, also while it waits', async () => {
      const stop = new AbortController();
      const ended = (async () => {
        for await (const batch of store.watch(fresh(), stop.signal)) expect(batch.kind).toBe('reset');
      })();
      await runtime.sleep(20);
      stop.abort();
      await ended;
    });

    test('a lease that is kept alive lives longer than its ttl, and revoking deletes its keys at once', async () => {
      const at = fresh();
      const lease = await store.grantLease(2000);
      await store.txn({ then: [put(`${at}a`, 'x', lease.id), put(`${at}b`)] });
      expect(lease.validUntil()).toBeGreaterThan(runtime.monotonic());
      expect(lease.validUntil()).toBeLessThanOrEqual(runtime.monotonic() + 2000);
      await runtime.sleep(2800);
      expect(lease.lost.aborted).toBe(false);
      expect(lease.validUntil()).toBeGreaterThan(runtime.monotonic());
      expect(await tenant.other.get(`${at}a`)).toBeDefined();
      await lease.revoke();
      expect(lease.lost.aborted).toBe(true);
      expect(lease.validUntil()).toBeLessThanOrEqual(runtime.monotonic());
      expect((await store.range({ prefix: at })).entries.map((entry) => entry.key)).toEqual([`${at}b`]);
      await lease.revoke();
    });

    test('a lost lease deletes its keys, aborts `lost`, and takes no more keys', async () => {
      const at = fresh();
      const lease = await store.grantLease(2000);
      await store.txn({ then: [put(`${at}a`, 'x', lease.id), put(`${at}moved`, 'x', lease.id)] });
      await store.txn({ then: [put(`${at}moved`, 'free')] });
      const reader = new WatchReader(tenant.other, at);
      await reader.next();
      const lost = new Promise((resolve) => lease.lost.addEventListener('abort', resolve));
      await tenant.loseLease(lease);
      await reader.until(() => !reader.state.has(`${at}a`));
      await lost;
      expect([...reader.state.keys()]).toEqual([`${at}moved`]);
      await expect(store.txn({ then: [put(`${at}b`, 'x', lease.id)] })).rejects.toMatchObject({ codeName: 'Unavailable' });
      expect(await store.get(`${at}b`)).toBeUndefined();
      await reader.stop();
    });

    test('of two candidates one leads; when it is deposed the other leads, and the first one can change nothing', async () => {
      const key = `${fresh()}leader`;
      const never = new AbortController().signal;
      const [one, two] = [createElection(store, runtime, key, 2000), createElection(tenant.other, runtime, key, 2000)];
      const first = await one.campaign(bytes('one'), never);
      let second: Awaited<ReturnType<typeof two.campaign>> | undefined;
      const waiting = two.campaign(bytes('two'), never).then((leadership) => {
        second = leadership;
      });
      await runtime.sleep(150);
      expect(second).toBeUndefined();
      expect((await store.txn({ if: [first.holds], then: [put(`${key}-work`, 'one')] })).succeeded).toBe(true);
      await tenant.loseLease(first.lease);
      await waiting;
      expect(text((await store.get(key))?.value)).toBe('two');
      expect((await store.txn({ if: [first.holds], then: [put(`${key}-work`, 'late')] })).succeeded).toBe(false);
      expect(second && (await tenant.other.txn({ if: [second.holds], then: [put(`${key}-work`, 'two')] })).succeeded).toBe(true);
      await first.resign();
      expect(text((await store.get(key))?.value)).toBe('two');
      await second?.resign();
      expect(await store.get(key)).toBeUndefined();
    });

    test('a campaign is cancelled by its signal and leaves nothing behind', async () => {
      const key = `${fresh()}leader`;
      const leadership = await createElection(store, runtime, key, 2000).campaign(bytes('one'), new AbortController().signal);
      const stop = new AbortController();
      const campaign = createElection(tenant.other, runtime, key, 2000).campaign(bytes('two'), stop.signal);
      await runtime.sleep(50);
      stop.abort();
      await expect(campaign).rejects.toMatchObject({ codeName: 'Cancelled' });
      await leadership.resign();
      await runtime.sleep(50);
      expect(await store.get(key)).toBeUndefined();
    });

    test('a lost answer during a campaign does not make a leader that nobody is', async () => {
      const key = `${fresh()}leader`;
      let faults = 1;
      const faulty = new FaultyMetaStore(store, runtime, ({ method }): MetaFault | undefined =>
        method === 'txn' && faults-- > 0 ? { kind: 'timeoutAfter' } : undefined,
      );
      const leadership = await createElection(faulty, runtime, key, 2000).campaign(bytes('one'), new AbortController().signal);
      expect((await store.txn({ if: [leadership.holds], then: [] })).succeeded).toBe(true);
      await leadership.resign();
    });

    test('faults: a call that fails before leaves no trace, one that times out after has happened', async () => {
      const at = fresh();
      let fault: MetaFault | undefined;
      const faulty = new FaultyMetaStore(store, runtime, () => fault);
      fault = { kind: 'failBefore' };
      await expect(faulty.txn({ then: [put(`${at}a`)] })).rejects.toMatchObject({ codeName: 'StoreUnavailable', retriable: true });
      expect(await store.get(`${at}a`)).toBeUndefined();
      fault = { kind: 'timeoutAfter' };
      await expect(faulty.txn({ then: [put(`${at}a`)] })).rejects.toBeInstanceOf(CairnError);
      expect(await store.get(`${at}a`)).toBeDefined();
      fault = { kind: 'delay', ms: 30 };
      const begin = runtime.monotonic();
      await faulty.get(`${at}a`);
      expect(runtime.monotonic() - begin).toBeGreaterThan(25);
    });

    test('faults: a watch that is cut begins again with the state', async () => {
      const at = fresh();
      let cut = false;
      let cuts = 0;
      const faulty = new FaultyMetaStore(store, runtime, ({ method }) => {
        if (!cut || method !== 'watch') return undefined;
        cuts++;
        return { kind: 'failBefore' };
      });
      const reader = new WatchReader(faulty, at);
      await reader.next();
      cut = true;
      const next = reader.next();
      await store.txn({ then: [put(`${at}a`, '1')] });
      // The news may take its time on a busy machine.
      for (let tries = 0; cuts === 0 && tries < 500; tries++) await runtime.sleep(10);
      cut = false;
      await store.txn({ then: [put(`${at}b`, '2')] });
      await next;
      await reader.until(() => reader.state.size === 2);
      expect(reader.batches.filter((batch) => batch.kind === 'reset').length).toBeGreaterThan(1);
      await reader.stop();
    });
  });
}
