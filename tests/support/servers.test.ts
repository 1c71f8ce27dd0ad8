import { describe, expect, test } from 'vitest';
import { serversAvailable, startEtcd, startMinio, startNats } from './servers.ts';

const available = await serversAvailable();

describe.skipIf(!available.ok)(`real servers for tests ${available.reason}`, () => {
  test('each answers when started, is gone when killed, and comes back with its data directory', async () => {
    const [etcd, nats, minio] = await Promise.all([startEtcd(), startNats(), startMinio()]);
    try {
      for (const server of [etcd, minio]) {
        const before = server.pid;
        expect(before).toBeGreaterThan(0);
        await server.kill();
        expect(server.pid).toBe(0);
        await server.restart();
        expect(server.pid).not.toBe(before);
      }
      await nats.restart();
      expect((await fetch(`${nats.monitors[0]}/varz`)).ok).toBe(true);
    } finally {
      await Promise.all([etcd.stop(), nats.stop(), minio.stop()]);
    }
  });

  test('three nats-servers form one JetStream cluster', async () => {
    const nats = await startNats({ replicas: 3 });
    try {
      const state = (await (await fetch(`${nats.monitors[1]}/jsz`)).json()) as { meta_cluster: { cluster_size: number } };
      expect(state.meta_cluster.cluster_size).toBe(3);
    } finally {
      await nats.stop();
    }
  });
});
