/**
 * Appends of one owner to its channel, durable: embedded (LMDB) and nats-server with `sync_interval: always`, one by one and pipelined.
 *   node tests/bench/wal.bench.ts [records of 1 KB] [records of 900 KB]
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SystemRuntime, silentLogger } from '@cairn/base';
import { LmdbWalStore, openChannelWriter, type WalStore } from '@cairn/wal';
import { JetStreamWalStore } from '@cairn/wal/jetstream';
import { serversAvailable, startNats } from '../support/servers.ts';
import { printTable, quantile, type Row, round } from './support/table.ts';

const small = Number(process.argv[2] ?? 50_000);
const large = Number(process.argv[3] ?? 300);
const ONE_BY_ONE = 300;
/** Calls whose answer the benchmark awaits together; the writer itself keeps at most 64 at the store. */
const CALLERS = 2000;
const runtime = new SystemRuntime();
const options = { runtime, logger: silentLogger };
const rows: Row[] = [];
let channels = 0;

async function measure(name: string, store: WalStore, bytes: number, count: number): Promise<void> {
  const channel = `bench${channels++}`;
  await store.ensureChannel(channel);
  const writer = await openChannelWriter(store, channel, 1, options);
  const entries = [{ subject: 'ins.bench', payload: new Uint8Array(bytes).fill(7) }];
  const single: number[] = [];
  for (let i = 0; i < Math.min(ONE_BY_ONE, count); i++) {
    const from = performance.now();
    await writer.append(entries);
    single.push(performance.now() - from);
  }
  const callers = Math.min(CALLERS, Math.floor((64 << 20) / bytes));
  const cpu = process.cpuUsage();
  const from = performance.now();
  let left = count;
  await Promise.all(
    Array.from({ length: callers }, async () => {
      while (left-- > 0) await writer.append(entries);
    }),
  );
  const seconds = (performance.now() - from) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const megabytes = (count * bytes) / 1e6;
  const before = performance.now();
  let read = 0;
  for await (const batch of writer.replay(1, writer.lastSequence))
    read += batch.reduce((sum, record) => sum + record.payload.byteLength, 0);
  const replay = read / 1e6 / ((performance.now() - before) / 1000);
  rows.push({
    store: name,
    record: `${Math.round(bytes / 1024)} KB`,
    'one by one p50 ms': round(quantile(single, 0.5), 2),
    'p99 ms': round(quantile(single, 0.99), 2),
    'pipelined /s': round(count / seconds, 0),
    'MB/s': round(megabytes / seconds, 1),
    'CPU s/MB': round((user + system) / 1e6 / megabytes, 4),
    'replay MB/s': round(replay, 0),
  });
  writer.close();
  await store.deleteChannel(channel);
}

const path = mkdtempSync(join(tmpdir(), 'cairn-wal-bench-'));
const lmdb = new LmdbWalStore({ path, logger: silentLogger });
await measure('LMDB', lmdb, 1024, small);
await measure('LMDB', lmdb, 900 << 10, large);
await lmdb.close();
rmSync(path, { recursive: true });

const available = await serversAvailable('nats');
for (const replicas of available.ok ? ([1, 3] as const) : []) {
  const nats = await startNats({ replicas });
  const store = await JetStreamWalStore.open({ servers: nats.servers, replicas, ...options });
  await measure(`JetStream R${replicas}`, store, 1024, Math.ceil(small / 10));
  await measure(`JetStream R${replicas}`, store, 900 << 10, Math.ceil(large / 3));
  await store.close();
  await nats.stop();
}

printTable('Appends of one owner, durable (CPU of this process)', rows);
