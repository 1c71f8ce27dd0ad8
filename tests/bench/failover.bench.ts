/**
 * Longest wait of a write (20 a second) and of a read (10 a second) while parts of a cluster of local processes end and come.
 *   node tests/bench/failover.bench.ts [rounds] [etcd]     etcd: only its absence; FAILOVER_DIR=keeps the logs
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { SystemRuntime } from '@cairn/base';
import { AdminDefinition } from '@cairn/proto/cairn/admin';
import { GrpcTransport } from '@cairn/rpc';
import { SteadyReader } from '../k8s/steady-reader.ts';
import { SteadyWriter } from '../k8s/steady-writer.ts';
import { startCluster } from '../support/cairn.ts';
import type { ServerProcess } from '../support/servers.ts';
import { printTable, type Row } from './support/table.ts';

const rounds = Number(process.argv[2] ?? 2);
/** Longer than a fail-over may take. */
const SETTLE_MS = 8_000;
/** A node that joined has its share of channels after this. */
const BALANCE_MS = 9_000;
/** Three times the life of a lease, and more. */
const ETCD_AWAY_MS = 10_000;

const dir = process.env['FAILOVER_DIR'];
const cluster = await startCluster({ proxies: 1, ...(dir ? { dir } : {}) });
const [address = ''] = cluster.addresses;
const transport = new GrpcTransport(new SystemRuntime(), { timeoutMs: 10_000 });
const find = (name: string): ServerProcess => {
  const server = cluster.all().find((each) => each.name === name);
  if (!server) throw new Error(`no process ${name}`);
  return server;
};
async function status(): Promise<{ leader: string; owners: string[] }> {
  const { cluster: now } = await transport.client(AdminDefinition, address).getStatus({});
  return {
    leader: now?.leader?.nodeId ?? '',
    owners: [...new Set(now?.channels.map(({ nodeId }) => nodeId))].filter((id) => id !== '').sort(),
  };
}

const results: Row[] = [];
const writer = new SteadyWriter(async () => address, 'steady');
const reader = new SteadyReader(async () => address, 'steady');
async function measured(what: string, settleMs: number, work: () => Promise<void>): Promise<void> {
  writer.takeWorst();
  reader.takeWorst();
  await work();
  await sleep(settleMs);
  const row = { what, 'write ms': writer.takeWorst(), 'read ms': reader.takeWorst() };
  results.push(row);
  console.log(Object.values(row).join('  '));
}

try {
  await writer.start();
  await sleep(1_000);
  await reader.start();
  await sleep(2_000);
  for (let round = 0; round < rounds; round++) {
    await measured('nothing', 3_000, async () => undefined);
    await measured(`etcd away for ${ETCD_AWAY_MS / 1000} s`, SETTLE_MS, async () => {
      await cluster.etcd.kill();
      await sleep(ETCD_AWAY_MS);
      await cluster.etcd.restart();
    });
    if (process.argv[3] === 'etcd') continue;
    const owner = find((await status()).owners[0] ?? '');
    await measured(`streaming killed (${owner.name})`, SETTLE_MS, () => owner.kill());
    await measured('streaming joins, channels are balanced', BALANCE_MS, () => owner.restart());
    const leader = find((await status()).leader);
    await measured(`leading coordinator killed (${leader.name})`, SETTLE_MS, () => leader.kill());
    await leader.restart();
    const leaving = find((await status()).owners[0] ?? '');
    await measured(`streaming stopped in good order (${leaving.name})`, 3_000, () => leaving.stop());
    await measured('it comes again', BALANCE_MS, () => leaving.restart());
    const resigning = find((await status()).leader);
    await measured(`leading coordinator stopped in good order (${resigning.name})`, 3_000, () => resigning.stop());
    await resigning.restart();
  }
  const reads = await reader.stop();
  const writes = await writer.stop();
  printTable('longest wait', results);
  console.log(
    `${writes.sent} rows sent, ${writes.refused.length} refused, ${writes.wrong} lost or doubled; ${reads.asked} reads, ${reads.refused.length} refused, ${reads.wrong.length} wrong`,
  );
  for (const words of [...new Set([...writes.refused, ...reads.refused, ...reads.wrong])].slice(0, 10)) console.log(`  ${words}`);
  for (const [words, count] of writes.retried) console.log(`  a write tried again ${count} times: ${words}`);
} finally {
  transport.close();
  await cluster.stop();
}
process.exit();
