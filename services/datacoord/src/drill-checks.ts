import { CairnError, isRetriable, mapLimit, type Runtime, retry } from '@cairn/base';
import type { CollectionRecord, IndexRecord, Shard } from '@cairn/proto/cairn/meta';
import { type QueryPlan, StreamingDefinition } from '@cairn/proto/cairn/services';
import type { Client, Transport } from '@cairn/rpc';
import { type Column, compareKeyRows, decodeFrame, decodeSchema, type Field, isValid, type VectorColumn } from '@cairn/schema';
import type { CertificateBody } from '@cairn/segment';
import type { ChannelAssigner } from './channel-assigner.ts';

const PARALLEL = 8;
const TRY_TIMEOUT_MS = 60_000;
const LOAD_POLL_MS = 100;
/** Rows of each shard whose vectors are searched for. */
const SAMPLES = 4;
const TOP_K = 10;

export interface DrillReadParts {
  readonly channels: ChannelAssigner;
  readonly transport: Transport;
  readonly runtime: Runtime;
}

type Owner = Client<typeof StreamingDefinition>;

/** Reads a drill's collection through the owners of its shards, as a proxy would. */
export class DrillReader {
  readonly #parts: DrillReadParts;
  readonly #collection: CollectionRecord;
  readonly #guaranteeTs: number;
  readonly #signal: AbortSignal;

  /** `guaranteeTs`: what was written before it is seen. */
  constructor(parts: DrillReadParts, collection: CollectionRecord, guaranteeTs: number, signal: AbortSignal) {
    this.#parts = parts;
    this.#collection = collection;
    this.#guaranteeTs = guaranteeTs;
    this.#signal = signal;
  }

  /** Resolves when every shard serves all of its rows. */
  async loaded(): Promise<void> {
    const { runtime } = this.#parts;
    for (;;) {
      const replies = await this.#ask((owner, { vchannel }, options) => owner.shardStats({ vchannels: [vchannel] }, options));
      if (replies.every(({ shards: [stats] }) => stats?.loaded && stats.loadedRows >= stats.sealedRows)) return;
      await runtime.sleep(LOAD_POLL_MS, this.#signal);
    }
  }

  /** Rows that a reader counts. */
  async count(): Promise<number> {
    const replies = await this.#query({ countOnly: true });
    return replies.reduce((sum, reply) => sum + reply.count, 0);
  }

  /**
   * Searches for the vectors of some rows of every shard: each must give hits. Absent where the collection has no dense vector field, or no rows with
   * vectors to search for.
   */
  async searchSamples(indexes: readonly IndexRecord[]): Promise<CertificateBody['searched']> {
    const schema = decodeSchema(this.#collection.schema);
    const index = indexes.find(({ fieldId }) => (schema.byId.get(fieldId)?.dim ?? 0) > 0);
    const field = index && schema.byId.get(index.fieldId);
    if (!field) return null;
    const metric = index.indexParams.find(({ key }) => key === 'metric_type')?.value ?? '';
    const samples = await this.#query({ outputFieldIds: [schema.primaryKey.id, field.id], limit: SAMPLES, ordered: true });
    let [queries, hits, found] = [0, 0, 0];
    for (const { columns: frame } of samples) {
      const { columns, length } = decodeFrame(frame);
      const [keys, vectors] = [columns.get(schema.primaryKey.id), columns.get(field.id)];
      if (!keys || vectors?.kind !== 'vector') continue;
      for (let row = 0; row < length; row++) {
        if (!isValid(vectors.validity, row)) continue;
        const one = await this.#searchFor(field, schema.primaryKey.id, metric, vectors, keys, row);
        queries++;
        hits += one.hits;
        if (one.itself) found++;
        if (one.hits === 0) throw new CairnError('Internal', `a search for a vector of field ${field.name} has no hits`);
      }
    }
    return queries === 0 ? null : { field: field.name, metric, queries, hits, found_themselves: found };
  }

  async #searchFor(
    field: Field,
    keyId: number,
    metric: string,
    vectors: VectorColumn,
    keys: Column,
    row: number,
  ): Promise<{ readonly hits: number; readonly itself: boolean }> {
    const plan = {
      fieldId: field.id,
      metric,
      nq: 1,
      topK: TOP_K,
      queries: vectors.data.slice(row * vectors.bytesPerRow, (row + 1) * vectors.bytesPerRow),
      filter: new Uint8Array(),
      outputFieldIds: [],
      dynamicKeys: [],
      params: '{}',
      groupByFieldId: 0,
      groupSize: 0,
      strictGroupSize: false,
    };
    const replies = await this.#ask((owner, shard, options) => owner.search({ scope: this.#scope(shard), plan }, options));
    let [hits, itself] = [0, false];
    for (const { columns } of replies) {
      const found = decodeFrame(columns);
      const foundKeys = found.columns.get(keyId);
      hits += found.length;
      for (let hit = 0; foundKeys && hit < found.length; hit++) itself ||= compareKeyRows(foundKeys, hit, keys, row) === 0;
    }
    return { hits, itself };
  }

  #query(plan: Partial<QueryPlan>) {
    const whole = { filter: new Uint8Array(), outputFieldIds: [], dynamicKeys: [], limit: 0, countOnly: false, ordered: false, ...plan };
    return this.#ask((owner, shard, options) => owner.query({ scope: this.#scope(shard), plan: whole }, options));
  }

  #scope({ vchannel }: Shard) {
    const { id: collectionId } = this.#collection;
    return { vchannel, collectionId, partitionIds: [], guaranteeTs: this.#guaranteeTs, readTs: 0, ignoreGrowing: false };
  }

  /** Asks the owner of every shard; one that changes is asked again. */
  #ask<T>(
    work: (owner: Owner, shard: Shard, options: { readonly signal: AbortSignal; readonly timeoutMs: number }) => Promise<T>,
  ): Promise<T[]> {
    const { channels, transport, runtime } = this.#parts;
    const policy = { attempts: Number.POSITIVE_INFINITY, firstDelayMs: 50, maxDelayMs: 1_000, retriable: isRetriable };
    const signal = this.#signal;
    return mapLimit(this.#collection.shards, PARALLEL, (shard) =>
      retry(
        runtime,
        policy,
        () =>
          work(transport.client(StreamingDefinition, channels.ownerOf(shard.channel).address), shard, {
            signal,
            timeoutMs: TRY_TIMEOUT_MS,
          }),
        signal,
      ),
    );
  }
}
