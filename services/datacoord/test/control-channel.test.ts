import { CairnError, silentLogger } from '@cairn/base';
import { keys } from '@cairn/catalog';
import type { ObjectStore } from '@cairn/objects';
import { CollectionRecord, PartitionRecord } from '@cairn/proto/cairn/meta';
import { ControlRecord } from '@cairn/proto/cairn/wal';
import { openChannelWriter } from '@cairn/wal';
import { afterEach, describe, expect, test } from 'vitest';
import { World, type WorldOptions } from './world.ts';

let world: World;
let books: number;
afterEach(() => world.stop());

async function begin(options: WorldOptions = {}): Promise<void> {
  world = new World(options);
  await world.node('streaming', 's1');
  await world.coordinator('a');
  books = (await world.createCollection('a', 'books')).id;
  await world.createCollection('a', 'other');
}

const partition = (collection: string, name: string) =>
  ({ $case: 'createPartition', value: { database: '', collection, name, id: 0 } }) as const;
const partitions = async (collection: number) =>
  (await world.meta.range({ prefix: keys.partitions(collection) })).entries.map(({ value }) => PartitionRecord.decode(value).name).sort();
const create = (name: string, node = 'a') =>
  world
    .client(node)
    .createSnapshot({ requestId: '', database: '', collection: 'books', name, description: '', compactionProtectionSeconds: 0 });

/** Appends to the control channel as a leader would that then died: under an epoch between the last leader's and the next one's. */
async function appendBetween(payloads: readonly Uint8Array[]): Promise<void> {
  await world.stopCoordinators();
  const entry = await world.meta.get(keys.controlEpoch);
  const epoch = Number(Buffer.from(entry?.value ?? '0').toString()) + 1;
  const writer = await openChannelWriter(world.wal, 'control', epoch, { runtime: world.runtime, logger: silentLogger });
  for (const payload of payloads) await writer.append([{ subject: 'change', payload }]);
  writer.close();
  await world.meta.txn({ then: [{ kind: 'put', key: keys.controlEpoch, value: Buffer.from(String(epoch)) }] });
}

describe('nothing done to one collection holds up another', () => {
  test('a handler that throws is an answer; the changes behind it go on, also in the next leader', async () => {
    await begin();
    // Its handler has no collection to look at.
    const poison = {
      $case: 'createCollection',
      value: { database: '', collection: CollectionRecord.fromPartial({}), partitions: [], checkpoints: [] },
    };
    const bad = world.submit('a', poison as Parameters<World['submit']>[1], 'bad').catch((error: unknown) => error);
    const good = world.submit('a', partition('other', 'p1'));
    expect(await bad).toBeInstanceOf(Error);
    await good;
    await world.stopCoordinators();
    await world.coordinator('b');
    await world.submit('b', partition('other', 'p2'));
  });

  test('a duplicate create of a snapshot is refused for good, and other changes go on at once', async () => {
    await begin();
    await create('s1');
    await expect(create('s1')).rejects.toThrow('already exists');
    await world.submit('a', partition('books', 'p1'));
    await world.stopCoordinators();
    await world.coordinator('b');
    await world.submit('b', partition('books', 'p2'));
    expect(await partitions(books)).toEqual(['_default', 'p1', 'p2']);
  });

  test('while the object store is away a snapshot waits, and every other change is carried out', async () => {
    let away = true;
    await begin({
      objects: (inner) =>
        new Proxy(inner, {
          get(target, name) {
            if (name === 'put' && away) return async () => Promise.reject(new CairnError('StoreUnavailable', 'the bucket is away'));
            const value = Reflect.get(target, name) as unknown;
            return typeof value === 'function' ? value.bind(target) : value;
          },
        }) as ObjectStore,
    });
    let ended = false;
    const creating = create('slow').finally(() => {
      ended = true;
    });
    await world.until(() => world.barriers.length === 2, 'the barriers are asked for');
    for (let i = 0; i < 5; i++) await world.submit('a', partition(i % 2 === 0 ? 'books' : 'other', `p${i}`));
    await world.submit('a', { $case: 'dropCollection', value: { database: '', name: 'other', collectionId: 0 } });
    expect(ended).toBe(false);
    away = false;
    await creating;
  });

  test('a shard that never answers its barrier keeps its snapshot waiting, and no other collection', async () => {
    await begin({ settings: { snapshotTimeoutMs: 1_500 } });
    world.onBarrier = () => new Promise(() => {});
    let ended = false;
    const creating = create('stuck').catch((error: unknown) => {
      ended = true;
      return error;
    });
    await world.until(() => world.barriers.length > 0, 'the barrier is asked for');
    await world.submit('a', partition('books', 'p1'));
    await world.submit('a', partition('other', 'p1'));
    expect(ended).toBe(false);
    expect(await creating).toMatchObject({ codeName: 'Timeout' });
  });
});

describe('what is delivered twice, late or damaged', () => {
  test('a record that is in the log twice is carried out once, and a later one that came before it stays as it was', async () => {
    await begin();
    const message = (name: string) => {
      const change = { $case: 'createPartition' as const, value: { database: '', collection: 'books', name, id: 4_000 + name.length } };
      return ControlRecord.encode({ requestId: `r-${name}`, change }).finish();
    };
    const drop = ControlRecord.encode({
      requestId: 'r-drop',
      change: { $case: 'dropPartition', value: { database: '', collection: 'books', name: 'one' } },
    }).finish();
    // Made, dropped, and then delivered once more: the second delivery must not bring it back.
    await appendBetween([message('one'), drop, message('three'), message('one'), drop, message('three')]);
    await world.coordinator('b');
    const alive = (await world.meta.range({ prefix: keys.partitions(books) })).entries
      .map(({ value }) => PartitionRecord.decode(value))
      .filter((record) => record.droppedTs === 0);
    expect(alive.map((record) => record.name).sort()).toEqual(['_default', 'three']);
  });

  test('bytes that are no message change nothing and stop no leader', async () => {
    await begin();
    await appendBetween([Buffer.from([0xff, 0xff, 0xff, 0xff]), Buffer.alloc(0)]);
    await world.coordinator('b');
    await world.submit('b', partition('books', 'p1'));
    await world.stopCoordinators();
    await world.coordinator('c');
    expect(await partitions(books)).toEqual(['_default', 'p1']);
  });
});
