/** Start, stop, and dependencies that are away: for a while at start, and later. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DataType, MilvusClient } from '@zilliz/milvus2-sdk-node';
import { expect, test } from 'vitest';
import { startCluster, startStandalone } from '../support/cairn.ts';
import { findingsOf, stopChecked } from '../support/consistency.ts';
import { serversAvailable } from '../support/servers.ts';

const ROWS = 500;

function client(address: string): MilvusClient {
  return new MilvusClient({ address, timeout: 20_000, maxRetries: 1 } as never);
}

async function createFilled(sdk: MilvusClient, name: string): Promise<void> {
  const created = await sdk.createCollection({
    collection_name: name,
    fields: [
      { name: 'id', data_type: DataType.Int64, is_primary_key: true },
      { name: 'vector', data_type: DataType.FloatVector, dim: 4 },
    ],
    index_params: [{ field_name: 'vector', index_type: 'FLAT', metric_type: 'L2' }],
  });
  expect(created.error_code, created.reason).toBe('Success');
  await insert(sdk, name, 0);
}

async function insert(sdk: MilvusClient, name: string, first: number): Promise<{ code: string; reason: string }> {
  const data = Array.from({ length: ROWS }, (_, i) => ({ id: first + i, vector: [i, 1, 2, 3] }));
  const { status } = await sdk.insert({ collection_name: name, data });
  return { code: String(status.error_code), reason: status.reason };
}

async function count(sdk: MilvusClient, name: string): Promise<number> {
  const reply = await sdk.query({ collection_name: name, expr: '', output_fields: ['count(*)'] });
  if (reply.status.error_code !== 'Success') throw new Error(reply.status.reason);
  return Number(reply.data[0]?.['count(*)']);
}

async function eventually<T>(work: () => Promise<T>, ms = 40_000): Promise<T> {
  const until = performance.now() + ms;
  for (;;) {
    try {
      return await work();
    } catch (error) {
      if (performance.now() > until) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

test('SIGTERM stops a standalone server cleanly, and all is there when it is back', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'cairn-life-'));
  const dataDir = join(directory, 'data');
  const first = await startStandalone({ dataDir });
  const sdk = client(first.address);
  await createFilled(sdk, 'kept');
  await sdk.closeConnection();
  await first.stop();
  expect(first.process.pid).toBe(0);
  const second = await startStandalone({ dataDir });
  const again = client(second.address);
  expect(await eventually(() => count(again, 'kept'))).toBe(ROWS);
  await again.closeConnection();
  await stopChecked(second);
  await rm(directory, { recursive: true, force: true });
});

const available = await serversAvailable();
test.skipIf(!available.ok)(
  `a store that is down makes requests fail retriably or wait, and all goes on when it is back${available.ok ? '' : ` (skipped: ${available.reason})`}`,
  { timeout: 300_000 },
  async () => {
    const cluster = await startCluster({
      datacoords: 1,
      streamings: 1,
      datanodes: 1,
      proxies: 1,
      settings: { 'proxy.requestTimeoutMs': 5000 },
    });
    const sdk = client(cluster.addresses[0] ?? '');
    try {
      await createFilled(sdk, 'kept');
      let rows = ROWS;
      for (const store of [cluster.nats[0], cluster.etcd, cluster.minio]) {
        if (!store) throw new Error('no such store');
        await store.kill();
        const away = await insert(sdk, 'kept', rows).catch((error: unknown) => ({ code: 'transport', reason: String(error) }));
        // Only the log is on the path of every write; timestamps are good for some seconds without etcd, segments wait for MinIO.
        if (store === cluster.nats[0]) expect(away.code, away.reason).not.toBe('Success');
        else if (store === cluster.minio) expect(away.code, away.reason).toBe('Success');
        await store.restart();
        // The same keys again, as an upsert: an unanswered write may have happened.
        await eventually(async () => {
          const data = Array.from({ length: ROWS }, (_, i) => ({ id: rows + i, vector: [i, 1, 2, 3] }));
          const { status } = await sdk.upsert({ collection_name: 'kept', data });
          if (status.error_code !== 'Success') throw new Error(`${store.name} is back, upsert: ${status.reason}`);
        });
        rows += ROWS;
        expect(await eventually(() => count(sdk, 'kept')), `after ${store.name} was away`).toBe(rows);
        const snapshot = await eventually(async () => {
          const status = await sdk.createSnapshot({ collection_name: 'kept', snapshot_name: `after_${store.name.replaceAll('-', '_')}` });
          if (status.error_code !== 'Success' && !status.reason.includes('already exists')) throw new Error(status.reason);
          return true;
        });
        expect(snapshot).toBe(true);
      }
      expect(await findingsOf(cluster.addresses[0] ?? '', true)).toBe('');
    } finally {
      await sdk.closeConnection();
      await cluster.stop();
    }
  },
);
