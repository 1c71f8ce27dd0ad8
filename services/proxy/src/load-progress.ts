import { CairnError, hasCode } from '@cairn/base';
import type { ShardStats } from '@cairn/proto/cairn/services';
import type { ProxyParts } from './parts.ts';
import { type CollectionEntry, shardsOf } from './proxy-catalog.ts';
import type { RequestContext } from './request-context.ts';

/**
 * Percent of a loaded collection that is searchable: loaded rows of sealed rows over its shards. 100 only when every owner says that its shard is
 * loaded; an owner that cannot be asked counts as nothing loaded yet.
 */
export async function loadProgress(parts: ProxyParts, context: RequestContext, entry: CollectionEntry): Promise<number> {
  return percentOf(await statsOf(parts, context, entry));
}

/**
 * The same for whoever waits for a load to end: ObjectDamaged, naming the object, as long as one that is missing or damaged keeps a segment from being
 * loaded. The owners try on, so the error ends when the object is back.
 */
export async function loadProgressOrFailure(parts: ProxyParts, context: RequestContext, entry: CollectionEntry): Promise<number> {
  const stats = await statsOf(parts, context, entry);
  const failure = stats.find((shard) => shard.loadFailure !== '')?.loadFailure;
  if (failure !== undefined) throw new CairnError('ObjectDamaged', `collection ${entry.record.name} cannot be loaded: ${failure}`);
  return percentOf(stats);
}

async function statsOf({ owners }: ProxyParts, context: RequestContext, { record }: CollectionEntry): Promise<readonly ShardStats[]> {
  try {
    return await owners.stats(context, shardsOf(record));
  } catch (error) {
    if (hasCode(error, 'ChannelNotAvailable', 'Unavailable', 'Timeout')) return [];
    throw error;
  }
}

/** 0 for no answer. */
function percentOf(stats: readonly ShardStats[]): number {
  if (stats.length === 0) return 0;
  if (stats.every((shard) => shard.loaded)) return 100;
  const sealed = stats.reduce((sum, shard) => sum + shard.sealedRows, 0);
  const loaded = stats.reduce((sum, shard) => sum + Math.min(shard.loadedRows, shard.sealedRows), 0);
  return sealed === 0 ? 0 : Math.min(99, Math.floor((loaded / sealed) * 100));
}
