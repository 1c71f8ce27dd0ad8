import { CairnError, type Logger, type Runtime, type Service } from '@cairn/base';
import { keys, RecordWatch } from '@cairn/catalog';
import type { MetaStore } from '@cairn/meta';
import { ChannelRecord, type Shard } from '@cairn/proto/cairn/meta';
import { type ShardStats, StreamingDefinition } from '@cairn/proto/cairn/services';
import type { CallOptions, Client, Transport } from '@cairn/rpc';
import type { RequestContext } from './request-context.ts';
import { retryWithin } from './retry-within.ts';

export type Streaming = Client<StreamingDefinition>;

/** Longest single try of a write: a repeat under the same request id has the same outcome, so a hanging owner need not eat all the time. */
export const WRITE_TRY_TIMEOUT_MS = 10_000;
/** Longest single try of a question about shards. */
const STATS_TRY_TIMEOUT_MS = 3_000;

/** Who owns which channel, kept current by a watch of the channel records; calls follow an owner that moves. */
export class ShardOwners implements Service {
  readonly name = 'shard-owners';
  readonly #transport: Transport;
  readonly #runtime: Runtime;
  readonly #watch: RecordWatch<ChannelRecord>;

  constructor(meta: MetaStore, transport: Transport, runtime: Runtime, logger: Logger) {
    this.#transport = transport;
    this.#runtime = runtime;
    this.#watch = new RecordWatch({ meta, prefix: keys.channels, decode: (bytes) => ChannelRecord.decode(bytes), runtime, logger });
  }

  async start(): Promise<void> {
    await this.#watch.start();
  }

  async stop(): Promise<void> {
    await this.#watch.stop();
  }

  /** Records of all channels. */
  channels(): ChannelRecord[] {
    return [...this.#watch.records.values()];
  }

  /**
   * Calls the owner of a shard; when it has moved or gone, waits for the new one and calls that, until the caller's time is up.
   * `tryTimeoutMs` bounds one try.
   */
  call<T>(
    context: RequestContext,
    shard: Shard,
    work: (owner: Streaming, options: CallOptions) => Promise<T>,
    tryTimeoutMs = Number.POSITIVE_INFINITY,
  ): Promise<T> {
    return retryWithin(this.#runtime, context, () => {
      const address = this.#addressOf(shard.channel);
      return work(this.#transport.client(StreamingDefinition, address), {
        signal: context.signal,
        timeoutMs: Math.min(tryTimeoutMs, context.remaining()),
      });
    });
  }

  /** What the owners say of these shards, in their order. */
  async stats(context: RequestContext, shards: readonly Shard[]): Promise<ShardStats[]> {
    return Promise.all(
      shards.map(async (shard) => {
        const reply = await this.call(context, shard, (owner, options) => owner.shardStats({ vchannels: [shard.vchannel] }, options));
        const stats = reply.shards.find((candidate) => candidate.vchannel === shard.vchannel);
        if (!stats)
          throw new CairnError('ChannelNotAvailable', `the owner of channel ${shard.channel} does not know shard ${shard.vchannel}`);
        return stats;
      }),
    );
  }

  /** What every owner says of all its shards. */
  async allStats(context: RequestContext): Promise<ShardStats[]> {
    const replies = await retryWithin(this.#runtime, context, () => {
      const addresses = new Set(this.channels().flatMap((record) => (record.address === '' ? [] : [record.address])));
      return Promise.all(
        [...addresses].map((address) => {
          const owner = this.#transport.client(StreamingDefinition, address);
          return owner.shardStats(
            { vchannels: [] },
            { signal: context.signal, timeoutMs: Math.min(STATS_TRY_TIMEOUT_MS, context.remaining()) },
          );
        }),
      );
    });
    return replies.flatMap((reply) => reply.shards);
  }

  #addressOf(channel: string): string {
    const record = this.#watch.records.get(keys.channel(channel));
    if (!record || record.address === '') throw new CairnError('ChannelNotAvailable', `channel ${channel} has no owner now`);
    return record.address;
  }
}
