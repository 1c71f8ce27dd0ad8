import { CairnError, deferred } from '@cairn/base';
import { HIDDEN_PREFIX, keys } from '@cairn/catalog';
import { CollectionRecord, CollectionState, type DrillRecord, DrillState } from '@cairn/proto/cairn/meta';
import type { CheckResponse, ListCertificatesResponse } from '@cairn/proto/cairn/upkeep';
import { verifyCertificate } from '@cairn/segment';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { DataCoordService } from '../src/index.ts';
import { flushRealDeletes, flushRows } from './contents.ts';
import { World } from './world.ts';

// Worker threads are slow to start on a busy machine.
vi.setConfig({ testTimeout: 120_000 });
const ROWS = 50;
const context = undefined as never;
const request = { database: '', collection: 'books', name: 's', requestId: '' };

let world: World;
let coordinator: DataCoordService;
let leader: string;
let collection: number;
let vectorKey: string;

beforeEach(async () => {
  world = new World({ settings: { gcIntervalMs: 3_600_000 } });
  await world.node('streaming', 's1');
  await world.node('datanode', 'd1');
  await lead('a');
  collection = (await world.createCollection('a', 'books')).id;
  const page = await world.meta.range({ prefix: keys.partitions(collection) });
  const partition = Number(page.entries[0]?.key.split('/').at(-1));
  await flushRows(world, collection, partition, ROWS);
  vectorKey = (await flushRows(world, collection, partition, ROWS)).objects[1]?.key ?? '';
  await flushRealDeletes(world, collection, [3, 4, 5], 1_000);
  const snapshot = { database: '', collection: 'books', name: 's', requestId: '', description: '', compactionProtectionSeconds: 0 };
  await world.client(leader).createSnapshot(snapshot);
});
afterEach(() => world.stop());

async function lead(nodeId: string): Promise<void> {
  leader = nodeId;
  coordinator = await world.coordinator(nodeId);
}
const get = async (id: number) => (await coordinator.upkeep.getDrill({ id }, context)) as DrillRecord;
const start = async (more: Partial<typeof request> = {}) =>
  (await coordinator.upkeep.startDrill({ ...request, ...more }, context)) as DrillRecord;
const certificates = async () =>
  (await coordinator.upkeep.listCertificates(
    { database: '', collection: 'books', name: 's', snapshotId: 0, deep: false, paged: false, cursor: '' },
    context,
  )) as ListCertificatesResponse;
async function over(id: number): Promise<DrillRecord> {
  await world.until(async () => (await get(id)).state !== DrillState.DRILL_RUNNING, 'the drill is over', 60_000);
  return get(id);
}
async function leftovers(): Promise<string[]> {
  const page = await world.meta.range({ prefix: 'catalog/collection/' });
  const collections = page.entries.map((entry) => CollectionRecord.decode(entry.value));
  const pins = await world.meta.range({ prefix: keys.pins });
  return [
    ...collections.filter((one) => one.state !== CollectionState.COLLECTION_DROPPED && one.id !== collection).map((one) => one.name),
    ...pins.entries.map((entry) => entry.key),
  ];
}
const findings = async () => ((await coordinator.upkeep.check({ deep: true }, context)) as CheckResponse).findings;

describe('a drill', () => {
  test('restores, hashes and drops, and leaves a certificate that says what was found, signed by the key of the status', async () => {
    const { id } = await start();
    expect(await over(id)).toMatchObject({ state: DrillState.DRILL_COMPLETED, reason: '' });
    const listed = await certificates();
    expect(listed.certificates).toHaveLength(1);
    const text = listed.certificates[0]?.text ?? '';
    const { body } = verifyCertificate(text, listed.publicKey);
    expect(body.content).toMatchObject({ visible_rows: 2 * ROWS - 6, restored_hash: body.content.snapshot_hash });
    expect(body).toMatchObject({ drill_id: id, snapshot: { name: 's', collection: 'books' }, restored: { segments: 2 } });
    expect((await world.client(leader).getClusterStatus({})).certificateKey).toBe(listed.publicKey);
    expect(await leftovers()).toEqual([]);
    expect(await findings()).toEqual([]);
  });

  test('the key is made once: a later leader signs with it too', async () => {
    await over((await start()).id);
    const { publicKey } = await certificates();
    await world.stopCoordinators();
    await lead('b');
    await over((await start()).id);
    const listed = await certificates();
    expect(listed.publicKey).toBe(publicKey);
    expect(listed.certificates.map(({ text }) => verifyCertificate(text, publicKey).publicKey)).toEqual([publicKey, publicKey]);
  });

  test('of a damaged snapshot fails naming the object, leaves no certificate and nothing else', async () => {
    const bytes = Buffer.from(await world.objects.get(vectorKey));
    bytes[900] ^= 1;
    await world.objects.put(vectorKey, bytes);
    const { state, reason } = await over((await start()).id);
    expect(state).toBe(DrillState.DRILL_FAILED);
    expect(reason).toContain(vectorKey);
    expect((await certificates()).certificates).toEqual([]);
    expect(await leftovers()).toEqual([]);
  });

  test('that a leader left half-way is undone by the next: no collection, no pin, no certificate', async () => {
    let held = () => {};
    const reached = new Promise<void>((resolve) => {
      const copy = world.task;
      world.task = async function* (task, call) {
        resolve();
        await new Promise<void>((go) => {
          held = go;
        });
        yield* copy(task, call);
      };
    });
    const { id, targetCollectionName } = await start();
    expect(targetCollectionName).toMatch(new RegExp(`^${HIDDEN_PREFIX}`));
    await reached;
    await world.stopCoordinators();
    world.task = (task) => world.copyForReal(task);
    await lead('b');
    held();
    expect(await over(id)).toMatchObject({ state: DrillState.DRILL_FAILED, reason: 'restore: the coordinator changed during the drill' });
    expect(await leftovers()).toEqual([]);
    expect((await certificates()).certificates).toEqual([]);
    expect(await findings()).toEqual([]);
  });

  test.each(['before', 'after'])(
    'whose leader ends %s its certificate is written is completed by the next: one certificate, and no FAILED drill beside it',
    async (when) => {
      const put = world.objects.put.bind(world.objects);
      const reached = deferred<void>();
      world.objects.put = async (...args) => {
        if (!args[0].includes('/certificates/')) return put(...args);
        if (when === 'after') await put(...args);
        reached.resolve();
        return new Promise(() => undefined);
      };
      const { id } = await start();
      await reached.promise;
      const stopped = world.stopCoordinators();
      world.objects.put = put;
      await stopped;
      await lead('b');
      const record = await over(id);
      expect(record).toMatchObject({ state: DrillState.DRILL_COMPLETED, reason: '', phase: '' });
      const { certificates: found, publicKey } = await certificates();
      expect(found.map((one) => one.text)).toEqual([record.certificate]);
      expect(verifyCertificate(record.certificate, publicKey).body).toMatchObject({ drill_id: id });
      expect(await leftovers()).toEqual([]);
      expect(await findings()).toEqual([]);
    },
  );

  test('whose certificate was written though the store said no fails and leaves none', async () => {
    const put = world.objects.put.bind(world.objects);
    world.objects.put = async (...args) => {
      const info = await put(...args);
      if (args[0].includes('/certificates/')) throw new CairnError('Internal', 'the store said no');
      return info;
    };
    const record = await over((await start()).id);
    expect(record).toMatchObject({
      state: DrillState.DRILL_FAILED,
      reason: 'sign: the store said no',
      certificate: '',
      certificateKey: '',
    });
    world.objects.put = put;
    expect((await certificates()).certificates).toEqual([]);
    expect(await leftovers()).toEqual([]);
  });

  test('keeps its snapshot: a drop is refused until it is over, and takes the certificates along', async () => {
    const { id } = await start();
    const drop = () => world.client(leader).dropSnapshot({ database: '', collection: 'books', name: 's', id: 0 });
    await expect(drop()).rejects.toThrow('active pins exist');
    const { certificateKey } = await over(id);
    expect((await world.objects.list('snapshots/')).objects.map((object) => object.key)).toContain(certificateKey);
    await drop();
    await world.until(async () => (await world.objects.list('snapshots/')).objects.length === 0, 'its objects are gone');
  });

  test('a repeat under the same request id gets the same drill', async () => {
    const first = await start({ requestId: 'r' });
    expect((await start({ requestId: 'r' })).id).toBe(first.id);
    await over(first.id);
    expect((await start({ requestId: 'r' })).id).toBe(first.id);
  });

  test('a repeat that comes before the first is answered gets the same drill, and no second one runs', async () => {
    const [first, second] = await Promise.all([start({ requestId: 'r' }), start({ requestId: 'r' })]);
    expect(second.id).toBe(first.id);
    await over(first.id);
    expect((await certificates()).certificates).toHaveLength(1);
  });
});
