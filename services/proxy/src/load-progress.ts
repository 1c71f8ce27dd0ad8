import { hasCode } from '@cairn/base';
import type { ProxyParts } from './parts.ts';
import { type CollectionEntry, shardsOf } from './proxy-catalog.ts';
import type { RequestContext } from './request-context.ts';

/**
 * Percent of a loaded collection that is searchable: loaded rows of sealed rows over its shards. 100 only when every owner says that its shard is
 * loaded; an owner that cannot be asked counts as nothing loaded yet.
 */
export async function loadProgress({ owners }: ProxyParts, context: RequestContext, { record }: CollectionEntry): Promise<number> {
  try {
    const stats = await owners.stats(context, shardsOf(record));
    if (stats.every((shard) => shard.loaded)) return 100;
    const sealed = stats.reduce((sum, shard) => sum + shard.sealedRows, 0);
    const loaded = stats.reduce((sum, shard) => sum + Math.min(shard.loadedRows, shard.sealedRows), 0);
    return sealed === 0 ? 0 : Math.min(99, Math.floor((loaded / sealed) * 100));
  } catch (error) {
    if (hasCode(error, 'ChannelNotAvailable', 'Unavailable', 'Timeout')) return 0;
    throw error;
  }
}
