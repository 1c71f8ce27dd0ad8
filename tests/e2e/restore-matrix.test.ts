/**
 * Damaged snapshots: every kind of damage to every kind of object that a restore reads. A restore of it is refused or fails and names the object,
 * or it is Completed and exactly right; never Completed and wrong. After it nothing is left, and the name is free at once.
 */
import { join } from 'node:path';
import { SystemRuntime } from '@cairn/base';
import { DiskObjectStore, type ObjectStore } from '@cairn/objects';
import { S3ObjectStore } from '@cairn/objects/s3';
import { AdminDefinition } from '@cairn/proto/cairn/admin';
import { type RestoreJobRecord, RestoreJobState } from '@cairn/proto/cairn/meta';
import { type Client, GrpcTransport } from '@cairn/rpc';
import { readSnapshot } from '@cairn/segment';
import { DataType, MilvusClient } from '@zilliz/milvus2-sdk-node';
import { expect, test } from 'vitest';
import { type Standalone, startStandalone } from '../support/cairn.ts';
import { serversAvailable, startMinio } from '../support/servers.ts';

const runtime = new SystemRuntime();
const ROWS = 3000;
const DIM = 8;
const POLL_MS = 5;

const ROLES = ['scalars', 'vector', 'delta', 'index', 'manifest', 'metadata'] as const;
type Role = (typeof ROLES)[number];

type Damage = (bytes: Buffer, another: Buffer, role: Role) => Buffer | undefined;
const DAMAGES: Readonly<Record<string, Damage>> = {
  missing: () => undefined,
  truncated: (bytes) => bytes.subarray(0, bytes.length - 1),
  'one bit flipped': (bytes) => {
    const flipped = Buffer.from(bytes);
    flipped[flipped.length >> 1] ^= 4;
    return flipped;
  },
  "another's object": (_bytes, another) => another,
  'zero length': () => Buffer.alloc(0),
  'unknown version': (bytes, _another, role) => {
    if (role === 'metadata') return Buffer.from(bytes.toString().replace('"format_version": 1', '"format_version": 99'));
    const changed = Buffer.from(bytes);
    changed.write('9', 3);
    return changed;
  },
};

interface Row {
  readonly id: number;
  readonly word: string;
  readonly vector: readonly number[];
}

const rowOf = (id: number): Row => ({
  id,
  word: `word ${id}`,
  vector: Array.from({ length: DIM }, (_, i) => Math.fround(Math.sin(id * DIM + i + 1))),
});

/** A collection with segments, deletes and indexes, its snapshot `s1`, a later one, and what belongs to `s1`. */
class Scene {
  readonly sdk: MilvusClient;
  readonly admin: Client<typeof AdminDefinition>;
  readonly objects: ObjectStore;
  readonly #transport = new GrpcTransport(runtime, { timeoutMs: 60_000 });
  /** Keys that restoring `s1` reads, by role. */
  readonly keys = new Map<Role, string[]>();
  #later = '';

  constructor(address: string, objects: ObjectStore) {
    this.sdk = new MilvusClient({ address, timeout: 60_000, maxRetries: 1, logLevel: 'error' } as never);
    this.admin = this.#transport.client(AdminDefinition, address);
    this.objects = objects;
  }

  async build(): Promise<void> {
    const { sdk } = this;
    await sdk.connectPromise;
    const created = await sdk.createCollection({
      collection_name: 'source',
      shards_num: 2,
      fields: [
        { name: 'id', data_type: DataType.Int64, is_primary_key: true },
        { name: 'word', data_type: DataType.VarChar, max_length: 64 },
        { name: 'vector', data_type: DataType.FloatVector, dim: DIM },
      ],
      index_params: [{ field_name: 'vector', index_type: 'HNSW', metric_type: 'L2', params: { M: 8, efConstruction: 64 } }],
    } as never);
    expect(created.error_code, created.reason).toBe('Success');
    const data = Array.from({ length: ROWS }, (_, id) => ({ ...rowOf(id), vector: [...rowOf(id).vector] }));
    expect((await sdk.insert({ collection_name: 'source', data })).status.error_code).toBe('Success');
    await sdk.flushSync({ collection_names: ['source'] });
    expect((await sdk.delete({ collection_name: 'source', filter: 'id < 100' })).status.error_code).toBe('Success');
    await sdk.flushSync({ collection_names: ['source'] });
    for (const name of ['s0', 's1']) {
      // The first may be early for the builds of the indexes.
      if (name === 's1') await this.#indexed();
      const status = await sdk.createSnapshot({ collection_name: 'source', snapshot_name: name });
      expect(status.error_code, status.reason).toBe('Success');
    }
    const key = (name: string) =>
      this.admin.describeSnapshot({ database: '', collection: 'source', name, id: 0 }).then((info) => keyOf(info.location));
    this.#later = await key('s0');
    const bundle = await readSnapshot(this.objects, await key('s1'), { withSegments: true });
    const all = [
      ...bundle.segments.flatMap((segment) => segment.objects),
      ...bundle.deltaLogs.map((log) => log.object),
      ...bundle.segmentIndexes.map((build) => build.object),
      ...bundle.manifestObjects,
    ];
    for (const object of all) if (object) this.keys.set(object.role as Role, [...(this.keys.get(object.role as Role) ?? []), object.key]);
  }

  async #indexed(): Promise<void> {
    for (let tries = 0; tries < 2000; tries++) {
      const { index_descriptions: indexes } = await this.sdk.describeIndex({ collection_name: 'source' });
      if (indexes?.every((index) => Number(index.indexed_rows) >= ROWS && Number(index.pending_index_rows) === 0)) return;
      await runtime.sleep(20);
    }
    throw new Error('the indexes were not built');
  }

  /** Another object of that role and other content. */
  async another(role: Role, key: string): Promise<Buffer> {
    if (role === 'metadata') return Buffer.from(await this.objects.get(this.#later));
    const other = this.keys.get(role)?.find((candidate) => candidate !== key) ?? this.keys.get('scalars')?.[0];
    return Buffer.from(await this.objects.get(other ?? ''));
  }

  async replace(key: string, bytes: Buffer | undefined): Promise<void> {
    if (bytes === undefined) await this.objects.delete([key]);
    else await this.objects.put(key, bytes);
  }

  /** Why the restore failed or was refused; undefined: it is Completed. */
  async restore(target: string, mode: 'copy' | 'reference' = 'copy'): Promise<string | undefined> {
    let job: RestoreJobRecord;
    try {
      const { jobId } = await this.admin.restoreSnapshot({
        restore: {
          snapshot: { database: '', collection: 'source', name: 's1', id: 0 },
          targetDatabase: '',
          targetCollection: target,
          noIndex: false,
          shards: 0,
          rewriteData: false,
          mode,
          requestId: '',
          partitions: [],
        },
        dryRun: false,
      });
      for (;;) {
        job = await this.admin.getRestoreJob({ jobId });
        if (job.state >= RestoreJobState.RESTORE_COMPLETED) break;
        await runtime.sleep(POLL_MS);
      }
    } catch (error) {
      return error instanceof Error ? error.message : String(error);
    }
    return job.state === RestoreJobState.RESTORE_COMPLETED ? undefined : job.reason;
  }

  /** What is wrong with the rows of a collection; empty: nothing. Throws what load and query answer. */
  async differences(name: string): Promise<string> {
    const loaded = await this.sdk.loadCollectionSync({ collection_name: name });
    if (loaded.error_code !== 'Success') throw new Error(loaded.reason);
    const found = await this.rows(name, 60_000);
    if (found.length !== ROWS - 100) return `${found.length} rows, expected ${ROWS - 100}`;
    for (const row of found) {
      const was = rowOf(Number(row.id));
      if (was.id < 100 || row.word !== was.word || was.vector.some((x, i) => x !== row.vector[i])) return `row ${row.id} differs`;
    }
    return '';
  }

  async rows(name: string, timeout: number): Promise<Row[]> {
    const fields = ['id', 'word', 'vector'];
    const reply = await this.sdk.query({ collection_name: name, filter: 'id >= 0', output_fields: fields, limit: 16_000, timeout });
    if (reply.status.error_code !== 'Success') throw new Error(reply.status.reason);
    return reply.data as unknown as Row[];
  }

  async drop(name: string): Promise<void> {
    const status = await this.sdk.dropCollection({ collection_name: name });
    expect(status.error_code, status.reason).toBe('Success');
  }

  async has(name: string): Promise<boolean> {
    return Boolean((await this.sdk.hasCollection({ collection_name: name })).value);
  }

  async pins(): Promise<number> {
    return (await this.admin.describeSnapshot({ database: '', collection: 'source', name: 's1', id: 0 })).pins;
  }

  async close(): Promise<void> {
    await this.sdk.closeConnection();
    this.#transport.close();
    await this.objects.close();
  }
}

/** The key of a snapshot's metadata in its location. */
function keyOf(location: string): string {
  return location.slice(location.indexOf('snapshots/'));
}

/** Runs one cell; what was wrong with it, empty when it passed. */
async function cell(scene: Scene, role: Role, damage: Damage, target: string): Promise<string> {
  const [key = ''] = scene.keys.get(role) ?? [];
  const whole = Buffer.from(await scene.objects.get(key));
  await scene.replace(key, damage(whole, await scene.another(role, key), role));
  const wrong: string[] = [];
  try {
    const reason = await scene.restore(target);
    if (reason === undefined) {
      const differences = await scene.differences(target).catch((error: unknown) => String(error));
      if (differences !== '') wrong.push(`Completed and wrong: ${differences}`);
      await scene.drop(target);
    } else if (!reason.includes(key)) wrong.push(`the error does not name ${key}: ${reason}`);
    if (await scene.has(target)) wrong.push('the target is still there');
    if ((await scene.pins()) > 0) wrong.push('a pin is left');
  } finally {
    await scene.replace(key, whole);
  }
  const again = await scene.restore(target);
  if (again !== undefined) wrong.push(`the name is not usable at once: ${again}`);
  else await scene.drop(target);
  return wrong.join('; ');
}

async function matrix(scene: Scene, store: string, roles: readonly Role[]): Promise<void> {
  const lines: string[] = [];
  let passed = 0;
  let cells = 0;
  for (const [name, damage] of Object.entries(DAMAGES)) {
    const row: string[] = [];
    for (const role of roles) {
      const wrong = await cell(scene, role, damage, `target_${cells++}`);
      if (wrong === '') passed++;
      else lines.push(`${name} × ${role}: ${wrong}`);
      row.push((wrong === '' ? 'ok' : 'FAILED').padEnd(9));
    }
    lines.push(`${name.padEnd(18)}${row.join('')}`);
  }
  console.log(
    [`damaged snapshots on ${store}`, `${''.padEnd(18)}${roles.map((role) => role.padEnd(9)).join('')}`, ...lines].join('\n'),
    `\n${passed} cells passed of ${cells}`,
  );
  expect(passed, lines.join('\n')).toBe(cells);
}

async function onScene(server: Standalone, objects: ObjectStore, work: (scene: Scene) => Promise<void>): Promise<void> {
  const scene = new Scene(server.address, objects);
  try {
    await scene.build();
    for (const role of ROLES) expect(scene.keys.get(role)?.length ?? 0, role).toBeGreaterThan(0);
    await work(scene);
    // The source saw nothing of it, and a restore of the mended snapshot is exact.
    expect(await scene.restore('last')).toBeUndefined();
    expect(await scene.differences('last')).toBe('');
    expect(await scene.differences('source')).toBe('');
  } catch (error) {
    console.log(server.process.logTail(20));
    throw error;
  } finally {
    await scene.close();
    await server.stop();
  }
}

test('on disk: no damage to any object is restored as if nothing were; the error names the object', { timeout: 300_000 }, async () => {
  const server = await startStandalone();
  await onScene(server, new DiskObjectStore(join(server.dataDir, 'objects'), runtime), (scene) => matrix(scene, 'disk', ROLES));
});

test('a clone of a damaged snapshot is not read as if nothing were: its rows are not there to be read', {
  timeout: 300_000,
}, async () => {
  const server = await startStandalone();
  await onScene(server, new DiskObjectStore(join(server.dataDir, 'objects'), runtime), async (scene) => {
    expect(await scene.restore('clone_whole', 'reference')).toBeUndefined();
    expect(await scene.differences('clone_whole')).toBe('');
    for (const role of ['scalars', 'vector', 'delta'] as const) {
      const [key = ''] = scene.keys.get(role) ?? [];
      const whole = Buffer.from(await scene.objects.get(key));
      for (const [name, damage] of Object.entries(DAMAGES)) {
        const target = `clone_${role}_${name.replace(/\W/g, '_')}`;
        await scene.replace(key, damage(whole, await scene.another(role, key), role));
        expect(await scene.restore(target, 'reference')).toBeUndefined();
        await scene.sdk.loadCollectionAsync({ collection_name: target });
        const rows = await scene.rows(target, 1_000).catch(() => undefined);
        expect(rows, `${name} × ${role} was read as if nothing were`).toBeUndefined();
        await scene.replace(key, whole);
        await scene.drop(target);
      }
    }
  });
});

const available = await serversAvailable('minio');
test.skipIf(!available.ok)(
  `on MinIO: no damage to any object is restored as if nothing were${available.ok ? '' : ` (skipped: ${available.reason})`}`,
  { timeout: 300_000 },
  async () => {
    const minio = await startMinio();
    try {
      const { endpoint, region, accessKeyId, secretAccessKey } = minio;
      const settings = {
        'objects.kind': 's3',
        'objects.s3.endpoint': endpoint,
        'objects.s3.region': region,
        'objects.s3.bucket': 'cairn',
        'objects.s3.accessKeyId': accessKeyId,
        'objects.s3.secretAccessKey': secretAccessKey,
      };
      const server = await startStandalone({ settings });
      const objects = new S3ObjectStore(
        { endpoint, region, accessKeyId, secretAccessKey, bucket: 'cairn', root: 'files', pathStyle: true },
        runtime,
      );
      await onScene(server, objects, (scene) => matrix(scene, 'MinIO', ROLES));
    } finally {
      await minio.stop();
    }
  },
);
