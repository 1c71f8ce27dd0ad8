import { CairnError } from '@cairn/base';
import { keys } from '@cairn/catalog';
import type { MetaStore } from '@cairn/meta';
import { type RestoreJobRecord, RestoreJobState } from '@cairn/proto/cairn/meta';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { sealSegment } from './contents.ts';
import { World } from './world.ts';

const SEGMENTS = 5_000;
const ITEMS = 50;
const SEALED_AT_ONCE = 100;
const LOSSES = 3;
const TIMEOUT_MS = 120_000;

let world: World;
/** Keys that coordinators wrote or deleted. */
let writes = 0;
const counted = (inner: MetaStore): MetaStore =>
  new Proxy(inner, {
    get(target, name) {
      const value = Reflect.get(target, name) as unknown;
      if (typeof value !== 'function') return value;
      if (name !== 'txn') return value.bind(target);
      return (request: { readonly then: readonly unknown[] }) => {
        writes += request.then.length;
        return value.call(target, request) as unknown;
      };
    },
  });

beforeEach(async () => {
  world = new World({
    meta: counted,
    settings: { leaseTtlMs: 60_000, copyTaskItems: ITEMS, sweepPeriodMs: 3_600_000, gcIntervalMs: 3_600_000 },
  });
  await world.node('streaming', 's1');
  await world.node('datanode', 'd1');
  await world.coordinator('a');
});
afterEach(() => world.stop());

async function snapshotOf(segments: number): Promise<void> {
  const { id: collection } = await world.createCollection('a', 'books');
  const [partition] = (await world.meta.range({ prefix: keys.partitions(collection) })).entries;
  const partitionId = Number(partition?.key.split('/').at(-1));
  for (let at = 0; at < segments; at += SEALED_AT_ONCE) {
    const count = Math.min(SEALED_AT_ONCE, segments - at);
    await Promise.all(
      Array.from({ length: count }, (_, i) =>
        sealSegment(world, { collection, partition: partitionId, shard: i % 2, minTs: 5, maxTs: 50 }),
      ),
    );
  }
  await world
    .client('a')
    .createSnapshot({ requestId: '', database: '', collection: 'books', name: 's1', description: '', compactionProtectionSeconds: 0 });
}

const restore = async (target: string, node: string): Promise<number> =>
  (
    await world.client(node).restoreSnapshot({
      snapshot: { database: '', collection: 'books', name: 's1', id: 0 },
      ...{ targetDatabase: '', targetCollection: target, noIndex: false, shards: 0, rewriteData: false, mode: '', requestId: '' },
      partitions: [],
    })
  ).jobId;

async function ended(jobId: number, node: string): Promise<RestoreJobRecord> {
  let job: RestoreJobRecord | undefined;
  const over = async () => {
    job = await world.client(node).getRestoreJob({ jobId });
    return job.state >= RestoreJobState.RESTORE_COMPLETED;
  };
  await world.until(over, 'the job ends', TIMEOUT_MS);
  return job as RestoreJobRecord;
}

test('a restore of 5,000 segments ends though its coordinator is lost three times, and writes about as many records as one that was let be', {
  timeout: 2 * TIMEOUT_MS,
}, async () => {
  await snapshotOf(SEGMENTS);
  writes = 0;
  expect(await ended(await restore('calm', 'a'), 'a')).toMatchObject({ state: RestoreJobState.RESTORE_COMPLETED });
  const calm = writes;
  expect(calm).toBeGreaterThan(SEGMENTS);

  writes = 0;
  let copied = 0;
  world.task = async function* (request) {
    copied++;
    yield* world.copyForReal(request);
  };
  let node = 'a';
  const jobId = await restore('lost', node);
  for (let loss = 1; loss <= LOSSES; loss++) {
    await world.until(() => copied >= (loss * SEGMENTS) / ITEMS / (LOSSES + 2), `part ${loss} is copied`, TIMEOUT_MS);
    await world.stopCoordinators();
    node = `after${loss}`;
    await world.coordinator(node);
  }
  const job = await ended(jobId, node);
  expect(job).toMatchObject({ state: RestoreJobState.RESTORE_COMPLETED });
  const { entries } = await world.meta.range({ prefix: keys.segments(job.targetCollectionId), limit: 1_000_000 });
  expect(entries).toHaveLength(SEGMENTS);
  expect(writes / calm).toBeLessThan(1.3);
});

test('once a job has failed nothing of it is dispatched any more', async () => {
  await snapshotOf(ITEMS * 20);
  let dispatched = 0;
  world.task = async function* (request) {
    if (++dispatched === 3) throw new CairnError('ObjectDamaged', 'an object is damaged');
    yield* world.copyForReal(request);
  };
  const jobId = await restore('failing', 'a');
  expect(await ended(jobId, 'a')).toMatchObject({ state: RestoreJobState.RESTORE_FAILED, reason: 'an object is damaged' });
  const then = dispatched;
  // Whatever waited for a slot had its turn by the time that another job went all the way through the same slots.
  world.task = (request) => {
    if (request.task?.$case === 'copy' && request.task.value.jobId === jobId) dispatched++;
    return world.copyForReal(request);
  };
  await ended(await restore('next', 'a'), 'a');
  expect(dispatched).toBe(then);
  expect(then).toBeLessThan(20);
});
