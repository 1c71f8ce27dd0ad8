/**
 * Creates of snapshots on real processes with etcd, JetStream and MinIO, at the moments that no luck hits: the coordinator dies when the object that
 * decides is written and the catalog does not say so yet, or the other way; and a create over 10,000 segments under a writer.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadConfig, SystemRuntime, silentLogger } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { scan } from '@cairn/meta';
import { SegmentRecord } from '@cairn/proto/cairn/meta';
import { openStores } from '@cairn/stores';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Cluster, startCluster } from '../support/cairn.ts';
import { Cli } from '../support/cli.ts';
import { findingsOf } from '../support/consistency.ts';
import type { Outcome, Row } from '../support/outcome.ts';
import { serversAvailable } from '../support/servers.ts';
import { WireClient } from '../support/wire-client.ts';

const TIMEOUT_MS = 180_000;
/** A create that has not got its barriers by then is aborted. */
const CREATE_MS = 15_000;
const RESTORE_MS = 60_000;
const METADATA = /\/snapshots\/\d+\/metadata\/(\d+)\.json$/;
const ROWS = 30;
const SEGMENTS = 10_000;
/** Ids that no allocator gives out in so short a run. */
const FIRST_ID = 900_000_000;
const PUTS_PER_TXN = 50;

const available = await serversAvailable();

describe.skipIf(!available.ok)('a create', { timeout: TIMEOUT_MS }, () => {
  let cluster: Cluster;
  let client: WireClient;
  const cli = new Cli(() => cluster.addresses[0] ?? '');

  beforeAll(async () => {
    const settings = { 'snapshot.timeoutMs': CREATE_MS, 'compaction.enabled': 'false' };
    cluster = await startCluster({ proxies: 1, datacoords: 1, streamings: 1, datanodes: 1, storeProxy: true, settings });
    client = new WireClient(cluster.addresses, () => 0);
  }, TIMEOUT_MS);
  afterAll(async () => {
    client?.close();
    await cluster?.stop();
  });

  async function done<T>(what: string, outcome: Promise<Outcome<T>>): Promise<T> {
    const result = await outcome;
    if (result.kind !== 'done') throw new Error(`${what} was ${result.kind}: ${result.reason}`);
    return result.value;
  }

  /** Rows of `version`, flushed and not, in a loaded collection. */
  async function make(name: string): Promise<readonly Row[]> {
    await done('create collection', client.createCollection(name, 2));
    await done('prepare', client.prepare(name));
    const rows = Array.from({ length: ROWS }, (_, key) => ({ key, version: 1 }));
    await done('upsert', client.upsert(name, rows.slice(0, ROWS / 2)));
    await done('flush', client.flush(name));
    await done('upsert', client.upsert(name, rows.slice(ROWS / 2)));
    return rows;
  }

  async function expectExact(name: string, rows: readonly Row[]): Promise<void> {
    const { snapshots } = await done('list', client.listSnapshots(name));
    expect(snapshots).toEqual(['s']);
    const target = `${name}_back`;
    const { jobId } = await done('restore', client.restore(name, 's', target));
    expect(await client.restored(jobId, RESTORE_MS)).toEqual({ state: 'completed', reason: '' });
    await done('load', client.load(target));
    const restored = await done('rows', client.rows(target));
    expect(restored.toSorted((a, b) => a.key - b.key)).toEqual(rows);
  }

  async function loseCoordinator(): Promise<void> {
    const [coordinator] = cluster.processes.datacoord;
    await coordinator?.kill();
    await coordinator?.restart();
  }

  const catchMetadata = async (when: 'before' | 'after'): Promise<string> => {
    const { path } = (await cluster.storeProxy?.catchPut(METADATA, when)) ?? { path: '' };
    return METADATA.exec(path)?.[1] ?? 'not caught';
  };
  const idOf = async (name: string): Promise<string> => String((await cli.json('snapshot', 'describe', '-c', name, 's'))['id']);

  test('whose coordinator dies when the metadata is in the bucket and the catalog does not know is finished by the next', async () => {
    const rows = await make('forward');
    const caught = catchMetadata('after');
    const created = client.createSnapshot('forward', 's');
    const id = await caught;
    await loseCoordinator();
    await created;
    await expect.poll(() => client.listSnapshots('forward'), { timeout: RESTORE_MS }).toMatchObject({ value: { snapshots: ['s'] } });
    expect(await idOf('forward')).toBe(id);
    await expectExact('forward', rows);
  });

  test('whose coordinator dies before the metadata reaches the bucket is undone, its name is free, another is exact', async () => {
    const rows = await make('back');
    const caught = catchMetadata('before');
    const created = client.createSnapshot('back', 's');
    const id = await caught;
    await loseCoordinator();
    await created;
    // The call may have been tried again by then, under its name.
    const { snapshots } = await done('list', client.listSnapshots('back'));
    if (snapshots.length === 0) await done('create once more', client.createSnapshot('back', 's'));
    expect(await idOf('back')).not.toBe(id);
    await expectExact('back', rows);
  });

  test('that is aborted stays so when the coordinator dies between the tombstone and the catalog', async () => {
    const rows = await make('aborted');
    const [owner] = cluster.processes.streaming;
    const caught = catchMetadata('after');
    // No owner answers the barrier: at its time limit the create is aborted, tombstone first.
    owner?.pause();
    const created = client.createSnapshot('aborted', 's', 1);
    const id = await caught.finally(() => owner?.resume());
    await loseCoordinator();
    expect((await created).kind).not.toBe('done');
    await done('create once more', client.createSnapshot('aborted', 's'));
    expect(await idOf('aborted')).not.toBe(id);
    await expectExact('aborted', rows);
    expect(await findingsOf(cluster.addresses[0] ?? '', true)).toBe('');
  });

  /** The first flushed segment of a collection under so many ids more. */
  async function multiply(count: number): Promise<{ readonly collectionId: number; readonly rows: number }> {
    const dir = await mkdtemp(join(tmpdir(), 'cairn-stores-'));
    const sets = Object.entries({ ...cluster.settings, dataDir: dir }).map(([key, value]) => `${key}=${value}`);
    const stores = await openStores(loadConfig({ sets, env: {} }), new SystemRuntime(), silentLogger);
    try {
      const records: SegmentRecord[] = [];
      for await (const page of scan(stores.meta, keys.allSegments)) for (const { value } of page) records.push(SegmentRecord.decode(value));
      const record = records.toSorted((a, b) => a.collectionId - b.collectionId).at(-1);
      if (!record) throw new Error('nothing was flushed');
      for (let at = 0; at < count; at += PUTS_PER_TXN) {
        const then = Array.from({ length: Math.min(PUTS_PER_TXN, count - at) }, (_, i) => ({
          kind: 'put' as const,
          key: keys.segment(record.collectionId, FIRST_ID + at + i),
          value: SegmentRecord.encode({ ...record, id: FIRST_ID + at + i }).finish(),
        }));
        await stores.meta.txn({ then });
      }
      return { collectionId: record.collectionId, rows: record.rows };
    } finally {
      await stores.close();
      await rm(dir, { recursive: true, force: true });
    }
  }

  test('over 10,000 segments has all of them while rows are written, and no write is refused', async () => {
    await make('many');
    await multiply(SEGMENTS);
    let [over, written, refused] = [false, 0, ''];
    const ingest = (async () => {
      for (let key = 1_000; !over; key++, written++) {
        const outcome = await client.upsert('many', [{ key, version: 2 }]);
        if (outcome.kind !== 'done') refused ||= outcome.reason;
      }
    })();
    await done('create', client.createSnapshot('many', 's', 1)).finally(() => {
      over = true;
    });
    await ingest;
    expect(refused).toBe('');
    expect(written).toBeGreaterThan(0);
    const described = await cli.json('snapshot', 'describe', '-c', 'many', 's');
    expect(Number(described['segments'])).toBeGreaterThan(SEGMENTS);
    expect(await cli.json('snapshot', 'verify', '-c', 'many', 's')).toMatchObject({ findings: [] });
  });
});
