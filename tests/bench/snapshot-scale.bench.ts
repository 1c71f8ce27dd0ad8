/**
 * What snapshots cost the coordinator in a catalog of many segments or many snapshots: CreateSnapshot and what another collection's change waits
 * meanwhile; list and describe, and the memory of 10,000 snapshots. Synthetic records, embedded stores; owners answer barriers at once.
 *   node tests/bench/snapshot-scale.bench.ts [create|list|all]
 */
import { keys, paths } from '@cairn/catalog';
import {
  CollectionRecord,
  DeltaLogRecord,
  IndexBuildState,
  SegmentIndexRecord,
  SegmentRecord,
  SnapshotDefinition,
  SnapshotRecord,
  SnapshotState,
} from '@cairn/proto/cairn/meta';
import { type Coordinator, startCoordinator } from './support/coordinator.ts';
import { cpuMs, Stretches } from './support/stretches.ts';
import { printTable, quantile, type Row, round } from './support/table.ts';

const only = process.argv[2] ?? 'all';
const SHARDS = 4;
const ROWS = 1_000;

function* segments(collection: number, partition: number, count: number): Generator<{ key: string; value: Uint8Array }> {
  for (let i = 0; i < count; i++) {
    const id = 10_000_000 + i;
    const prefix = paths.segment(collection, partition, id, 'a1b2c3');
    const object = (name: string, role: string, fieldId: number, size: number) => ({
      key: `${prefix}${name}`,
      size,
      crc32c: i,
      etag: `d41d8cd98f00b204e980${i.toString().padStart(12, '0')}`,
      role,
      fieldId,
    });
    const segment = SegmentRecord.fromPartial({
      id,
      collectionId: collection,
      partitionId: partition,
      shard: i % SHARDS,
      generation: 'a1b2c3',
      prefix,
      rows: ROWS,
      minTs: 1_000 + i,
      maxTs: 2_000 + i,
      objects: [object('scalars.arrow', 'scalars', 0, 100_000), object('vector.101.arrow', 'vector', 101, 400_000)],
      sorted: true,
      contentHash: `00112233445566778899${i.toString().padStart(12, '0')}`,
      bytes: 500_000,
    });
    yield { key: keys.segment(collection, id), value: SegmentRecord.encode(segment).finish() };
    const build = SegmentIndexRecord.fromPartial({
      buildId: 20_000_000 + i,
      indexId: 0,
      collectionId: collection,
      segmentId: id,
      fieldId: 101,
      state: IndexBuildState.INDEX_BUILD_FINISHED,
      object: object(`index.101.${20_000_000 + i}`, 'index', 101, 300_000),
      rows: ROWS,
      indexType: 'HNSW',
    });
    // An index that the definition does not have is not captured: half of the segments have one that counts.
    if (i % 2 === 0)
      yield {
        key: keys.segmentIndex(collection, id, 1),
        value: SegmentIndexRecord.encode({ ...build, indexId: indexOf(collection) }).finish(),
      };
  }
  const log = DeltaLogRecord.fromPartial({
    id: 9_000_000,
    collectionId: collection,
    rows: 10,
    minTs: 1_000,
    maxTs: 2_000,
    object: { key: paths.delta(collection, 0, 9_000_000, 'a1'), size: 1_000, crc32c: 1, role: 'delta' },
  });
  yield { key: keys.delta(collection, log.id), value: DeltaLogRecord.encode(log).finish() };
}

const indexIds = new Map<number, number>();
const indexOf = (collection: number): number => indexIds.get(collection) ?? 0;

/** Creates one after another; between, another collection's changes are sent without a pause. */
async function create(coordinator: Coordinator, count: number, times: number): Promise<Row> {
  const name = `of${count}`;
  const { collection, partition } = await coordinator.createCollection(name, SHARDS);
  indexIds.set(collection, await coordinator.createIndex(name));
  await coordinator.putAll(segments(collection, partition, count));
  const took: number[] = [];
  const waits: number[] = [];
  const alone: number[] = [];
  const other = `other${count}`;
  await coordinator.createCollection(other, 1);
  const change = async (into: number[], i: string): Promise<void> => {
    const start = performance.now();
    await coordinator.createPartition(other, `p${i}`);
    into.push(performance.now() - start);
  };
  for (let i = 0; i < 30; i++) await change(alone, `alone${i}`);
  const stretches = new Stretches();
  const cpu: number[] = [];
  for (let i = 0; i < times; i++) {
    const create = async () => {
      const start = performance.now();
      await coordinator.client.createSnapshot({
        requestId: '',
        database: '',
        collection: name,
        name: `s${i}`,
        description: '',
        compactionProtectionSeconds: 0,
      });
      return performance.now() - start;
    };
    // Timed without the other changes, then once more with them.
    if (i % 2 === 0) {
      stretches.start();
      const before = cpuMs();
      took.push(await create());
      cpu.push(cpuMs() - before);
      stretches.stop();
      continue;
    }
    let running = true;
    const created = create().finally(() => {
      running = false;
    });
    for (let j = 0; running; j++) await change(waits, `${i}_${j}`);
    await created;
  }
  return {
    segments: count,
    n: took.length,
    'create p50 ms': round(quantile(took, 0.5)),
    'max ms': round(Math.max(...took)),
    'CPU p50 ms': round(quantile(cpu, 0.5)),
    'longest stretch, CPU ms': round(stretches.longestMs),
    'another change alone, max ms': round(Math.max(...alone)),
    'during creates, max ms': round(Math.max(...waits)),
  };
}

function* snapshots(collection: number, count: number): Generator<{ key: string; value: Uint8Array }> {
  const definition = SnapshotDefinition.encode({
    collection: CollectionRecord.fromPartial({ id: collection, name: 'many', schema: Buffer.alloc(400, 'schema') }),
    databaseName: 'default',
    partitions: Array.from({ length: 4 }, (_, i) => ({
      id: i + 1,
      collectionId: collection,
      name: `partition_${i}`,
      createdTs: 1,
      droppedTs: 0,
    })),
    indexes: [],
  }).finish();
  for (let i = 0; i < count; i++) {
    const id = 30_000_000 + i;
    const record = SnapshotRecord.fromPartial({
      id,
      collectionId: collection,
      name: `nightly_${i}`,
      ts: 1_000_000 + i,
      state: SnapshotState.SNAPSHOT_COMMITTED,
      createdMs: 1_700_000_000_000 + i,
      definition,
      metadataKey: paths.snapshotMetadata(collection, id),
      rows: 1_000,
      bytes: 1_000_000,
      segments: 10,
    });
    yield { key: keys.snapshot(collection, id), value: SnapshotRecord.encode(record).finish() };
  }
}

function heap(): number {
  globalThis.gc?.();
  const { heapUsed, external, arrayBuffers } = process.memoryUsage();
  return (heapUsed + external + arrayBuffers) / 2 ** 20;
}

async function lists(count: number): Promise<void> {
  const rows: Row[] = [];
  const coordinator = await startCoordinator();
  try {
    const { collection } = await coordinator.createCollection('many', 1);
    const empty = heap();
    await coordinator.putAll(snapshots(collection, count));
    await coordinator.again();
    const full = heap();
    const timed = async (what: string, times: number, call: (i: number) => Promise<unknown>): Promise<void> => {
      const took: number[] = [];
      const cpu: number[] = [];
      for (let i = 0; i < times; i++) {
        const [start, before] = [performance.now(), cpuMs()];
        await call(i);
        took.push(performance.now() - start);
        cpu.push(cpuMs() - before);
      }
      rows.push({
        what,
        n: times,
        'p50 ms': round(quantile(took, 0.5), 2),
        'p99 ms': round(quantile(took, 0.99), 2),
        'CPU p99 ms': round(quantile(cpu, 0.99), 2),
      });
    };
    const { client } = coordinator;
    await timed('list, names of all (the Milvus call)', 300, () => client.listSnapshots({ ...LIST, collection: 'many', namesOnly: true }));
    await timed('list, first page of 100', 300, () => client.listSnapshots({ ...LIST, collection: 'many', pageSize: 100 }));
    await timed('describe', 2_000, (i) =>
      client.describeSnapshot({ database: '', collection: 'many', name: `nightly_${(i * 7919) % count}`, id: 0 }),
    );
    await timed('pin', 300, (i) =>
      client.pinSnapshot({ snapshot: { database: '', collection: 'many', name: `nightly_${i}`, id: 0 }, ttlSeconds: 0, requestId: '' }),
    );
    printTable(`${count} snapshots of one collection; memory for them ${round(full - empty)} MB`, rows);
  } finally {
    await coordinator.stop();
  }
}
const LIST = { database: '', collection: '', partition: '', pageSize: 0, pageToken: '', namesOnly: false, all: false, sizes: false };

if (only !== 'list') {
  const coordinator = await startCoordinator({ snapshotTimeoutMs: 600_000 });
  try {
    const rows: Row[] = [];
    for (const [count, times] of [
      [100, 60],
      [10_000, 16],
      [100_000, 8],
    ] as const)
      rows.push(await create(coordinator, count, times));
    printTable('CreateSnapshot by number of segments, half of them with an index; LMDB and disk in one process', rows);
  } finally {
    await coordinator.stop();
  }
}
if (only !== 'create') await lists(10_000);
