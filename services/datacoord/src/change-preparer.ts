import { CairnError, type Runtime } from '@cairn/base';
import { CollectionState, type PartitionRecord } from '@cairn/proto/cairn/meta';
import type { CreateCollection } from '@cairn/proto/cairn/wal';
import { decodeSchema } from '@cairn/schema';
import type { WalStore } from '@cairn/wal';
import type { CatalogState } from './catalog-state.ts';
import { MAX_PARTITIONS, MAX_SHARDS } from './changes/collection.ts';
import { DEFAULT_PARTITION } from './changes/partition.ts';
import { type Change, effectsOf } from './changes/table.ts';
import type { DataCoordSettings } from './settings.ts';

/** Where ids come from: first of `count` consecutive new ones. */
export interface Ids {
  allocate(count: number): Promise<number>;
}

/** Which physical channels there are, and how many shards each has. */
export interface ChannelLoads {
  /** Data channels by name, least loaded first. */
  channelsByLoad(): string[];
}

/**
 * What happens before a change is appended: ids are reserved, shards get channels, and the change is tried against the state of this moment.
 * That trial is a courtesy (a refusal costs no message); only the applier's word counts.
 */
export class ChangePreparer {
  readonly #state: CatalogState;
  readonly #ids: Ids;
  readonly #channels: ChannelLoads;
  readonly #wal: WalStore;
  readonly #runtime: Runtime;
  readonly #settings: DataCoordSettings;

  constructor(state: CatalogState, ids: Ids, channels: ChannelLoads, wal: WalStore, runtime: Runtime, settings: DataCoordSettings) {
    this.#state = state;
    this.#ids = ids;
    this.#channels = channels;
    this.#wal = wal;
    this.#runtime = runtime;
    this.#settings = settings;
  }

  async prepare(change: Change): Promise<Change> {
    const filled = await this.#fill(change);
    effectsOf(this.#state, filled, {
      ts: 0,
      nowMs: this.#runtime.now(),
      snapshotTimeoutMs: this.#settings.snapshotTimeoutMs,
      requestId: '',
    });
    return filled;
  }

  async #fill(change: Change): Promise<Change> {
    switch (change.$case) {
      case 'createDatabase':
        return change.value.id > 0 ? change : { $case: change.$case, value: { ...change.value, id: await this.#ids.allocate(1) } };
      case 'createCollection':
        return { $case: change.$case, value: await this.#fillCollection(change.value) };
      case 'createPartition':
        return change.value.id > 0 ? change : { $case: change.$case, value: { ...change.value, id: await this.#ids.allocate(1) } };
      case 'createIndex': {
        const { index } = change.value;
        if (!index || index.id > 0) return change;
        return { $case: change.$case, value: { ...change.value, index: { ...index, id: await this.#ids.allocate(1) } } };
      }
      case 'createSnapshot':
        return change.value.id > 0 ? change : { $case: change.$case, value: { ...change.value, id: await this.#ids.allocate(1) } };
      default:
        return change;
    }
  }

  /** Collection id, partitions, shards on the least loaded channels, and where each shard's checkpoint starts: its channel's tail now. */
  async #fillCollection(change: CreateCollection): Promise<CreateCollection> {
    const { collection } = change;
    if (!collection) return change;
    const id = collection.id > 0 ? collection.id : await this.#ids.allocate(1);
    const count = Math.max(1, collection.shards.length);
    if (count > MAX_SHARDS)
      throw new CairnError('InvalidParameter', `shards num ${count} of collection ${collection.name} is above the limit of ${MAX_SHARDS}`);
    const channels = this.#channels.channelsByLoad();
    if (channels.length === 0) throw new CairnError('ServiceNotReady', 'no data channels exist yet');
    const shards = Array.from({ length: count }, (_, index) => {
      const channel = channels[index % channels.length];
      return { index, channel, vchannel: `${channel}_${id}v${index}` };
    });
    const tails = new Map<string, number>();
    for (const { channel } of shards) if (!tails.has(channel)) tails.set(channel, (await this.#wal.state(channel)).lastSequence);
    const schema = decodeSchema(collection.schema);
    const maxFieldId = Math.max(collection.maxFieldId, ...schema.fields.map((field) => field.id));
    const state = collection.state === CollectionState.COLLECTION_RESTORING ? collection.state : CollectionState.COLLECTION_LIVE;
    const numPartitions = schema.partitionKey ? collection.numPartitions || 16 : 0;
    return {
      ...change,
      collection: { ...collection, id, shards, maxFieldId, state, numPartitions, schemaVersion: Math.max(1, collection.schemaVersion) },
      partitions: change.partitions.length > 0 ? change.partitions : await this.#partitions(id, numPartitions),
      checkpoints: shards.map(({ channel }) => tails.get(channel) ?? 0),
    };
  }

  /** `_default`, or `_default_0` … for a partition key, in the order that the key's hash counts. */
  async #partitions(collectionId: number, count: number): Promise<PartitionRecord[]> {
    if (count > MAX_PARTITIONS)
      throw new CairnError('InvalidParameter', `partition number (${count}) exceeds max configuration (${MAX_PARTITIONS})`);
    const names = count > 0 ? Array.from({ length: count }, (_, at) => `${DEFAULT_PARTITION}_${at}`) : [DEFAULT_PARTITION];
    const first = await this.#ids.allocate(names.length);
    return names.map((name, at) => ({ id: first + at, collectionId, name, createdTs: 0, droppedTs: 0 }));
  }
}
