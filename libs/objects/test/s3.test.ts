import { SystemRuntime } from '@cairn/base';
import { describe, expect, test } from 'vitest';
import { serversAvailable, startMinio } from '../../../tests/support/servers.ts';
import { S3ObjectStore, type S3Options } from '../src/s3-object-store.ts';
import { objectStoreContract, TEST_COPY_PART_BYTES, TEST_SINGLE_COPY_BYTES } from './contract.ts';

const available = await serversAvailable('minio');
type Minio = Awaited<ReturnType<typeof startMinio>>;

function optionsFor(minio: Minio, root: string): S3Options {
  const { endpoint, region, accessKeyId, secretAccessKey } = minio;
  return {
    ...{ endpoint, region, accessKeyId, secretAccessKey, root, bucket: 'cairn', pathStyle: true },
    multipartCopyBytes: TEST_SINGLE_COPY_BYTES,
    copyPartBytes: TEST_COPY_PART_BYTES,
  };
}

describe.skipIf(!available.ok)(`S3 on MinIO ${available.reason}`, () => {
  for (const root of ['', 'some/root']) {
    objectStoreContract(`S3, root '${root}'`, async () => {
      const minio = await startMinio();
      const store = new S3ObjectStore(optionsFor(minio, root), new SystemRuntime());
      return {
        store,
        reopen: async () => new S3ObjectStore(optionsFor(minio, root), new SystemRuntime()),
        stop: async () => {
          await store.close();
          await minio.stop();
        },
      };
    });
  }

  test('the bucket is made when it is missing, by whatever comes first', async () => {
    const minio = await startMinio();
    const stores = Array.from({ length: 4 }, () => new S3ObjectStore(optionsFor(minio, 'r'), new SystemRuntime()));
    try {
      await Promise.all(stores.map((store, i) => store.put(`k/${i}`, new Uint8Array(i))));
      expect((await stores[0].list('k/')).objects).toHaveLength(4);
    } finally {
      await Promise.all(stores.map((store) => store.close()));
      await minio.stop();
    }
  });

  test('a server that is down: retriable within the limits, and all goes on when it is back', async () => {
    const minio = await startMinio();
    const store = new S3ObjectStore({ ...optionsFor(minio, ''), attempts: 2, timeoutMs: 2000 }, new SystemRuntime());
    try {
      await store.ping();
      await store.put('before', new Uint8Array([1]));
      await minio.kill();
      const error = await store.get('before').catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ codeName: 'StoreUnavailable', retriable: true });
      await expect(store.ping()).rejects.toMatchObject({ codeName: 'StoreUnavailable' });
      await minio.restart();
      expect(await store.get('before')).toEqual(new Uint8Array([1]));
      minio.process.pause();
      await expect(store.put('hangs', new Uint8Array(10))).rejects.toMatchObject({ codeName: 'StoreUnavailable' });
      minio.process.resume();
      expect((await store.put('goes on', new Uint8Array(10)).catch((thrown: unknown) => thrown)) as object).toMatchObject({
        codeName: 'Internal',
      });
      expect((await store.put('goes-on', new Uint8Array(10))).size).toBe(10);
    } finally {
      await store.close();
      await minio.stop();
    }
  });

  test('without keys in the options they come from the environment', async () => {
    const minio = await startMinio();
    const { accessKeyId, secretAccessKey, ...rest } = optionsFor(minio, '');
    const before = { ...process.env };
    Object.assign(process.env, { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey });
    const store = new S3ObjectStore(rest, new SystemRuntime());
    try {
      expect((await store.put('a', new Uint8Array(3))).size).toBe(3);
    } finally {
      for (const name of ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY'] as const) {
        if (before[name] === undefined) delete process.env[name];
        else process.env[name] = before[name];
      }
      await store.close();
      await minio.stop();
    }
  });

  test('wrong credentials are refused at once, not retried', async () => {
    const minio = await startMinio();
    const store = new S3ObjectStore({ ...optionsFor(minio, ''), secretAccessKey: 'wrong' }, new SystemRuntime());
    try {
      await expect(store.put('a', new Uint8Array(1))).rejects.toMatchObject({ codeName: 'Internal' });
    } finally {
      await store.close();
      await minio.stop();
    }
  });
});
