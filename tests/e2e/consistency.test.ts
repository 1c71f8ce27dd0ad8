/**
 * What each consistency level promises, with two proxies, two owners and two datanodes: one client writes by one proxy, another reads by the other.
 * Every write is read at once, so a read that is allowed to lag and does not is no failure; one that lags and must not is.
 */
import { ConsistencyLevelEnum, DataType, MilvusClient } from '@zilliz/milvus2-sdk-node';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Cluster, startCluster } from '../support/cairn.ts';
import { stopChecked } from '../support/consistency.ts';
import { serversAvailable } from '../support/servers.ts';

const ROUNDS = 25;
/** How far a bounded read may lag. */
const BOUNDED_MS = 5_000;

async function create(sdk: MilvusClient, name: string, database?: string): Promise<void> {
  const created = await sdk.createCollection({
    collection_name: name,
    ...(database ? { db_name: database } : {}),
    num_shards: 2,
    fields: [
      { name: 'id', data_type: DataType.Int64, is_primary_key: true },
      { name: 'value', data_type: DataType.Int64 },
      { name: 'vector', data_type: DataType.FloatVector, dim: 2 },
    ],
    index_params: [{ field_name: 'vector', index_type: 'FLAT', metric_type: 'L2' }],
  } as never);
  expect(created.error_code, created.reason).toBe('Success');
}

async function write(sdk: MilvusClient, name: string, id: number, value: number): Promise<bigint> {
  const reply = await sdk.upsert({ collection_name: name, data: [{ id, value, vector: [id, value] }] });
  expect(reply.status.error_code, reply.status.reason).toBe('Success');
  return BigInt(reply.timestamp);
}

interface Level {
  readonly consistency_level?: ConsistencyLevelEnum;
  readonly guarantee_timestamp?: string;
}

/** Values of all rows with this key; one, when all is well. */
async function read(sdk: MilvusClient, name: string, id: number, level: Level): Promise<number[]> {
  const reply = await sdk.query({ collection_name: name, expr: `id == ${id}`, output_fields: ['value'], ...level } as never);
  expect(reply.status.error_code, reply.status.reason).toBe('Success');
  return reply.data.map((row) => Number(row.value));
}

async function nearest(sdk: MilvusClient, name: string, vector: number[], level: Level): Promise<number> {
  const reply = await sdk.search({ collection_name: name, data: vector, limit: 1, output_fields: ['value'], ...level } as never);
  expect(reply.status.error_code, reply.status.reason).toBe('Success');
  return Number((reply.results[0] as { value?: string } | undefined)?.value);
}

const available = await serversAvailable();

describe.skipIf(!available.ok)('consistency levels with two proxies', () => {
  let cluster: Cluster;
  let writer: MilvusClient;
  let reader: MilvusClient;
  beforeAll(async () => {
    cluster = await startCluster({ proxies: 2 });
    [writer, reader] = cluster.addresses.map((address) => new MilvusClient({ address, timeout: 30_000 }));
    await create(writer, 'levels');
  }, 180_000);
  afterAll(async () => {
    await Promise.all([writer?.closeConnection(), reader?.closeConnection()]);
    await stopChecked(cluster);
  });

  test('Strong: every write that was answered before, by whichever proxy', { timeout: 120_000 }, async () => {
    const level = { consistency_level: ConsistencyLevelEnum.Strong };
    for (let value = 1; value <= ROUNDS; value++) {
      for (const id of [1, 2, 3]) await write(writer, 'levels', id, value);
      for (const id of [1, 2, 3]) expect(await read(reader, 'levels', id, level)).toEqual([value]);
      expect(await nearest(reader, 'levels', [2, value], level)).toBe(value);
      // And back.
      await write(reader, 'levels', 1, -value);
      expect(await read(writer, 'levels', 1, level)).toEqual([-value]);
    }
    await writer.delete({ collection_name: 'levels', ids: [1] });
    expect(await read(reader, 'levels', 1, level)).toEqual([]);
  });

  test('Session: the own writes, with the timestamp of the last one or without', { timeout: 120_000 }, async () => {
    const session = ConsistencyLevelEnum.Session;
    for (let value = 1; value <= ROUNDS; value++) {
      const ts = await write(writer, 'levels', 11, value);
      expect(await read(reader, 'levels', 11, { consistency_level: session, guarantee_timestamp: String(ts) })).toEqual([value]);
      await write(writer, 'levels', 11, value + 1_000);
      expect(await read(reader, 'levels', 11, { consistency_level: session })).toEqual([value + 1_000]);
    }
  });

  test('Bounded: every write older than the bound', { timeout: 120_000 }, async () => {
    const level = { consistency_level: ConsistencyLevelEnum.Bounded };
    await write(writer, 'levels', 21, 1);
    await new Promise((resolve) => setTimeout(resolve, BOUNDED_MS + 500));
    await write(writer, 'levels', 21, 2);
    for (let i = 0; i < 20; i++) expect([1, 2]).toContain((await read(reader, 'levels', 21, level))[0]);
    await new Promise((resolve) => setTimeout(resolve, BOUNDED_MS + 500));
    expect(await read(reader, 'levels', 21, level)).toEqual([2]);
  });

  test('Eventually: each answer is a state that was, and the last one comes', { timeout: 120_000 }, async () => {
    const level = { consistency_level: ConsistencyLevelEnum.Eventually };
    await write(writer, 'levels', 31, 0);
    expect(await read(reader, 'levels', 31, { consistency_level: ConsistencyLevelEnum.Strong })).toEqual([0]);
    const seen: number[] = [];
    for (let value = 1; value <= ROUNDS; value++) {
      await write(writer, 'levels', 31, value);
      const found = await read(reader, 'levels', 31, level);
      // Never both rows of an upsert, never neither.
      expect(found).toHaveLength(1);
      seen.push(found[0]);
    }
    expect(seen.every((value) => value >= 0 && value <= ROUNDS)).toBe(true);
    let last = seen.at(-1);
    for (let tries = 0; last !== ROUNDS && tries < 300; tries++) {
      await new Promise((resolve) => setTimeout(resolve, 50));
      [last] = await read(reader, 'levels', 31, level);
    }
    expect(last).toBe(ROUNDS);
  });

  test('what one proxy changed in the catalog the other knows at once: a new collection, one made anew, a new field', {
    timeout: 120_000,
  }, async () => {
    const level = { consistency_level: ConsistencyLevelEnum.Strong };
    for (let round = 0; round < 3; round++) {
      await create(writer, 'renewed');
      await write(reader, 'renewed', 1, round);
      expect(await read(writer, 'renewed', 1, level)).toEqual([round]);
      const added = await writer.addCollectionField({
        collection_name: 'renewed',
        field: { name: 'late', data_type: DataType.Int64, nullable: true },
      } as never);
      expect(added.error_code, added.reason).toBe('Success');
      const reply = await reader.query({
        collection_name: 'renewed',
        expr: 'late is null',
        output_fields: ['id', 'late'],
        ...level,
      } as never);
      expect(reply.status.error_code, reply.status.reason).toBe('Success');
      expect(reply.data).toHaveLength(1);
      const altered = await writer.alterCollectionProperties({ collection_name: 'renewed', properties: { 'dynamicfield.enabled': true } });
      expect(altered.error_code, altered.reason).toBe('Success');
      const row = { id: 2, value: round, vector: [2, 2], extra: 'kept' };
      // SDKs keep what they described for minutes: a new one.
      const fresh = new MilvusClient({ address: cluster.addresses[1] ?? '', timeout: 30_000 });
      const dynamic = await fresh.insert({ collection_name: 'renewed', data: [row] });
      await fresh.closeConnection();
      expect(dynamic.status.error_code, dynamic.status.reason).toBe('Success');
      const both = await writer.query({ collection_name: 'renewed', expr: 'id > 0', output_fields: ['id', 'extra'], ...level } as never);
      expect(both.data.map(({ $meta }) => $meta)).toEqual([{}, { extra: 'kept' }]);
      const dropped = await reader.dropCollection({ collection_name: 'renewed' });
      expect(dropped.error_code).toBe('Success');
      expect((await writer.hasCollection({ collection_name: 'renewed' })).value).toBe(false);
    }
  });

  test('the database of the dbname header is the one that is meant, by every proxy', { timeout: 120_000 }, async () => {
    expect((await writer.createDatabase({ db_name: 'apart' })).error_code).toBe('Success');
    const inside = new MilvusClient({ address: cluster.addresses[1] ?? '', database: 'apart', timeout: 30_000 });
    await create(inside, 'levels');
    await write(inside, 'levels', 1, 77);
    const level = { consistency_level: ConsistencyLevelEnum.Strong };
    expect(await read(inside, 'levels', 1, level)).toEqual([77]);
    expect(await read(writer, 'levels', 1, level)).toEqual([]);
    await inside.dropCollection({ collection_name: 'levels' });
    await inside.closeConnection();
    expect((await writer.dropDatabase({ db_name: 'apart' })).error_code).toBe('Success');
  });
});
