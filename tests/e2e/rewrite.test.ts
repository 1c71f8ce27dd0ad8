/** Restores that write rows anew, into another number of shards or for the sake of deleted rows: exact by content hash, and collections like any other. */
import { ConsistencyLevelEnum, DataType, MilvusClient } from '@zilliz/milvus2-sdk-node';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Standalone, startStandalone } from '../support/cairn.ts';
import { Cli } from '../support/cli.ts';
import { findingsOf } from '../support/consistency.ts';

const DIM = 8;
const ROWS = 3_000;

let server: Standalone;
let sdk: MilvusClient;
beforeAll(async () => {
  server = await startStandalone({ settings: { 'compaction.enabled': 'false' } });
  sdk = new MilvusClient({ address: server.address, timeout: 60_000, logLevel: 'error' } as never);
}, 60_000);
afterAll(async () => {
  await sdk?.closeConnection();
  await server?.stop();
});

const range = (from: number, count: number): number[] => Array.from({ length: count }, (_, at) => from + at);
const vectorOf = (key: number, version: number): number[] =>
  Array.from({ length: DIM }, (_, at) => Math.sin(key * 7.3 + at * 1.7 + version * 3.1));
const rowsOf = (keys: number[], version: number) =>
  keys.map((id) => ({ id, tenant: `t${id % 17}`, version, note: id % 3 === 0 ? null : `n${id}`, vector: vectorOf(id, version) }));

async function ok<T>(reply: Promise<unknown>): Promise<T> {
  const answer = (await reply) as { status?: { error_code: unknown; reason?: string }; error_code?: unknown; reason?: string };
  const status = answer.status ?? answer;
  expect(status.error_code, status.reason).toBe('Success');
  return answer as T;
}

const cli = new Cli(() => server.address);
const cairn = (...args: string[]) => cli.run(...args);
const json = (...args: string[]) => cli.json(...args);

async function make(name: string, shape: { key?: 'partition' | 'auto'; shards: number }): Promise<void> {
  await ok(
    sdk.createCollection({
      collection_name: name,
      shards_num: shape.shards,
      consistency_level: ConsistencyLevelEnum.Strong,
      ...(shape.key === 'partition' ? { num_partitions: 5 } : {}),
      fields: [
        { name: 'id', data_type: DataType.Int64, is_primary_key: true, autoID: shape.key === 'auto' },
        { name: 'tenant', data_type: DataType.VarChar, max_length: 20, is_partition_key: shape.key === 'partition' },
        { name: 'version', data_type: DataType.Int32 },
        { name: 'note', data_type: DataType.VarChar, max_length: 20, nullable: true },
        { name: 'vector', data_type: DataType.FloatVector, dim: DIM },
      ],
    } as never),
  );
  const params = { index_type: 'HNSW', metric_type: 'L2', params: { M: 16, efConstruction: 100 } };
  await ok(sdk.createIndex({ collection_name: name, field_name: 'vector', index_name: 'v', ...params } as never));
  await ok(sdk.loadCollectionSync({ collection_name: name } as never));
}

interface RowOf {
  readonly id: string;
  readonly version: number;
  readonly tenant: string;
}

async function readAll(name: string): Promise<RowOf[]> {
  const reply = await ok<{ data: RowOf[] }>(
    sdk.query({
      collection_name: name,
      filter: 'version >= 0',
      output_fields: ['id', 'version', 'tenant', 'note'],
      limit: 16_000,
    } as never),
  );
  return [...reply.data].sort((a, b) => Number(BigInt(a.id) - BigInt(b.id)));
}

/** Rows of all ages: flushed in parts, deleted and upserted across the parts, the last of them still growing at the snapshot, and more afterwards. */
async function fill(name: string, auto: boolean): Promise<void> {
  const sent = (keys: number[], version: number) => rowsOf(keys, version).map(({ id, ...rest }) => (auto ? rest : { id, ...rest }));
  for (let part = 0; part < 3; part++) {
    await ok(sdk.insert({ collection_name: name, data: sent(range(part * ROWS, ROWS), 1) } as never));
    await sdk.flushSync({ collection_names: [name] });
  }
  await ok(sdk.delete({ collection_name: name, filter: 'tenant in ["t3", "t4"]' } as never));
  if (!auto)
    await ok(
      sdk.upsert({
        collection_name: name,
        data: sent(
          range(0, 4 * ROWS).filter((key) => key % 10 === 4),
          2,
        ),
      } as never),
    );
  await sdk.flushSync({ collection_names: [name] });
  await ok(sdk.insert({ collection_name: name, data: sent(range(5 * ROWS, 500), 3) } as never));
  await ok(sdk.delete({ collection_name: name, filter: 'tenant == "t5"' } as never));
}

async function visibleOf(name: string, snapshot: string): Promise<unknown[]> {
  const { findings, visible_rows, visible_hash } = await json('snapshot', 'verify', '-c', name, snapshot, '--deep');
  expect(findings).toEqual([]);
  expect(visible_hash).toMatch(/^[0-9a-f]{32}$/);
  return [visible_rows, visible_hash];
}

describe('restore with rows written anew', { timeout: 240_000 }, () => {
  test.each([
    { name: 'plain', shape: { shards: 2 }, args: ['--shards', '3'], shards: 3 },
    { name: 'fewer', shape: { shards: 3 }, args: ['--shards', '1'], shards: 1 },
    { name: 'same', shape: { shards: 2 }, args: ['--rewrite-data'], shards: 2 },
    { name: 'keyed', shape: { key: 'partition', shards: 1 }, args: ['--shards', '4'], shards: 4 },
    { name: 'auto', shape: { key: 'auto', shards: 2 }, args: ['--shards', '5'], shards: 5 },
  ] as const)(
    '$name into $shards shards has the same visible rows by hash, indexed, without the deleted ones, and lives on',
    async ({ name, shape, args, shards }) => {
      const auto = 'key' in shape && shape.key === 'auto';
      await make(name, shape);
      await fill(name, auto);
      const before = await readAll(name);
      expect(before.length).toBeGreaterThan(ROWS);
      expect((await cairn('snapshot', 'create', '-c', name, 's')).code).toBe(0);
      await ok(sdk.delete({ collection_name: name, filter: 'version >= 0' } as never));
      const target = `${name}_new`;
      const job = await json('snapshot', 'restore', '-c', name, 's', target, ...args, '--wait');
      expect(job).toMatchObject({ state: 'Completed', progress: '100 %' });
      expect(await json('restore', 'describe', String(job['job_id']))).toMatchObject({ shards, rewrites_rows: true });
      expect(await json('collection', 'describe', target)).toMatchObject({ shards });
      const index = await ok<{ index_descriptions: { indexed_rows: string; total_rows: string; index_state?: string }[] }>(
        sdk.describeIndex({ collection_name: target, index_name: 'v' } as never),
      );
      expect(index.index_descriptions[0]?.total_rows, 'deleted rows are gone').toBe(String(before.length));
      await ok(sdk.loadCollectionSync({ collection_name: target } as never));
      expect(await readAll(target)).toEqual(before);
      expect((await cairn('snapshot', 'create', '-c', target, 's')).code).toBe(0);
      expect(await visibleOf(target, 's')).toEqual(await visibleOf(name, 's'));

      // Later writes find the rows in their new shards.
      const [first, second, ...others] = before;
      await ok(sdk.delete({ collection_name: target, filter: `id in [${first?.id}]` } as never));
      if (!auto) await ok(sdk.upsert({ collection_name: target, data: rowsOf([Number(second?.id)], 9) } as never));
      expect((await readAll(target)).map((row) => [row.id, row.version])).toEqual(
        [second, ...others].map((row) => [row?.id, row === second && !auto ? 9 : row?.version]),
      );
      expect(await findingsOf(server.address, true)).toBe('');
      for (const made of [name, target]) await ok(sdk.dropCollection({ collection_name: made } as never));
    },
  );

  test('goes not together with reference mode, and refuses more shards than there may be', async () => {
    await make('refused', { shards: 1 });
    expect((await cairn('snapshot', 'create', '-c', 'refused', 's')).code).toBe(0);
    for (const [args, why] of [
      [['--rewrite-data', '--mode', 'reference'], 'cannot go with mode reference'],
      [['--shards', '2', '--mode', 'reference'], 'excludes mode reference'],
      [['--shards', '65'], 'out of range 1..64'],
    ] as const) {
      const { code, out } = await cairn('snapshot', 'restore', '-c', 'refused', 's', 'never', ...args, '--wait');
      expect([code !== 0, out]).toEqual([true, expect.stringContaining(why)]);
    }
    expect(await json('snapshot', 'restore', '-c', 'refused', 's', 'never', '--shards', '2', '--dry-run')).toMatchObject({
      shards: 2,
      rewrites_rows: true,
    });
    expect((await cairn('collection', 'describe', 'never')).code).not.toBe(0);
  });
});
