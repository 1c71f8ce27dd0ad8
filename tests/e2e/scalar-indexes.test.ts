/** Scalar indexes of every type: built per segment, described by their rows, used by filters without changing an answer, restored with a snapshot. */
import { readdir } from 'node:fs/promises';
import { MilvusClient } from '@zilliz/milvus2-sdk-node';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Standalone, startStandalone } from '../support/cairn.ts';
import { stopChecked } from '../support/consistency.ts';
import { FILTER_FIELDS, wireRow } from '../support/filter-collection.ts';
import { expectedIds, filterRows, filters } from '../support/filter-grammar.ts';
import { seeded } from '../support/workload.ts';

/** Above the size from which segments get indexes. */
const ROWS = 1_500;
const LANES = 4;
const INDEXES: readonly (readonly [field: string, type: string, params?: Record<string, unknown>, name?: string])[] = [
  ['small', 'INVERTED'],
  ['count', 'BITMAP'],
  ['big', 'STL_SORT'],
  ['ratio', 'AUTOINDEX'],
  ['name', 'NGRAM', { min_gram: 2, max_gram: 3 }],
  ['tags', 'INVERTED'],
  ['sizes', 'BITMAP'],
  ['doc', 'INVERTED', { json_path: 'doc["a"]', json_cast_type: 'double' }],
  // Several paths of one field, all of it, and keys of the dynamic field.
  ['doc', 'INVERTED', { json_path: "doc['a']['c']", json_cast_type: 'varchar' }, 'doc_c'],
  ['doc', 'INVERTED', { json_path: 'doc', json_cast_type: 'double' }, 'doc_whole'],
  ['b', 'INVERTED', { json_cast_type: 'double' }, 'dynamic_b'],
  ['a', 'INVERTED', { json_path: 'a[0]', json_cast_type: 'varchar' }, 'dynamic_a'],
];

let server: Standalone;
let sdk: MilvusClient;
beforeAll(async () => {
  server = await startStandalone();
  sdk = new MilvusClient({ address: server.address, timeout: 60_000 });
});
afterAll(async () => {
  await sdk.closeConnection();
  await stopChecked(server);
});

const random = seeded(17);
const rows = filterRows(ROWS, random);
const made = filters(6, 60, random);

async function wrongAnswers(name: string): Promise<string[]> {
  const waiting = [...made];
  const wrong: string[] = [];
  const lane = async (): Promise<void> => {
    for (let filter = waiting.pop(); filter; filter = waiting.pop()) {
      const reply = await sdk.query({ collection_name: name, filter: filter.text, output_fields: ['id'], limit: ROWS });
      const got = reply.data.map((row) => Number(row['id'])).sort((a, b) => a - b);
      if (reply.status.reason || got.join() !== expectedIds(filter, rows).join()) wrong.push(`${filter.text} ${reply.status.reason}`);
    }
  };
  await Promise.all(Array.from({ length: LANES }, lane));
  return wrong;
}

async function indexFiles(): Promise<number> {
  const names = await readdir(server.dataDir, { recursive: true });
  return names.filter((name) => /index\.\d+\.\d+(e\d+)?$/.test(name)).length;
}

async function describedRows(name: string): Promise<string[]> {
  const { index_descriptions } = await sdk.describeIndex({ collection_name: name });
  return index_descriptions
    .map(({ index_name, state, indexed_rows, total_rows }) => `${index_name} ${state} ${indexed_rows}/${total_rows}`)
    .sort();
}

test('indexes are built, described, used and restored', { timeout: 120_000 }, async () => {
  const name = 'scalars';
  const ok = (status: { reason?: string }): void => expect(status.reason ?? '').toBe('');
  ok(
    await sdk.createCollection({
      collection_name: name,
      fields: FILTER_FIELDS,
      enable_dynamic_field: true,
      consistency_level: 'Strong' as never,
    }),
  );
  ok((await sdk.insert({ collection_name: name, data: rows.map(wireRow) as never })).status);
  ok((await sdk.flushSync({ collection_names: [name] })).status);
  ok(await sdk.createIndex({ collection_name: name, field_name: 'vector', index_name: 'vector', index_type: 'FLAT', metric_type: 'L2' }));
  for (const [field, type, params = {}, index = field] of INDEXES)
    ok(await sdk.createIndex({ collection_name: name, field_name: field, index_name: index, index_type: type, params }));
  const wanted = [...INDEXES.map(([field, , , index]) => index ?? field), 'vector']
    .map((index) => `${index} Finished ${ROWS}/${ROWS}`)
    .sort();
  await expect.poll(() => describedRows(name), { timeout: 60_000 }).toEqual(wanted);
  expect(await indexFiles()).toBe(INDEXES.length);
  ok(await sdk.loadCollectionSync({ collection_name: name }));
  expect(await wrongAnswers(name)).toEqual([]);

  ok(await sdk.createSnapshot({ collection_name: name, snapshot_name: 's' }));
  const restored = await sdk.restoreSnapshot({ snapshot_name: 's', source_collection_name: name, target_collection_name: 'again' });
  ok(restored.status);
  await expect.poll(() => describedRows('again').catch(() => []), { timeout: 60_000 }).toEqual(wanted);
  expect(await indexFiles()).toBe(2 * INDEXES.length);
  ok(await sdk.loadCollectionSync({ collection_name: 'again' }));
  expect(await wrongAnswers('again')).toEqual([]);
});

test('of one path of a JSON field there is one index, whatever it is called; without a name it has the path for one', async () => {
  const make = (json_path: string, index_name: string, json_cast_type = 'double') =>
    sdk.createIndex({
      ...{ collection_name: 'scalars', field_name: 'doc', index_name, index_type: 'INVERTED' },
      params: { json_path, json_cast_type },
    });
  expect((await make("doc['a']", 'other')).reason).toContain('at most one distinct index is allowed per field: doc/a');
  expect((await make('doc["z"]', 'doc_c')).reason).toContain('is taken by the index of another path');
  expect((await make('doc["z"][1]', '')).reason).toBe('');
  const { index_descriptions } = await sdk.describeIndex({ collection_name: 'scalars' });
  expect(index_descriptions.map((one) => one.index_name)).toContain('doc/z/1');
});

test('a JSON index of no path, or of an unknown cast, is refused by name', async () => {
  for (const [params, message] of [
    [{ json_path: 'other["a"]', json_cast_type: 'double' }, 'doc'],
    [{ json_path: 'doc["a"]', json_cast_type: 'number' }, 'json_cast_type'],
  ] as const) {
    const status = await sdk.createIndex({
      collection_name: 'scalars',
      field_name: 'doc',
      index_name: 'bad',
      index_type: 'INVERTED',
      params,
    });
    expect(status.error_code).not.toBe('Success');
    expect(status.reason).toContain(message);
  }
});
