import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { SystemRuntime } from '@cairn/base';
import { Etcd3 } from 'etcd3';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { serversAvailable } from '../../../tests/support/servers.ts';
import { EtcdMetaStore } from '../src/etcd-meta-store.ts';
import { metaStoreContract, WatchReader } from './contract.ts';
import { type RestartableEtcd, startDurableEtcd } from './etcd-server.ts';

const runtime = new SystemRuntime();

/** Begins with the first of several. */
class FirstRuntime extends SystemRuntime {
  override random(): number {
    return 0;
  }
}

/** Passes bytes on to an address until it is told to be silent: connections stay, nothing comes through. */
async function startRelay(target: string): Promise<{ endpoint: string; freeze(): void; stop(): void }> {
  const { hostname, port } = new URL(target);
  const sockets: Socket[] = [];
  const relay = createServer((near) => {
    const far = connect(Number(port), hostname);
    sockets.push(near, far);
    for (const socket of [near, far]) socket.on('error', () => undefined);
    near.pipe(far);
    far.pipe(near);
  });
  await new Promise<void>((resolve) => relay.listen(0, '127.0.0.1', resolve));
  return {
    endpoint: `127.0.0.1:${(relay.address() as AddressInfo).port}`,
    freeze: () => {
      relay.removeAllListeners('connection');
      for (const socket of sockets) socket.unpipe().pause();
    },
    stop: () => {
      for (const socket of sockets) socket.destroy();
      relay.unref().close();
    },
  };
}
const available = await serversAvailable('etcd');

describe.skipIf(!available.ok)(`etcd ${available.reason}`, () => {
  let server: RestartableEtcd;
  beforeAll(async () => {
    server = await startDurableEtcd();
  });
  afterAll(async () => server?.stop());

  metaStoreContract('etcd', async () => {
    const store = new EtcdMetaStore({ endpoints: server.endpoints, prefix: 'contract/' }, runtime);
    const other = new EtcdMetaStore({ endpoints: server.endpoints, prefix: 'contract/' }, runtime);
    const raw = new Etcd3({ hosts: [...server.endpoints] });
    return {
      store,
      other,
      history: true,
      loseLease: async (lease) => {
        await raw.leaseClient.leaseRevoke({ ID: lease.id });
      },
      close: async () => {
        await store.close();
        await other.close();
        raw.close();
      },
    };
  });

  describe('EtcdMetaStore', () => {
    const put = (key: string, value: string) => ({ kind: 'put' as const, key, value: Buffer.from(value) });
    const open = (prefix: string, callTimeoutMs = 5000) =>
      new EtcdMetaStore({ endpoints: server.endpoints, prefix, callTimeoutMs }, runtime);
    const compact = async () => {
      const raw = new Etcd3({ hosts: [...server.endpoints] });
      const { header } = await raw.kv.range({ key: Buffer.from('x') });
      await raw.kv.compact({ revision: header.revision, physical: true });
      raw.close();
    };

    test('a watch that was cut off while etcd restarted goes on with what happened meanwhile', async () => {
      const store = open('cut/');
      await store.txn({ then: [put('a', '1')] });
      const reader = new WatchReader(store, '');
      await reader.next();
      await server.kill();
      await server.restart();
      const writer = open('cut/');
      await writer.txn({ then: [put('b', '2')] });
      await reader.until(() => reader.state.has('b'));
      expect(reader.batches.filter((batch) => batch.kind === 'reset')).toHaveLength(1);
      await reader.stop();
      await Promise.all([store.close(), writer.close()]);
    });

    test('a watch whose place was compacted away is reset, and ends with the right state', async () => {
      const store = open('compact/');
      await store.txn({ then: [put('a', '1'), put('gone', '1')] });
      const reader = new WatchReader(store, '');
      await reader.next();
      // The stream opens at the next read: until then the revision it wants to begin with is compacted away.
      for (let index = 0; index < 20; index++) await store.txn({ then: [put('a', String(index)), put(`k${index}`, 'x')] });
      await store.txn({ then: [{ kind: 'delete', key: 'gone' }] });
      await compact();
      expect((await reader.next()).kind).toBe('reset');
      expect([reader.state.get('a'), reader.state.has('gone'), reader.state.size]).toEqual(['19', false, 21]);
      await store.txn({ then: [put('a', 'after')] });
      await reader.until(() => reader.state.get('a') === 'after');
      expect(reader.batches.map((batch) => batch.kind)).toEqual(['reset', 'reset', 'events']);
      await reader.stop();
      await store.close();
    });

    test('a range at a compacted revision says Unavailable', async () => {
      const store = open('old/');
      const { revision } = await store.txn({ then: [put('a', '1')] });
      await store.txn({ then: [put('a', '2')] });
      await compact();
      await expect(store.range({ prefix: '', revision })).rejects.toMatchObject({ codeName: 'Unavailable' });
      await store.close();
    });

    test('while etcd is down calls fail retriable within their deadline and leases end in time; all goes on when it is back', async () => {
      const store = open('down/', 1000);
      await store.txn({ then: [put('a', '1')] });
      const lease = await store.grantLease(2000);
      await server.kill();
      const begin = runtime.monotonic();
      const calls = [
        store.get('a'),
        store.txn({ then: [put('a', '2')] }),
        store.range({ prefix: '' }),
        store.grantLease(2000),
        store.ping(),
      ];
      await Promise.all(calls.map((call) => expect(call).rejects.toMatchObject({ codeName: 'StoreUnavailable', retriable: true })));
      expect(runtime.monotonic() - begin).toBeLessThan(3000);
      if (!lease.lost.aborted) await new Promise((resolve) => lease.lost.addEventListener('abort', resolve));
      expect(runtime.monotonic() - begin).toBeLessThan(2500);
      await server.restart();
      expect(Buffer.from((await store.get('a'))?.value ?? []).toString()).toBe('1');
      await store.close();
    });

    test('a short outage of etcd does not cost a lease', async () => {
      const store = open('short/');
      const lease = await store.grantLease(6000);
      await store.txn({ then: [{ ...put('a', '1'), lease: lease.id }] });
      await server.kill();
      await runtime.sleep(500);
      await server.restart();
      await runtime.sleep(7000);
      expect(lease.lost.aborted).toBe(false);
      expect(await store.get('a')).toBeDefined();
      await lease.revoke();
      await store.close();
    });

    test('a lease that rides out outages is invalid while etcd is away for longer than its life, and the same lease again when it is back', async () => {
      const store = open('rides/');
      const lease = await store.grantLease(2000, { ridesOutages: true });
      const { revision } = await store.txn({ then: [{ ...put('a', '1'), lease: lease.id }] });
      await server.kill();
      while (runtime.monotonic() < lease.validUntil() + 1500) await runtime.sleep(50);
      expect(lease.lost.aborted).toBe(false);
      await server.restart();
      while (lease.validUntil() <= runtime.monotonic()) await runtime.sleep(20);
      expect(await store.get('a')).toMatchObject({ createRevision: revision });
      const raw = new Etcd3({ hosts: [...server.endpoints] });
      await raw.leaseClient.leaseRevoke({ ID: lease.id });
      raw.close();
      if (!lease.lost.aborted) await new Promise((resolve) => lease.lost.addEventListener('abort', resolve));
      expect(lease.validUntil()).toBe(0);
      await store.close();
    });

    test('a member that takes connections and never answers, or takes none, is passed over: calls, watches and leases go by another', async () => {
      const silent = createServer((socket) => socket.on('error', () => undefined));
      await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
      const { port } = silent.address() as AddressInfo;
      const [good = ''] = server.endpoints;
      for (const bad of [`127.0.0.1:${port}`, '127.0.0.1:1']) {
        // Begins with the bad one.
        const store = new EtcdMetaStore({ endpoints: [bad, good], prefix: 'hung/', callTimeoutMs: 2000 }, new FirstRuntime());
        const reader = new WatchReader(store, '');
        const lease = await store.grantLease(3000);
        expect((await reader.next()).kind).toBe('reset');
        await store.txn({ then: [{ ...put(`key of ${bad}`, '1'), lease: lease.id }] });
        await reader.until(() => reader.state.has(`key of ${bad}`));
        expect(lease.lost.aborted).toBe(false);
        await lease.revoke();
        await reader.stop();
        await store.close();
      }
      silent.unref().close();
    });

    test('a member that falls silent is left: what was watched goes on by another, and the lease lives', async () => {
      const relay = await startRelay(server.endpoints[0] ?? '');
      const store = new EtcdMetaStore({ endpoints: [relay.endpoint, server.endpoints[0] ?? ''], prefix: 'silent/' }, new FirstRuntime());
      const lease = await store.grantLease(6000);
      const reader = new WatchReader(store, '');
      await reader.next();
      relay.freeze();
      const writer = open('silent/');
      await writer.txn({ then: [put('after', '1')] });
      await reader.until(() => reader.state.has('after'));
      expect(reader.batches.filter((batch) => batch.kind === 'reset')).toHaveLength(1);
      await store.txn({ then: [put('and', '2')] });
      expect(lease.lost.aborted).toBe(false);
      await reader.stop();
      await Promise.all([store.close(), writer.close()]);
      relay.stop();
    });

    test('an address where nothing listens: StoreUnavailable, not a hang', async () => {
      const store = new EtcdMetaStore({ endpoints: ['127.0.0.1:1'], callTimeoutMs: 500 }, runtime);
      const begin = runtime.monotonic();
      await expect(store.get('a')).rejects.toMatchObject({ codeName: 'StoreUnavailable' });
      await expect(store.txn({ then: [] })).rejects.toMatchObject({ codeName: 'StoreUnavailable' });
      expect(runtime.monotonic() - begin).toBeLessThan(2000);
      await store.close();
    });
  });
});
