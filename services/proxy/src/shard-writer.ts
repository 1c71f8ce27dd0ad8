import { asCairnError, CairnError } from '@cairn/base';
import type { WriteRequest } from '@cairn/proto/cairn/services';
import type { ProxyParts } from './parts.ts';
import type { CollectionEntry } from './proxy-catalog.ts';
import type { RequestContext } from './request-context.ts';
import type { ShardWrite } from './row-router.ts';
import { WRITE_TRY_TIMEOUT_MS } from './shard-owners.ts';

export interface DeleteScope {
  /** Delete by filter: by shard index, the read timestamp of its query. */
  readonly readTs?: ReadonlyMap<number, number>;
  /** Deletes apply in this partition only; 0 or absent: all. */
  readonly partitionId?: number;
}

/**
 * Sends each shard its part, all at once, and answers the largest stamp. Not atomic across shards: when only some succeeded the error says so and is
 * retriable; a repeat under the same idempotency key completes the write and doubles nothing.
 */
export async function writeToShards(
  parts: ProxyParts,
  context: RequestContext,
  entry: CollectionEntry,
  writes: Iterable<ShardWrite>,
  scope: DeleteScope = {},
): Promise<number> {
  const list = [...writes];
  const outcomes = await Promise.allSettled(
    list.map((write) => {
      const request = requestOf(context, entry, write, scope);
      return parts.owners.call(context, write.shard, (owner, options) => owner.write(request, options), WRITE_TRY_TIMEOUT_MS);
    }),
  );
  const failed = outcomes.flatMap((outcome) => (outcome.status === 'rejected' ? [asCairnError(outcome.reason)] : []));
  if (failed.length === 0) return Math.max(0, ...outcomes.map((outcome) => (outcome.status === 'fulfilled' ? outcome.value.ts : 0)));
  const [first] = failed;
  if (failed.length === list.length) throw first;
  throw new CairnError(
    first.retriable ? first.codeName : 'Unavailable',
    `the write reached ${list.length - failed.length} of ${list.length} shards of collection ${entry.record.name}; repeat it to complete it (under the same idempotency-key nothing is doubled): ${first.message}`,
    { cause: first },
  );
}

function requestOf(context: RequestContext, { record }: CollectionEntry, write: ShardWrite, scope: DeleteScope): WriteRequest {
  return {
    vchannel: write.shard.vchannel,
    collectionId: record.id,
    requestId: context.requestId,
    schemaVersion: record.schemaVersion,
    inserts: write.inserts.map((part) => ({ partitionId: part.partitionId, rows: part.rows, columns: part.frame })),
    deletes: write.deletes,
    deleteRows: write.deleteRows,
    readTs: scope.readTs?.get(write.shard.index) ?? 0,
    deletePartitionId: scope.partitionId ?? 0,
    partial: write.partial,
  };
}
