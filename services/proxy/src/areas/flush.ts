import { fromWireTimestamp, timestampMs } from '@cairn/base';
import { type SegmentRecord, SegmentState as StoredState } from '@cairn/proto/cairn/meta';
import type { FlushShardResponse, ShardStats } from '@cairn/proto/cairn/services';
import { SegmentLevel, SegmentState, WALName } from '@cairn/proto/milvus/common';
import type { FlushAllTarget } from '@cairn/proto/milvus/milvus';
import type { MsgPosition } from '@cairn/proto/milvus/msg';
import type { Area } from '../milvus-methods.ts';
import type { ProxyParts } from '../parts.ts';
import { type CollectionEntry, shardsOf } from '../proxy-catalog.ts';
import type { RequestContext } from '../request-context.ts';
import { OK } from '../status.ts';
import { wireTimestamp } from './wire-forms.ts';

type FlushMethods = 'flush' | 'getFlushState' | 'flushAll' | 'getFlushAllState' | 'getPersistentSegmentInfo' | 'getQuerySegmentInfo';

/** What flushing one collection gave. */
interface CollectionFlush {
  readonly sealed: bigint[];
  readonly flushedBefore: bigint[];
  readonly flushTs: number;
  readonly channelCps: Record<string, MsgPosition>;
}

/** Flush seals what is growing and answers; that it is all in the object store is asked by the state calls. */
export function flushArea(parts: ProxyParts): Area<FlushMethods> {
  const { catalog, coordinator, owners } = parts;

  const flushCollection = async (context: RequestContext, entry: CollectionEntry): Promise<CollectionFlush> => {
    const { record } = entry;
    parts.quota.write(entry, 'flush', 1);
    const shards = shardsOf(record);
    const replies = await Promise.all(
      shards.map((shard) =>
        owners.call(context, shard, (owner, options) =>
          owner.flush({ vchannel: shard.vchannel, collectionId: record.id, wait: false }, options),
        ),
      ),
    );
    // The smallest: at or before it everything of every shard is sealed.
    const flushTs = Math.min(...replies.map((reply) => reply.flushTs));
    const position = (vchannel: string, reply: FlushShardResponse): MsgPosition => ({
      channelName: vchannel,
      msgID: new Uint8Array(),
      msgGroup: '',
      timestamp: wireTimestamp(reply.flushTs),
      WALName: WALName.Unknown,
    });
    return {
      sealed: replies.flatMap((reply) => reply.segmentIds.map(BigInt)),
      flushedBefore: replies.flatMap((reply) => reply.flushedSegmentIds.map(BigInt)),
      flushTs,
      channelCps: Object.fromEntries(shards.map((shard, i) => [shard.vchannel, position(shard.vchannel, replies[i])])),
    };
  };

  /** Whether all at or before `flushTs` is flushed; without a timestamp, whether none of these segments is still growing. */
  const isFlushed = (stats: readonly ShardStats[], flushTs: number, segmentIds: readonly bigint[]): boolean => {
    if (flushTs > 0) return stats.every((shard) => shard.checkpointTs >= flushTs);
    const growing = new Set(stats.flatMap((shard) => shard.growingSegmentIds));
    return segmentIds.every((id) => !growing.has(Number(id)));
  };

  const targets = (context: RequestContext, dbName: string, wanted: readonly FlushAllTarget[]): CollectionEntry[] => {
    const named = wanted.length > 0 ? wanted : dbName === '' ? [] : [{ dbName, collectionNames: [] }];
    const all = named.length > 0 ? named : catalog.databases().map((database) => ({ dbName: database.name, collectionNames: [] }));
    return all.flatMap((target) => {
      const database = catalog.database(context.database(target.dbName));
      if (target.collectionNames.length > 0) return target.collectionNames.map((name) => catalog.resolve(database.name, name));
      return catalog.collectionsOf(database.id).map((record) => ({ database, record, schema: catalog.schemaOf(record.id) }));
    });
  };

  const segmentsOf = async (context: RequestContext, dbName: string, collection: string): Promise<SegmentRecord[]> => {
    await catalog.sync();
    const entry = catalog.resolve(context.database(dbName), collection);
    const { segments } = await coordinator.call(context, (leader, options) =>
      leader.listSegments({ collectionId: entry.record.id }, options),
    );
    return segments.filter((segment) => segment.state !== StoredState.SEGMENT_DROPPED);
  };

  return {
    flush: async (request, context) => {
      const database = context.database(request.dbName);
      const flushes = await Promise.all(
        request.collectionNames.map(
          async (name) => [name, await flushCollection(context, await catalog.resolveLive(database, name))] as const,
        ),
      );
      const byName = <T>(value: (flush: CollectionFlush) => T): Record<string, T> =>
        Object.fromEntries(flushes.map(([name, flush]) => [name, value(flush)]));
      return {
        status: OK,
        dbName: database,
        collSegIDs: byName((flush) => ({ data: flush.sealed })),
        flushCollSegIDs: byName((flush) => ({ data: flush.flushedBefore })),
        collSealTimes: byName((flush) => BigInt(Math.floor(timestampMs(flush.flushTs) / 1000))),
        collFlushTs: byName((flush) => wireTimestamp(flush.flushTs)),
        channelCps: Object.assign({}, ...flushes.map(([, flush]) => flush.channelCps)),
      };
    },

    getFlushState: async (request, context) => {
      if (request.collectionName === '') return { status: OK, flushed: isFlushed(await owners.allStats(context), 0, request.segmentIDs) };
      const { record } = await catalog.resolveLive(context.database(request.dbName), request.collectionName);
      const stats = await owners.stats(context, shardsOf(record));
      return { status: OK, flushed: isFlushed(stats, fromWireTimestamp(request.flushTs), request.segmentIDs) };
    },

    flushAll: async (request, context) => {
      await catalog.sync();
      const entries = targets(context, request.dbName, request.flushTargets);
      const flushes = await Promise.all(entries.map((entry) => flushCollection(context, entry)));
      const flushAllTs = flushes.length > 0 ? Math.max(...flushes.map((flush) => flush.flushTs)) : await parts.readTimestamps.now();
      const databases = [...new Set(entries.map((entry) => entry.database.name))];
      return {
        status: OK,
        flushAllTs: wireTimestamp(flushAllTs),
        flushResults: databases.map((dbName) => ({
          dbName,
          collectionResults: entries.flatMap((entry, i) =>
            entry.database.name !== dbName
              ? []
              : {
                  collectionName: entry.record.name,
                  segmentIds: { data: flushes[i].sealed },
                  flushSegmentIds: { data: flushes[i].flushedBefore },
                  sealTime: BigInt(Math.floor(timestampMs(flushes[i].flushTs) / 1000)),
                  flushTs: wireTimestamp(flushes[i].flushTs),
                  channelCps: flushes[i].channelCps,
                },
          ),
        })),
        flushAllMsgs: {},
        clusterInfo: undefined,
      };
    },

    getFlushAllState: async (request, context) => {
      await catalog.sync();
      const entries = targets(context, request.dbName, request.flushTargets);
      const flushTs = fromWireTimestamp(request.flushAllTs);
      const states = await Promise.all(
        entries.map(async (entry) => {
          const stats = await owners.stats(context, shardsOf(entry.record));
          // An idle shard's checkpoint need not have reached the largest timestamp: nothing growing is as good.
          return stats.every((shard) => shard.checkpointTs >= flushTs || shard.growingRows === 0);
        }),
      );
      const databases = [...new Set(entries.map((entry) => entry.database.name))];
      return {
        status: OK,
        flushed: states.every((flushed) => flushed),
        flushStates: databases.map((dbName) => ({
          dbName,
          collectionFlushStates: Object.fromEntries(
            entries.flatMap((entry, i) => (entry.database.name === dbName ? [[entry.record.name, states[i]]] : [])),
          ),
        })),
      };
    },

    getPersistentSegmentInfo: async (request, context) => {
      const segments = await segmentsOf(context, request.dbName, request.collectionName);
      return {
        status: OK,
        infos: segments.map((segment) => ({
          segmentID: BigInt(segment.id),
          collectionID: BigInt(segment.collectionId),
          partitionID: BigInt(segment.partitionId),
          numRows: BigInt(segment.rows),
          state: SegmentState.Flushed,
          level: segment.level > 0 ? SegmentLevel.L2 : SegmentLevel.L1,
          isSorted: segment.sorted,
          storageVersion: 0n,
        })),
      };
    },

    getQuerySegmentInfo: async (request, context) => {
      await catalog.sync();
      const entry = catalog.resolve(context.database(request.dbName), request.collectionName);
      const stats = await owners.stats(context, shardsOf(entry.record));
      const segments = new Map((await segmentsOf(context, request.dbName, request.collectionName)).map((segment) => [segment.id, segment]));
      const index = catalog.indexesOf(entry.record.id)[0];
      return {
        status: OK,
        infos: stats
          .flatMap((shard) => shard.holders)
          .map((holder) => ({
            segmentID: BigInt(holder.segmentId),
            collectionID: BigInt(entry.record.id),
            partitionID: BigInt(segments.get(holder.segmentId)?.partitionId ?? 0),
            memSize: BigInt(segments.get(holder.segmentId)?.bytes ?? 0),
            numRows: BigInt(holder.rows),
            indexName: index?.name ?? '',
            indexID: BigInt(index?.id ?? 0),
            nodeID: 0n,
            state: SegmentState.Sealed,
            nodeIds: [],
            level: SegmentLevel.L1,
            isSorted: segments.get(holder.segmentId)?.sorted ?? false,
            storageVersion: 0n,
          })),
      };
    },
  };
}
