/** Compaction of real rows on disk: what readers see while it runs, what snapshots, restores and clones hold after it. */
import { ConsistencyLevelEnum, DataType, MilvusClient } from '@zilliz/milvus2-sdk-node';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Standalone, startStandalone } from '../support/cairn.ts';
import { Cli } from '../support/cli.ts';
import { findingsOf } from '../support/consistency.ts';

const DIM = 8;
const ROWS = 1_500;
const GRACE_MS = 500;
/** A wave of keys is deleted, another upserted. */
const DELETED = 3;
const UPSERTED = 4;

let server: Standalone;
let sdk: MilvusClient;
beforeAll(async () => {
  server = await startStandalone({ settings: { 'gc.graceMs': GRACE_MS, 'gc.intervalMs': 3_600_000, 'compaction.enabled': 'false' } });
  sdk = new MilvusClient({ address: server.address, timeout: 60_000, logLevel: 'error' } as never);
}, 60_000);
afterAll(async () => {
  await sdk.closeConnection();
  await server.stop();
});

const vectorOf = (key: number, version: number): number[] =>
  Array.from({ length: DIM }, (_, at) => Math.sin(key * 7.3 + at * 1.7 + version * 3.1));
const rowsOf = (keys: number[], version: number) => keys.map((id) => ({ id, version, vector: vectorOf(id, version) }));
const range = (from: number, count: number): number[] => Array.from({ length: count }, (_, at) => from + at);

async function ok<T extends { status?: { error_code: unknown; reason?: string } }>(reply: Promise<T>): Promise<T> {
  const answer = await reply;
  const status = answer.status ?? (answer as { error_code?: unknown; reason?: string });
  expect(status.error_code, status.reason).toBe('Success');
  return answer;
}

async function make(name: string): Promise<void> {
  await ok(
    sdk.createCollection({
      collection_name: name,
      shards_num: 1,
      consistency_level: ConsistencyLevelEnum.Strong,
      fields: [
        { name: 'id', data_type: DataType.Int64, is_primary_key: true },
        { name: 'version', data_type: DataType.Int32 },
        { name: 'vector', data_type: DataType.FloatVector, dim: DIM },
      ],
    } as never) as never,
  );
  const params = { index_type: 'HNSW', metric_type: 'L2', params: { M: 16, efConstruction: 100 } };
  await ok(sdk.createIndex({ collection_name: name, field_name: 'vector', index_name: 'v', ...params }) as never);
  await ok(sdk.loadCollectionSync({ collection_name: name }) as never);
}

/** Four sealed segments; then some of their rows are deleted, some upserted, and that is flushed too. */
async function fill(name: string): Promise<Map<number, number>> {
  const model = new Map<number, number>();
  const keys = range(0, ROWS * 4);
  for (let part = 0; part < 4; part++) {
    // Keys of all parts run through each other.
    const own = keys.filter((key) => key % 4 === part);
    await ok(sdk.insert({ collection_name: name, data: rowsOf(own, 1) as never }) as never);
    for (const key of own) model.set(key, 1);
    await sdk.flushSync({ collection_names: [name] });
  }
  const gone = keys.filter((key) => key % 10 === DELETED);
  await ok(sdk.delete({ collection_name: name, ids: gone }) as never);
  for (const key of gone) model.delete(key);
  const renewed = keys.filter((key) => key % 10 === UPSERTED);
  await ok(sdk.upsert({ collection_name: name, data: rowsOf(renewed, 2) as never }) as never);
  for (const key of renewed) model.set(key, 2);
  await sdk.flushSync({ collection_names: [name] });
  return model;
}

async function readAll(name: string): Promise<Map<number, number>> {
  const reply = await sdk.query({ collection_name: name, filter: 'id >= 0', output_fields: ['id', 'version'], limit: 16_000 } as never);
  expect(reply.status.error_code, reply.status.reason).toBe('Success');
  const rows = new Map(reply.data.map((row) => [Number(row['id']), Number(row['version'])]));
  expect(rows.size, 'each key once').toBe(reply.data.length);
  return rows;
}

/** Share of keys that a search for their own vector finds first. */
async function recall(name: string, model: ReadonlyMap<number, number>): Promise<number> {
  const keys = [...model.keys()].filter((_, at) => at % 97 === 0);
  const data = keys.map((key) => vectorOf(key, model.get(key) ?? 0));
  const reply = await sdk.search({ collection_name: name, data, limit: 1, params: { ef: 64 } } as never);
  expect(reply.status.error_code, reply.status.reason).toBe('Success');
  const hits = reply.results as unknown as { id: string }[][];
  return hits.filter((found, at) => Number(found[0]?.id) === keys[at]).length / keys.length;
}

async function segmentsOf(name: string): Promise<{ id: string; rows: number }[]> {
  const reply = await sdk.getPersistentSegmentInfo({ collectionName: name } as never).catch(() => undefined);
  const infos = (reply as { infos?: { segmentID: string; num_rows: string }[] } | undefined)?.infos ?? [];
  return infos.map((info) => ({ id: info.segmentID, rows: Number(info.num_rows) }));
}

const cli = new Cli(() => server.address);
const cairn = (...args: string[]) => cli.run(...args);
const json = (...args: string[]) => cli.json(...args);

async function collectGarbage(): Promise<void> {
  await json('gc', 'run');
  await new Promise((resolve) => setTimeout(resolve, GRACE_MS + 100));
  await json('gc', 'run');
}

describe('compaction', { timeout: 180_000 }, () => {
  test('changes nothing that readers see, at no moment; later deletes, snapshots before and after, restore and clone are exact', async () => {
    await make('books');
    const model = await fill('books');
    expect((await cairn('snapshot', 'create', '-c', 'books', 'before')).code).toBe(0);
    const before = new Map(model);
    expect((await segmentsOf('books')).length).toBe(5);

    let compacting = true;
    let reads = 0;
    const reader = (async () => {
      while (compacting) {
        expect(await readAll('books')).toEqual(model);
        expect(await recall('books', model)).toBeGreaterThan(0.95);
        reads++;
      }
    })();
    expect(await json('collection', 'compact', 'books', '--wait')).toMatchObject({ state: 'Completed', completed: 1, failed: 0 });
    await new Promise((resolve) => setTimeout(resolve, 500));
    compacting = false;
    await reader;
    expect(reads).toBeGreaterThan(2);
    expect(await segmentsOf('books')).toEqual([{ id: expect.any(String), rows: model.size }]);

    // Deletes that come later hit the rows where they are now.
    const late = range(0, ROWS * 4).filter((key) => key % 10 === 5);
    await ok(sdk.delete({ collection_name: 'books', ids: late }) as never);
    for (const key of late) model.delete(key);
    expect(await readAll('books')).toEqual(model);
    expect((await cairn('snapshot', 'create', '-c', 'books', 'after')).code).toBe(0);
    await ok(sdk.upsert({ collection_name: 'books', data: rowsOf(range(0, 50), 3) as never }) as never);
    await collectGarbage();
    expect(await findingsOf(server.address, true)).toBe('');
    expect(await json('snapshot', 'verify', '-c', 'books', 'before', '--deep')).toMatchObject({ findings: [] });

    for (const [snapshot, expected] of [
      ['before', before],
      ['after', model],
    ] as const) {
      expect((await cairn('snapshot', 'restore', '-c', 'books', snapshot, `restored_${snapshot}`, '--wait')).code).toBe(0);
      expect((await cairn('snapshot', 'clone', '-c', 'books', snapshot, `cloned_${snapshot}`, '--wait')).code).toBe(0);
      for (const name of [`restored_${snapshot}`, `cloned_${snapshot}`]) {
        await ok(sdk.loadCollectionSync({ collection_name: name }) as never);
        expect(await readAll(name)).toEqual(expected);
        expect(await json('collection', 'compact', name, '--wait')).toMatchObject({ state: 'Completed', failed: 0 });
        expect(await readAll(name)).toEqual(expected);
        const sum = (await segmentsOf(name)).reduce((rows, segment) => rows + segment.rows, 0);
        expect(sum, 'rows after as_of and deleted ones are gone').toBe(expected.size);
      }
    }
    await collectGarbage();
    expect(await findingsOf(server.address, true)).toBe('');
    // The clones' compaction touched no object of the snapshots.
    for (const snapshot of ['before', 'after'])
      expect(await json('snapshot', 'verify', '-c', 'books', snapshot, '--deep')).toMatchObject({ findings: [] });
    await ok(sdk.dropCollection({ collection_name: 'books' }) as never);
    await collectGarbage();
    expect(await readAll('cloned_before')).toEqual(before);
    expect(await findingsOf(server.address, true)).toBe('');
  });
});
