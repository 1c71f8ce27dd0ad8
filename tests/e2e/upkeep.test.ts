/** Garbage, checks and contents of snapshots through the command, against a standalone server with real rows on disk. */
import { readdir, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { MilvusClient } from '@zilliz/milvus2-sdk-node';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Standalone, startStandalone } from '../support/cairn.ts';
import { Cli } from '../support/cli.ts';
import { Workload } from '../support/workload.ts';

const GRACE_MS = 500;

let server: Standalone;
let workload: Workload;
beforeAll(async () => {
  // Rounds only when asked for.
  server = await startStandalone({ settings: { 'gc.graceMs': GRACE_MS, 'gc.intervalMs': 3_600_000 } });
  workload = new Workload({ address: server.address, collection: 'kept', seed: 7 });
  await workload.prepare();
  for (let step = 0; step < 30; step++) await workload.step();
}, 120_000);
afterAll(async () => {
  await workload.close();
  await server.stop();
});

const cli = new Cli(() => server.address);
const cairn = (...args: string[]) => cli.run(...args);
const json = (...args: string[]) => cli.json(...args);

async function files(part: string): Promise<string[]> {
  const all = await readdir(join(server.dataDir, 'objects'), { recursive: true, withFileTypes: true });
  return all
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .filter((path) => path.includes(part));
}

describe('the cairn command', { timeout: 120_000 }, () => {
  test('check finds nothing after a working day, deep or not, and says how much it read', async () => {
    await workload.snapshot();
    expect(await json('check')).toMatchObject({ findings: [] });
    const deep = await json('check', '--deep');
    expect(deep['findings']).toEqual([]);
    expect(Number(deep['objects'])).toBeGreaterThan(0);
  });

  test('a snapshot is inspected without a server, verified, compared', async () => {
    expect((await cairn('snapshot', 'create', '-c', 'kept', 'first')).code).toBe(0);
    for (let step = 0; step < 10; step++) await workload.step();
    expect((await cairn('snapshot', 'create', '-c', 'kept', 'second')).code).toBe(0);
    const described = await json('snapshot', 'describe', '-c', 'kept', 'second');
    const inspected = await json('snapshot', 'inspect', String(described['location']), '--segments');
    expect(inspected).toMatchObject({ snapshot: 'second', collection: 'kept', rows: described['rows'], segments: described['segments'] });
    expect(await json('snapshot', 'verify', '-c', 'kept', 'second', '--deep')).toMatchObject({ findings: [] });
    expect(Number((await json('snapshot', 'diff', '-c', 'kept', 'first', 'second'))['segments_shared'])).toBeGreaterThan(0);
    expect((await cairn('snapshot', 'sizes', '-c', 'kept')).out).toContain('second');
    const [segment] = JSON.parse(String(inspected['segment_list'])) as { readonly segment: number }[];
    const finding = await cairn('snapshot', 'find', '--segment', String(segment?.segment));
    expect([finding.code, finding.out]).toEqual([0, expect.stringContaining('second')]);
    expect((await cairn('snapshot', 'find')).out).toContain('one of them');
    const listed = JSON.parse((await cairn('snapshot', 'list', '-c', 'kept', '-o', 'json')).out) as Record<string, unknown>[];
    const first = listed.find((one) => one['name'] === 'first');
    expect(first).toMatchObject({ name: 'first', state: 'Committed', exclusive: expect.any(Number), pins: 0 });
    expect((await cairn('snapshot', 'list', '-o', 'yaml')).out).toContain('name: second');
    expect(await json('snapshot', 'describe', '--id', String(first?.['id']))).toMatchObject({ name: 'first' });
    expect((await cairn('snapshot', 'restore', '--id', String(first?.['id']), 'by_id', '--wait')).code).toBe(0);
    expect((await cairn('snapshot', 'describe', 'first')).out).toContain('-c');
    expect((await cairn('snapshot', 'inspect', '/nowhere/snapshots/1/metadata/2.json')).out).toContain('object not found');
  });

  test('the objects of a dropped collection are planned with their reason, kept for the grace time, then deleted; the rest is untouched', async () => {
    const others = new Set(await files('/segments/'));
    const other = new Workload({ address: server.address, collection: 'dropped', seed: 8 });
    await other.prepare();
    for (let step = 0; step < 10; step++) await other.step();
    expect((await cairn('snapshot', 'create', '-c', 'dropped', 'makes_it_flush')).code).toBe(0);
    const kept = new Set((await files('/segments/')).filter((path) => !others.has(path)));
    await other.close();
    expect((await cairn('snapshot', 'drop', '-c', 'dropped', 'makes_it_flush')).code).toBe(0);
    const sdk = new MilvusClient({ address: server.address, timeout: 20_000 } as never);
    await sdk.dropCollection({ collection_name: 'dropped' });
    await sdk.closeConnection();
    expect((await cairn('gc', 'plan')).out).toContain('was dropped');
    const first = await json('gc', 'run');
    expect(Number(first['marked'])).toBeGreaterThan(0);
    await new Promise((resolve) => setTimeout(resolve, GRACE_MS + 100));
    await json('gc', 'run');
    // Of those that were there: compaction may write others meanwhile.
    expect((await files('/segments/')).filter((path) => kept.has(path)).length).toBeLessThan(kept.size);
    expect(await json('check', '--deep')).toMatchObject({ findings: [] });
    expect(await json('snapshot', 'verify', '-c', 'kept', 'second', '--deep')).toMatchObject({ findings: [] });
  });

  test('a damaged object ends check with exit code 1 and is named', async () => {
    const [victim = ''] = (await files('/segments/')).filter((path) => path.endsWith('scalars.arrow'));
    await truncate(victim, 10);
    const { code, out } = await cairn('check');
    expect(code).toBe(1);
    expect(out).toContain(victim.slice(victim.indexOf('segments/')));
  });
});
