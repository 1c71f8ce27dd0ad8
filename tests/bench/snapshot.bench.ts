/**
 * CreateSnapshot of a flushed collection, and restore of it: p50 and p99 as the SDK sees them.
 *   node tests/bench/snapshot.bench.ts [standalone|cluster] [how many]
 */
import { MilvusClient } from '@zilliz/milvus2-sdk-node';
import { startCluster, startStandalone } from '../support/cairn.ts';
import { seeded } from '../support/workload.ts';
import { runLoad } from './support/load.ts';
import { clusteredVectors, createCollection, insertRequest, PATH, settleAndLoad } from './support/requests.ts';
import { printTable, quantile, round } from './support/table.ts';

const mode = process.argv[2] ?? 'standalone';
const count = Number(process.argv[3] ?? 50);
const DIM = 128;
const server = mode === 'cluster' ? await startCluster() : await startStandalone();
try {
  const address = 'addresses' in server ? (server.addresses[0] ?? '') : server.address;
  await createCollection(address, 'bench', DIM);
  const vectors = clusteredVectors(20_000, DIM, seeded(1));
  await runLoad({
    address,
    path: `${PATH}Insert`,
    requests: [Buffer.from(insertRequest('bench', 0, vectors, DIM)).toString('base64')],
    connections: 1,
    depth: 1,
    once: true,
    durationMs: 0,
  });
  await settleAndLoad(address, 'bench');
  const client = new MilvusClient({ address });
  await client.connectPromise;
  const create: number[] = [];
  const restore: number[] = [];
  for (let i = 0; i < count; i++) {
    const start = performance.now();
    const status = await client.createSnapshot({ collection_name: 'bench', snapshot_name: `s${i}` });
    if (status.error_code !== 'Success') throw new Error(status.reason);
    create.push(performance.now() - start);
  }
  for (let i = 0; i < Math.min(10, count); i++) {
    const start = performance.now();
    const job = await client.restoreSnapshot({
      snapshot_name: `s${i}`,
      source_collection_name: 'bench',
      target_collection_name: `restored${i}`,
    });
    for (;;) {
      const state = await client.getRestoreSnapshotState({ job_id: job.job_id });
      if (String(state.info?.state) === 'RestoreSnapshotCompleted') break;
      if (String(state.info?.state) === 'RestoreSnapshotFailed' || state.status.error_code !== 'Success')
        throw new Error(state.info?.reason ?? state.status.reason);
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    restore.push(performance.now() - start);
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
  ]);
  await client.closeConnection();
} finally {
  await server.stop();
}
