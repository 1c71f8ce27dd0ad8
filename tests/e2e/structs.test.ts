/** Arrays of structs with vectors of their own: searched by lists of vectors, growing, flushed, restored; whole and member by member in results. */
import { DataType, MilvusClient } from '@zilliz/milvus2-sdk-node';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Standalone, startStandalone } from '../support/cairn.ts';
import { stopChecked } from '../support/consistency.ts';
import { seeded } from '../support/workload.ts';

const ROWS = 120;
const DIM = 4;
const MEMBER = 'parts[vec]';

let server: Standalone;
let sdk: MilvusClient;
beforeAll(async () => {
  server = await startStandalone();
  sdk = new MilvusClient({ address: server.address, timeout: 30_000 });
});
afterAll(async () => {
  await sdk.closeConnection();
  await stopChecked(server);
});

interface Part {
  readonly vec: number[];
  readonly n: number;
  readonly label: string;
}

const random = seeded(5);
const vector = (): number[] => Array.from({ length: DIM }, () => Math.fround(random() * 2 - 1));
const rows = Array.from({ length: ROWS }, (_, id) => ({
  id,
  parts: Array.from({ length: 1 + (id % 4) }, (_, n): Part => ({ vec: vector(), n: id * 10 + n, label: `é${n}` })),
}));

function cosine(a: readonly number[], b: readonly number[]): number {
  const dot = a.reduce((sum, value, i) => sum + value * b[i], 0);
  return dot / Math.hypot(...a) / Math.hypot(...b);
}

/** Keys of the best rows and their scores, looked at one by one. */
function expected(query: readonly number[][], keep: (id: number) => boolean): { id: number; score: number }[] {
  return rows
    .filter(({ id }) => keep(id))
    .map(({ id, parts }) => ({
      id,
      score: query.reduce((sum, one) => sum + Math.max(...parts.map(({ vec }) => cosine(one, vec))), 0),
    }))
    .sort((a, b) => b.score - a.score)
    .slice(0, 8);
}

async function check(name: string): Promise<void> {
  const queries = [[vector(), vector()], [vector()], [vector(), vector(), vector()]];
  for (const [filter, keep] of [
    ['', () => true],
    ['id % 10 == 3', (id: number) => id % 10 === 3],
  ] as const) {
    const reply = await sdk.search({
      collection_name: name,
      anns_field: MEMBER,
      data: queries,
      limit: 8,
      filter,
      output_fields: ['id', 'parts'],
    } as never);
    expect(reply.status.error_code, reply.status.reason).toBe('Success');
    const results = reply.results as unknown as { id: string; score: number; parts: Part[] }[][];
    queries.forEach((query, i) => {
      const wanted = expected(query, keep);
      expect(results[i].map(({ id }) => Number(id))).toEqual(wanted.map(({ id }) => id));
      results[i].forEach(({ id, score, parts }, at) => {
        expect(score).toBeCloseTo(wanted[at].score, 4);
        expect(parts).toEqual(rows[Number(id)].parts);
      });
    });
  }
  const one = await sdk.query({ collection_name: name, expr: 'id == 7', output_fields: ['parts[n]'] } as never);
  expect(one.data).toEqual([{ id: '7', parts: rows[7].parts.map(({ n }) => ({ n })) }]);
}

test('lists of vectors are found by MAX_SIM, growing, flushed and restored, with their structs as they were sent', {
  timeout: 120_000,
}, async () => {
  const created = await sdk.createCollection({
    collection_name: 'structs',
    num_shards: 2,
    consistency_level: 'Strong',
    fields: [
      { name: 'id', data_type: DataType.Int64, is_primary_key: true },
      {
        name: 'parts',
        data_type: DataType.Array,
        element_type: DataType.Struct,
        max_capacity: 4,
        fields: [
          { name: 'vec', data_type: DataType.FloatVector, dim: DIM },
          { name: 'n', data_type: DataType.Int32 },
          { name: 'label', data_type: DataType.VarChar, max_length: 10 },
        ],
      },
    ],
    index_params: [{ field_name: MEMBER, index_type: 'HNSW', metric_type: 'MAX_SIM', params: { M: 8, efConstruction: 64 } }],
  } as never);
  expect(created.error_code, created.reason).toBe('Success');
  const inserted = await sdk.insert({ collection_name: 'structs', data: rows as never });
  expect(inserted.status.error_code, inserted.status.reason).toBe('Success');
  await check('structs');
  await sdk.flushSync({ collection_names: ['structs'] });
  await check('structs');
  expect((await sdk.createSnapshot({ snapshot_name: 'kept', collection_name: 'structs' })).error_code).toBe('Success');
  const { job_id } = await sdk.restoreSnapshot({
    snapshot_name: 'kept',
    source_collection_name: 'structs',
    target_collection_name: 'again',
  });
  for (;;) {
    const { info } = await sdk.getRestoreSnapshotState({ job_id });
    if (String(info?.state) === 'RestoreSnapshotCompleted') break;
    expect(String(info?.state), info?.reason).not.toBe('RestoreSnapshotFailed');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  await sdk.loadCollectionSync({ collection_name: 'again' });
  await check('again');
  const torn = await sdk.insert({
    collection_name: 'structs',
    data: [{ id: 999, parts: [1, 2, 3, 4, 5].map((n) => ({ vec: vector(), n, label: '' })) }] as never,
  });
  expect(torn.status).toMatchObject({ code: 1100, reason: expect.stringMatching(/max_capacity 4/) });
});
