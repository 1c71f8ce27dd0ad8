/**
 * Real etcd, nats-server and MinIO for tests and `make cluster`: each on free loopback ports, in a fresh directory, ready when it answers.
 * The binaries come from tools/servers/build.sh (built once into a cache outside the tree). Where that cannot build, `serversAvailable` says
 * why and tests skip with the reason. Children die with this process: by an exit hook, and by the kernel where `setpriv` is there.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, rmSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

export type ServerName = 'etcd' | 'nats' | 'minio';

export interface Availability {
  readonly ok: boolean;
  /** Why not, for the skip message; empty when ok. */
  readonly reason: string;
}

export interface StartOptions {
  /** Where data goes and stays. Default: a temporary directory that `stop` removes. */
  readonly dir?: string;
}

const READY_MS = 60_000;
const STOP_MS = 10_000;
const buildScript = fileURLToPath(new URL('../../tools/servers/build.sh', import.meta.url));
const builds = new Map<ServerName, Promise<string>>();

/** Path of a server's binary, built on first use. Throws with the words of build.sh when it cannot be had. */
export function serverBinary(name: ServerName): Promise<string> {
  let build = builds.get(name);
  if (!build) {
    build = new Promise<string>((resolve, reject) => {
      execFile(buildScript, [name], { maxBuffer: 1 << 20 }, (error, stdout, stderr) => {
        if (error) return reject(new Error(stderr.trim().split('\n').at(-1) || error.message));
        resolve(stdout.trim().split(' ').slice(1).join(' '));
      });
    });
    build.catch(() => undefined);
    builds.set(name, build);
  }
  return build;
}

/** Whether these servers can be started here (all three by default). Builds them when that is possible. */
export async function serversAvailable(...names: ServerName[]): Promise<Availability> {
  for (const name of names.length > 0 ? names : (['etcd', 'nats', 'minio'] as const)) {
    try {
      await serverBinary(name);
    } catch (error) {
      const reason = `${name} cannot be started: ${error instanceof Error ? error.message : String(error)}`;
      console.warn(`SKIP ${reason}`);
      return { ok: false, reason };
    }
  }
  return { ok: true, reason: '' };
}

/** Below the ports that Linux gives to outgoing connections (32768 on), which may take one between the look and the use. */
const FIRST_PORT = 12_000;
const PORTS = 18_000;
/** Where this process looks next: begun at a place of its own, so that test processes side by side seldom look at the same ports. */
let nextPort = (process.pid * 251) % PORTS;

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

/** Loopback ports that were free just now. No two calls of one process give the same before all were given. */
export async function freePorts(count: number): Promise<number[]> {
  const ports: number[] = [];
  for (let looked = 0; ports.length < count; looked++) {
    if (looked > PORTS) throw new Error(`no ${count} free ports from ${FIRST_PORT} to ${FIRST_PORT + PORTS}`);
    const port = FIRST_PORT + nextPort;
    nextPort = (nextPort + 1) % PORTS;
    if (await isFree(port)) ports.push(port);
  }
  return ports;
}

const living = new Set<ServerProcess>();
let hooked = false;

function hookExit(): void {
  if (hooked) return;
  hooked = true;
  process.on('exit', () => {
    for (const server of living) server.killNow();
  });
}

interface ProcessSpec {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  readonly dir: string;
  /** Removes `dir` at stop. */
  readonly ownsDir: boolean;
  readonly ready: () => Promise<boolean>;
}

/** One server process that can be killed and started again on its ports and data. */
export class ServerProcess {
  readonly name: string;
  readonly #spec: ProcessSpec;
  #child: ChildProcess | undefined;
  #exited: Promise<void> = Promise.resolve();

  constructor(spec: ProcessSpec) {
    this.name = spec.name;
    this.#spec = spec;
  }

  /** Process id; 0 while it does not run. */
  get pid(): number {
    return this.#child?.pid ?? 0;
  }

  /** Last lines of what it wrote. */
  logTail(lines = 15): string {
    const file = join(this.#spec.dir, `${this.name}.log`);
    return existsSync(file) ? readFileSync(file, 'utf8').trimEnd().split('\n').slice(-lines).join('\n') : '';
  }

  /** Starts the process; `waitReady` is apart, since members of a cluster become ready together. */
  launch(): void {
    hookExit();
    const { command, args, env, dir, name } = this.#spec;
    const log = openSync(join(dir, `${name}.log`), 'a');
    // The kernel ends the child when its parent is gone, kill -9 of the parent included.
    const guard = existsSync('/usr/bin/setpriv') ? ['/usr/bin/setpriv', '--pdeathsig', 'KILL', '--'] : [];
    const [file = command, ...rest] = [...guard, command, ...args];
    const child = spawn(file, rest, { stdio: ['ignore', log, log], env: { ...process.env, ...env }, cwd: dir });
    closeSync(log);
    this.#child = child;
    living.add(this);
    this.#exited = new Promise<void>((resolve) => {
      const gone = (): void => {
        if (this.#child === child) {
          this.#child = undefined;
          living.delete(this);
        }
        resolve();
      };
      child.once('exit', gone);
      child.once('error', gone);
    });
    child.unref();
  }

  async waitReady(): Promise<void> {
    const until = performance.now() + READY_MS;
    for (;;) {
      if (await this.#spec.ready().catch(() => false)) return;
      if (!this.#child) throw new Error(`${this.name} ended while starting:\n${this.logTail()}`);
      if (performance.now() > until) throw new Error(`${this.name} was not ready after ${READY_MS} ms:\n${this.logTail()}`);
      await sleep(25);
    }
  }

  /** kill -9, and waits until it is gone. Data stays. */
  async kill(): Promise<void> {
    this.#child?.kill('SIGKILL');
    await this.#settled();
  }

  /** Stops the process where it stands (SIGSTOP), as a server that hangs does. */
  pause(): void {
    this.#child?.kill('SIGSTOP');
  }

  resume(): void {
    this.#child?.kill('SIGCONT');
  }

  /** Starts it again on its ports and data; ready when it resolves. */
  async restart(): Promise<void> {
    await this.kill();
    this.launch();
    await this.waitReady();
  }

  /** SIGTERM, then SIGKILL; removes a temporary directory. */
  async stop(): Promise<void> {
    const child = this.#child;
    if (child) {
      child.kill('SIGTERM');
      child.kill('SIGCONT');
      const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
      await this.#settled();
      clearTimeout(timer);
    }
    if (this.#spec.ownsDir) await rm(this.#spec.dir, { recursive: true, force: true });
  }

  /** For the exit hook: no waiting. */
  killNow(): void {
    this.#child?.kill('SIGKILL');
    if (this.#spec.ownsDir) rmSync(this.#spec.dir, { recursive: true, force: true });
  }

  async #settled(): Promise<void> {
    const child = this.#child;
    child?.ref();
    await this.#exited;
  }
}

async function serverDir(name: string, options: StartOptions): Promise<{ dir: string; ownsDir: boolean }> {
  if (options.dir === undefined) return { dir: await mkdtemp(join(tmpdir(), `cairn-${name}-`)), ownsDir: true };
  await mkdir(options.dir, { recursive: true });
  return { dir: options.dir, ownsDir: false };
}

async function fetchText(url: string): Promise<string> {
  const response = await fetch(url, { signal: AbortSignal.timeout(2000) });
  const text = await response.text();
  return response.ok ? text : '';
}

async function started<T extends { stop(): Promise<void> }>(processes: readonly ServerProcess[], handle: T): Promise<T> {
  try {
    for (const server of processes) server.launch();
    await Promise.all(processes.map((server) => server.waitReady()));
    return handle;
  } catch (error) {
    await handle.stop();
    throw error;
  }
}

export interface EtcdServer {
  /** `http://127.0.0.1:port`, one. */
  readonly endpoints: readonly string[];
  readonly process: ServerProcess;
  readonly pid: number;
  kill(): Promise<void>;
  restart(): Promise<void>;
  stop(): Promise<void>;
}

/** PEM files by which a server shows itself; clients must show a certificate of the same authority. */
export interface ServerTls {
  readonly caFile: string;
  readonly certFile: string;
  readonly keyFile: string;
}

export interface EtcdOptions extends StartOptions {
  /** Bytes after which it takes no writes any more (NOSPACE). */
  readonly quotaBytes?: number;
  readonly tls?: ServerTls;
}

export async function startEtcd(options: EtcdOptions = {}): Promise<EtcdServer> {
  const binary = await serverBinary('etcd');
  const { dir, ownsDir } = await serverDir('etcd', options);
  const [client, peer, metrics] = await freePorts(3);
  const metricsUrl = `http://127.0.0.1:${metrics}`;
  const { quotaBytes, tls } = options;
  const url = `${tls ? 'https' : 'http'}://127.0.0.1:${client}`;
  const peerUrl = `http://127.0.0.1:${peer}`;
  const server = new ServerProcess({
    name: 'etcd',
    command: binary,
    dir,
    ownsDir,
    args: [
      ...['--name', 'test', '--data-dir', join(dir, 'data'), '--listen-client-urls', url, '--advertise-client-urls', url],
      ...['--listen-peer-urls', peerUrl, '--initial-advertise-peer-urls', peerUrl, '--initial-cluster', `test=${peerUrl}`],
      ...['--log-level', 'warn', '--heartbeat-interval', '50', '--election-timeout', '500'],
      ...['--listen-metrics-urls', metricsUrl],
      ...(quotaBytes ? ['--quota-backend-bytes', String(quotaBytes)] : []),
      ...(tls ? ['--cert-file', tls.certFile, '--key-file', tls.keyFile, '--trusted-ca-file', tls.caFile, '--client-cert-auth'] : []),
    ],
    ready: async () => (await fetchText(`${metricsUrl}/health`)).includes('"true"'),
  });
  return started([server], {
    endpoints: [url],
    process: server,
    get pid() {
      return server.pid;
    },
    kill: () => server.kill(),
    restart: () => server.restart(),
    stop: () => server.stop(),
  });
}

export interface NatsOptions extends StartOptions {
  /** 1: one server. 3: a cluster of three, for streams with three replicas. */
  readonly replicas?: 1 | 3;
  /** JetStream's sync interval. Default `always`, what Cairn asks for; `2m` to test that the check refuses it. */
  readonly syncInterval?: string;
  /** Bytes of the largest message. Default 1 MiB, the server's own. */
  readonly maxPayload?: number;
  /** Bytes of JetStream's file storage. Default 20 GB. */
  readonly maxFileBytes?: number;
  readonly tls?: ServerTls;
  /** Users with their passwords; default: anyone. */
  readonly users?: Readonly<Record<string, string>>;
}

export interface NatsServers {
  /** `nats://127.0.0.1:port`, one for each member. */
  readonly servers: readonly string[];
  /** HTTP monitoring addresses, in the same order. */
  readonly monitors: readonly string[];
  /** To kill, pause and restart one by one. Their names are the server names that JetStream reports (`n0`, `n1`, `n2`). */
  readonly members: readonly ServerProcess[];
  readonly pids: readonly number[];
  kill(): Promise<void>;
  restart(): Promise<void>;
  stop(): Promise<void>;
}

export async function startNats(options: NatsOptions = {}): Promise<NatsServers> {
  const binary = await serverBinary('nats');
  const { dir, ownsDir } = await serverDir('nats', options);
  const replicas = options.replicas ?? 1;
  const ports = await freePorts(replicas * 3);
  const clients = ports.slice(0, replicas);
  const monitors = ports.slice(replicas, 2 * replicas).map((port) => `http://127.0.0.1:${port}`);
  const routes = ports.slice(2 * replicas);
  const members: ServerProcess[] = [];
  for (let i = 0; i < replicas; i++) {
    const name = `n${i}`;
    const home = join(dir, name);
    await mkdir(home, { recursive: true });
    const config = [
      `server_name: ${name}`,
      `listen: "127.0.0.1:${clients[i]}"`,
      `http: "${monitors[i]?.slice('http://'.length)}"`,
      `max_payload: ${options.maxPayload ?? 1 << 20}`,
      `jetstream { store_dir: "${home}", sync_interval: ${options.syncInterval ?? 'always'}, max_mem: 64MB, max_file: ${options.maxFileBytes ?? '20GB'} }`,
    ];
    const { tls, users } = options;
    if (tls) config.push(`tls { ca_file: "${tls.caFile}", cert_file: "${tls.certFile}", key_file: "${tls.keyFile}", verify: true }`);
    if (users) {
      const list = Object.entries(users).map(([user, password]) => `{ user: "${user}", password: "${password}" }`);
      config.push(`authorization { users: [${list.join(', ')}] }`);
    }
    if (replicas > 1) {
      const all = routes.map((port) => `"nats-route://127.0.0.1:${port}"`).join(', ');
      config.push(`cluster { name: test, listen: "127.0.0.1:${routes[i]}", routes: [${all}] }`);
    }
    const file = join(home, 'nats.conf');
    await writeFile(file, `${config.join('\n')}\n`);
    members.push(
      new ServerProcess({
        name,
        command: binary,
        args: ['-c', file],
        dir: home,
        ownsDir: false,
        ready: async () => {
          if (!(await fetchText(`${monitors[i]}/healthz`)).includes('ok')) return false;
          if (replicas === 1) return true;
          const state = JSON.parse(await fetchText(`${monitors[i]}/jsz`)) as { meta_cluster?: { leader?: string; cluster_size?: number } };
          return Boolean(state.meta_cluster?.leader) && state.meta_cluster?.cluster_size === replicas;
        },
      }),
    );
  }
  const each = async (act: (member: ServerProcess) => Promise<void>): Promise<void> => {
    await Promise.all(members.map(act));
  };
  return started(members, {
    servers: clients.map((port) => `nats://127.0.0.1:${port}`),
    monitors,
    members,
    get pids() {
      return members.map((member) => member.pid);
    },
    kill: () => each((member) => member.kill()),
    restart: async () => {
      await each((member) => member.kill());
      for (const member of members) member.launch();
      await each((member) => member.waitReady());
    },
    stop: async () => {
      await each((member) => member.stop());
      if (ownsDir) await rm(dir, { recursive: true, force: true });
    },
  });
}

export interface MinioServer {
  readonly endpoint: string;
  readonly region: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly process: ServerProcess;
  readonly pid: number;
  kill(): Promise<void>;
  restart(): Promise<void>;
  stop(): Promise<void>;
}

export async function startMinio(options: StartOptions = {}): Promise<MinioServer> {
  const binary = await serverBinary('minio');
  const { dir, ownsDir } = await serverDir('minio', options);
  const [port] = await freePorts(1);
  const endpoint = `http://127.0.0.1:${port}`;
  const accessKeyId = 'cairn-test';
  const secretAccessKey = 'cairn-test-secret';
  const server = new ServerProcess({
    name: 'minio',
    command: binary,
    dir,
    ownsDir,
    args: ['server', '--quiet', '--address', `127.0.0.1:${port}`, join(dir, 'data')],
    env: { MINIO_ROOT_USER: accessKeyId, MINIO_ROOT_PASSWORD: secretAccessKey, MINIO_BROWSER: 'off', MINIO_UPDATE: 'off', HOME: dir },
    // An anonymous request is refused once the server is up; its health page is ready earlier than its accounts and answers 503 to real calls.
    ready: async () => (await fetch(endpoint, { redirect: 'manual', signal: AbortSignal.timeout(2000) })).status === 403,
  });
  return started([server], {
    endpoint,
    region: 'us-east-1',
    accessKeyId,
    secretAccessKey,
    process: server,
    get pid() {
      return server.pid;
    },
    kill: () => server.kill(),
    restart: () => server.restart(),
    stop: () => server.stop(),
  });
}
