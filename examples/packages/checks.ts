import { isDeepStrictEqual } from 'node:util';
import type { MilvusClient } from '@zilliz/milvus2-sdk-node';
import type { Case, PackageRow } from './dataset.ts';

/** A row as it must come back: vectors in float32, everything else as it went in. */
function expected(row: PackageRow): PackageRow {
  return { ...row, embedding: row.embedding.map(Math.fround) };
}

/** Reads the whole collection and compares every field of every row, bit for bit, with the model. Throws at the first difference. */
export async function checkRows(client: MilvusClient, collection: string, model: ReadonlyMap<string, PackageRow>): Promise<void> {
  const seen = new Set<string>();
  const iterator = await client.queryIterator({
    collection_name: collection,
    expr: '',
    output_fields: ['*', 'version', 'architecture'],
    batchSize: 1000,
  });
  for await (const batch of iterator) {
    for (const { $meta, ...fields } of batch) {
      // Keys of the dynamic field come as one object, `$meta`.
      const found: Record<string, unknown> = { ...fields, ...($meta as unknown as object) };
      const name = String(found['name']);
      if (seen.has(name)) throw new Error(`${collection}: row ${name} came twice`);
      seen.add(name);
      const want = model.get(name);
      if (!want) throw new Error(`${collection}: row ${name} must not be there`);
      for (const [field, value] of Object.entries(expected(want))) {
        const got = field === 'embedding' ? (found[field] as number[]).map(Math.fround) : found[field];
        if (!isDeepStrictEqual(got, value))
          throw new Error(`${collection}: row ${name}, field ${field}: ${JSON.stringify(got)} instead of ${JSON.stringify(value)}`);
      }
    }
  }
  if (seen.size !== model.size) {
    const missing = [...model.keys()].find((name) => !seen.has(name));
    throw new Error(`${collection}: ${seen.size} rows instead of ${model.size}; missing for one: ${missing}`);
  }
}

/**
 * Recall at 10 of every case against the exact answers. A hit counts when its similarity reaches the tenth exact one: summaries repeat, so
 * names tie.
 */
export async function measureRecall(client: MilvusClient, collection: string, queries: number[][], entry: Case): Promise<number> {
  let found = 0;
  let wanted = 0;
  for (let start = 0; start < queries.length; start += 50) {
    const reply = await client.search({
      collection_name: collection,
      data: queries.slice(start, start + 50),
      anns_field: 'embedding',
      limit: 10,
      filter: entry.filter,
      params: { ef: 128 },
      output_fields: ['name'],
    });
    if (reply.status.error_code !== 'Success') throw new Error(`search "${entry.filter}": ${reply.status.reason}`);
    const lists = (Array.isArray(reply.results[0]) ? reply.results : [reply.results]) as unknown as { score: number }[][];
    lists.forEach((hits, i) => {
      const exact = entry.similarities[start + i] ?? [];
      const least = (exact.at(-1) ?? 0) - 1e-5;
      wanted += exact.length;
      found += hits.filter((hit) => hit.score >= least).length;
    });
  }
  return wanted === 0 ? 1 : found / wanted;
}
