/** Faults of a cluster: each hurts, and comes back when what it hurt is whole again. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Release, ROLES, type Role } from './release.ts';

export interface Fault {
  readonly name: string;
  /** Longest write unavailability it may cause, ms; undefined: no promise. */
  readonly reachMs?: number;
  /** Node that clients must not use meanwhile. */
  readonly node?: string;
  run(): Promise<void>;
}

export interface FaultOptions {
  /** How long a node stays cut, ms. */
  readonly cutMs: number;
}

const ROLLOUT_S = 300;
/** The kubelet notices an ended container within this time; before, its pod still counts as ready. */
const NOTICE_MS = 3_000;

async function required<T>(what: string, items: readonly T[], random: () => number): Promise<T> {
  const item = items[Math.floor(random() * items.length)];
  if (item === undefined) throw new Error(`there is no ${what}`);
  return item;
}

/** A pod of a role disappears at once; for streaming one that owns channels, for the coordinator the one that leads. */
async function killPod(release: Release, role: Role, random: () => number): Promise<Fault> {
  const status = await release.status();
  const pods = (await release.pods(role)).filter(({ ready }) => ready);
  const owners = new Set(status.channels.values());
  const wanted =
    role === 'streaming'
      ? pods.filter(({ name }) => owners.has(name))
      : role === 'datacoord'
        ? pods.filter(({ name }) => name === status.leader)
        : pods;
  const pod = await required(`ready ${role} pod`, wanted, random);
  return {
    name: `kill ${role === 'datacoord' ? 'leading ' : ''}${role} ${pod.name}`,
    ...(role === 'streaming' || role === 'datacoord' ? { reachMs: 5_000 } : {}),
    run: async () => {
      await release.kill(pod.name);
      await sleep(NOTICE_MS);
      await release.waitReady();
    },
  };
}

async function deletePod(release: Release, role: Role, random: () => number): Promise<Fault> {
  const pod = await required(`${role} pod`, await release.pods(role), random);
  return {
    name: `drain ${role} ${pod.name}`,
    reachMs: 5_000,
    run: async () => {
      await release.deletePod(pod.name);
      await release.waitReady();
    },
  };
}

async function killStore(release: Release, store: string, random: () => number): Promise<Fault> {
  const pod = await required(`${store} pod`, await release.pods(store), random);
  return {
    name: `kill store ${pod.name}`,
    run: async () => {
      await release.kill(pod.name);
      await sleep(NOTICE_MS);
      await release.waitReady();
    },
  };
}

/** A node without a store that has one member only and without the control plane (node 1), that carries an owner of channels if any does. */
async function victimNode(release: Release, random: () => number): Promise<string> {
  const members = await Promise.all(['etcd', 'nats', 'minio'].map((store) => release.pods(store)));
  const stores = new Set(members.filter((pods) => pods.length === 1).map(([pod]) => pod?.node ?? ''));
  const owners = new Set((await release.status()).channels.values());
  const proxies = await release.pods('proxy');
  const streaming = (await release.pods('streaming')).filter(
    ({ node }) => !stores.has(node) && !node.endsWith('-1') && proxies.some((proxy) => proxy.node !== node),
  );
  const owning = streaming.filter(({ name }) => owners.has(name));
  return (await required('streaming pod on a node without stores', owning.length > 0 ? owning : streaming, random)).node;
}

async function cutNode(release: Release, random: () => number, cutMs: number): Promise<Fault> {
  const node = await victimNode(release, random);
  return {
    name: `cut ${node} for ${cutMs / 1000} s`,
    reachMs: 20_000,
    node,
    run: async () => {
      await release.node('cut', node);
      try {
        await sleep(cutMs);
      } finally {
        await release.node('heal', node);
      }
      await nodeReady(release, node);
      await release.waitReady();
    },
  };
}

async function powerLoss(release: Release, random: () => number): Promise<Fault> {
  const node = await victimNode(release, random);
  return {
    name: `power loss of ${node}`,
    reachMs: 20_000,
    node,
    run: async () => {
      const sinceMs = Date.now();
      await release.node('kill', node);
      try {
        await sleep(15_000);
      } finally {
        await release.node('start', node);
      }
      await nodeReady(release, node);
      await release.restartedOn(node, sinceMs);
      await release.waitReady();
    },
  };
}

async function nodeReady(release: Release, node: string): Promise<void> {
  await release.kubectl('wait', '--for=condition=Ready', `node/${node}`, '--timeout=120s');
}

/** Every pod of every role is replaced, role by role. */
export function rollingUpgrade(release: Release): Fault {
  return {
    name: 'rolling restart of all roles',
    run: async () => {
      for (const role of ROLES) {
        const kind = role === 'streaming' || role === 'datanode' ? 'statefulset' : 'deployment';
        await release.kubectl('rollout', 'restart', `${kind}/${release.named(role)}`);
        await release.kubectl('rollout', 'status', `${kind}/${release.named(role)}`, `--timeout=${ROLLOUT_S}s`);
      }
    },
  };
}

/** The release goes to another image (NAME:TAG), all roles at once, as `helm upgrade` does: old and new work side by side meanwhile. */
export function upgradeTo(release: Release, image: string): Fault {
  return {
    name: `upgrade to ${image}`,
    run: async () => {
      const colon = image.lastIndexOf(':');
      await release.upgrade(`image.repository=${image.slice(0, colon)},image.tag=${image.slice(colon + 1)}`);
      await release.waitReady();
    },
  };
}

/** Number of pods of a stateful role, under load; whole when all of them are ready and the others have ended. */
export function scale(release: Release, role: 'streaming' | 'datanode', replicas: number): Fault {
  return {
    name: `${role} scaled to ${replicas}`,
    run: async () => {
      const set = `statefulset/${release.named(role)}`;
      await release.kubectl('scale', set, `--replicas=${replicas}`);
      await release.kubectl('rollout', 'status', set, `--timeout=${ROLLOUT_S}s`);
      for (let left = ROLLOUT_S; (await release.podNames(role)).length > replicas; left--) {
        if (left === 0) throw new Error(`${role} still has more than ${replicas} pods`);
        await sleep(1_000);
      }
    },
  };
}

/** The volume of a datanode is gone, with its pod. */
export async function loseVolume(release: Release, random: () => number): Promise<Fault> {
  const pod = await required('datanode pod', await release.pods('datanode'), random);
  return {
    name: `volume of ${pod.name} lost`,
    run: async () => {
      await release.kubectl('delete', 'pvc', `data-${pod.name}`, '--wait=false');
      await release.kubectl('delete', 'pod', pod.name, '--grace-period=0', '--force', '--wait=false');
      await sleep(NOTICE_MS);
      await release.waitReady();
    },
  };
}

/** The faults in the order in which a chaos run goes through them; node faults only where nodes can be hurt. */
export function faultPlan(release: Release, random: () => number, options: FaultOptions): (() => Promise<Fault>)[] {
  const plan: (() => Promise<Fault>)[] = [
    () => killPod(release, 'streaming', random),
    () => killPod(release, 'datacoord', random),
    () => killPod(release, 'datanode', random),
    () => killPod(release, 'proxy', random),
    () => killStore(release, 'nats', random),
    () => killStore(release, 'etcd', random),
    () => killStore(release, 'minio', random),
    () => deletePod(release, 'streaming', random),
    () => deletePod(release, 'datanode', random),
    async () => rollingUpgrade(release),
  ];
  if (release.canHurtNodes)
    plan.splice(
      4,
      0,
      () => cutNode(release, random, options.cutMs),
      () => powerLoss(release, random),
    );
  return plan;
}
