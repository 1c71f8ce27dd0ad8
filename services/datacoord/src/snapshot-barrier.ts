import { isRetriable, mapLimit, type Runtime, retry } from '@cairn/base';
import type { CollectionRecord, SnapshotRecord } from '@cairn/proto/cairn/meta';
import { StreamingDefinition } from '@cairn/proto/cairn/services';
import type { Transport } from '@cairn/rpc';
import type { ChannelAssigner } from './channel-assigner.ts';

/** Barriers sent at once for one snapshot. */
const PARALLEL = 16;
/** One try, ms: an owner that hangs may have been replaced. A barrier asked again waits for the flush that the first one began. */
const TRY_TIMEOUT_MS = 20_000;

/**
 * Sends the barrier at T to the owner of each shard; resolves when everything at or before T is flushed on all of them. A shard whose owner
 * changes is asked again (a repeated barrier changes nothing) until the signal, which carries the snapshot's time limit: by the monotonic clock, for
 * the wall clock may jump beyond the recorded deadline.
 */
export async function runBarrier(
  record: SnapshotRecord,
  collection: CollectionRecord,
  parts: { readonly channels: ChannelAssigner; readonly transport: Transport; readonly runtime: Runtime },
  signal: AbortSignal,
): Promise<void> {
  const { channels, transport, runtime } = parts;
  const send = (shard: CollectionRecord['shards'][number]) =>
    retry(
      runtime,
      { attempts: Number.POSITIVE_INFINITY, firstDelayMs: 25, maxDelayMs: 500, retriable: isRetriable },
      async () => {
        const owner = channels.ownerOf(shard.channel);
        const request = { vchannel: shard.vchannel, collectionId: collection.id, snapshotId: record.id, ts: record.ts };
        await transport.client(StreamingDefinition, owner.address).barrier(request, { signal, timeoutMs: TRY_TIMEOUT_MS });
      },
      signal,
    );
  const under = collection.shards.map((shard) => shard.channel);
  await channels.still(under, () => mapLimit(collection.shards, PARALLEL, send));
}
