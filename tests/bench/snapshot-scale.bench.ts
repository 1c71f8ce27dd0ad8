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
import { ListSnapshotsResponse } from '@cairn/proto/cairn/services';
import { ListSnapshotsResponse as WireList } from '@cairn/proto/milvus/milvus';
import { writeSnapshot } from '@cairn/segment';
import { type Coordinator, SCHEMA, startCoordinator } from './support/coordinator.ts';
import { heapMb } from './support/heap.ts';
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

/** Snapshots of ten segments each, with their metadata in the bucket: most segments are in many of them, as where one is taken every hour. */
async function putSnapshots({ stores, putAll }: Coordinator, collection: number, partition: number, count: number): Promise<void> {
  const definition = SnapshotDefinition.fromPartial({
    collection: CollectionRecord.fromPartial({ id: collection, name: 'many', schema: SCHEMA }),
    databaseName: 'default',
    partitions: Array.from({ length: 4 }, (_, i) => ({
      id: i + 1,
      collectionId: collection,
      name: `partition_${i}`,
      createdTs: 1,
      droppedTs: 0,
    })),
    indexes: [],
  });
  const bytes = SnapshotDefinition.encode(definition).finish();
  const of = (from: number) => {
    const found: SegmentRecord[] = [];
    const builds: SegmentIndexRecord[] = [];
    for (let id = from; id < from + SEGMENTS_EACH; id++) {
      const prefix = paths.segment(collection, partition, id, 'a1b2c3');
      const object = (name: string, role: string) => ({ key: `${prefix}${name}`, size: 1_000, crc32c: id, etag: '', role, fieldId: 101 });
      found.push(
        SegmentRecord.fromPartial({ id, collectionId: collection, prefix, rows: ROWS, objects: [object('scalars.arrow', 'scalars')] }),
      );
      const index = object(`index.101.${id * 2}`, 'index');
      builds.push(SegmentIndexRecord.fromPartial({ buildId: id * 2, collectionId: collection, segmentId: id, object: index }));
    }
    return { segments: found, segmentIndexes: builds, deltaLogs: [], shards: [] };
  };
  const put = async (i: number): Promise<{ key: string; value: Uint8Array }> => {
    const id = 30_000_000 + i;
    const record = SnapshotRecord.fromPartial({
      id,
      collectionId: collection,
      name: `nightly_${i}`,
      ts: 1_000_000 + i,
      state: SnapshotState.SNAPSHOT_COMMITTED,
      createdMs: 1_700_000_000_000 + i,
      definition: bytes,
      metadataKey: paths.snapshotMetadata(collection, id),
      rows: 1_000,
      bytes: 1_000_000,
      segments: SEGMENTS_EACH,
    });
    await writeSnapshot(stores.objects, { record, definition, contents: of(FIRST_SEGMENT + i), clusterId: 'bench' });
    return { key: keys.snapshot(collection, id), value: SnapshotRecord.encode(record).finish() };
  };
  for (let at = 0; at < count; at += 50)
    await putAll(await Promise.all(Array.from({ length: Math.min(50, count - at) }, (_, i) => put(at + i))));
}
const SEGMENTS_EACH = 10;
const FIRST_SEGMENT = 40_000_000;

async function lists(count: number): Promise<void> {
  const rows: Row[] = [];
  const coordinator = await startCoordinator();
  try {
    const { collection, partition } = await coordinator.createCollection('many', 1);
    await coordinator.again();
    const empty = heapMb();
    await putSnapshots(coordinator, collection, partition, count);
    await coordinator.again();
    const records = heapMb();
    // Whoever asks which snapshots refer to a segment, or the first collection of garbage, has all of them read.
    const { snapshots } = await coordinator.upkeep.findSnapshots({ segmentId: FIRST_SEGMENT + 5_000, buildId: 0 }, { timeoutMs: 600_000 });
    if (snapshots.length !== SEGMENTS_EACH) throw new Error(`${snapshots.length} snapshots refer to a segment that ${SEGMENTS_EACH} have`);
    const full = heapMb();
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
    await timed('list, names of all (the Milvus call)', 300, () =>
      client.listSnapshots({ ...LIST, collection: 'many', namesOnly: true, bareNames: true }),
    );
    const listed = await client.listSnapshots({ ...LIST, collection: 'many', namesOnly: true, bareNames: true });
    await timed('the same, encoded for the proxy, decoded, encoded for the client', 300, async () => {
      const { names } = ListSnapshotsResponse.decode(ListSnapshotsResponse.encode(listed).finish());
      WireList.encode(WireList.fromPartial({ snapshots: names })).finish();
    });
    await timed('list, first page of 100', 300, () => client.listSnapshots({ ...LIST, collection: 'many', pageSize: 100 }));
    await timed('describe', 2_000, (i) =>
      client.describeSnapshot({ database: '', collection: 'many', name: `nightly_${(i * 7919) % count}`, id: 0 }),
    );
    await timed('pin', 300, (i) =>
      client.pinSnapshot({ snapshot: { database: '', collection: 'many', name: `nightly_${i}`, id: 0 }, ttlSeconds: 0, requestId: '' }),
    );
    const memory = `memory for them ${round(records - empty)} MB, ${round(full - empty)} MB with what each of them refers to`;
    printTable(`${count} snapshots of ${SEGMENTS_EACH} segments in one collection; ${memory}`, rows);
  } finally {
    await coordinator.stop();
  }
}
const LIST = {
  database: '',
  collection: '',
  partition: '',
  pageSize: 0,
  pageToken: '',
  namesOnly: false,
  bareNames: false,
  all: false,
  sizes: false,
};

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
