/**
 * Restores of one coordinator and its datanodes in this process, over MinIO, beside `s5cmd cp` of the same objects, interleaved; clones and publishing of
 * many segments. s5cmd is built from its Go module the first time.
 *   node tests/bench/restore.bench.ts large|small|many|clone|publish|memory [rounds]
 */
import { execFileSync, spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { loadConfig, SystemRuntime, silentLogger } from '@cairn/base';
import { CatalogView, keys } from '@cairn/catalog';
import { S3ObjectStore } from '@cairn/objects/s3';
import { AdminDefinition } from '@cairn/proto/cairn/admin';
import { CollectionState, type ObjectRef, RestoreJobState, SegmentRecord } from '@cairn/proto/cairn/meta';
import { RestoreSnapshotRequest } from '@cairn/proto/cairn/services';
import { GrpcTransport } from '@cairn/rpc';
import { openStores } from '@cairn/stores';
import { MilvusClient } from '@zilliz/milvus2-sdk-node';
import { startCluster } from '../support/cairn.ts';
import { type MinioServer, startMinio } from '../support/servers.ts';
import { type Coordinator, startCoordinator } from './support/coordinator.ts';
import { createCollection } from './support/requests.ts';
import { printTable, quantile, type Row, round } from './support/table.ts';

const runtime = new SystemRuntime();
const POLL_MS = 2;
const READ_EVERY_MS = 1;
/** Before and after the moment at which a view shows the target: what belongs to publishing. */
const PUBLISH_WINDOW_MS = 60;
const PUTS = 32;
const BUCKET = 'cairn';
const ROOT = 'bench';

interface Shape {
  readonly segments: number;
  readonly objectsEach: number;
  readonly objectBytes: number;
}

const SHAPES: Readonly<Record<string, Shape>> = {
  large: { segments: 200, objectsEach: 2, objectBytes: 5_000_000 },
  small: { segments: 2_000, objectsEach: 10, objectBytes: 100_000 },
  many: { segments: 40, objectsEach: 2, objectBytes: 1_000_000 },
};

/** Where sources are made: a coordinator of this process, or a cluster. */
type Ground = Pick<Coordinator, 'createCollection' | 'putAll'> & {
  readonly stores: Pick<Coordinator['stores'], 'objects'>;
  createSnapshot(collection: string): Promise<unknown>;
};

const groundOf = (coordinator: Coordinator): Ground => ({
  ...coordinator,
  createSnapshot: (collection) =>
    coordinator.client.createSnapshot({
      requestId: '',
      database: '',
      collection,
      name: 's',
      description: '',
      compactionProtectionSeconds: 0,
    }),
});

const fill = (coordinator: Coordinator, name: string, shape: Shape): Promise<number> => fillGround(groundOf(coordinator), name, shape);

async function fillGround(ground: Ground, name: string, shape: Shape): Promise<number> {
  const { collection, partition } = await ground.createCollection(name, 1);
  const { objects } = ground.stores;
  const body = Buffer.alloc(shape.objectBytes);
  for (let i = 0; i < body.length; i++) body[i] = (i * 2_654_435_761) >>> 13;
  const records: SegmentRecord[] = [];
  const make = async (n: number): Promise<void> => {
    const id = 10_000_000 + collection * 100_000 + n;
    const prefix = `segments/${collection}/${partition}/${id}/g/`;
    const refs: ObjectRef[] = [];
    for (let at = 0; at < shape.objectsEach; at++) {
      const key = `${prefix}vector.${100 + at}.arrow`;
      const { size, etag, crc32c = 0 } = await objects.put(key, body);
      refs.push({ key, size, etag, crc32c, role: 'vector', fieldId: 100 + at });
    }
    const bytes = shape.objectBytes * shape.objectsEach;
    records.push(
      SegmentRecord.fromPartial({
        id,
        collectionId: collection,
        partitionId: partition,
        prefix,
        rows: 100,
        minTs: 1,
        maxTs: 2,
        bytes,
        sorted: true,
        objects: refs,
      }),
    );
  };
  for (let n = 0; n < shape.segments; n += PUTS)
    await Promise.all(Array.from({ length: Math.min(PUTS, shape.segments - n) }, (_, i) => make(n + i)));
  await ground.putAll(
    records.map((record) => ({ key: keys.segment(collection, record.id), value: SegmentRecord.encode(record).finish() })),
  );
  await ground.createSnapshot(name);
  return collection;
}

/** Milliseconds from the call to Completed. */
async function restored(coordinator: Coordinator, from: string, target: string, mode = 'copy'): Promise<number> {
  const start = performance.now();
  const request = { snapshot: { database: '', collection: from, name: 's', id: 0 }, targetCollection: target, mode };
  const { jobId } = await coordinator.client.restoreSnapshot(RestoreSnapshotRequest.fromPartial(request));
  for (;;) {
    const job = await coordinator.client.getRestoreJob({ jobId });
    if (job.state === RestoreJobState.RESTORE_COMPLETED) return performance.now() - start;
    if (job.state > RestoreJobState.RESTORE_COMPLETED) throw new Error(job.reason);
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
}

function s5cmdPath(): string {
  const build = join(import.meta.dirname, '../../tools/servers/build.sh');
  return execFileSync(build, ['s5cmd'], { encoding: 'utf8' }).trim().split(' ').at(-1) ?? '';
}

async function s5cmd(binary: string, minio: MinioServer, args: string[]): Promise<number> {
  const start = performance.now();
  const env = {
    ...process.env,
    AWS_ACCESS_KEY_ID: minio.accessKeyId,
    AWS_SECRET_ACCESS_KEY: minio.secretAccessKey,
    AWS_REGION: minio.region,
  };
  const child = spawn(binary, ['--endpoint-url', minio.endpoint, '--log', 'error', ...args], {
    env,
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const code = await new Promise((resolve) => child.on('exit', resolve));
  if (code !== 0) throw new Error(`s5cmd ${args.join(' ')} ended with ${code}`);
  return performance.now() - start;
}

/** Greatest resident memory of this process, which is coordinator and datanodes, in MB. */
function watchMemory(): () => number {
  let most = 0;
  const timer = setInterval(() => {
    most = Math.max(most, process.memoryUsage().rss);
  }, 100);
  return () => {
    clearInterval(timer);
    return round(most / 2 ** 20, 0);
  };
}

async function overMinio(work: (coordinator: Coordinator, minio: MinioServer) => Promise<void>, datanodes: number): Promise<void> {
  const minio = await startMinio();
  const { endpoint, region, accessKeyId, secretAccessKey } = minio;
  const objects = new S3ObjectStore(
    { endpoint, region, accessKeyId, secretAccessKey, bucket: BUCKET, root: ROOT, pathStyle: true },
    runtime,
  );
  await objects.ping();
  const coordinator = await startCoordinator({ compactionEnabled: false, scrubIntervalMs: 0 }, () => objects);
  try {
    for (let n = 0; n < datanodes; n++) await coordinator.datanode(`d${n}`);
    await work(coordinator, minio);
  } finally {
    await coordinator.stop();
    await objects.close();
    await minio.stop();
  }
}

async function besideS5cmd(name: string, rounds: number): Promise<void> {
  const shape = SHAPES[name];
  const binary = s5cmdPath();
  await overMinio(async (coordinator, minio) => {
    const collection = await fill(coordinator, 'source', shape);
    const memory = watchMemory();
    const times: { ours: number; theirs: number; cpu: number }[] = [];
    for (let turn = 0; turn < rounds; turn++) {
      let [ours, theirs, cpu] = [0, 0, 0];
      const sides = [
        async () => {
          const before = process.cpuUsage();
          ours = await restored(coordinator, 'source', `target${turn}`);
          const used = process.cpuUsage(before);
          cpu = (used.user + used.system) / 1000;
        },
        async () => {
          theirs = await s5cmd(binary, minio, ['cp', `s3://${BUCKET}/${ROOT}/segments/${collection}/*`, `s3://${BUCKET}/s5cmd${turn}/`]);
        },
      ];
      // Whoever comes first has the colder caches: they take turns.
      for (const side of turn % 2 === 0 ? sides : sides.toReversed()) await side();
      await s5cmd(binary, minio, ['rm', `s3://${BUCKET}/s5cmd${turn}/*`]);
      times.push({ ours, theirs, cpu });
    }
    const median = (of: 'ours' | 'theirs' | 'cpu'): number =>
      quantile(
        times.map((one) => one[of]),
        0.5,
      );
    const objects = shape.segments * shape.objectsEach;
    const row = (what: string, of: 'ours' | 'theirs'): Row => ({
      what,
      'p50 s': round(median(of) / 1000, 2),
      'MB/s': round((objects * shape.objectBytes) / 1000 / median(of), 0),
      'objects/s': round((objects * 1000) / median(of), 0),
      all: times.map((one) => round(one[of] / 1000, 1)).join(' '),
    });
    printTable(`copy restore of ${objects} objects of ${shape.objectBytes} bytes in ${shape.segments} segments, ${rounds} turns`, [
      row('restore, verified', 'ours'),
      row('s5cmd cp', 'theirs'),
      {
        what: `times s5cmd: ${round(median('ours') / median('theirs'), 2)}; CPU of ours ${round(median('cpu') / 1000, 2)} s; most memory ${memory()} MB`,
      },
    ]);
  }, 1);
}

const MEMORY_SHAPES: readonly Shape[] = [
  { segments: 20, objectsEach: 10, objectBytes: 10_000 },
  { segments: 2_000, objectsEach: 10, objectBytes: 10_000 },
];

/** Most resident memory of a process so far, in MB. */
function peakOf(pid: number): number {
  const found = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
  return round(Number(found?.[1] ?? 0) / 1024, 0);
}

/** Coordinator and datanode as processes of their own: most memory each after restores of 200 and of 20,000 objects. */
async function memoryApart(rounds: number): Promise<void> {
  const cluster = await startCluster({
    datacoords: 1,
    streamings: 1,
    datanodes: 1,
    proxies: 1,
    settings: { 'compaction.enabled': 'false' },
  });
  const address = cluster.addresses[0] ?? '';
  const sets = Object.entries(cluster.settings).map(([key, value]) => `${key}=${value}`);
  const stores = await openStores(loadConfig({ sets, env: {} }), runtime, silentLogger);
  const transport = new GrpcTransport(runtime, { timeoutMs: 120_000 });
  const sdk = new MilvusClient({ address, timeout: 120_000 });
  try {
    const admin = transport.client(AdminDefinition, address);
    const ground: Ground = {
      stores,
      createCollection: async (name, shards) => {
        await createCollection(address, name, 8, { shards, index: false });
        const collection = Number((await sdk.describeCollection({ collection_name: name })).collectionID);
        const page = await stores.meta.range({ prefix: keys.partitions(collection) });
        return { collection, partition: Number(page.entries[0]?.key.split('/').at(-1)) };
      },
      putAll: async (entries) => {
        const all = [...entries];
        for (let at = 0; at < all.length; at += PUTS)
          await stores.meta.txn({ then: all.slice(at, at + PUTS).map((entry) => ({ kind: 'put', ...entry }) as const) });
      },
      createSnapshot: (collection) => sdk.createSnapshot({ collection_name: collection, snapshot_name: 's' }),
    };
    const { datacoord, datanode } = cluster.processes;
    const peaks = (what: string, seconds: number | string): Row => ({
      after: what,
      'seconds each': seconds,
      'datacoord MB': peakOf(datacoord[0].pid),
      'datanode MB': peakOf(datanode[0].pid),
    });
    const rows: Row[] = [peaks('start', '')];
    for (const shape of MEMORY_SHAPES) {
      const name = `source${shape.segments}`;
      await fillGround(ground, name, shape);
      rows.push(peaks(`snapshot of ${shape.segments} segments`, ''));
      const times: number[] = [];
      for (let turn = 0; turn < rounds; turn++) {
        const start = performance.now();
        const snapshot = { database: '', collection: name, name: 's', id: 0 };
        const restore = RestoreSnapshotRequest.fromPartial({ snapshot, targetCollection: `${name}x${turn}`, mode: 'copy' });
        const { jobId } = await admin.restoreSnapshot({ restore, dryRun: false });
        let job = await admin.getRestoreJob({ jobId });
        for (; job.state < RestoreJobState.RESTORE_COMPLETED; job = await admin.getRestoreJob({ jobId }))
          await new Promise((resolve) => setTimeout(resolve, PUTS));
        if (job.state !== RestoreJobState.RESTORE_COMPLETED) throw new Error(job.reason);
        times.push(performance.now() - start);
      }
      rows.push(peaks(`${rounds} restores of ${shape.segments * shape.objectsEach} objects`, round(quantile(times, 0.5) / 1000, 1)));
    }
    printTable('most resident memory of each process, cluster of one each', rows);
  } finally {
    await sdk.closeConnection();
    transport.close();
    await stores.close();
    await cluster.stop();
  }
}

/** Ten restores at once on two datanodes beside the same one by one. */
async function tenAtOnce(rounds: number): Promise<void> {
  await overMinio(async (coordinator) => {
    await fill(coordinator, 'source', SHAPES.many);
    const rows: Row[] = [];
    for (let turn = 0; turn < rounds; turn++) {
      const alone: number[] = [];
      let ends: number[] = [];
      let whole = 0;
      const sides = [
        async () => {
          for (let n = 0; n < 10; n++) alone.push(await restored(coordinator, 'source', `alone${turn}x${n}`));
        },
        async () => {
          const start = performance.now();
          ends = await Promise.all(Array.from({ length: 10 }, (_, n) => restored(coordinator, 'source', `both${turn}x${n}`)));
          whole = performance.now() - start;
        },
      ];
      for (const side of turn % 2 === 0 ? sides : sides.toReversed()) await side();
      const sum = alone.reduce((a, b) => a + b, 0);
      rows.push({
        turn,
        'sum alone s': round(sum / 1000, 2),
        'at once s': round(whole / 1000, 2),
        times: round(whole / sum, 2),
        'last / first': round(Math.max(...ends) / Math.min(...ends), 2),
        'each, s': ends
          .toSorted((x, y) => x - y)
          .map((ms) => round(ms / 1000, 2))
          .join(' '),
      });
    }
    printTable('ten restores of 80 MB at once on two datanodes, and one by one', rows);
  }, 2);
}

/** Clones on the embedded store, as the catalog sees them: no object is touched. */
async function clones(rounds: number): Promise<void> {
  const coordinator = await startCoordinator({ compactionEnabled: false });
  try {
    const rows: Row[] = [];
    for (const segments of [1, 10_000]) {
      await fill(coordinator, `of${segments}`, { segments, objectsEach: 1, objectBytes: 100 });
      const times: number[] = [];
      const memory = watchMemory();
      for (let turn = 0; turn < rounds; turn++)
        times.push(await restored(coordinator, `of${segments}`, `clone${segments}x${turn}`, 'reference'));
      rows.push({ segments, 'p50 ms': round(quantile(times, 0.5)), 'max ms': round(Math.max(...times)), 'most MB': memory() });
    }
    printTable(`clone by reference, call to Completed, ${rounds} turns`, rows);
  } finally {
    await coordinator.stop();
  }
}

/**
 * Readers while a clone of 10,000 segments is staged and published: calls to the coordinator about another collection, and a view of the catalog as every
 * process keeps one (its own thread there, this one here: all of it on one thread is the worst case). A stall is the longest time a reader waited.
 */
async function publishing(rounds: number): Promise<void> {
  const SEGMENTS = 10_000;
  const coordinator = await startCoordinator({ compactionEnabled: false });
  const view = new CatalogView(coordinator.stores.meta, runtime, silentLogger);
  try {
    await view.start();
    await fill(coordinator, 'large', { segments: SEGMENTS, objectsEach: 1, objectBytes: 100 });
    const beside = await fill(coordinator, 'beside', { segments: 10, objectsEach: 1, objectBytes: 100 });
    /** Reads without a pause until told to stop; answers how long each took, in ms, with its begin. */
    const reader = (read: () => Promise<unknown>) => {
      const seen: { readonly at: number; readonly ms: number }[] = [];
      let stopped = false;
      const done = (async () => {
        while (!stopped) {
          // From the moment it was due: a thread that is busy delays the beginning of a read as well.
          const at = performance.now();
          await new Promise((resolve) => setTimeout(resolve, READ_EVERY_MS));
          await read();
          seen.push({ at, ms: performance.now() - at - READ_EVERY_MS });
        }
      })();
      return async () => {
        stopped = true;
        await done;
        return seen;
      };
    };
    const worst = (seen: readonly { readonly at: number; readonly ms: number }[], from: number, to: number): number =>
      round(Math.max(0, ...seen.filter(({ at, ms }) => at + ms >= from && at <= to).map(({ ms }) => ms)));
    const rows: Row[] = [];
    for (let turn = 0; turn < rounds; turn++) {
      const stopCalls = reader(() => coordinator.client.listSegments({ collectionId: beside }));
      const stopView = reader(async () => {
        await view.sync();
        view.resolve('', 'beside');
      });
      // What readers wait for with nothing beside them.
      const idleFrom = performance.now();
      await new Promise((resolve) => setTimeout(resolve, 500));
      const from = performance.now();
      const name = `clone${turn}`;
      let published = 0;
      const watch = view.onChange(() => {
        const made = [...view.collections.values()].find((one) => one.name === name);
        if (published === 0 && made?.state === CollectionState.COLLECTION_LIVE) published = performance.now();
      });
      await restored(coordinator, 'large', name, 'reference');
      while (published === 0) await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      const to = performance.now();
      watch.close();
      const [calls, views] = [await stopCalls(), await stopView()];
      rows.push({
        turn,
        'whole ms': round(to - from),
        'call, idle': worst(calls, idleFrom, from),
        'call, publish': worst(calls, published - PUBLISH_WINDOW_MS, published + PUBLISH_WINDOW_MS),
        'call, whole': worst(calls, from, to),
        'view, idle': worst(views, idleFrom, from),
        'view, publish': worst(views, published - PUBLISH_WINDOW_MS, published + PUBLISH_WINDOW_MS),
        'view, whole': worst(views, from, to),
      });
    }
    printTable(`longest waits of readers, ms, while ${SEGMENTS} segments are cloned and published`, rows);
  } finally {
    await view.stop();
    await coordinator.stop();
  }
}

const [what = '', given] = process.argv.slice(2);
const rounds = Number(given ?? 5);
if (what === 'large' || what === 'small') await besideS5cmd(what, rounds);
else if (what === 'many') await tenAtOnce(rounds);
else if (what === 'clone') await clones(rounds);
else if (what === 'publish') await publishing(rounds);
else if (what === 'memory') await memoryApart(rounds);
else {
  for (const name of ['large', 'small']) await besideS5cmd(name, rounds);
  await tenAtOnce(1);
  await clones(rounds);
  await publishing(rounds);
}
