/**
 * CreateSnapshot of a flushed collection, restore and clone of it, restore of an empty one: p50 and p99 as the SDK sees them.
 *   node tests/bench/snapshot.bench.ts [standalone|cluster] [how many]
 */
import { SystemRuntime } from '@cairn/base';
import { AdminDefinition } from '@cairn/proto/cairn/admin';
import { RestoreJobState } from '@cairn/proto/cairn/meta';
import { GrpcTransport } from '@cairn/rpc';
import { MilvusClient } from '@zilliz/milvus2-sdk-node';
import { startCluster, startStandalone } from '../support/cairn.ts';
import { seeded } from '../support/workload.ts';
import { runLoad } from './support/load.ts';
import { clusteredVectors, createCollection, insertRequest, PATH, settleAndLoad } from './support/requests.ts';
import { printTable, quantile, round } from './support/table.ts';

const mode = process.argv[2] ?? 'standalone';
const count = Number(process.argv[3] ?? 50);
const DIM = 128;
const RESTORES = 10;
const POLL_MS = 2;
const server = mode === 'cluster' ? await startCluster() : await startStandalone();
try {
  const address = 'addresses' in server ? (server.addresses[0] ?? '') : server.address;
  const fill = async (name: string, rows: number, shards: number): Promise<void> => {
    await createCollection(address, name, DIM, { shards });
    const vectors = clusteredVectors(rows, DIM, seeded(1));
    await runLoad({
      address,
      path: `${PATH}Insert`,
      requests: [Buffer.from(insertRequest(name, 0, vectors, DIM)).toString('base64')],
      connections: 1,
      depth: 1,
      once: true,
      durationMs: 0,
    });
    await settleAndLoad(address, name);
  };
  await fill('bench', 20_000, 2);
  await fill('one', 2_000, 1);
  const client = new MilvusClient({ address });
  await client.connectPromise;
  const transport = new GrpcTransport(new SystemRuntime(), { timeoutMs: 60_000 });
  const admin = transport.client(AdminDefinition, address);
  const create: number[] = [];
  const restore: number[] = [];
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    const status = await client.createSnapshot({ collection_name: 'bench', snapshot_name: `s${i}` });
    if (status.error_code !== 'Success') throw new Error(status.reason);
    create.push(performance.now() - start);
  }
  /** From the call to Completed, polled every few ms. */
  const restored = async (mode: 'copy' | 'reference', source: string, snapshot: string, target: string): Promise<number> => {
    const start = performance.now();
    const { jobId } = await admin.restoreSnapshot({
      restore: {
        snapshot: { database: '', collection: source, name: snapshot, id: 0 },
        targetDatabase: '',
        targetCollection: target,
        noIndex: false,
        shards: 0,
        rewriteData: false,
        mode,
        requestId: '',
        partitions: [],
      },
      dryRun: false,
    });
    for (;;) {
      const job = await admin.getRestoreJob({ jobId });
      if (job.state === RestoreJobState.RESTORE_COMPLETED) return performance.now() - start;
      if (job.state > RestoreJobState.RESTORE_COMPLETED) throw new Error(job.reason);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
  };
  await createCollection(address, 'nothing', DIM);
  await client.createSnapshot({ collection_name: 'nothing', snapshot_name: 's0' });
  await client.createSnapshot({ collection_name: 'one', snapshot_name: 's0' });
  const one: number[] = [];
  const clone: number[] = [];
  const empty: number[] = [];
  for (let i = 0; i < Math.min(RESTORES, count); i++) {
    restore.push(await restored('copy', 'bench', `s${i}`, `restored${i}`));
    clone.push(await restored('reference', 'bench', `s${i}`, `clone${i}`));
    one.push(await restored('copy', 'one', 's0', `one${i}`));
    empty.push(await restored('copy', 'nothing', 's0', `empty${i}`));
  }
  const row = (what: string, values: number[]): Record<string, string | number> => ({
    what,
    n: values.length,
    'p50 ms': round(quantile(values, 0.5)),
    'p99 ms': round(quantile(values, 0.99)),
    'max ms': round(Math.max(...values)),
  });
  printTable(`snapshots, ${mode}, 20,000 × ${DIM} flushed and indexed, 2 shards`, [
    row('create', create),
    row('restore, call to Completed', restore),
    row('restore of one segment', one),
    row('restore of an empty collection', empty),
    row('clone by reference', clone),
  ]);
  transport.close();
  await client.closeConnection();
} finally {
  await server.stop();
}
