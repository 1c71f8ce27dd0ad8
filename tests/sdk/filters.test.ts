/** Filters through the wire against a reading of the rules written apart from the product: 21 kinds, and trees of them. */
import { MilvusClient } from '@zilliz/milvus2-sdk-node';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Standalone, startStandalone } from '../support/cairn.ts';
import { stopChecked } from '../support/consistency.ts';
import { FILTER_FIELDS, wireRow } from '../support/filter-collection.ts';
import { expectedIds, filterRows, filters } from '../support/filter-grammar.ts';
import { seeded } from '../support/workload.ts';

const NAME = 'filters';
const ROWS = 300;
const PER_KIND = 12;
const COMBINED = 400;
const LANES = 8;

describe('filters', () => {
  const random = seeded(6);
  const rows = filterRows(ROWS, random);
  const made = filters(PER_KIND, COMBINED, random);
  const kinds = [...new Set(made.map((filter) => filter.kind))];
  const wrong = new Map<string, string[]>();
  let server: Standalone | undefined;
  let matched = 0;

  beforeAll(async () => {
    server = await startStandalone();
    const sdk = new MilvusClient({ address: server.address });
    await sdk.connectPromise;
    const ok = (status: { error_code?: unknown; reason?: string }): void => expect(status.reason ?? '', 'reason').toBe('');
    ok(
      await sdk.createCollection({
        collection_name: NAME,
        fields: FILTER_FIELDS,
        enable_dynamic_field: true,
        consistency_level: 'Strong' as never,
      }),
    );
    // Half in a sealed segment, half growing.
    ok((await sdk.insert({ collection_name: NAME, data: rows.slice(0, ROWS / 2).map(wireRow) as never })).status);
    ok((await sdk.flushSync({ collection_names: [NAME] })).status);
    ok((await sdk.insert({ collection_name: NAME, data: rows.slice(ROWS / 2).map(wireRow) as never })).status);
    ok(await sdk.createIndex({ collection_name: NAME, field_name: 'vector', index_type: 'FLAT', metric_type: 'L2' }));
    ok(await sdk.loadCollectionSync({ collection_name: NAME }));
    const waiting = [...made];
    const lane = async (): Promise<void> => {
      for (let filter = waiting.pop(); filter; filter = waiting.pop()) {
        const reply = await sdk.query({ collection_name: NAME, filter: filter.text, output_fields: ['id'], limit: ROWS });
        const got = reply.data.map((row) => Number(row['id'])).sort((a, b) => a - b);
        const want = expectedIds(filter, rows);
        if (want.length > 0 && want.length < ROWS) matched++;
        const reason = reply.status.reason || (got.join() === want.join() ? '' : difference(got, want));
        if (reason) wrong.set(filter.kind, [...(wrong.get(filter.kind) ?? []), `${filter.text}: ${reason}`]);
      }
    };
    await Promise.all(Array.from({ length: LANES }, lane));
    await sdk.closeConnection();
  });
  afterAll(async () => {
    await stopChecked(server);
  });

  function difference(got: readonly number[], want: readonly number[]): string {
    const extra = got.filter((id) => !want.includes(id));
    const lacking = want.filter((id) => !got.includes(id));
    const shown = rows[extra[0] ?? lacking[0] ?? 0];
    return `${extra.length} rows too many, ${lacking.length} too few, e.g. ${JSON.stringify(shown)}`;
  }

  test('there are at least 500, and more than half of them tell rows apart', () => {
    expect(made.length).toBeGreaterThanOrEqual(500);
    expect(matched).toBeGreaterThan(made.length / 2);
  });

  test.each(kinds)('%s', (kind) => {
    expect(wrong.get(kind) ?? []).toEqual([]);
  });
});
