import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SystemRuntime } from '@cairn/base';
import { afterAll, describe, expect, test } from 'vitest';
import { LmdbMetaStore } from '../src/index.ts';
import { metaStoreContract } from './contract.ts';

const runtime = new SystemRuntime();
const dir = mkdtempSync(join(tmpdir(), 'cairn-meta-'));
afterAll(() => rmSync(dir, { recursive: true }));

metaStoreContract('LMDB', async () => {
  const store = await LmdbMetaStore.open(join(dir, 'contract'), runtime);
  return { store, other: store, history: false, loseLease: (lease) => store.loseLease(lease.id), close: () => store.close() };
});

describe('LmdbMetaStore', () => {
  test('entries and revisions survive a restart; keys of leases do not', async () => {
    const path = join(dir, 'restart');
    const before = await LmdbMetaStore.open(path, runtime);
    const lease = await before.grantLease(60_000);
    await before.txn({ then: [{ kind: 'put', key: 'é/a', value: Buffer.from('1') }] });
    const { revision } = await before.txn({ then: [{ kind: 'put', key: 'node/a', value: Buffer.from('2'), lease: lease.id }] });
    const entry = await before.get('é/a');
    await before.close();
    const after = await LmdbMetaStore.open(path, runtime);
    expect(await after.get('é/a')).toEqual(entry);
    expect(await after.get('node/a')).toBeUndefined();
    const next = await after.txn({ then: [{ kind: 'put', key: 'b', value: Buffer.from('3') }] });
    expect(next.revision).toBeGreaterThan(revision);
    await after.close();
  });

  test('what a killed process had been told is done is there', async () => {
    const path = join(dir, 'killed');
    const program = `
      import { SystemRuntime } from '@cairn/base';
      import { LmdbMetaStore } from ${JSON.stringify(join(import.meta.dirname, '../src/index.ts'))};
      const store = await LmdbMetaStore.open(${JSON.stringify(path)}, new SystemRuntime());
      for (let index = 0; ; index++) {
        await store.txn({ then: [{ kind: 'put', key: 'count', value: Buffer.from(String(index)) }, { kind: 'put', key: 'k/' + index, value: new Uint8Array(10) }] });
        process.stdout.write(index + '\\n');
      }`;
    const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', program], {
      cwd: import.meta.dirname,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let told = '';
    child.stdout.on('data', (chunk: Buffer) => {
      told += chunk.toString();
      if (told.split('\n').length > 100) child.kill('SIGKILL');
    });
    await once(child, 'close');
    const last = Number(told.split('\n').at(-2));
    const store = await LmdbMetaStore.open(path, runtime);
    const count = Number(Buffer.from((await store.get('count'))?.value ?? []).toString());
    expect(last).toBeGreaterThan(50);
    expect(count).toBeGreaterThanOrEqual(last);
    let keys = 0;
    for (let after: string | undefined; ; ) {
      const page = await store.range({ prefix: 'k/', ...(after === undefined ? {} : { after }) });
      keys += page.entries.length;
      after = page.entries.at(-1)?.key;
      if (!page.more) break;
    }
    expect(keys).toBe(count + 1);
    await store.close();
  });
});
