/** Credentials, encryption and full stores, on the real servers with an authority made here. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CairnError, loadConfig, STORE_FULL, SystemRuntime, silentLogger } from '@cairn/base';
import { AlarmAction, AlarmType, Etcd3, Permission } from 'etcd3';
import { afterAll, describe, expect, test } from 'vitest';
import { type ServerTls, startEtcd, startNats } from '../../../tests/support/servers.ts';
import { openStores } from '../src/index.ts';

const runtime = new SystemRuntime();
const dir = mkdtempSync(join(tmpdir(), 'cairn-access-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: dir, stdio: 'pipe' });

/** An authority, and a certificate of it for servers and clients on this machine. */
function authority(name: string): ServerTls {
  const path = (suffix: string) => join(dir, `${name}${suffix}`);
  openssl(
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-days',
    '2',
    '-subj',
    `/CN=${name} authority`,
    '-keyout',
    path('-ca.key'),
    '-out',
    path('-ca.crt'),
  );
  openssl(
    'req',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:P-256',
    '-nodes',
    '-subj',
    '/CN=cairn',
    '-keyout',
    path('.key'),
    '-out',
    path('.csr'),
  );
  writeFileSync(path('.ext'), 'subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth,clientAuth\n');
  openssl(
    'x509',
    '-req',
    '-days',
    '2',
    '-in',
    path('.csr'),
    '-CA',
    path('-ca.crt'),
    '-CAkey',
    path('-ca.key'),
    '-CAcreateserial',
    '-extfile',
    path('.ext'),
    '-out',
    path('.crt'),
  );
  return { caFile: path('-ca.crt'), certFile: path('.crt'), keyFile: path('.key') };
}

const tlsSettings = (path: string, { caFile, certFile, keyFile }: ServerTls) => [
  `${path}.caFile=${caFile}`,
  `${path}.certFile=${certFile}`,
  `${path}.keyFile=${keyFile}`,
];
const address = (url: string | undefined) => (url ?? '').replace(/^[a-z]+:\/\//, '');
const open = (...sets: string[]) => openStores(loadConfig({ env: {}, sets: ['objects.kind=memory', ...sets] }), runtime, silentLogger);

describe('etcd', () => {
  test('behind TLS with client certificates and users: with them all works, without them nothing, in words', {
    timeout: 60_000,
  }, async () => {
    const tls = authority('etcd');
    const server = await startEtcd({ tls });
    const common = ['wal.kind=memory', 'meta.kind=etcd', 'meta.callTimeoutMs=1500', `meta.etcd.endpoints=${address(server.endpoints[0])}`];
    const secured = [...common, ...tlsSettings('meta.etcd.tls', tls)];
    const { readFileSync } = await import('node:fs');
    const admin = new Etcd3({
      hosts: [...server.endpoints],
      credentials: {
        rootCertificate: readFileSync(tls.caFile),
        certChain: readFileSync(tls.certFile),
        privateKey: readFileSync(tls.keyFile),
      },
    });
    try {
      const root = admin.user('root');
      await root.create('top');
      await admin.role('root').create();
      await root.addRole('root');
      const role = admin.role('cairn');
      await role.create();
      await admin.auth.roleGrantPermission({
        name: 'cairn',
        // The library's type wants a name, its encoder the number.
        perm: { permType: Permission.Readwrite as never, key: Buffer.from('cairn/'), range_end: Buffer.from('cairn0') },
      });
      const user = admin.user('writer');
      await user.create('secret');
      await user.addRole('cairn');
      await admin.auth.authEnable();

      const stores = await open(...secured, 'meta.etcd.username=writer', 'meta.etcd.password=secret');
      const { revision } = await stores.meta.txn({ then: [{ kind: 'put', key: 'a', value: Buffer.from('1') }] });
      expect((await stores.meta.get('a'))?.modRevision).toBe(revision);
      const lease = await stores.meta.grantLease(2_000);
      await runtime.sleep(2_500);
      expect(lease.lost.aborted).toBe(false);
      await lease.revoke();
      await stores.close();

      for (const [sets, words] of [
        [[...secured, 'meta.etcd.username=writer', 'meta.etcd.password=wrong'], /authentication failed|permission denied/],
        [common, /etcd/],
      ] as const) {
        const refused = await open(...sets);
        await expect(refused.meta.get('a')).rejects.toMatchObject({ codeName: 'StoreUnavailable', message: expect.stringMatching(words) });
        await refused.close();
      }
    } finally {
      admin.close();
      await server.stop();
    }
  });

  test('out of quota (NOSPACE) it is named, retriable, still reads, and writes again when there is room', { timeout: 60_000 }, async () => {
    const server = await startEtcd({ quotaBytes: 2 ** 21 });
    const stores = await open('wal.kind=memory', 'meta.kind=etcd', `meta.etcd.endpoints=${address(server.endpoints[0])}`);
    const admin = new Etcd3({ hosts: [...server.endpoints] });
    try {
      const value = new Uint8Array(100_000);
      let full: unknown;
      for (let n = 0; n < 200 && !full; n++)
        await stores.meta.txn({ then: [{ kind: 'put', key: `k${n % 3}`, value }] }).catch((error: unknown) => {
          full = error;
        });
      expect(full).toMatchObject({
        codeName: 'StoreUnavailable',
        retriable: true,
        extraInfo: { [STORE_FULL]: 'etcd' },
        message: expect.stringContaining('NOSPACE'),
      });
      expect(await stores.meta.get('k0')).toBeDefined();
      const { header } = await admin.kv.range({ key: Buffer.from('x') });
      await admin.kv.compact({ revision: header.revision, physical: true });
      await admin.maintenance.defragment();
      const { alarms } = await admin.maintenance.alarm({
        action: AlarmAction.Get as never,
        memberID: '0',
        alarm: AlarmType.Nospace as never,
      });
      for (const { memberID } of alarms)
        await admin.maintenance.alarm({ action: AlarmAction.Deactivate as never, memberID, alarm: AlarmType.Nospace as never });
      await stores.meta.txn({ then: [{ kind: 'put', key: 'again', value: new Uint8Array(1) }] });
    } finally {
      admin.close();
      await stores.close();
      await server.stop();
    }
  });
});

describe('NATS', () => {
  test('behind TLS with client certificates and users: with them all works, without them it waits and says why', {
    timeout: 60_000,
  }, async () => {
    const tls = authority('nats');
    const server = await startNats({ tls, users: { writer: 'secret' } });
    const common = ['meta.kind=memory', 'wal.kind=jetstream', `wal.nats.servers=${address(server.servers[0])}`];
    const secured = [...common, ...tlsSettings('wal.nats.tls', tls), 'wal.nats.username=writer'];
    try {
      const stores = await open(...secured, 'wal.nats.password=secret');
      await stores.wal.ensureChannel('dml_0');
      expect((await stores.wal.state('dml_0')).lastSequence).toBe(0);
      await stores.close();
      for (const sets of [[...secured, 'wal.nats.password=wrong'], common]) {
        const told: string[] = [];
        const config = loadConfig({ env: {}, sets: ['objects.kind=memory', ...sets] });
        const logger = { ...silentLogger, warn: (fields: object) => told.push(String((fields as { error?: unknown }).error)) };
        const stop = new AbortController();
        const opening = openStores(config, runtime, logger, stop.signal);
        opening.catch(() => undefined);
        while (told.length === 0) await runtime.sleep(20);
        stop.abort();
        await expect(opening).rejects.toBeInstanceOf(CairnError);
        expect(told[0]).toMatch(/[Aa]uthorization|certificate|tls/);
      }
    } finally {
      await server.stop();
    }
  });

  test('without room for its streams it is named and retriable', { timeout: 60_000 }, async () => {
    const server = await startNats({ maxFileBytes: 2 ** 20 });
    const stores = await open('meta.kind=memory', 'wal.kind=jetstream', `wal.nats.servers=${address(server.servers[0])}`);
    try {
      await stores.wal.ensureChannel('dml_0');
      let full: unknown;
      for (let n = 0; n < 20 && !full; n++) {
        const { lastSequence } = await stores.wal.state('dml_0');
        await stores.wal.append('dml_0', 'data', new Uint8Array(200_000), lastSequence).catch((error: unknown) => {
          full = error;
        });
      }
      expect(full).toMatchObject({ codeName: 'StoreUnavailable', retriable: true, extraInfo: { [STORE_FULL]: 'jetstream' } });
    } finally {
      await stores.close();
      await server.stop();
    }
  });
});

test('half a certificate, or two ways to be let in, are refused with the name of the setting', async () => {
  await expect(open('wal.kind=memory', 'meta.kind=etcd', 'meta.etcd.tls.certFile=/x')).rejects.toThrow(
    /meta\.etcd\.tls\.keyFile.*missing|keyFile is missing/,
  );
  await expect(open('wal.kind=memory', 'meta.kind=etcd', 'meta.etcd.tls.caFile=/nowhere/ca.crt')).rejects.toThrow(
    /meta\.etcd\.tls\.caFile.*nowhere/,
  );
  await expect(open('meta.kind=memory', 'wal.kind=jetstream', 'wal.nats.username=a', 'wal.nats.token=b')).rejects.toThrow(
    /one of username, token/,
  );
});
