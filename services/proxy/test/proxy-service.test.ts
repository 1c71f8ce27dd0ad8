import { CairnError, fromWireTimestamp, toWireTimestamp } from '@cairn/base';
import { IndexState, type Status } from '@cairn/proto/milvus/common';
import {
  ConnectRequest,
  CreateSnapshotRequest,
  DeleteRequest,
  DescribeCollectionRequest,
  DescribeIndexRequest,
  GetRestoreSnapshotStateRequest,
  InsertRequest,
  type MilvusServiceDefinition,
  QueryRequest,
  RestoreSnapshotRequest,
  SearchRequest,
  UpsertRequest,
} from '@cairn/proto/milvus/milvus';
import { DataType, type DeepPartial, type FieldData } from '@cairn/proto/milvus/schema';
import type { Client } from '@cairn/rpc';
import { decodeFrame, hashKeys, shardOf, valueAt } from '@cairn/schema';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { FakeCluster, UPDATED_TS } from './fake-cluster.ts';

let cluster: FakeCluster;
let milvus: Client<MilvusServiceDefinition>;

beforeEach(async () => {
  cluster = new FakeCluster();
  milvus = await cluster.start();
});
afterEach(() => cluster.stop());

const idColumn = (ids: readonly number[]): DeepPartial<FieldData> => ({
  type: DataType.Int64,
  fieldName: 'id',
  field: { $case: 'scalars', value: { data: { $case: 'longData', value: { data: ids.map(BigInt) } } } },
});
const columns = (ids: readonly number[]): DeepPartial<FieldData>[] => [
  idColumn(ids),
  {
    type: DataType.VarChar,
    fieldName: 'title',
    field: { $case: 'scalars', value: { data: { $case: 'stringData', value: { data: ids.map((id) => `t${id}`) } } } },
  },
  {
    type: DataType.FloatVector,
    fieldName: 'embedding',
    field: { $case: 'vectors', value: { dim: 4n, data: { $case: 'floatVector', value: { data: ids.flatMap((id) => [id, 1, 2, 3]) } } } },
  },
];
const insert = (ids: readonly number[], more: DeepPartial<InsertRequest> = {}) =>
  milvus.insert(InsertRequest.fromPartial({ collectionName: 'sample', fieldsData: columns(ids), numRows: ids.length, ...more }));
const query = (more: DeepPartial<QueryRequest>) => milvus.query(QueryRequest.fromPartial({ collectionName: 'sample', ...more }));
const failed = (status: Status | undefined) => [status?.code, status?.errorCode];

describe('an insert', () => {
  test('goes to the shard of each key, in one frame a shard, completed', async () => {
    const ids = Array.from({ length: 50 }, (_, i) => i * 7 - 20);
    const reply = await insert(ids);
    expect(reply).toMatchObject({ status: { code: 0, errorCode: 0 }, insertCnt: 50n, deleteCnt: 0n, acknowledged: true });
    expect(reply.IDs?.idField).toEqual({ $case: 'intId', value: { data: ids.map(BigInt) } });
    expect(reply.succIndex).toEqual(ids.map((_, i) => i));
    expect(fromWireTimestamp(reply.timestamp)).toBe(UPDATED_TS + 1);
    const seen: number[] = [];
    cluster.owners.forEach((owner, shard) => {
      expect(owner.writes).toHaveLength(1);
      const [write] = owner.writes;
      expect(write).toMatchObject({ vchannel: `dml_${shard}_500v${shard}`, collectionId: 500, schemaVersion: 1, deleteRows: 0 });
      const batch = decodeFrame(write.inserts[0].columns);
      expect([...batch.columns.keys()].sort()).toEqual([100, 101, 102, 103]);
      const keys = batch.columns.get(100);
      const titles = batch.columns.get(101);
      if (!keys || !titles) throw new Error('columns are missing');
      for (const hash of hashKeys(keys)) expect(shardOf(hash, 2)).toBe(shard);
      for (let row = 0; row < batch.length; row++) {
        seen.push(Number(valueAt(keys, row)));
        expect(valueAt(titles, row)).toBe(`t${valueAt(keys, row)}`);
      }
    });
    expect(seen.sort((a, b) => a - b)).toEqual(ids);
    expect(cluster.owners[0].writes[0].requestId).toBe(cluster.owners[1].writes[0].requestId);
  });

  test('follows an owner that moves, under the same request id', async () => {
    const [first, second] = cluster.owners;
    first.failures.push(new CairnError('ChannelNotAvailable', 'not mine'));
    const reply = insert([1, 2, 3, 4, 5, 6]);
    await expect.poll(() => first.writes.length).toBeGreaterThan(0);
    await cluster.own('dml_0', second);
    expect((await reply).status?.code).toBe(0);
    const ids = new Set([...first.writes, ...second.writes].map((write) => write.requestId));
    expect(ids.size).toBe(1);
  });

  test('leaves an owner that does not answer for the new one as soon as that is named', async () => {
    const [first, second] = cluster.owners;
    const held = Promise.withResolvers<void>();
    first.hangs = held.promise;
    const reply = insert([1, 2, 3, 4, 5, 6]);
    while (first.writes.length === 0) await cluster.runtime.sleep(5);
    await cluster.own('dml_0', second);
    expect((await reply).status?.code).toBe(0);
    expect(second.writes.map((write) => write.requestId)).toContain(first.writes[0].requestId);
    held.resolve();
  });

  test('waits while a channel has no owner, and answers retriably when its time is up', async () => {
    await cluster.own('dml_0', undefined);
    await cluster.own('dml_1', undefined);
    const start = performance.now();
    const reply = await milvus.insert(InsertRequest.fromPartial({ collectionName: 'sample', fieldsData: columns([1, 2, 3]), numRows: 3 }), {
      timeoutMs: 800,
    });
    expect(performance.now() - start).toBeGreaterThan(300);
    expect(failed(reply.status)).toEqual([503, 46]);
    expect(reply.status?.retriable).toBe(true);
  });

  test('that reaches only some shards says so, and names the idempotency key', async () => {
    cluster.owners[1].failures.push(new CairnError('RateLimit', 'too fast'));
    const reply = await milvus.insert(
      InsertRequest.fromPartial({ collectionName: 'sample', fieldsData: columns([1, 2, 3, 4, 5, 6]), numRows: 6 }),
      {
        metadata: { 'idempotency-key': 'mine' },
      },
    );
    expect(reply.status).toMatchObject({ code: 8, retriable: true });
    expect(reply.status?.reason).toMatch(/reached 1 of 2 shards.*idempotency-key/);
    expect(cluster.owners[0].writes[0].requestId).toBe('client-mine');
  });

  test('with an older schema timestamp is SchemaMismatch, with the same one it is taken', async () => {
    const older = await insert([1], { schemaTimestamp: toWireTimestamp(UPDATED_TS - 1) });
    expect(older.status?.errorCode).toBe(62);
    const same = await insert([1], { schemaTimestamp: toWireTimestamp(UPDATED_TS) });
    expect(same.status?.code).toBe(0);
  });

  test.each([
    ['a column too many', { fieldsData: [...columns([1]), { ...idColumn([1]), fieldName: 'nope' }] }, /field nope does not exist/],
    ['a column twice', { fieldsData: [...columns([1]), idColumn([1])] }, /id was sent twice/],
    ['a missing vector', { fieldsData: columns([1]).slice(0, 2) }, /embedding/],
    ['another row count', { fieldsData: columns([1, 2]) }, /id/],
    ['no rows', { fieldsData: [], numRows: 0 }, /greater than 0/],
    ['an unknown partition', { partitionName: 'nope' }, /partition not found/],
    ['an unknown collection', { collectionName: 'nope' }, /collection not found/],
    ['an unknown database', { dbName: 'nope' }, /database not found/],
  ] as const)('with %s changes nothing', async (_what, more, words) => {
    const reply = await insert([1], more as DeepPartial<InsertRequest>);
    expect(reply.status?.code).not.toBe(0);
    expect(reply.status?.errorCode).not.toBe(0);
    expect(reply.status?.reason).toMatch(words);
    expect(cluster.owners.flatMap((owner) => owner.writes)).toEqual([]);
  });
});

describe('an upsert', () => {
  const upsert = (ids: readonly number[]) =>
    milvus.upsert(UpsertRequest.fromPartial({ collectionName: 'sample', fieldsData: columns(ids), numRows: ids.length }));

  test('sends each shard the rows and the keys they replace', async () => {
    const reply = await upsert([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(reply).toMatchObject({ status: { code: 0 }, upsertCnt: 8n });
    for (const owner of cluster.owners) {
      const [write] = owner.writes;
      expect(write.deleteRows).toBe(write.inserts[0].rows);
      expect(write.deletePartitionId).toBe(0);
      expect(decodeFrame(write.deletes).columns.get(100)).toEqual(decodeFrame(write.inserts[0].columns).columns.get(100));
    }
  });

  test('with a key twice is 1100', async () => {
    const reply = await upsert([1, 2, 1]);
    expect(failed(reply.status)).toEqual([1100, 5]);
    expect(reply.status?.reason).toMatch(/duplicate primary keys.*rows 0 and 2/);
  });
});

describe('a delete by keys', () => {
  test('goes straight to their shards, each key once', async () => {
    const reply = await milvus.delete(DeleteRequest.fromPartial({ collectionName: 'sample', expr: 'id in [1, 2, 3, 4, 5, 6, 3]' }));
    expect(reply).toMatchObject({ status: { code: 0 }, deleteCnt: 6n });
    expect(cluster.owners.map((owner) => owner.queries.length)).toEqual([0, 0]);
    expect(cluster.owners.reduce((sum, owner) => sum + (owner.writes[0]?.deleteRows ?? 0), 0)).toBe(6);
  });

  test('without a filter is refused', async () => {
    expect(failed((await milvus.delete(DeleteRequest.fromPartial({ collectionName: 'sample' }))).status)).toEqual([1100, 5]);
  });
});

describe('a query', () => {
  test('counts over all shards', async () => {
    const reply = await query({ outputFields: ['count(*)'] });
    expect(reply.fieldsData).toMatchObject([
      { fieldName: 'count(*)', field: { value: { data: { $case: 'longData', value: { data: [10n] } } } } },
    ]);
    expect(cluster.owners[0].queries[0].plan).toMatchObject({ countOnly: true });
  });

  test('for keys asks only their shards', async () => {
    await query({ outputFields: ['count(*)'], expr: 'id == 77' });
    expect(cluster.owners.map((owner) => owner.queries.length).sort()).toEqual([0, 1]);
  });

  test('a strong one asks for no stamp but as a page; a bounded one may lag; eventually asks nothing', async () => {
    const guarantee = async (consistencyLevel: number, more: Partial<QueryRequest> = { outputFields: ['count(*)'] }): Promise<number> => {
      for (const owner of cluster.owners) owner.queries = [];
      await query({ ...more, consistencyLevel: consistencyLevel as never });
      return cluster.owners[0].queries[0]?.scope?.guaranteeTs ?? -1;
    };
    expect(await guarantee(0)).toBe(0);
    expect(await guarantee(2)).toBeGreaterThan(0);
    expect(await guarantee(3)).toBe(0);
    // A session that does not say when it wrote last: everything that was acknowledged.
    expect(await guarantee(1)).toBe(0);
    // Further pages are read at the time of the first: after everything that has a stamp by now.
    const page = {
      expr: 'id > 0',
      queryParams: [
        { key: 'iterator', value: 'True' },
        { key: 'limit', value: '3' },
      ],
    };
    const first = await guarantee(0, page);
    expect(first).toBeGreaterThan(UPDATED_TS);
    expect(await guarantee(0, page)).toBeGreaterThan(first);
  });

  test.each([
    [{ expr: '' }, /empty expression should be used with limit/],
    [{ expr: 'id > ' }, /cannot parse expression/],
    [{ outputFields: ['count(*)'], queryParams: [{ key: 'limit', value: '3' }] }, /count entities with pagination/],
    [{ expr: 'id > 0', partitionNames: ['nope'] }, /partition not found/],
  ])('%j is refused', async (more, words) => {
    const reply = await query(more);
    expect(reply.status?.code).not.toBe(0);
    expect(reply.status?.reason).toMatch(words);
  });
});

describe('what SDKs read', () => {
  test('Connect gives a session and a version with snapshots', async () => {
    const reply = await milvus.connect(ConnectRequest.create());
    expect(reply.identifier).toBeGreaterThan(0n);
    expect(reply.serverInfo?.buildTags).toBe('3.0.0');
  });

  test('DescribeCollection: real field ids, no $meta, both places of properties, channels, timestamps', async () => {
    const reply = await milvus.describeCollection(DescribeCollectionRequest.fromPartial({ collectionName: 'sample' }), {
      metadata: { dbname: 'default' },
    });
    expect(reply.schema?.fields.map((field) => [field.fieldID, field.name])).toEqual([
      [100n, 'id'],
      [101n, 'title'],
      [102n, 'embedding'],
    ]);
    expect(reply).toMatchObject({
      status: { code: 0 },
      collectionID: 500n,
      collectionName: 'sample',
      dbName: 'default',
      shardsNum: 2,
      numPartitions: 1n,
      consistencyLevel: 2,
      virtualChannelNames: ['dml_0_500v0', 'dml_1_500v1'],
      physicalChannelNames: ['dml_0', 'dml_1'],
      updateTimestamp: toWireTimestamp(UPDATED_TS),
      updateTimestampStr: toWireTimestamp(UPDATED_TS).toString(),
      properties: [{ key: 'p', value: 'q' }],
    });
    expect(reply.schema).toMatchObject({ enableDynamicField: true, properties: [{ key: 'p', value: 'q' }] });
  });

  test('DescribeCollection of a missing one has words and numbers of its own; of a missing database 800', async () => {
    const missing = await milvus.describeCollection(DescribeCollectionRequest.fromPartial({ collectionName: 'nope' }));
    expect(missing.status).toMatchObject({
      code: 100,
      errorCode: 4,
      reason: "can't find collection[database=default][collection=nope]",
      extraInfo: { is_input_error: 'true' },
    });
    const nowhere = await milvus.describeCollection(DescribeCollectionRequest.fromPartial({ collectionName: 'sample' }), {
      metadata: { dbname: 'mars' },
    });
    expect(failed(nowhere.status)).toEqual([800, 1]);
  });

  test('DescribeIndex: state and rows from the builder; none is IndexNotExist', async () => {
    const reply = await milvus.describeIndex(DescribeIndexRequest.fromPartial({ collectionName: 'sample' }));
    expect(reply.indexDescriptions).toMatchObject([
      {
        indexName: 'embedding',
        fieldName: 'embedding',
        state: IndexState.InProgress,
        totalRows: 10n,
        indexedRows: 4n,
        pendingIndexRows: 6n,
      },
    ]);
    const none = await milvus.describeIndex(DescribeIndexRequest.fromPartial({ collectionName: 'sample', fieldName: 'title' }));
    expect(failed(none.status)).toEqual([700, 25]);
  });

  test('an RPC that is not built says its name, with gRPC OK', async () => {
    expect((await milvus.createResourceGroup({})).reason).toBe('not supported: CreateResourceGroup');
    expect((await milvus.import({})).status).toMatchObject({ code: 10, errorCode: 1, reason: 'not supported: Import' });
  });

  test('bytes that do not decode are an answer with a Status too', async () => {
    const reply = await milvus.search(
      SearchRequest.fromPartial({
        collectionName: 'sample',
        searchInput: { $case: 'placeholderGroup', value: Uint8Array.of(255) },
        searchParams: [{ key: 'topk', value: '1' }],
      }),
    );
    expect(failed(reply.status)).toEqual([1100, 5]);
  });

  test('snapshot calls check names and amounts before anything else', async () => {
    expect((await milvus.createSnapshot(CreateSnapshotRequest.fromPartial({ name: ' ', collectionName: 'sample' }))).reason).toBe(
      'snapshot name should be not empty: invalid parameter',
    );
    expect((await milvus.createSnapshot(CreateSnapshotRequest.fromPartial({ name: 's' }))).code).toBe(1101);
    const restore = await milvus.restoreSnapshot(RestoreSnapshotRequest.fromPartial({ name: 's', collectionName: 'sample' }));
    expect(restore.status).toMatchObject({ code: 1101, reason: 'target_collection_name is required for restore snapshot' });
    const state = await milvus.getRestoreSnapshotState(GetRestoreSnapshotStateRequest.fromPartial({ jobId: 12n }));
    expect(state.status).toMatchObject({ code: 2100, reason: 'restore job not found: jobID=12' });
  });
});
