import { CairnError, hasCode } from '@cairn/base';
import { ShowType } from '@cairn/proto/milvus/milvus';
import type { Change } from '../coordinator-client.ts';
import { loadProgress } from '../load-progress.ts';
import type { Area } from '../milvus-methods.ts';
import type { ProxyParts } from '../parts.ts';
import type { CollectionEntry } from '../proxy-catalog.ts';
import type { RequestContext } from '../request-context.ts';
import { OK } from '../status.ts';
import { utcMs, wireTimestamp } from './wire-forms.ts';

type PartitionMethods =
  | 'createPartition'
  | 'dropPartition'
  | 'hasPartition'
  | 'showPartitions'
  | 'getPartitionStatistics'
  | 'loadPartitions'
  | 'releasePartitions';

/** Partitions of a collection. */
export function partitionArea(parts: ProxyParts): Area<PartitionMethods> {
  const { catalog, coordinator } = parts;

  const submit = async (context: RequestContext, change: Change) => {
    const { revision } = await coordinator.submit(context, change);
    await catalog.waitFor(revision);
    return OK;
  };
  const refuseWithPartitionKey = async (database: string, collection: string): Promise<void> => {
    const { record, schema } = await catalog.retrySynced(() => catalog.resolve(database, collection));
    if (!schema.partitionKey) return;
    throw new CairnError('InvalidParameter', `disable partition operations when partition key mode is used: collection ${record.name}`, {
      legacy: 1,
    });
  };

  return {
    createPartition: async (request, context) => {
      const database = context.database(request.dbName);
      await refuseWithPartitionKey(database, request.collectionName);
      return submit(context, {
        $case: 'createPartition',
        value: { database, collection: request.collectionName, name: request.partitionName, id: 0 },
      });
    },

    dropPartition: async (request, context) => {
      const database = context.database(request.dbName);
      await refuseWithPartitionKey(database, request.collectionName);
      return submit(context, {
        $case: 'dropPartition',
        value: { database, collection: request.collectionName, name: request.partitionName },
      });
    },

    hasPartition: async (request, context) => {
      await catalog.sync();
      const entry = catalog.resolve(context.database(request.dbName), request.collectionName);
      try {
        catalog.partition(entry, request.partitionName);
        return { status: OK, value: true };
      } catch (error) {
        if (!hasCode(error, 'PartitionNotFound')) throw error;
        return { status: OK, value: false };
      }
    },

    showPartitions: async (request, context) => {
      await catalog.sync();
      const database = context.database(request.dbName);
      const entry =
        request.collectionName === '' && request.collectionID > 0n
          ? catalog.byId(database, Number(request.collectionID))
          : catalog.resolve(database, request.collectionName);
      let partitions = catalog.partitionsOf(entry.record.id);
      if (request.partitionNames.length > 0) {
        const wanted = request.partitionNames.map((name) => catalog.partition(entry, name).id);
        partitions = partitions.filter((partition) => wanted.includes(partition.id));
      }
      let percentages: bigint[] = [];
      if (request.type === ShowType.InMemory) {
        const load = catalog.loadOf(entry.record.id);
        if (!load) throw new CairnError('CollectionNotLoaded', `collection not loaded[collection=${entry.record.name}]`);
        partitions = partitions.filter((partition) => load.partitionIds.length === 0 || load.partitionIds.includes(partition.id));
        const percentage = BigInt(await loadProgress(parts, context, entry));
        percentages = partitions.map(() => percentage);
      }
      return {
        status: OK,
        partitionNames: partitions.map((partition) => partition.name),
        partitionIDs: partitions.map((partition) => BigInt(partition.id)),
        createdTimestamps: partitions.map((partition) => wireTimestamp(partition.createdTs)),
        createdUtcTimestamps: partitions.map((partition) => utcMs(partition.createdTs)),
        inMemoryPercentages: percentages,
      };
    },

    // Sealed rows only: owners report growing rows by shard, not by partition.
    getPartitionStatistics: async (request, context) => {
      await catalog.sync();
      const entry = catalog.resolve(context.database(request.dbName), request.collectionName);
      const partition = catalog.partition(entry, request.partitionName);
      const { segments } = await coordinator.call(context, (leader, options) =>
        leader.listSegments({ collectionId: entry.record.id }, options),
      );
      const rows = segments.reduce(
        (sum, segment) => sum + (segment.partitionId === partition.id && segment.droppedTs === 0 ? segment.rows : 0),
        0,
      );
      return { status: OK, stats: [{ key: 'row_count', value: String(rows) }] };
    },

    loadPartitions: (request, context) => {
      requireNames(request.partitionNames);
      return submit(context, {
        $case: 'load',
        value: {
          database: context.database(request.dbName),
          collection: request.collectionName,
          partitions: request.partitionNames,
          replicas: request.replicaNumber,
          resourceGroups: request.resourceGroups,
          loadFields: request.loadFields,
          refresh: request.refresh,
        },
      });
    },

    releasePartitions: (request, context) => {
      requireNames(request.partitionNames);
      return submit(context, {
        $case: 'release',
        value: { database: context.database(request.dbName), collection: request.collectionName, partitions: request.partitionNames },
      });
    },
  };
}

function requireNames(names: readonly string[]): void {
  if (names.length === 0) throw new CairnError('InvalidParameter', 'due to no partition specified');
}

/** Ids of the partitions that a read names; none named: none, which means all that are loaded. */
export function partitionIds(parts: ProxyParts, entry: CollectionEntry, names: readonly string[], legacyOfPartitionKey: number): number[] {
  if (names.length === 0) return [];
  if (entry.schema.partitionKey) {
    throw new CairnError('InvalidParameter', 'not support manually specifying the partition names if partition key mode is used', {
      legacy: legacyOfPartitionKey,
    });
  }
  return [...new Set(names.map((name) => parts.catalog.partition(entry, name).id))];
}
