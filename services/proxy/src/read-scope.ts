import { CairnError } from '@cairn/base';
import type { Expr } from '@cairn/expr';
import { keyLookup } from '@cairn/expr';
import type { Shard } from '@cairn/proto/cairn/meta';
import type { QueryResult, SearchResult } from '@cairn/proto/cairn/services';
import { resultBytes } from '@cairn/query';
import { hashKeys, keyColumn, shardOf } from '@cairn/schema';
import type { ProxyParts } from './parts.ts';
import { type CollectionEntry, shardsOf } from './proxy-catalog.ts';

/** CollectionNotLoaded or PartitionNotLoaded unless a load of the collection, and of these partitions, has been asked for. */
export async function requireLoadedFor({ catalog }: ProxyParts, entry: CollectionEntry, partitionIds: readonly number[]): Promise<void> {
  const { record } = entry;
  await catalog.retrySynced(() => {
    const load = catalog.loadOf(record.id);
    if (!load) throw new CairnError('CollectionNotLoaded', `collection not loaded[collection=${record.name}]`);
    const missing = load.partitionIds.length === 0 ? undefined : partitionIds.find((id) => !load.partitionIds.includes(id));
    if (missing !== undefined) {
      const name = catalog.partitionsOf(record.id).find((partition) => partition.id === missing)?.name ?? missing;
      throw new CairnError('PartitionNotLoaded', `partition not loaded[collection=${record.name}][partition=${name}]`);
    }
  });
}

/** Shards that can hold matches: those of the keys when the filter names keys, else all. */
export function shardsFor(entry: CollectionEntry, expr: Expr): Shard[] {
  const shards = shardsOf(entry.record);
  const literals = keyLookup(expr, entry.schema.primaryKey.id);
  if (!literals || shards.length === 1) return shards;
  const keys = literals.every((literal) => typeof literal === 'string')
    ? keyColumn(literals)
    : literals.every((literal) => typeof literal === 'bigint')
      ? keyColumn(literals)
      : undefined;
  if (!keys) return shards;
  const wanted = new Set(Array.from(hashKeys(keys), (hash) => shardOf(hash, shards.length)));
  // At least one is asked even when no key can match: it answers with empty columns of the right types.
  return wanted.size === 0 ? shards.slice(0, 1) : shards.filter((shard) => wanted.has(shard.index));
}

/** ParameterTooLarge when the shards' columns together are more than a reply may have: a limit, or fewer output fields, would help. */
export function checkResultBytes({ config }: ProxyParts, entry: CollectionEntry, results: readonly (SearchResult | QueryResult)[]): void {
  const bytes = results.reduce((sum, result) => sum + resultBytes(result), 0);
  const max = config.limits.maxResultBytes;
  if (bytes <= max) return;
  throw new CairnError(
    'ParameterTooLarge',
    `the result from collection ${entry.record.name} has ${bytes} bytes, at most ${max} are sent (limits.maxResultBytes): ask for fewer rows or fields`,
  );
}
