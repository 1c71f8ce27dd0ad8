import { retry } from '@cairn/base';
import { JetStreamApiError } from '@nats-io/jetstream';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type NatsServers, serversAvailable, startNats } from '../../../tests/support/servers.ts';
import { openChannelWriter, type WalStore } from '../src/index.ts';
import { asWalError, isClusterNotReady } from '../src/jetstream-connection.ts';
import { JetStreamWalStore } from '../src/jetstream-wal.ts';
import { bytesOf, describeWal, logger, payloads, runtime } from './wal-contract.ts';

const available = await serversAvailable('nats');

const openStore = (nats: NatsServers, replicas: number, requestTimeoutMs = 5000): Promise<JetStreamWalStore> =>
  JetStreamWalStore.open({
    servers: nats.servers,
    replicas,
    monitors: nats.monitors,
    runtime,
    logger,
    requestTimeoutMs,
    followIdleMs: 200,
  });

for (const replicas of available.ok ? ([1, 3] as const) : []) {
  describeWal(`JetStreamWalStore on a real nats-server, R${replicas}`, async () => {
    const nats = await startNats({ replicas });
    return { durable: true, open: () => openStore(nats, replicas), stop: () => nats.stop() };
  });
}

describe.skipIf(!available.ok)(`JetStream${available.ok ? '' : ` (${available.reason})`}`, () => {
  test('check finds nothing to say of a server with sync_interval: always, and names one without', async () => {
    const good = await startNats();
    const bad = await startNats({ syncInterval: '2m' });
    const stores = [await openStore(good, 1), await openStore(bad, 1)];
    expect(await stores[0].check()).toEqual([]);
    expect(await stores[1].check()).toEqual([expect.stringContaining('does not run with sync_interval: always')]);
    const blind = await JetStreamWalStore.open({ servers: good.servers, runtime, logger });
    expect(await blind.check()).toEqual([expect.stringContaining('cannot be verified')]);
    for (const store of [...stores, blind]) await store.close();
    await Promise.all([good.stop(), bad.stop()]);
  }, 60_000);

  test('kill -9 of the server with appends in flight: each acknowledged record is there once, in order, and the writer goes on', async () => {
    const nats = await startNats();
    const store = await openStore(nats, 1, 1000);
    await store.ensureChannel('c');
    const writer = await openChannelWriter(store, 'c', 1, { runtime, logger });
    const acknowledged = append(writer, 300);
    await runtime.sleep(60);
    await nats.kill();
    const gone = store.append('c', 'a', bytesOf('x'), 1_000_000).catch((error: unknown) => error);
    expect(await gone).toMatchObject({ codeName: 'StoreUnavailable' });
    await nats.restart();
    await acknowledged;
    expect(await payloads(store, 'c')).toEqual(Array.from({ length: 300 }, (_, i) => `${i}`));
    await store.close();
    await nats.stop();
  }, 60_000);

  test('a store that starts before its server waits for it', async () => {
    const nats = await startNats();
    await nats.kill();
    const opening = openStore(nats, 1);
    await runtime.sleep(300);
    await nats.restart();
    const store = await opening;
    await store.ping();
    await store.close();
    await nats.stop();
  }, 60_000);
});

async function append(
  writer: { append(entries: { subject: string; payload: Uint8Array }[]): Promise<number> },
  count: number,
): Promise<void> {
  await Promise.all(
    Array.from({ length: count }, (_, i) => writer.append([{ subject: i % 2 === 0 ? 'ins.a' : 'del.a', payload: bytesOf(`${i}`) }])),
  );
}

test.each([
  [10005, 'no suitable peers for placement', true],
  [10008, 'JetStream system temporarily unavailable', true],
  [10023, 'insufficient resources', false],
  [10059, 'stream not found', false],
])('a refusal %i of JetStream (%s) is over within seconds: %s', (code, description, passes) => {
  const refusal = asWalError(new JetStreamApiError({ code: 400, err_code: code, description }), 'c', 'creation');
  expect(isClusterNotReady(refusal)).toBe(passes);
});

describe.skipIf(!available.ok)('JetStream R3 across a leader change', () => {
  let nats: NatsServers;
  let store: WalStore;

  beforeAll(async () => {
    nats = await startNats({ replicas: 3 });
    store = await openStore(nats, 3, 2000);
  }, 60_000);
  afterAll(async () => {
    await store.close();
    await nats.stop();
  }, 60_000);

  /** Making a stream of three replicas may outlast one request of 2 s on a busy machine; what is proved here comes after it. */
  const makeChannel = (channel: string): Promise<void> =>
    retry(runtime, { attempts: 15, firstDelayMs: 100, maxDelayMs: 1000 }, () => store.ensureChannel(channel));

  test('a channel asked for while most of the cluster is away is made once they are back', async () => {
    const gone = nats.members.slice(1);
    await Promise.all(gone.map((member) => member.stop()));
    // The client may have been connected to one of them: a request without an answer is no refusal, and is made again.
    const unanswered = (error: unknown): boolean => error instanceof Error && /timeout|connection/.test(error.message);
    const made = retry(runtime, { attempts: 15, firstDelayMs: 100, maxDelayMs: 1000, retriable: unanswered }, () =>
      store.ensureChannel('r1'),
    );
    await runtime.sleep(3000);
    for (const member of gone) member.launch();
    await Promise.all([...gone.map((member) => member.waitReady()), made]);
    expect(await store.state('r1')).toMatchObject({ lastSequence: 0 });
  }, 60_000);

  const leaderOf = async (channel: string): Promise<string> => {
    for (const monitor of nats.monitors) {
      const response = await fetch(`${monitor}/jsz?streams=true&leader_only=false`).catch(() => undefined);
      const text = response ? await response.text() : '';
      const found = new RegExp(`"name": ?"cairn_${channel}"[\\s\\S]*?"leader": ?"(n\\d)"`).exec(text);
      if (found?.[1]) return found[1];
    }
    throw new Error(`no leader of ${channel}`);
  };

  test('the stream leader is killed with pipelined appends in flight: acknowledged is exactly once in the log and for a follower', async () => {
    for (const channel of ['k1']) {
      await makeChannel(channel);
      const writer = await openChannelWriter(store, channel, 1, { runtime, logger });
      const stop = new AbortController();
      const followed: number[] = [];
      const following = (async () => {
        for await (const batch of store.follow(channel, { from: 1, subject: 'del.a', signal: stop.signal })) {
          followed.push(...batch.map((record) => record.sequence));
          if (followed.length >= 300) return;
        }
      })();
      const acknowledged = append(writer, 600);
      await runtime.sleep(30);
      const leader = await leaderOf(channel);
      const member = nats.members.find((each) => each.name === leader);
      await member?.kill();
      await acknowledged;
      expect(await payloads(store, channel)).toEqual(Array.from({ length: 600 }, (_, i) => `${i}`));
      expect(writer.deposed.aborted).toBe(false);
      await following;
      stop.abort();
      expect(followed).toEqual(Array.from({ length: 300 }, (_, i) => writer.fenceSequence + 2 * i + 2));
      await member?.restart();
    }
  }, 120_000);

  test('a new owner that takes over while the leader changes deposes the old one, and what the old one heard acknowledged is replayed', async () => {
    const channel = 'k3';
    await makeChannel(channel);
    const old = await openChannelWriter(store, channel, 1, { runtime, logger });
    const heard: string[] = [];
    const writing = Promise.allSettled(
      Array.from({ length: 400 }, async (_, i) => {
        await old.append([{ subject: 'ins.a', payload: bytesOf(`${i}`) }]);
        heard.push(`${i}`);
      }),
    );
    await runtime.sleep(20);
    const leader = await leaderOf(channel);
    const member = nats.members.find((each) => each.name === leader);
    const killed = member?.kill();
    const other = await openStore(nats, 3, 2000);
    const next = await openChannelWriter(other, channel, 2, { runtime, logger });
    await killed;
    await next.append([{ subject: 'ins.a', payload: bytesOf('next') }]);
    await writing;
    const all = await payloads(other, channel);
    expect(all.at(-1)).toBe('next');
    const before = all.slice(0, -1);
    expect(before).toEqual(Array.from({ length: before.length }, (_, i) => `${i}`));
    expect(before.length).toBeGreaterThanOrEqual(heard.length);
    await member?.restart();
    await other.close();
  }, 120_000);
});
