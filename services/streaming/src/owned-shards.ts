import { CairnError } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { type MetaEntry, type MetaStore, scan } from '@cairn/meta';
import { CollectionState, ShardRecord } from '@cairn/proto/cairn/meta';
import type { StreamingCatalog } from './catalog-face.ts';
import { Shard, type ShardLimits } from './shard.ts';
import { liveCollection } from './write-check.ts';

export interface OwnedShardsOptions {
  readonly channel: string;
  readonly meta: MetaStore;
  readonly catalog: StreamingCatalog;
  readonly limits: ShardLimits;
  /** The end of ownership: nothing is taken in after it. */
  readonly signal: AbortSignal;
  /** The shard came into memory after the take-over, or its collection changed. */
  onChanged(shard: Shard): void;
  onRemoved(shard: Shard): void;
}

/** The shards of one channel in memory: those there are at the take-over, then what the catalog adds and drops. */
export class OwnedShards {
  readonly #options: OwnedShardsOptions;
  readonly #shards = new Map<string, Shard>();

  constructor(options: OwnedShardsOptions) {
    this.#options = options;
  }

  get size(): number {
    return this.#shards.size;
  }

  get(vchannel: string): Shard | undefined {
    return this.#shards.get(vchannel);
  }

  has(shard: Shard): boolean {
    return this.#shards.get(shard.vchannel) === shard;
  }

  [Symbol.iterator](): Iterator<Shard> {
    return this.#shards.values();
  }

  /** Every shard of the channel, as the store has them now. */
  async readAll(): Promise<void> {
    for await (const page of scan(this.#options.meta, keys.allShards)) for (const entry of page) this.#adopt(entry);
  }

  /** A shard, fetched if it is new. CollectionNotFound, ChannelNotFound. */
  async find(vchannel: string, collectionId: number): Promise<Shard> {
    const known = this.#shards.get(vchannel);
    if (known) return known;
    const { record } = await liveCollection(this.#options.catalog, collectionId);
    const index = record.shards.find((entry) => entry.vchannel === vchannel)?.index;
    const shard = index === undefined ? undefined : await this.#fetch(record.id, index);
    if (shard) return shard;
    throw new CairnError(
      'ChannelNotFound',
      `shard ${vchannel} is not one of collection ${record.name} on channel ${this.#options.channel}`,
    );
  }

  /** A collection changed: new shards come, those of a dropped one go. */
  async catalogChanged(collectionId: number): Promise<void> {
    const { catalog, channel, onChanged } = this.#options;
    const collection = catalog.collection(collectionId);
    if (!collection || collection.record.state === CollectionState.COLLECTION_DROPPED) {
      for (const shard of [...this.#shards.values()]) if (shard.collectionId === collectionId) this.remove(shard);
      return;
    }
    for (const entry of collection.record.shards) {
      if (entry.channel !== channel) continue;
      const known = this.#shards.get(entry.vchannel);
      if (known) onChanged(known);
      else await this.#fetch(collectionId, entry.index);
    }
  }

  /** Whether each shard that the catalog puts on this channel is in memory, so that its checkpoint is known. */
  areComplete(): boolean {
    const { catalog, channel } = this.#options;
    for (const record of catalog.collections()) {
      if (record.state === CollectionState.COLLECTION_DROPPED) continue;
      if (record.shards.some((shard) => shard.channel === channel && !this.#shards.has(shard.vchannel))) return false;
    }
    return true;
  }

  remove(shard: Shard): void {
    if (!this.has(shard)) return;
    this.#shards.delete(shard.vchannel);
    this.#options.onRemoved(shard);
  }

  clear(): void {
    for (const shard of [...this.#shards.values()]) this.remove(shard);
  }

  async #fetch(collectionId: number, index: number): Promise<Shard | undefined> {
    const { meta, signal, onChanged } = this.#options;
    const entry = await meta.get(keys.shard(collectionId, index));
    if (signal.aborted) throw signal.reason;
    const shard = entry && this.#adopt(entry);
    if (shard) onChanged(shard);
    return shard;
  }

  /** A shard record of this channel, of a collection that lives, becomes a shard in memory. */
  #adopt(entry: MetaEntry): Shard | undefined {
    const { catalog, channel, limits } = this.#options;
    const record = ShardRecord.decode(entry.value);
    if (record.channel !== channel) return undefined;
    const existing = this.#shards.get(record.vchannel);
    if (existing) return existing;
    const collection = catalog.collection(record.collectionId);
    if (!collection || collection.record.state === CollectionState.COLLECTION_DROPPED) return undefined;
    // The last known one stays in force for a collection that is dropped while its rows are applied.
    let last = collection;
    const schemaInForce = () => {
      last = catalog.collection(record.collectionId) ?? last;
      return { schema: last.schema, version: last.record.schemaVersion };
    };
    const shard = new Shard(record, entry.value, schemaInForce, limits);
    this.#shards.set(record.vchannel, shard);
    return shard;
  }
}
