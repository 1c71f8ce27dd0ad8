/** What proves a snapshot whole, through the command: inspected in its bucket, verified, restored on trial. On a standalone server over MinIO. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MilvusClient } from '@zilliz/milvus2-sdk-node';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Standalone, startStandalone } from '../support/cairn.ts';
import { Cli } from '../support/cli.ts';
import { type MinioServer, serversAvailable, startMinio } from '../support/servers.ts';
import { Workload } from '../support/workload.ts';

const available = await serversAvailable('minio');

let minio: MinioServer;
let server: Standalone;
let workload: Workload;
let dir: string;
let s3: string[];

const cli = new Cli(() => server.address);
const cairn = async (...args: string[]) => {
  const { code, stdout: out, stderr: err } = await cli.run(...args);
  return { code, out, err };
};
const json = (...args: string[]) => cli.json(...args);

describe.skipIf(!available.ok)(`a snapshot over MinIO ${available.reason}`, { timeout: 180_000 }, () => {
  beforeAll(async () => {
    minio = await startMinio();
    const settings = {
      'objects.kind': 's3',
      'objects.s3.endpoint': minio.endpoint,
      'objects.s3.region': minio.region,
      'objects.s3.bucket': 'cairn',
      'objects.s3.accessKeyId': minio.accessKeyId,
      'objects.s3.secretAccessKey': minio.secretAccessKey,
    };
    s3 = Object.entries(settings).flatMap(([name, value]) => ['--set', `${name}=${value}`]);
    dir = mkdtempSync(join(tmpdir(), 'cairn-proof-'));
    server = await startStandalone({ settings });
    workload = new Workload({ address: server.address, collection: 'kept', seed: 11 });
    await workload.prepare();
    for (let step = 0; step < 25; step++) await workload.step();
    expect((await cairn('snapshot', 'create', '-c', 'kept', 'proved')).code).toBe(0);
  }, 180_000);
  afterAll(async () => {
    await workload?.close();
    await server?.stop();
    await minio?.stop();
    rmSync(dir, { recursive: true, force: true });
  });

  test('is inspected at its s3 address without the server, with the credentials of a config; a wrong address and wrong keys are said in words', async () => {
    const described = await json('snapshot', 'describe', '-c', 'kept', 'proved');
    const location = String(described['location']);
    expect(location).toMatch(/^s3:\/\/cairn\/.*snapshots\/\d+\/metadata\/\d+\.json$/);
    const inspected = await json('snapshot', 'inspect', location, '--segments', ...s3);
    expect(inspected).toMatchObject({ snapshot: 'proved', collection: 'kept', rows: described['rows'], segments: described['segments'] });
    const missing = await cairn('snapshot', 'inspect', location.replace(/\d+\.json$/, '1.json'), ...s3);
    expect([missing.code, missing.out + missing.err]).toEqual([1, expect.stringContaining('object not found')]);
    const wrong = s3.map((arg) => (arg.includes('secretAccessKey') ? 'objects.s3.secretAccessKey=wrong' : arg));
    expect((await cairn('snapshot', 'inspect', location, ...wrong)).code).toBe(1);
  });

  test('is verified in full, with a report for machines, and goes on where a run before was stopped', async () => {
    const whole = await json('snapshot', 'verify', '-c', 'kept', 'proved', '--deep');
    expect(whole).toMatchObject({ whole: true, findings: [], unrecorded_segments: 0 });
    expect(whole['content_hash']).toMatch(/^[0-9a-f]{32}$/);
    expect(Number(whole['visible_rows'])).toBeGreaterThan(0);
    const file = join(dir, 'verify.json');
    writeFileSync(file, JSON.stringify({ snapshot: 'proved', collection: 'kept', deep: false, cursor: '', findings: [] }));
    expect(await json('snapshot', 'verify', '-c', 'kept', 'proved', '--resume', file)).toMatchObject({ whole: true });
    writeFileSync(file, JSON.stringify({ snapshot: 'other', collection: 'kept', deep: true, cursor: '', findings: [] }));
    expect((await cairn('snapshot', 'verify', '-c', 'kept', 'proved', '--deep', '--resume', file)).err).toContain(
      'of another verification',
    );
  });

  test('has the content hash of its restore and of its clone, and another as soon as a row is written', async () => {
    const visible = async (collection: string, name: string) => {
      for (;;) {
        const found = await json('snapshot', 'describe', '-c', collection, name);
        if (found['visible_hash'] !== null) return { hash: found['visible_hash'], rows: found['visible_rows'] };
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    };
    const original = await visible('kept', 'proved');
    for (const way of ['restore', 'clone']) {
      expect((await cairn('snapshot', way, '-c', 'kept', 'proved', `${way}d`, '--wait')).code).toBe(0);
      expect((await cairn('snapshot', 'create', '-c', `${way}d`, 'again')).code).toBe(0);
      expect(await visible(`${way}d`, 'again'), way).toEqual(original);
    }
    const sdk = new MilvusClient({ address: server.address });
    await sdk.loadCollectionSync({ collection_name: 'cloned' });
    const { schema } = await sdk.describeCollection({ collection_name: 'cloned' });
    const key = schema.fields.find((field) => field.is_primary_key);
    const gone = await sdk.delete({ collection_name: 'cloned', filter: `${key?.name} ${key?.data_type === 'VarChar' ? '>= ""' : '>= 0'}` });
    expect(Number(gone.delete_cnt)).toBeGreaterThan(0);
    await sdk.closeConnection();
    expect((await cairn('snapshot', 'create', '-c', 'cloned', 'emptied')).code).toBe(0);
    const emptied = await visible('cloned', 'emptied');
    expect(emptied.hash).not.toBe(original.hash);
    expect(emptied.rows).toBe(Number(original.rows) - Number(gone.delete_cnt));
  });

  test('is drilled: every row counted and hashed, vectors found, nothing left but a certificate that anyone can verify offline', async () => {
    const drilled = await json('snapshot', 'drill', '-c', 'kept', 'proved');
    const whole = await json('snapshot', 'verify', '-c', 'kept', 'proved', '--deep');
    expect(drilled).toMatchObject({ counted: whole['visible_rows'], rows: whole['visible_rows'], content_hash: whole['visible_hash'] });
    expect(String(drilled['searched'])).toMatch(/^[1-9]\d* of \w+, [1-9]\d* found themselves$/);
    const sdk = new MilvusClient({ address: server.address });
    const names = (await sdk.showCollections({})).data.map((one) => one.name);
    expect(names.filter((name) => name.includes('drill'))).toEqual([]);
    const reserved = sdk.createCollection({ collection_name: '__cairn_drill_1', dimension: 4 });
    await expect(reserved).rejects.toMatchObject({ reason: expect.stringContaining('reserved') });
    await sdk.closeConnection();
    const list = JSON.parse((await cairn('-o', 'json', 'snapshot', 'certificate', 'list', '-c', 'kept', 'proved')).out) as {
      valid: unknown;
    }[];
    expect(list.map((one) => one.valid)).toEqual([true]);
    expect(await json('snapshot', 'certificate', 'verify', '-c', 'kept', 'proved')).toMatchObject({ valid: true, snapshot: 'proved' });
    const status = await json('status');
    const key = String(status['certificate_key']);
    const { S3ObjectStore } = await import('@cairn/objects/s3');
    const { SystemRuntime } = await import('@cairn/base');
    const { endpoint, region, accessKeyId, secretAccessKey } = minio;
    const described = await json('snapshot', 'describe', '-c', 'kept', 'proved');
    const below = /^s3:\/\/cairn\/(.*?)\/?snapshots\//.exec(String(described['location']))?.[1] ?? '';
    const objects = new S3ObjectStore(
      { endpoint, region, accessKeyId, secretAccessKey, bucket: 'cairn', root: below, pathStyle: true },
      new SystemRuntime(),
    );
    const text = Buffer.from(await objects.get(String(drilled['certificate']))).toString();
    await objects.close();
    const [good, bad] = [join(dir, 'good.json'), join(dir, 'bad.json')];
    writeFileSync(good, text);
    writeFileSync(bad, text.replace('"counted_rows": ', '"counted_rows": 1'));
    const offline = ['-a', '127.0.0.1:1', 'snapshot', 'certificate', 'verify', '--key', key];
    expect((await cairn(...offline, good)).code).toBe(0);
    const refused = await cairn(...offline, bad);
    expect([refused.code, refused.err]).toEqual([1, expect.stringContaining('its signature does not fit')]);
    expect(await json('check', '--deep')).toMatchObject({ findings: [] });
  });
});
