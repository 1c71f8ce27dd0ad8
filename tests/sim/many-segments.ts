/** A collection with very many segments, made of records alone: each is a copy of the one that a flush made, under an id of its own. */
import { keys } from '@cairn/catalog';
import { scan } from '@cairn/meta';
import { SegmentRecord, SnapshotRecord } from '@cairn/proto/cairn/meta';
import { readSnapshot } from '@cairn/segment';
import { SimulatedClient } from './client.ts';
import { World } from './world.ts';

const COLLECTION = 'many';
/** Ids that no allocator gives out in so short a run. */
const FIRST_ID = 900_000_000;
const PUTS_PER_TXN = 50;
const LIMIT_MS = 600_000;

/** Creates a snapshot of `segments` segments while rows are written; what must not be, in words. */
export async function createOverManySegments(segments: number, seed: number): Promise<readonly string[]> {
  Error.stackTraceLimit = 0;
  // The copies share their rows and are small: compaction would merge them as soon as they are there.
  const world = new World({ seed, settings: ['compaction.enabled=false'] });
  const client = new SimulatedClient(world);
  const { outside } = world;
  let version = 0;
  let refused = 0;
  const write = async (key: number): Promise<void> => {
    const outcome = await client.upsert(COLLECTION, [{ key, version: ++version }]);
    if (outcome.kind !== 'done') refused++;
  };
  const story = async (): Promise<void> => {
    world.start();
    const created = await client.createCollection(COLLECTION, 1);
    if (created.kind !== 'done') throw new Error(`no collection: ${created.reason}`);
    await write(1);
    await client.flush(COLLECTION);
    await outside.sleep(3_000);
    const rows = await multiply(world, segments);
    await outside.sleep(2_000);

    // Answered before the snapshot was asked for; what is sent from here on may be in or not.
    const written = version;
    let over = false;
    const ingest = (async () => {
      for (let key = 2; !over; key++) await write(key);
    })();
    const snapshot = await client.createSnapshot(COLLECTION, 's');
    over = true;
    await ingest;
    if (snapshot.kind !== 'done') return world.problem(`create was ${snapshot.kind}: ${snapshot.reason}`);
    if (refused > 0) world.problem(`${refused} writes were not done meanwhile`);
    for await (const page of scan(world.meta, keys.snapshots)) {
      for (const { value } of page) {
        const bundle = await readSnapshot(world.objects, SnapshotRecord.decode(value).metadataKey, { withSegments: true });
        const ids = new Set(bundle.segments.map(({ id }) => id));
        if (ids.size !== bundle.segments.length) world.problem('a segment is listed twice');
        if (ids.size < segments) world.problem(`${ids.size} of ${segments} segments are in the snapshot`);
        // Those that were written before, and of those written meanwhile any beginning.
        if (bundle.rows < rows + written - 1 || bundle.rows > rows + version) world.problem(`the snapshot has ${bundle.rows} rows`);
      }
    }
  };
  try {
    await world.simulation.run(story(), LIMIT_MS);
  } catch (error) {
    world.problem(`the run did not end: ${error instanceof Error ? error.stack : String(error)}`);
  }
  world.end();
  return world.problems;
}

/** The flushed segment so many times; the rows of all of them. */
async function multiply(world: World, segments: number): Promise<number> {
  const entries = [];
  for await (const page of scan(world.meta, keys.allSegments)) entries.push(...page);
  const [first] = entries;
  if (!first) throw new Error('nothing was flushed');
  const record = SegmentRecord.decode(first.value);
  for (let at = 1; at < segments; at += PUTS_PER_TXN) {
    const ids = Array.from({ length: Math.min(PUTS_PER_TXN, segments - at) }, (_, i) => FIRST_ID + at + i);
    const puts = ids.map((id) => ({
      kind: 'put' as const,
      key: keys.segment(record.collectionId, id),
      value: SegmentRecord.encode({ ...record, id }).finish(),
    }));
    await world.meta.txn({ if: [], then: puts });
  }
  return record.rows * segments;
}
