import { CairnError, hasCode } from '@cairn/base';
import { checkTtl, isHidden, refuseHidden } from '@cairn/catalog';
import { CollectionRecord } from '@cairn/proto/cairn/meta';
import { LoadState } from '@cairn/proto/milvus/common';
import { type DescribeCollectionResponse, type ReplicaInfo, ShowType } from '@cairn/proto/milvus/milvus';
import { CollectionSchema as WireSchema } from '@cairn/proto/milvus/schema';
import { encodeSchema, prepareNewSchema, schemaToWire } from '@cairn/schema';
import { loadProgress, loadProgressOrFailure } from '../load-progress.ts';
import type { Area } from '../milvus-methods.ts';
import type { ProxyParts } from '../parts.ts';
import { type CollectionEntry, shardsOf } from '../proxy-catalog.ts';
import type { RequestContext } from '../request-context.ts';
import { OK } from '../status.ts';
import { checkTimeZone, TIMEZONE } from '../time-zones.ts';
import { deleteMatching } from './data.ts';
import { toPairs, toProperties, utcMs, wireTimestamp } from './wire-forms.ts';

type CollectionMethods =
  | 'createCollection'
  | 'dropCollection'
  | 'hasCollection'
  | 'describeCollection'
  | 'batchDescribeCollection'
  | 'showCollections'
  | 'renameCollection'
  | 'alterCollection'
  | 'alterCollectionField'
  | 'addCollectionField'
  | 'truncateCollection'
  | 'getReplicas'
  | 'getCollectionStatistics'
  | 'loadCollection'
  | 'releaseCollection'
  | 'getLoadingProgress'
  | 'getLoadState';

const DEFAULT_SHARDS = 1;

/** Collections: their life, their description, their loading. */
export function collectionArea(parts: ProxyParts): Area<CollectionMethods> {
  const { catalog, coordinator, owners, config } = parts;

  const submit = async (context: RequestContext, change: Parameters<typeof coordinator.submit>[1]) => {
    const { revision } = await coordinator.submit(context, change);
    await catalog.waitFor(revision);
    return OK;
  };

  return {
    createCollection: async (request, context) => {
      refuseHidden(request.collectionName);
      const schema = prepareNewSchema(decodeWireSchema(request.schema, request.collectionName), config.limits);
      const shardsNum = request.shardsNum === 0 ? DEFAULT_SHARDS : request.shardsNum;
      if (shardsNum < 0 || shardsNum > config.limits.maxShards) {
        throw new CairnError(
          'InvalidParameter',
          `maximum shards's number should be limited to ${config.limits.maxShards}, got ${shardsNum}`,
        );
      }
      const numPartitions = Number(request.numPartitions);
      if (numPartitions > 0 && !schema.partitionKey) {
        throw new CairnError(
          'InvalidParameter',
          `num_partitions should only be specified with partition key field enabled, got ${numPartitions}`,
        );
      }
      const properties = new Map(Object.entries(schema.properties));
      for (const { key, value } of request.properties) properties.set(key, value);
      const database = await catalog.retrySynced(() => catalog.database(context.database(request.dbName)));
      // A collection tells its time zone always: its database's, or UTC.
      if (!properties.has(TIMEZONE)) properties.set(TIMEZONE, database.properties.find(({ key }) => key === TIMEZONE)?.value ?? 'UTC');
      const pairs = [...properties].map(([key, value]) => ({ key, value }));
      checkTtl(pairs);
      checkTimeZone(pairs);
      const collection = CollectionRecord.fromPartial({
        name: request.collectionName,
        schema: encodeSchema({ ...schema, properties: {} }),
        // How many; DataCoord puts them on channels.
        shards: Array.from({ length: shardsNum }, (_, index) => ({ index, vchannel: '', channel: '' })),
        consistencyLevel: request.consistencyLevel,
        properties: pairs,
        numPartitions,
      });
      return submit(context, {
        $case: 'createCollection',
        value: { database: context.database(request.dbName), collection, partitions: [], checkpoints: [] },
      });
    },

    dropCollection: (request, context) =>
      submit(context, {
        $case: 'dropCollection',
        value: { database: context.database(request.dbName), name: request.collectionName, collectionId: 0 },
      }),

    hasCollection: async (request, context) => {
      await catalog.sync();
      try {
        catalog.resolve(context.database(request.dbName), request.collectionName);
        return { status: OK, value: true };
      } catch (error) {
        if (!hasCode(error, 'CollectionNotFound')) throw error;
        return { status: OK, value: false };
      }
    },

    describeCollection: async (request, context) => {
      await catalog.sync();
      return describe(parts, context.database(request.dbName), request.collectionName, Number(request.collectionID));
    },

    batchDescribeCollection: async (request, context) => {
      if (request.collectionName.length === 0 && request.collectionID.length === 0) {
        throw new CairnError('MissingParameter', 'collection names are required for batch describe collection');
      }
      await catalog.sync();
      const database = context.database(request.dbName);
      const byName = request.collectionName.map((name) => describe(parts, database, name, 0));
      const byId = request.collectionName.length > 0 ? [] : request.collectionID.map((id) => describe(parts, database, '', Number(id)));
      return { status: OK, responses: [...byName, ...byId] };
    },

    showCollections: async (request, context) => {
      await catalog.sync();
      const database = catalog.database(context.database(request.dbName));
      let records = catalog.collectionsOf(database.id).filter((record) => !isHidden(record.name));
      let percentages: number[] = [];
      if (request.type === ShowType.InMemory) {
        if (request.collectionNames.length > 0) {
          const wanted = new Set(request.collectionNames.map((name) => catalog.resolve(database.name, name).record.id));
          records = records.filter((record) => wanted.has(record.id));
          const missing = records.find((record) => !catalog.loadOf(record.id));
          if (missing) throw new CairnError('CollectionNotLoaded', `collection not loaded[collection=${missing.name}]`);
        }
        records = records.filter((record) => catalog.loadOf(record.id));
        percentages = await Promise.all(
          records.map((record) => loadProgress(parts, context, { database, record, schema: catalog.schemaOf(record.id) })),
        );
      }
      return {
        status: OK,
        collectionNames: records.map((record) => record.name),
        collectionIds: records.map((record) => BigInt(record.id)),
        createdTimestamps: records.map((record) => wireTimestamp(record.createdTs)),
        createdUtcTimestamps: records.map((record) => utcMs(record.createdTs)),
        inMemoryPercentages: percentages.map(BigInt),
        queryServiceAvailable: percentages.map((percentage) => percentage === 100),
        shardsNum: records.map((record) => record.shards.length),
      };
    },

    renameCollection: async (request, context) => {
      refuseHidden(request.newName);
      return submit(context, {
        $case: 'renameCollection',
        value: {
          database: context.database(request.dbName),
          name: request.oldName,
          newDatabase: request.newDBName,
          newName: request.newName,
        },
      });
    },

    alterCollection: async (request, context) => {
      const database = context.database(request.dbName);
      const name =
        request.collectionName || (await catalog.retrySynced(() => catalog.byId(database, Number(request.collectionID)))).record.name;
      const properties = toProperties(request.properties);
      checkTtl(properties);
      checkTimeZone(properties);
      return submit(context, { $case: 'alterCollection', value: { database, name, properties, deleteKeys: request.deleteKeys } });
    },

    alterCollectionField: (request, context) =>
      submit(context, {
        $case: 'alterField',
        value: {
          database: context.database(request.dbName),
          collection: request.collectionName,
          field: request.fieldName,
          properties: toProperties(request.properties),
          deleteKeys: request.deleteKeys,
        },
      }),

    addCollectionField: (request, context) =>
      submit(context, {
        $case: 'addField',
        value: { database: context.database(request.dbName), collection: request.collectionName, field: request.schema },
      }),

    // Every row that is there now is deleted by its key; their room is given back when segments are rewritten.
    truncateCollection: async (request, context) => {
      const entry = await catalog.resolveLive(context.database(request.dbName), request.collectionName);
      await deleteMatching(parts, context, entry, { kind: 'true' }, undefined);
      return { status: OK };
    },

    getReplicas: async (request, context) => {
      await catalog.sync();
      const database = context.database(request.dbName);
      const { record } =
        request.collectionName === ''
          ? catalog.byId(database, Number(request.collectionID))
          : catalog.resolve(database, request.collectionName);
      const load = catalog.loadOf(record.id);
      if (!load) throw new CairnError('CollectionNotLoaded', `collection not loaded[collection=${record.name}]`);
      const channels = new Map(owners.channels().map((channel) => [channel.channel, channel]));
      // One replica; nodes here have names and no numbers, so the lists of numbers are empty and an owner is told by its address.
      const replica: ReplicaInfo = {
        replicaID: BigInt(record.id),
        collectionID: BigInt(record.id),
        partitionIds: load.partitionIds.map(BigInt),
        shardReplicas: shardsOf(record).map((shard) => ({
          leaderID: 0n,
          leaderAddr: channels.get(shard.channel)?.address ?? '',
          dmChannelName: shard.vchannel,
          nodeIds: [],
        })),
        nodeIds: [],
        resourceGroupName: '__default_resource_group',
        numOutboundNode: {},
      };
      return { status: OK, replicas: [replica] };
    },

    getCollectionStatistics: async (request, context) => {
      await catalog.sync();
      const { record } = catalog.resolve(context.database(request.dbName), request.collectionName);
      const stats = await owners.stats(context, shardsOf(record));
      const rows = stats.reduce((sum, shard) => sum + shard.growingRows + shard.sealedRows, 0);
      return { status: OK, stats: [{ key: 'row_count', value: String(rows) }] };
    },

    loadCollection: (request, context) =>
      submit(context, {
        $case: 'load',
        value: {
          database: context.database(request.dbName),
          collection: request.collectionName,
          partitions: [],
          replicas: request.replicaNumber,
          resourceGroups: request.resourceGroups,
          loadFields: request.loadFields,
          refresh: request.refresh,
        },
      }),

    releaseCollection: (request, context) =>
      submit(context, {
        $case: 'release',
        value: { database: context.database(request.dbName), collection: request.collectionName, partitions: [] },
      }),

    getLoadingProgress: async (request, context) => {
      await catalog.sync();
      const entry = catalog.resolve(context.database(request.dbName), request.collectionName);
      requireLoaded(parts, entry, request.partitionNames);
      const progress = BigInt(await loadProgressOrFailure(parts, context, entry));
      return { status: OK, progress, refreshProgress: progress };
    },

    getLoadState: async (request, context) => {
      await catalog.sync();
      let entry: CollectionEntry;
      try {
        entry = catalog.resolve(context.database(request.dbName), request.collectionName);
        for (const name of request.partitionNames) catalog.partition(entry, name);
      } catch (error) {
        if (!hasCode(error, 'CollectionNotFound', 'PartitionNotFound')) throw error;
        return { status: OK, state: LoadState.LoadStateNotExist };
      }
      if (!isLoaded(parts, entry, request.partitionNames)) return { status: OK, state: LoadState.LoadStateNotLoad };
      const progress = await loadProgressOrFailure(parts, context, entry);
      return { status: OK, state: progress === 100 ? LoadState.LoadStateLoaded : LoadState.LoadStateLoading };
    },
  };
}

/** Whether the collection, and each of these partitions, has been asked to be loaded. */
function isLoaded({ catalog }: ProxyParts, entry: CollectionEntry, partitionNames: readonly string[]): boolean {
  const load = catalog.loadOf(entry.record.id);
  if (!load) return false;
  return load.partitionIds.length === 0 || partitionNames.every((name) => load.partitionIds.includes(catalog.partition(entry, name).id));
}

function requireLoaded(parts: ProxyParts, entry: CollectionEntry, partitionNames: readonly string[]): void {
  if (!parts.catalog.loadOf(entry.record.id))
    throw new CairnError('CollectionNotLoaded', `collection not loaded[collection=${entry.record.name}]`);
  if (!isLoaded(parts, entry, partitionNames)) {
    throw new CairnError(
      'PartitionNotLoaded',
      `partition not loaded[collection=${entry.record.name}][partitions=${partitionNames.join(',')}]`,
    );
  }
}

function decodeWireSchema(bytes: Uint8Array, collectionName: string): WireSchema {
  try {
    return { ...WireSchema.decode(bytes), name: collectionName };
  } catch (error) {
    throw new CairnError(
      'InvalidParameter',
      `the schema of collection ${collectionName} does not decode: ${error instanceof Error ? error.message : error}`,
      {
        cause: error,
      },
    );
  }
}

/** The reply, with everything that SDKs read. Its "not found" is worded and numbered in a way of its own, which SDKs match. */
function describe({ catalog }: ProxyParts, databaseName: string, name: string, id: number): DescribeCollectionResponse {
  const { database, record, schema } = find(catalog, databaseName, name, id);
  const properties = toPairs(record.properties);
  const wire = schemaToWire(schema, { dynamicField: false });
  return {
    status: OK,
    schema: { ...wire, name: record.name, dbName: database.name, properties, version: record.schemaVersion },
    collectionID: BigInt(record.id),
    virtualChannelNames: shardsOf(record).map((shard) => shard.vchannel),
    physicalChannelNames: shardsOf(record).map((shard) => shard.channel),
    createdTimestamp: wireTimestamp(record.createdTs),
    createdUtcTimestamp: utcMs(record.createdTs),
    shardsNum: record.shards.length,
    aliases: catalog.aliasesOf(record.id).map((alias) => alias.alias),
    startPositions: [],
    // Stored as sent; the enum is open on the wire.
    consistencyLevel: record.consistencyLevel as DescribeCollectionResponse['consistencyLevel'],
    collectionName: record.name,
    properties,
    dbName: database.name,
    numPartitions: BigInt(catalog.partitionsOf(record.id).length),
    dbId: BigInt(database.id),
    requestTime: wireTimestamp(record.updatedTs),
    updateTimestamp: wireTimestamp(record.updatedTs),
    updateTimestampStr: wireTimestamp(record.updatedTs).toString(),
  };
}

function find(catalog: ProxyParts['catalog'], databaseName: string, name: string, id: number): CollectionEntry {
  try {
    return name === '' && id > 0 ? catalog.byId(databaseName, id) : catalog.resolve(databaseName, name);
  } catch (error) {
    if (!hasCode(error, 'CollectionNotFound')) throw error;
    throw new CairnError('CollectionNotFound', `can't find collection[database=${databaseName}][collection=${name || id}]`, {
      extraInfo: { is_input_error: 'true' },
    });
  }
}
