import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePorts, ServerProcess, serverBinary } from '../../../tests/support/servers.ts';

export interface RestartableEtcd {
  readonly endpoints: readonly string[];
  kill(): Promise<void>;
  restart(): Promise<void>;
  stop(): Promise<void>;
}

/** An etcd that keeps what it acknowledged when it is killed: without --force-new-cluster, which throws away the end of its log. */
export async function startDurableEtcd(): Promise<RestartableEtcd> {
  const [client, peer] = await freePorts(2);
  const dir = await mkdtemp(join(tmpdir(), 'cairn-meta-etcd-'));
  const url = `http://127.0.0.1:${client}`;
  const peerUrl = `http://127.0.0.1:${peer}`;
  const server = new ServerProcess({
    name: 'etcd',
    command: await serverBinary('etcd'),
    dir,
    ownsDir: true,
    args: [
      ...['--name', 'test', '--data-dir', join(dir, 'data'), '--listen-client-urls', url, '--advertise-client-urls', url],
      ...['--listen-peer-urls', peerUrl, '--initial-advertise-peer-urls', peerUrl, '--initial-cluster', `test=${peerUrl}`],
      ...['--log-level', 'warn', '--heartbeat-interval', '50', '--election-timeout', '500'],
    ],
    ready: async () => (await (await fetch(`${url}/health`, { signal: AbortSignal.timeout(2000) })).text()).includes('"true"'),
  });
  server.launch();
  await server.waitReady();
  return { endpoints: [url], kill: () => server.kill(), restart: () => server.restart(), stop: () => server.stop() };
}
