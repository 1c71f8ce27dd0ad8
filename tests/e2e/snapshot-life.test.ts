/**
 * A snapshot outlives what becomes of its source: whatever is written, compacted, reindexed, renamed, truncated or dropped after it, its restore
 * answers as the source did when it was taken. On one embedded server with more channels than there are digits.
 */
import { ConsistencyLevelEnum, DataType, MilvusClient } from '@zilliz/milvus2-sdk-node';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Standalone, startStandalone } from '../support/cairn.ts';
import { Cli } from '../support/cli.ts';
import { findingsOf } from '../support/consistency.ts';

const DIM = 8;
const SHARDS = 12;
const GRACE_MS = 300;
/** As Milvus calls the partitions of a partition key; here a user does. */
const ODD_PARTITION = '_default_1';
const TIMEOUT_MS = 120_000;

let server: Standalone;
let sdk: MilvusClient;
const cli = new Cli(() => server.address);
beforeAll(async () => {
  server = await startStandalone({
    settings: { 'wal.channels': SHARDS, 'gc.graceMs': GRACE_MS, 'gc.intervalMs': 3_600_000, 'compaction.enabled': 'false' },
  });
  sdk = new MilvusClient({ address: server.address, timeout: 60_000, logLevel: 'error' } as never);
}, 60_000);
afterAll(async () => {
  await sdk.closeConnection();
  await server.stop();
});

async function ok<T>(reply: Promise<T>): Promise<T> {
  const answer = await reply;
  const status = (answer as { status?: unknown }).status ?? answer;
  const { error_code, reason } = status as { error_code?: unknown; reason?: string };
  expect(error_code, reason).toBe('Success');
  return answer;
}

const vectorOf = (key: number, version: number): number[] =>
  Array.from({ length: DIM }, (_, at) => Math.sin(key * 7.3 + at * 1.7 + version));
const rowsOf = (keys: readonly number[], version: number) =>
  keys.map((id) => ({ id, version, vector: vectorOf(id, version), doc: { shelf: id % 7, tags: [`t${id % 3}`] } }));
const range = (from: number, count: number): number[] => Array.from({ length: count }, (_, at) => from + at);

async function make(name: string, shards: number): Promise<void> {
  await ok(
    sdk.createCollection({
      collection_name: name,
      shards_num: shards,
      consistency_level: ConsistencyLevelEnum.Strong,
      properties: { 'collection.ttl.seconds': 864_000 },
      fields: [
        { name: 'id', data_type: DataType.Int64, is_primary_key: true },
        { name: 'version', data_type: DataType.Int32 },
        { name: 'doc', data_type: DataType.JSON },
        { name: 'vector', data_type: DataType.FloatVector, dim: DIM },
      ],
    } as never),
  );
  await ok(sdk.createPartition({ collection_name: name, partition_name: ODD_PARTITION }));
  await index(name, 'HNSW', { M: 16, efConstruction: 100 });
  await ok(sdk.createIndex({ collection_name: name, field_name: 'version', index_name: 'by_version', index_type: 'STL_SORT' } as never));
}

const index = (name: string, index_type: string, params: Record<string, number>) =>
  ok(sdk.createIndex({ collection_name: name, field_name: 'vector', index_name: 'graph', index_type, metric_type: 'L2', params } as never));

async function insert(name: string, keys: readonly number[], version: number, partition_name?: string): Promise<void> {
  await ok(sdk.upsert({ collection_name: name, data: rowsOf(keys, version), ...(partition_name ? { partition_name } : {}) } as never));
}

interface Built {
  readonly index_name: string;
  readonly indexed_rows: string;
  readonly total_rows: string;
  readonly state: string;
}

async function indexesOf(name: string): Promise<readonly Built[]> {
  const { index_descriptions } = await ok(sdk.describeIndex({ collection_name: name }));
  return (index_descriptions as unknown as Built[]).toSorted((a, b) => a.index_name.localeCompare(b.index_name));
}

const built = (name: string) =>
  expect
    .poll(async () => (await indexesOf(name)).every((one) => one.indexed_rows === one.total_rows && one.total_rows !== '0'), {
      timeout: 30_000,
    })
    .toBe(true);

/** What a client sees of a collection, but for its name and ids. */
async function described(name: string): Promise<unknown> {
  const { schema, properties, shards_num, consistency_level } = await ok(sdk.describeCollection({ collection_name: name }));
  const { data } = await ok(sdk.showPartitions({ collection_name: name })).then(({ partition_names }) => ({ data: partition_names }));
  const { name: _, ...rest } = schema as { name: string };
  const indexes = (await indexesOf(name)).map((one) => ({ ...one, indexID: '', collection_name: '' }));
  return { schema: rest, properties, shards_num, consistency_level, partitions: [...data].sort(), indexes };
}

type Rows = readonly (readonly [id: number, version: number, shelf: number])[];

async function rowsIn(name: string, partition?: string): Promise<Rows> {
  const { data } = await ok(
    sdk.query({
      ...{ collection_name: name, filter: 'id >= 0', output_fields: ['id', 'version', 'doc'], limit: 16_000 },
      ...(partition ? { partition_names: [partition] } : {}),
    } as never),
  );
  const rows = (data as { id: string; version: number; doc: { shelf: number } }[]).map(
    (row) => [Number(row.id), Number(row.version), row.doc.shelf] as const,
  );
  return rows.toSorted((a, b) => a[0] - b[0]);
}

/** Rows by partition, and what searches find with which scores. */
async function answers(name: string): Promise<unknown> {
  await ok(sdk.loadCollectionSync({ collection_name: name }));
  const found: unknown[] = [];
  for (const filter of ['', 'version == 2', 'doc["shelf"] in [1, 4]', 'json_contains(doc["tags"], "t1")']) {
    const data = range(0, 5).map((at) => vectorOf(at * 37, 1));
    const { results } = await ok(
      sdk.search({
        ...{ collection_name: name, anns_field: 'vector', data, limit: 10, filter, params: { ef: 200 } },
        output_fields: ['version'],
      } as never),
    );
    found.push(results);
  }
  return { all: await rowsIn(name), odd: await rowsIn(name, ODD_PARTITION), found };
}

const create = (name: string, snapshot: string) => ok(sdk.createSnapshot({ collection_name: name, snapshot_name: snapshot } as never));
async function restored(...args: string[]): Promise<void> {
  const { code, out } = await cli.run('snapshot', 'restore', ...args, '--wait');
  expect(code, out).toBe(0);
}
const drop = (name: string) => ok(sdk.dropCollection({ collection_name: name } as never));

async function collectGarbage(): Promise<void> {
  await cli.json('gc', 'run');
  await new Promise((resolve) => setTimeout(resolve, GRACE_MS + 100));
  await cli.json('gc', 'run');
}

test('after other writes, compaction, other indexes and garbage collection the restore has the rows, scores, schema and indexes of then, whole at once', {
  timeout: TIMEOUT_MS,
}, async () => {
  await make('cycle', 2);
  await insert('cycle', range(0, 400), 1);
  await sdk.flushSync({ collection_names: ['cycle'] });
  await insert('cycle', range(400, 300), 1, ODD_PARTITION);
  await insert('cycle', range(0, 40), 2);
  await sdk.flushSync({ collection_names: ['cycle'] });
  await built('cycle');
  await ok(sdk.loadCollectionSync({ collection_name: 'cycle' }));
  await ok(sdk.delete({ collection_name: 'cycle', filter: 'id % 9 == 0' } as never));
  const before = { seen: await answers('cycle'), described: await described('cycle') };
  await create('cycle', 'then');

  await insert('cycle', range(0, 500), 3);
  await ok(sdk.delete({ collection_name: 'cycle', filter: 'id > 450' } as never));
  expect(await cli.json('collection', 'compact', 'cycle', '--wait')).toMatchObject({ state: 'Completed', failed: 0 });
  await ok(sdk.releaseCollection({ collection_name: 'cycle' }));
  await ok(sdk.dropIndex({ collection_name: 'cycle', index_name: 'graph' } as never));
  await index('cycle', 'FLAT', {});
  await sdk.flushSync({ collection_names: ['cycle'] });
  await collectGarbage();

  await restored('-c', 'cycle', 'then', 'cycle_again');
  // Before it is loaded: indexes are there, over all rows, with every parameter.
  expect(await described('cycle_again')).toEqual(before.described);
  expect(await answers('cycle_again')).toEqual(before.seen);
  expect((await ok(sdk.listSnapshots({ collection_name: 'cycle' }))).snapshots).toEqual(['then']);
  await ok(sdk.dropSnapshot({ collection_name: 'cycle', snapshot_name: 'then' } as never));
  await collectGarbage();
  expect(await answers('cycle_again')).toEqual(before.seen);
  expect(await findingsOf(server.address, true)).toBe('');
  for (const name of ['cycle', 'cycle_again']) await drop(name);
});

test('a partition dropped, the collection under an alias, renamed, truncated, dropped: each time the restore is exact', {
  timeout: TIMEOUT_MS,
}, async () => {
  await make('source', 2);
  await insert('source', range(0, 200), 1);
  await insert('source', range(200, 150), 1, ODD_PARTITION);
  const before = await answers('source');
  await create('source', 'kept');
  const { id } = (await cli.json('snapshot', 'describe', '-c', 'source', 'kept')) as { id: unknown };
  let restores = 0;
  const exact = async (...args: string[]): Promise<void> => {
    const target = `target_${++restores}`;
    await restored(...args, target);
    expect(await answers(target), args.join(' ')).toEqual(before);
    await drop(target);
  };

  await ok(sdk.releaseCollection({ collection_name: 'source' }));
  await ok(sdk.dropPartition({ collection_name: 'source', partition_name: ODD_PARTITION } as never));
  await collectGarbage();
  await exact('-c', 'source', 'kept');
  await ok(sdk.createAlias({ collection_name: 'source', alias: 'other_name' } as never));
  await exact('-c', 'other_name', 'kept');
  await ok(sdk.renameCollection({ collection_name: 'source', new_collection_name: 'renamed' }));
  await exact('-c', 'renamed', 'kept');
  await ok(sdk.loadCollectionSync({ collection_name: 'renamed' }));
  await ok(sdk.truncateCollection({ collection_name: 'renamed' } as never));
  expect(await rowsIn('renamed')).toEqual([]);
  await collectGarbage();
  await exact('-c', 'renamed', 'kept');
  await ok(sdk.pinSnapshotData({ collection_name: 'renamed', snapshot_name: 'kept', ttl_seconds: 600 } as never));
  await ok(sdk.dropAlias({ alias: 'other_name' } as never));
  await drop('renamed');
  await collectGarbage();
  await exact('--id', String(id));
  expect(await findingsOf(server.address, true)).toBe('');
});

test('with more than ten channels every restored key is found, deleted and replaced in its shard', { timeout: TIMEOUT_MS }, async () => {
  await make('wide', SHARDS);
  const keys = range(0, 240);
  await insert('wide', keys, 1);
  await create('wide', 's');
  await restored('-c', 'wide', 's', 'wide_copy');
  expect((await cli.run('snapshot', 'clone', '-c', 'wide', 's', 'wide_clone', '--wait')).code).toBe(0);
  for (const name of ['wide_copy', 'wide_clone']) {
    expect(await cli.json('collection', 'describe', name)).toMatchObject({ shards: SHARDS });
    await ok(sdk.loadCollectionSync({ collection_name: name }));
    expect((await rowsIn(name)).map(([key]) => key)).toEqual(keys);
    await ok(sdk.delete({ collection_name: name, ids: keys.filter((key) => key % 2 === 0) } as never));
    await insert(
      name,
      keys.filter((key) => key % 2 === 1),
      2,
    );
    const expected = keys.filter((key) => key % 2 === 1).map((key) => [key, 2, key % 7]);
    expect(await rowsIn(name)).toEqual(expected);
    await sdk.flushSync({ collection_names: [name] });
    expect(await rowsIn(name)).toEqual(expected);
  }
  expect(await findingsOf(server.address, true)).toBe('');
});
