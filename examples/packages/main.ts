/**
 * The main job of Cairn, with the unmodified Milvus Node SDK: fill a collection, search it, take a snapshot, change everything, restore the
 * snapshot beside it, and see that each is exactly what it must be.
 *
 *   make run                 (or: make cluster)
 *   make example             CAIRN_ADDRESS=127.0.0.1:19530 and CAIRN_EXAMPLE_DATA=DIR change where and with what
 */
import { join } from 'node:path';
import { DataType, MilvusClient } from '@zilliz/milvus2-sdk-node';
import { checkRows, measureRecall } from './checks.ts';
import { DIM, loadDataset, type PackageRow } from './dataset.ts';

const address = process.env['CAIRN_ADDRESS'] ?? '127.0.0.1:19530';
const data = loadDataset(process.env['CAIRN_EXAMPLE_DATA'] ?? join(import.meta.dirname, '../../../shared/data/packages'));
const suffix = process.env['CAIRN_EXAMPLE_SUFFIX'] ?? process.pid.toString();
const collection = `packages_${suffix}`;
const restored = `packages_${suffix}_restored`;
const snapshot = 'before_the_storm';

const client = new MilvusClient({ address });
await client.connectPromise;

function must<T extends { error_code?: unknown; reason?: string }>(what: string, status: T): T {
  if (status.error_code !== 'Success') throw new Error(`${what}: ${status.reason} (${status.error_code})`);
  return status;
}

async function step<T>(what: string, work: () => Promise<T>): Promise<T> {
  const start = performance.now();
  const result = await work();
  console.log(`${what.padEnd(64)} ${((performance.now() - start) / 1000).toFixed(2)} s`);
  return result;
}

function differs(what: string, got: unknown, want: unknown): void {
  if (String(got) !== String(want)) throw new Error(`${what}: ${got} instead of ${want}`);
}

async function count(name: string, expr = ''): Promise<number> {
  const reply = await client.query({ collection_name: name, expr, output_fields: ['count(*)'] });
  must(`count of ${name}`, reply.status);
  return Number(reply.data[0]?.['count(*)']);
}

console.log(`Cairn at ${address}, ${data.source}`);

await step('create collection', async () => {
  const created = await client.createCollection({
    collection_name: collection,
    shards_num: 2,
    enable_dynamic_field: true,
    fields: [
      { name: 'name', data_type: DataType.VarChar, max_length: 64, is_primary_key: true },
      { name: 'section', data_type: DataType.VarChar, max_length: 64 },
      { name: 'installed_kb', data_type: DataType.Int32 },
      { name: 'download_bytes', data_type: DataType.Int64 },
      { name: 'essential', data_type: DataType.Bool },
      { name: 'homepage', data_type: DataType.VarChar, max_length: 512, nullable: true },
      { name: 'depends', data_type: DataType.Array, element_type: DataType.VarChar, max_capacity: 64, max_length: 128 },
      { name: 'tags', data_type: DataType.JSON },
      { name: 'summary', data_type: DataType.VarChar, max_length: 512 },
      { name: 'embedding', data_type: DataType.FloatVector, dim: DIM },
    ],
  });
  must('createCollection', created);
});

const model = new Map<string, PackageRow>();
await step(`insert ${data.rows.length} rows in batches of 1000`, async () => {
  for (let start = 0; start < data.rows.length; start += 1000) {
    const batch = data.rows.slice(start, start + 1000);
    const reply = await client.insert({ collection_name: collection, data: batch as unknown as Record<string, never>[] });
    must('insert', reply.status);
    for (const row of batch) model.set(row.name, row);
  }
});

await step('flush', async () => must('flush', (await client.flushSync({ collection_names: [collection] })).status));

await step('index (HNSW, COSINE) and load', async () => {
  const index = {
    collection_name: collection,
    field_name: 'embedding',
    index_type: 'HNSW',
    metric_type: 'COSINE',
    params: { M: 16, efConstruction: 200 },
  };
  must('createIndex', await client.createIndex(index));
  for (;;) {
    const described = await client.describeIndex({ collection_name: collection, field_name: 'embedding' });
    must('describeIndex', described.status);
    if (described.index_descriptions[0]?.state === 'Finished') break;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  must('load', await client.loadCollectionSync({ collection_name: collection }));
});

async function searchAll(name: string): Promise<void> {
  for (const entry of data.cases) {
    differs(`rows that match ${entry.filter || 'everything'}`, await count(name, entry.filter), entry.matchingRows);
    const recall = await measureRecall(client, name, data.queries, entry);
    console.log(`  ${entry.id.padEnd(14)} ${String(entry.matchingRows).padStart(6)} rows match   recall@10 ${recall.toFixed(4)}`);
    if (recall < 0.95) throw new Error(`recall of ${entry.id} is ${recall}`);
  }
}

await step('search, with each filter, against the exact answers', () => searchAll(collection));
await step('read every row back', () => checkRows(client, collection, model));

await step('create snapshot', async () =>
  must('createSnapshot', await client.createSnapshot({ snapshot_name: snapshot, collection_name: collection, description: 'the example' })),
);
const atSnapshot = new Map(model);

await step('insert, upsert and delete more', async () => {
  const fresh = data.rows.slice(0, 500).map((row, i) => ({ ...row, name: `new-package-${i}` }));
  must('insert', (await client.insert({ collection_name: collection, data: fresh as unknown as Record<string, never>[] })).status);
  const changed = data.rows
    .slice(500, 1500)
    .map((row) => ({ ...row, installed_kb: row.installed_kb + 1, homepage: null, summary: `changed: ${row.summary}`.slice(0, 400) }));
  must('upsert', (await client.upsert({ collection_name: collection, data: changed as unknown as Record<string, never>[] })).status);
  const gone = data.rows.slice(1500, 1800).map((row) => row.name);
  must('delete', (await client.delete({ collection_name: collection, ids: gone })).status);
  for (const row of [...fresh, ...changed]) model.set(row.name, row);
  for (const name of gone) model.delete(name);
});

await step('restore the snapshot into a new collection', async () => {
  const job = await client.restoreSnapshot({
    snapshot_name: snapshot,
    source_collection_name: collection,
    target_collection_name: restored,
  });
  must('restoreSnapshot', job.status);
  for (;;) {
    const state = await client.getRestoreSnapshotState({ job_id: job.job_id });
    must('getRestoreSnapshotState', state.status);
    if (state.info?.state === 'RestoreSnapshotCompleted') break;
    if (state.info?.state === 'RestoreSnapshotFailed') throw new Error(`restore failed: ${state.info.reason}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  must('load', await client.loadCollectionSync({ collection_name: restored }));
});

await step('the restored collection is as it was', async () => {
  differs('rows', await count(restored), atSnapshot.size);
  await checkRows(client, restored, atSnapshot);
  await searchAll(restored);
});
await step('the source is as it is now', async () => {
  differs('rows', await count(collection), model.size);
  await checkRows(client, collection, model);
});

await step('describe, list, pin, refused drop, unpin, drop', async () => {
  const described = await client.describeSnapshot({ snapshot_name: snapshot, collection_name: collection });
  must('describeSnapshot', described.status);
  differs('described collection', described.collection_name, collection);
  const listed = await client.listSnapshots({ collection_name: collection });
  differs('snapshots', listed.snapshots, [snapshot]);
  const pin = await client.pinSnapshotData({ snapshot_name: snapshot, collection_name: collection, ttl_seconds: 60 });
  must('pinSnapshotData', pin.status);
  const refused = await client.dropSnapshot({ snapshot_name: snapshot, collection_name: collection });
  if (refused.error_code === 'Success') throw new Error('a pinned snapshot was dropped');
  must('unpinSnapshotData', await client.unpinSnapshotData({ pin_id: pin.pin_id }));
  must('dropSnapshot', await client.dropSnapshot({ snapshot_name: snapshot, collection_name: collection }));
});

await step('drop both collections', async () => {
  must('drop', await client.dropCollection({ collection_name: collection }));
  must('drop', await client.dropCollection({ collection_name: restored }));
});
await client.closeConnection();
console.log('all is as it must be');
