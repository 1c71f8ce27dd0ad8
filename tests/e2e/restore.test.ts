/** Restores as a client sees them: what is Completed can be loaded, and answers as the source did. */
import { MilvusClient } from '@zilliz/milvus2-sdk-node';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Standalone, startStandalone } from '../support/cairn.ts';
import { stopChecked } from '../support/consistency.ts';
import { FILTER_FIELDS, wireRow } from '../support/filter-collection.ts';
import { filterRows } from '../support/filter-grammar.ts';
import { seeded } from '../support/workload.ts';

const ROWS = 40;
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

const ok = (status: { reason?: string }): void => expect(status.reason ?? '').toBe('');

async function countOf(name: string): Promise<number> {
  const reply = await sdk.query({ collection_name: name, filter: '', output_fields: ['count(*)'], consistency_level: 'Strong' as never });
  ok(reply.status);
  return Number(reply.data[0]?.['count(*)']);
}

test('rows that were never flushed are restored too: what is Completed loads', { timeout: 60_000 }, async () => {
  const rows = filterRows(ROWS, seeded(3));
  const name = 'growing';
  ok(await sdk.createCollection({ collection_name: name, fields: FILTER_FIELDS, enable_dynamic_field: true }));
  ok(await sdk.createIndex({ collection_name: name, field_name: 'vector', index_type: 'FLAT', metric_type: 'L2' }));
  for (const [snapshot, upTo] of [
    ['empty', 0],
    ['one', 1],
    ['all', ROWS],
  ] as const) {
    const have = snapshot === 'all' ? 1 : 0;
    if (upTo > 0) ok((await sdk.insert({ collection_name: name, data: rows.slice(have, upTo).map(wireRow) as never })).status);
    ok(await sdk.createSnapshot({ collection_name: name, snapshot_name: snapshot }));
    const target = `${name}_${snapshot}`;
    const { job_id, status } = await sdk.restoreSnapshot({
      snapshot_name: snapshot,
      source_collection_name: name,
      target_collection_name: target,
    });
    ok(status);
    await expect
      .poll(async () => String((await sdk.getRestoreSnapshotState({ job_id })).info?.state), { timeout: 30_000 })
      .toMatch(/Completed/);
    ok(await sdk.loadCollectionSync({ collection_name: target }));
    expect(await countOf(target)).toBe(upTo);
    if (upTo === 0) continue;
    const found = await sdk.search({
      collection_name: target,
      data: wireRow(rows[0])['vector'] as number[],
      anns_field: 'vector',
      limit: ROWS,
    });
    ok(found.status);
    expect(found.results.map((hit) => Number(hit.id)).sort((a, b) => a - b)).toEqual(
      rows
        .slice(0, upTo)
        .map((row) => Number(row.id))
        .sort((a, b) => a - b),
    );
  }
});
