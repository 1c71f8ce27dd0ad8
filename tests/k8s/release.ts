/** An installed release of the chart: its pods, ways to hurt them, and an address where its proxies answer. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { readdir, readFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);
const COMMAND_MS = 300_000;

export type Role = 'proxy' | 'datacoord' | 'streaming' | 'datanode';
export const ROLES: readonly Role[] = ['datacoord', 'datanode', 'streaming', 'proxy'];

export interface Pod {
  readonly name: string;
  readonly node: string;
  readonly ip: string;
  readonly ready: boolean;
  readonly restarts: number;
  /** When its oldest container started, ms since 1970 (whole seconds); 0: one does not run. */
  readonly startedMs: number;
  /** When it last became ready, ms since 1970 (whole seconds); 0: it is not. */
  readonly readyMs: number;
}

interface PodList {
  readonly items: readonly {
    readonly metadata: { readonly name: string; readonly deletionTimestamp?: string };
    readonly spec: { readonly nodeName?: string };
    readonly status: {
      readonly podIP?: string;
      readonly conditions?: readonly { readonly type: string; readonly status: string; readonly lastTransitionTime?: string }[];
      readonly containerStatuses?: readonly {
        readonly restartCount: number;
        readonly state?: { readonly running?: { readonly startedAt?: string } };
      }[];
    };
  }[];
}

export class Release {
  readonly namespace: string;
  readonly name: string;
  /** Directory with node.sh; empty where nodes cannot be hurt. */
  readonly nodeTools: string;
  #forward: ChildProcess | undefined;

  constructor(namespace: string, name: string, nodeTools: string) {
    this.namespace = namespace;
    this.name = name;
    this.nodeTools = nodeTools;
  }

  /** Name of the objects of a component, as the chart makes it. */
  named(component: string): string {
    return `${this.name.includes('cairn') ? this.name : `${this.name}-cairn`}-${component}`;
  }

  async kubectl(...args: string[]): Promise<string> {
    const { stdout } = await run('kubectl', ['-n', this.namespace, ...args], { timeout: COMMAND_MS, maxBuffer: 64 << 20 });
    return stdout;
  }

  async pods(component: string): Promise<Pod[]> {
    const text = await this.kubectl(
      'get',
      'pods',
      '-l',
      `app.kubernetes.io/instance=${this.name},app.kubernetes.io/component=${component}`,
      '-o',
      'json',
    );
    return (JSON.parse(text) as PodList).items
      .filter((item) => item.metadata.deletionTimestamp === undefined)
      .map((item) => ({
        name: item.metadata.name,
        node: item.spec.nodeName ?? '',
        ip: item.status.podIP ?? '',
        ready: item.status.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false,
        restarts: item.status.containerStatuses?.reduce((sum, { restartCount }) => sum + restartCount, 0) ?? 0,
        readyMs:
          Date.parse(item.status.conditions?.find(({ type, status }) => type === 'Ready' && status === 'True')?.lastTransitionTime ?? '') ||
          0,
        startedMs: Math.min(...(item.status.containerStatuses ?? []).map(({ state }) => Date.parse(state?.running?.startedAt ?? '') || 0)),
      }));
  }

  /** Names of all pods of a component, those that end included. */
  async podNames(component: string): Promise<string[]> {
    const labels = `app.kubernetes.io/instance=${this.name},app.kubernetes.io/component=${component}`;
    return (await this.kubectl('get', 'pods', '-l', labels, '-o', 'name')).split('\n').filter((name) => name !== '');
  }

  /** What `cairn status` says, asked inside a proxy. */
  async status(): Promise<{ leader: string; channels: Map<string, string> }> {
    const text = await this.kubectl('exec', `deploy/${this.named('proxy')}`, '--', 'cairn', '--output', 'json', 'status');
    const { nodes } = JSON.parse(text) as { nodes: string };
    const list = JSON.parse(nodes) as { node: string; leads: boolean; channels: string[] }[];
    const channels = new Map<string, string>();
    for (const { node, channels: owned } of list) for (const channel of owned) channels.set(channel.split(' ')[0] ?? '', node);
    return { leader: list.find(({ leads }) => leads)?.node ?? '', channels };
  }

  /**
   * No warning, no grace: what a crash does. Where nodes run on this machine the container's process gets SIGKILL; elsewhere a forced deletion
   * must do, in which the process may still hear of its end.
   */
  async kill(pod: string): Promise<void> {
    if (this.canHurtNodes && (await killProcessOf(pod))) return;
    await this.kubectl('delete', 'pod', pod, '--grace-period=0', '--force', '--wait=false');
  }

  async deletePod(pod: string): Promise<void> {
    await this.kubectl('delete', 'pod', pod, '--wait=true');
  }

  /** `helm upgrade` with the values there are and these. */
  async upgrade(set: string): Promise<void> {
    const chart = join(import.meta.dirname, '../../deploy/helm/cairn');
    await run('helm', ['upgrade', this.name, chart, '-n', this.namespace, '--reuse-values', '--set', set, '--wait', '--timeout', '10m'], {
      timeout: 2 * COMMAND_MS,
    });
  }

  async waitReady(timeoutS = 180): Promise<void> {
    for (const role of ['proxy', 'datacoord'])
      await this.kubectl('rollout', 'status', `deployment/${this.named(role)}`, `--timeout=${timeoutS}s`);
    for (const set of ['streaming', 'datanode', 'etcd', 'nats', 'minio']) {
      const there = await this.kubectl('get', 'statefulset', this.named(set), '--ignore-not-found', '-o', 'name');
      if (there !== '') await this.kubectl('rollout', 'status', `statefulset/${this.named(set)}`, `--timeout=${timeoutS}s`);
    }
  }

  /**
   * Resolves when every pod on a node runs containers that started at or after `sinceMs`: after a loss of power the API goes on calling the old ones
   * ready until the kubelet has told of the new.
   */
  async restartedOn(node: string, sinceMs: number, timeoutS = 180): Promise<void> {
    for (let left = timeoutS; ; left--) {
      const pods = (await Promise.all(ROLES.map((role) => this.pods(role)))).flat().filter((pod) => pod.node === node);
      // The API counts in whole seconds.
      const old = pods.filter(({ startedMs, ready }) => !ready || startedMs < sinceMs - 1_000).map(({ name }) => name);
      if (old.length === 0) return;
      if (left === 0) throw new Error(`not started anew on ${node}: ${old.join(', ')}`);
      await sleep(1_000);
    }
  }

  get canHurtNodes(): boolean {
    return this.nodeTools !== '';
  }

  /** cut, heal, kill or start, of the node with that name (its number stands at its end). */
  async node(verb: 'cut' | 'heal' | 'kill' | 'start', node: string): Promise<void> {
    await run(join(this.nodeTools, 'node.sh'), [verb, node.slice(node.lastIndexOf('-') + 1)], { timeout: COMMAND_MS });
  }

  /** `host:port` of the Service: its own address where this machine reaches it, else a forwarded port (which ends with its pod). */
  async address(): Promise<string> {
    const ip = (await this.kubectl('get', 'service', this.named('proxy'), '-o', 'jsonpath={.spec.clusterIP}')).trim();
    if (await reaches(ip, 19530)) return `${ip}:19530`;
    this.close();
    const port = 20_000 + (process.pid % 10_000);
    this.#forward = spawn('kubectl', ['-n', this.namespace, 'port-forward', `service/${this.named('proxy')}`, `${port}:19530`], {
      stdio: 'ignore',
    });
    for (let tries = 0; tries < 100; tries++) {
      if (await reaches('127.0.0.1', port)) return `127.0.0.1:${port}`;
      await sleep(100);
    }
    throw new Error('neither the Service nor a forwarded port answers');
  }

  close(): void {
    this.#forward?.kill();
    this.#forward = undefined;
  }
}

/** Kills the program of a pod as this machine sees it: the one whose environment names the pod. False when there is none. */
async function killProcessOf(pod: string): Promise<boolean> {
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    const environment = await readFile(`/proc/${pid}/environ`, 'latin1').catch(() => '');
    if (!environment.split('\0').includes(`POD_NAME=${pod}`)) continue;
    process.kill(Number(pid), 'SIGKILL');
    return true;
  }
  return false;
}

function reaches(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: 2000 });
    const end = (ok: boolean) => {
      socket.destroy();
      resolve(ok);
    };
    socket.once('connect', () => end(true));
    socket.once('error', () => end(false));
    socket.once('timeout', () => end(false));
  });
}
