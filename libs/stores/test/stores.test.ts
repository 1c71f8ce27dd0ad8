import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadConfig, SystemRuntime, silentLogger } from '@cairn/base';
import type { Op } from '@cairn/meta';
import { describe, expect, test } from 'vitest';
import {
  type EtcdServer,
  type MinioServer,
  type NatsServers,
  serversAvailable,
  startEtcd,
  startMinio,
  startNats,
} from '../../../tests/support/servers.ts';
import { openStores, type Stores } from '../src/index.ts';

const runtime = new SystemRuntime();
const available = await serversAvailable();

async function useAll({ meta, objects, wal }: Stores): Promise<void> {
  await Promise.all([meta.ping(), objects.ping(), wal.ping()]);
  const put: Op = { kind: 'put', key: 'a', value: new Uint8Array([1]) };
  const { succeeded } = await meta.txn({ if: [{ kind: 'missing', key: 'a' }], then: [put] });
  expect(succeeded).toBe(true);
  await objects.put('a', new Uint8Array([2]));
  await wal.ensureChannel('a');
  await wal.append('a', 's', new Uint8Array([3]), 0);
}

async function findAll({ meta, objects, wal }: Stores): Promise<void> {
  expect((await meta.get('a'))?.value[0]).toBe(1);
  expect((await objects.get('a'))[0]).toBe(2);
  for await (const [record] of wal.read('a', { from: 1 })) expect(record.bytes[0]).toBe(3);
  expect((await wal.state('a')).lastSequence).toBe(1);
}

describe('the stores of a configuration', () => {
  test('the defaults are embedded, lie in the data directory and keep what they were given', async () => {
    const dataDir = await mkdtemp(join(tmpdir(), 'cairn-stores-'));
    try {
      const config = loadConfig({ env: {}, sets: [`dataDir=${dataDir}`] });
      const before = await openStores(config, runtime, silentLogger);
      await useAll(before);
      await before.close();
      const after = await openStores(config, runtime, silentLogger);
      await findAll(after);
      await after.close();
    } finally {
      await rm(dataDir, { recursive: true });
    }
  });

  test.skipIf(!available.ok)(`etcd, MinIO and NATS keep what they were given ${available.reason}`, async () => {
    let servers: [EtcdServer, MinioServer, NatsServers] | undefined;
    try {
      servers = await Promise.all([startEtcd(), startMinio(), startNats()]);
      const [etcd, minio, nats] = servers;
      const sets = [
        'meta.kind=etcd',
        `meta.etcd.endpoints=${etcd.endpoints[0].replace('http://', '')}`,
        'objects.kind=s3',
        `objects.s3.endpoint=${minio.endpoint}`,
        `objects.s3.accessKeyId=${minio.accessKeyId}`,
        `objects.s3.secretAccessKey=${minio.secretAccessKey}`,
        'wal.kind=jetstream',
        `wal.nats.servers=${nats.servers[0]}`,
        `wal.nats.monitors=${nats.monitors[0]}`,
      ];
      const config = loadConfig({ env: {}, sets });
      const before = await openStores(config, runtime, silentLogger);
      await useAll(before);
      expect(await before.wal.check()).toEqual([]);
      await before.close();
      const after = await openStores(config, runtime, silentLogger);
      await findAll(after);
      await after.close();
    } finally {
      await Promise.all((servers ?? []).map((server) => server.stop()));
    }
  });
});
