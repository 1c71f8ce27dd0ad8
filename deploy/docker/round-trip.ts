/**
 * The SDK's round trip that `helm test` runs inside the cluster: with the unmodified Milvus Node SDK it makes a collection, writes, searches,
 * takes a snapshot, deletes everything, restores beside it, compares, and drops all it made. Exit code 0 when every answer is exact.
 *
 *   CAIRN_ADDRESS=HOST:PORT node round-trip.ts
 */
import { DataType, MilvusClient } from '@zilliz/milvus2-sdk-node';

const ROWS = 300;
const DIM = 16;
const RESTORE_MS = 60_000;
const CALL_MS = 20_000;

const address = process.env['CAIRN_ADDRESS'] ?? '127.0.0.1:19530';
const collection = `round_trip_${Date.now()}`;
const restored = `${collection}_restored`;
const snapshot = `${collection}_snapshot`;
const client = new MilvusClient({ address, timeout: CALL_MS });
await client.connectPromise;

function must(what: string, status: { error_code?: unknown; reason?: string }): void {
  if (status.error_code !== 'Success') throw new Error(`${what}: ${status.reason} (${status.error_code})`);
}

function vectorOf(id: number): number[] {
  return Array.from({ length: DIM }, (_, i) => Math.fround(Math.cos(id * 7 + i)));
}

async function countIs(name: string, want: number): Promise<void> {
  const reply = await client.query({ collection_name: name, expr: '', output_fields: ['count(*)'] });
  must(`count of ${name}`, reply.status);
  const got = Number(reply.data[0]?.['count(*)']);
  if (got !== want) throw new Error(`${name} has ${got} rows, not ${want}`);
}

async function finds(name: string, id: number): Promise<void> {
  const reply = await client.search({ collection_name: name, data: [vectorOf(id)], limit: 1, output_fields: ['id', 'name'] });
  must(`search in ${name}`, reply.status);
  const [hit] = reply.results;
  if (Number(hit?.['id']) !== id || hit?.['name'] !== `row ${id}`)
    throw new Error(`search in ${name}: ${JSON.stringify(hit)} is not row ${id}`);
}

async function step(what: string, work: () => Promise<unknown>): Promise<void> {
  const start = performance.now();
  await work();
  console.log(`${what.padEnd(40)} ${Math.round(performance.now() - start)} ms`);
}

async function waitForRestore(job: string): Promise<void> {
  const until = performance.now() + RESTORE_MS;
  for (;;) {
    const reply = await client.getRestoreSnapshotState({ job_id: job });
    must('restore state', reply.status);
    const state = String(reply.info?.state);
    if (state === 'RestoreSnapshotCompleted') return;
    if (state === 'RestoreSnapshotFailed' || performance.now() > until) throw new Error(`restore is ${state}: ${reply.info?.reason}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function cleanUp(): Promise<void> {
  const listed = await client.listSnapshots({ collection_name: collection }).catch(() => undefined);
  if (listed?.snapshots?.includes(snapshot))
    must('drop snapshot', await client.dropSnapshot({ collection_name: collection, snapshot_name: snapshot }));
  for (const name of [restored, collection]) {
    const has = await client.hasCollection({ collection_name: name });
    if (has.value) must(`drop ${name}`, await client.dropCollection({ collection_name: name }));
  }
}

try {
  await step('create, index, load', async () =>
    must(
      'create collection',
      await client.createCollection({
        collection_name: collection,
        shards_num: 2,
        fields: [
          { name: 'id', data_type: DataType.Int64, is_primary_key: true },
          { name: 'name', data_type: DataType.VarChar, max_length: 64 },
          { name: 'vector', data_type: DataType.FloatVector, dim: DIM },
        ],
        index_params: [{ field_name: 'vector', index_type: 'HNSW', metric_type: 'L2', params: { M: 8, efConstruction: 64 } }],
      }),
    ),
  );
  await step(`insert ${ROWS} rows`, async () => {
    const data = Array.from({ length: ROWS }, (_, id) => ({ id, name: `row ${id}`, vector: vectorOf(id) }));
    must('insert', (await client.insert({ collection_name: collection, data })).status);
  });
  await step('load', async () => must('load', await client.loadCollectionSync({ collection_name: collection })));
  await step('count and search', async () => {
    await countIs(collection, ROWS);
    await finds(collection, 42);
  });
  await step('snapshot', async () =>
    must('snapshot', await client.createSnapshot({ collection_name: collection, snapshot_name: snapshot })),
  );
  await step('delete all', async () => {
    must('delete', (await client.delete({ collection_name: collection, filter: 'id >= 0' })).status);
    await countIs(collection, 0);
  });
  await step('restore', async () => {
    const job = await client.restoreSnapshot({
      snapshot_name: snapshot,
      source_collection_name: collection,
      target_collection_name: restored,
    });
    must('restore', job.status);
    await waitForRestore(String(job.job_id));
    must('load restored', await client.loadCollectionSync({ collection_name: restored }));
  });
  await step('count and search the restored', async () => {
    await countIs(restored, ROWS);
    await finds(restored, 42);
  });
  console.log(`round trip through ${address}: every answer is exact`);
} finally {
  await cleanUp();
  await client.closeConnection();
}
