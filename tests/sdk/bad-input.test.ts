/** Bad input through the unmodified Node SDK: each gets its Milvus code and a message with names and values, and nothing is changed. */
import { DataType, MilvusClient } from '@zilliz/milvus2-sdk-node';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Standalone, startStandalone } from '../support/cairn.ts';
import { stopChecked } from '../support/consistency.ts';

let server: Standalone;
let sdk: MilvusClient;
const NAME = 'strict';

const row = (id: number): Record<string, unknown> => ({ id, tiny: 1, text: 'abc', vector: [1, 2, 3, 4] });

beforeAll(async () => {
  server = await startStandalone();
  sdk = new MilvusClient({ address: server.address });
  const created = await sdk.createCollection({
    collection_name: NAME,
    fields: [
      { name: 'id', data_type: DataType.Int64, is_primary_key: true },
      { name: 'tiny', data_type: DataType.Int8 },
      { name: 'text', data_type: DataType.VarChar, max_length: 8 },
      { name: 'vector', data_type: DataType.FloatVector, dim: 4 },
    ],
    index_params: [{ field_name: 'vector', index_type: 'HNSW', metric_type: 'L2', params: { M: 8, efConstruction: 64 } }],
  });
  expect(created.error_code, created.reason).toBe('Success');
  expect((await sdk.insert({ collection_name: NAME, data: [row(1), row(2)] as never })).status.error_code).toBe('Success');
});
afterAll(async () => {
  await sdk.closeConnection();
  await stopChecked(server);
});

interface Status {
  readonly code?: number;
  readonly error_code?: unknown;
  readonly reason?: string;
}

const fields = (vector: object): never =>
  [
    { name: 'id', data_type: DataType.Int64, is_primary_key: true },
    { name: 'vector', data_type: DataType.FloatVector, ...vector },
  ] as never;

/** createCollection of the SDK throws the server's status; what the SDK refuses itself it throws as an Error, before anything is sent. */
async function thrown(attempt: Promise<Status>): Promise<Status> {
  try {
    return await attempt;
  } catch (error) {
    return error instanceof Error ? { error_code: 'refused by the SDK', reason: error.message } : (error as Status);
  }
}

/** What is tried, its code, and the words that its message must have. */
const table: readonly [string, () => Promise<Status>, number, readonly string[]][] = [
  [
    'insert into a collection that is not there',
    async () => sdk.describeCollection({ collection_name: 'nowhere' }).then((r) => r.status),
    100,
    ['nowhere'],
  ],
  [
    'describe in a database that is not there',
    async () => sdk.describeCollection({ collection_name: NAME, db_name: 'nodb' }).then((r) => r.status),
    800,
    ['nodb'],
  ],
  [
    'query an unknown field',
    async () => sdk.query({ collection_name: NAME, filter: 'teny > 1' }).then((r) => r.status),
    1100,
    ['teny', 'tiny'],
  ],
  [
    'a filter that does not parse',
    async () => sdk.query({ collection_name: NAME, filter: 'tiny > > 1' }).then((r) => r.status),
    1100,
    ['tiny > > 1', 'position'],
  ],
  [
    'search with another dimension',
    async () => sdk.search({ collection_name: NAME, data: [1, 2, 3], limit: 1 }).then((r) => r.status),
    1100,
    ['dim'],
  ],
  [
    'search an unknown vector field',
    async () => thrown(sdk.search({ collection_name: NAME, data: [1, 2, 3, 4], anns_field: 'vektor', limit: 1 }).then((r) => r.status)),
    0,
    ['anns field not found'],
  ],
  [
    'search with limit 0',
    async () => sdk.search({ collection_name: NAME, data: [1, 2, 3, 4], limit: -5 }).then((r) => r.status),
    1100,
    ['-5'],
  ],
  [
    'an int8 of 300',
    async () => sdk.insert({ collection_name: NAME, data: [{ ...row(3), tiny: 300 }] as never }).then((r) => r.status),
    1100,
    ['tiny', '300'],
  ],
  [
    'a varchar over max_length',
    async () => sdk.insert({ collection_name: NAME, data: [{ ...row(3), text: 'far too long' }] as never }).then((r) => r.status),
    1100,
    ['text', '8'],
  ],
  [
    'NaN in a vector',
    async () => sdk.insert({ collection_name: NAME, data: [{ ...row(3), vector: [1, Number.NaN, 3, 4] }] as never }).then((r) => r.status),
    1100,
    ['vector'],
  ],
  [
    'the same key twice in one upsert',
    async () => sdk.upsert({ collection_name: NAME, data: [row(7), row(7)] as never }).then((r) => r.status),
    1100,
    ['7'],
  ],
  [
    'a duplicate collection with another schema',
    async () => thrown(sdk.createCollection({ collection_name: NAME, fields: fields({ dim: 8 }) })),
    1100,
    [NAME],
  ],
  [
    'a bad collection name',
    async () => thrown(sdk.createCollection({ collection_name: '1 bad/name', fields: fields({ dim: 8 }) })),
    1100,
    ['1 bad/name'],
  ],
  [
    'a dimension of 1',
    async () => thrown(sdk.createCollection({ collection_name: 'other', fields: fields({ dim: 1 }) })),
    1100,
    ['dimension: 1'],
  ],
  [
    'an index of an unknown field',
    async () => sdk.createIndex({ collection_name: NAME, field_name: 'nofield', index_type: 'HNSW', metric_type: 'L2' }),
    1100,
    ['nofield'],
  ],
  [
    'an index of an unknown type',
    async () => sdk.createIndex({ collection_name: NAME, field_name: 'vector', index_type: 'abcd', metric_type: 'L2' }),
    1100,
    ['abcd'],
  ],
  [
    'a second index of one field',
    async () => sdk.createIndex({ collection_name: NAME, field_name: 'vector', index_name: 'two', index_type: 'FLAT', metric_type: 'IP' }),
    1100,
    ['at most one distinct index'],
  ],
  [
    'load of a partition that is not there',
    async () => sdk.loadPartitions({ collection_name: NAME, partition_names: ['p9'] }),
    200,
    ['p9'],
  ],
  [
    'drop of the default partition',
    async () => sdk.dropPartition({ collection_name: NAME, partition_name: '_default' }),
    1100,
    ['default partition'],
  ],
  [
    'a blank snapshot name',
    async () => sdk.createSnapshot({ collection_name: NAME, snapshot_name: ' ' }),
    1100,
    ['snapshot name should be not empty'],
  ],
  ['a snapshot name with a slash', async () => sdk.createSnapshot({ collection_name: NAME, snapshot_name: 'a/b' }), 1100, ['a/b']],
  [
    'a snapshot name of 256 letters',
    async () => sdk.createSnapshot({ collection_name: NAME, snapshot_name: 'a'.repeat(256) }),
    1100,
    ['255'],
  ],
  [
    'a snapshot of a collection that is not there',
    async () => sdk.createSnapshot({ collection_name: 'nowhere', snapshot_name: 's' }),
    100,
    ['nowhere'],
  ],
  [
    'a protection of more than seven days',
    async () => sdk.createSnapshot({ collection_name: NAME, snapshot_name: 's', compaction_protection_seconds: 604801 }),
    1100,
    ['must not exceed'],
  ],
  [
    'a pin for more than thirty days',
    async () => sdk.pinSnapshotData({ collection_name: NAME, snapshot_name: 's', ttl_seconds: 2592001 }).then((r) => r.status),
    1100,
    ['ttl_seconds exceeds maximum'],
  ],
  [
    'restore of a snapshot that is not there',
    async () =>
      sdk.restoreSnapshot({ snapshot_name: 'none', source_collection_name: NAME, target_collection_name: 'there' }).then((r) => r.status),
    0,
    ['not found'],
  ],
  [
    'an unknown restore job',
    async () => sdk.getRestoreSnapshotState({ job_id: 4711 }).then((r) => r.status),
    2100,
    ['restore job not found: jobID=4711'],
  ],
  ['unpin of pin 0', async () => sdk.unpinSnapshotData({ pin_id: 0 }), 1101, ['pin']],
];

test.each(table)('%s', async (_what, attempt, code, words) => {
  const status = await attempt();
  expect(status.error_code, JSON.stringify(status)).not.toBe('Success');
  if (code !== 0) expect(status.code, status.reason).toBe(code);
  for (const word of words) expect(status.reason).toContain(word);
});

test('nothing of it changed anything', async () => {
  const reply = await sdk.query({ collection_name: NAME, filter: 'id >= 0', output_fields: ['id', 'tiny', 'text'] });
  expect(reply.data.map((one) => [one['id'], one['tiny'], one['text']])).toEqual([
    ['1', 1, 'abc'],
    ['2', 1, 'abc'],
  ]);
  expect((await sdk.showCollections()).data.map((one) => one.name)).toEqual([NAME]);
  expect((await sdk.listSnapshots({ collection_name: NAME })).snapshots).toEqual([]);
});
