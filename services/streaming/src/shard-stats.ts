import type { MetaStore } from '@cairn/meta';
import type { ShardStats } from '@cairn/proto/cairn/services';
import type { ChannelOwner } from './channel-owner.ts';
import { flushedSegments } from './flushed-segments.ts';
import type { Shard } from './shard.ts';
import type { ShardView } from './shard-view.ts';

/** What a shard has where. Sealed rows of a shard that is not loaded are counted in the store. */
export async function shardStats(meta: MetaStore, owner: ChannelOwner, shard: Shard, view: ShardView | undefined): Promise<ShardStats> {
  const growing = shard.unflushed();
  const progress = view?.progress;
  const sealedRows =
    progress?.sealedRows ??
    (await flushedSegments(meta, shard.collectionId, shard.index)).reduce((rows, segment) => rows + segment.rows, 0);
  return {
    vchannel: shard.vchannel,
    growingRows: growing.rows,
    sealedRows,
    loadedRows: progress?.loadedRows ?? 0,
    loaded: progress?.complete ?? false,
    checkpointTs: shard.record.checkpointTs,
    // Growing rows have no id before they are sealed, so nobody can ask for them by one.
    growingSegmentIds: await owner.sealedUnflushed(shard),
    growingBytes: growing.bytes,
    checkpoint: shard.checkpoint,
    tail: owner.appliedSequence,
    holders: view?.holders() ?? [],
    loadFailure: view?.damage?.message ?? '',
  };
}
