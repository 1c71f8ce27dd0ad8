/**
 * Cairn itself as processes: one standalone server, or a whole cluster on real etcd, NATS and MinIO. Each process can be killed and started
 * again on its ports and data.
 */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { freePorts, type NatsOptions, ServerProcess, startEtcd, startMinio, startNats } from './servers.ts';
import { StoreProxy } from './store-proxy.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
const node = join(root, 'node_modules/.bin/node');
const cli = join(root, 'tools/cli/src/main.ts');

export type Role = 'proxy' | 'datacoord' | 'streaming' | 'datanode';

interface LaunchOptions {
  readonly name: string;
  readonly role: Role | 'standalone';
  readonly dir: string;
  readonly ownsDir?: boolean;
  readonly httpPort: number;
  readonly settings: Readonly<Record<string, string | number>>;
}

function cairnProcess(options: LaunchOptions): ServerProcess {
  const sets = Object.entries({
    'http.port': options.httpPort,
    'log.level': process.env['CAIRN_TEST_LOG'] ?? 'info',
    ...options.settings,
  }).flatMap(([key, value]) => ['--set', `${key}=${value}`]);
  return new ServerProcess({
    name: options.name,
    command: node,
    args: [cli, 'server', options.role, ...sets],
    dir: options.dir,
    ownsDir: options.ownsDir ?? false,
    ready: async () => (await fetch(`http://127.0.0.1:${options.httpPort}/readyz`, { signal: AbortSignal.timeout(2000) })).ok,
  });
}

export interface StandaloneOptions {
  /** Data directory that stays; default: a temporary one. */
  readonly dataDir?: string;
  readonly settings?: Readonly<Record<string, string | number>>;
  readonly proxyPort?: number;
}

export interface Standalone {
  readonly address: string;
  readonly httpPort: number;
  readonly dataDir: string;
  readonly process: ServerProcess;
  stop(): Promise<void>;
}

/** `cairn server standalone` in a process of its own. */
export async function startStandalone(options: StandaloneOptions = {}): Promise<Standalone> {
  const dir = await mkdtemp(join(tmpdir(), 'cairn-standalone-'));
  const [proxyPort = 0, httpPort = 0] = await freePorts(2);
  const port = options.proxyPort ?? proxyPort;
  const dataDir = options.dataDir ?? join(dir, 'data');
  const server = cairnProcess({
    name: 'standalone',
    role: 'standalone',
    dir,
    ownsDir: true,
    httpPort,
    settings: { dataDir, 'proxy.port': port, ...options.settings },
  });
  server.launch();
  try {
    await server.waitReady();
  } catch (error) {
    await server.stop();
    throw error;
  }
  return { address: `127.0.0.1:${port}`, httpPort, dataDir, process: server, stop: () => server.stop() };
}

export interface ClusterOptions {
  readonly dir?: string;
  readonly proxies?: number;
  readonly datacoords?: number;
  readonly streamings?: number;
  readonly datanodes?: number;
  /** Ports of the proxies; free ones by default. */
  readonly proxyPorts?: readonly number[];
  readonly settings?: Readonly<Record<string, string | number>>;
  /** A proxy stands before MinIO that can misbehave. */
  readonly storeProxy?: boolean;
  /** Where nats-server keeps its files, and how often it syncs them; always unless told. */
  readonly nats?: Pick<NatsOptions, 'dir' | 'syncInterval'>;
}

export interface Cluster {
  /** Addresses of the proxies. */
  readonly addresses: readonly string[];
  /** What all processes were started with: whoever opens the stores with it sees what they see. */
  readonly settings: Readonly<Record<string, string | number>>;
  readonly processes: Readonly<Record<Role, readonly ServerProcess[]>>;
  /** Health and metrics of each process, by its name. */
  readonly httpPorts: ReadonlyMap<string, number>;
  readonly etcd: ServerProcess;
  readonly nats: readonly ServerProcess[];
  readonly minio: ServerProcess;
  /** When it was asked for. */
  readonly storeProxy: StoreProxy | undefined;
  all(): ServerProcess[];
  stop(): Promise<void>;
}

/** etcd, nats-server, MinIO and every role as processes; ready when the proxies are. */
export async function startCluster(options: ClusterOptions = {}): Promise<Cluster> {
  const dir = options.dir ?? (await mkdtemp(join(tmpdir(), 'cairn-cluster-')));
  await mkdir(dir, { recursive: true });
  const [etcd, nats, minio] = await Promise.all([
    startEtcd({ dir: join(dir, 'etcd') }),
    startNats({ dir: join(dir, 'nats'), ...options.nats }),
    startMinio({ dir: join(dir, 'minio') }),
  ]);
  const storeProxy = options.storeProxy ? new StoreProxy(minio.endpoint) : undefined;
  await storeProxy?.start();
  const settings = {
    'meta.kind': 'etcd',
    'meta.etcd.endpoints': etcd.endpoints.join(','),
    'wal.kind': 'jetstream',
    'wal.nats.servers': nats.servers.join(','),
    'wal.nats.monitors': nats.monitors.join(','),
    'objects.kind': 's3',
    'objects.s3.endpoint': storeProxy?.endpoint ?? minio.endpoint,
    'objects.s3.region': minio.region,
    'objects.s3.bucket': 'cairn',
    'objects.s3.accessKeyId': minio.accessKeyId,
    'objects.s3.secretAccessKey': minio.secretAccessKey,
    ...options.settings,
  };
  const make = async (role: Role, count: number): Promise<ServerProcess[]> => {
    const made: ServerProcess[] = [];
    for (let i = 0; i < count; i++) {
      const name = `${role}-${i}`;
      const [httpPort = 0, port = 0, proxyPort = 0] = await freePorts(3);
      httpPorts.set(name, httpPort);
      const own = join(dir, name);
      await mkdir(own, { recursive: true });
      const ports: Record<string, number> =
        role === 'proxy' ? { 'proxy.port': options.proxyPorts?.[i] ?? proxyPort } : { 'node.port': port };
      made.push(cairnProcess({ name, role, dir: own, httpPort, settings: { ...settings, dataDir: own, 'node.id': name, ...ports } }));
      if (role === 'proxy') addresses.push(`127.0.0.1:${options.proxyPorts?.[i] ?? proxyPort}`);
    }
    return made;
  };
  const addresses: string[] = [];
  const httpPorts = new Map<string, number>();
  const processes = {
    datacoord: await make('datacoord', options.datacoords ?? 2),
    streaming: await make('streaming', options.streamings ?? 2),
    datanode: await make('datanode', options.datanodes ?? 2),
    proxy: await make('proxy', options.proxies ?? 2),
  };
  const all = (): ServerProcess[] => Object.values(processes).flat();
  const cluster: Cluster = {
    addresses,
    settings,
    processes,
    httpPorts,
    etcd: etcd.process,
    nats: nats.members,
    minio: minio.process,
    storeProxy,
    all,
    stop: async () => {
      await Promise.all(all().map((server) => server.stop()));
      await storeProxy?.stop();
      await Promise.all([etcd.stop(), nats.stop(), minio.stop()]);
      if (options.dir === undefined) await rm(dir, { recursive: true, force: true });
    },
  };
  try {
    for (const server of all()) server.launch();
    await Promise.all(all().map((server) => server.waitReady()));
  } catch (error) {
    await cluster.stop();
    throw error;
  }
  return cluster;
}
