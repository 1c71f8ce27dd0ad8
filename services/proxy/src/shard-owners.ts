import { CairnError, type Logger, type Runtime, type Service, type TimerHandle } from '@cairn/base';
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

/** A channel without an owner gets one soon: waited for this long at a time, ms. */
const OWNER_WAIT_MS = 1_000;
/** A former owner's answer may be on its way when the record changes: it has this long, ms; then the call goes to the new one. */
const FORMER_OWNER_MS = 100;

/** Who owns which channel, kept current by a watch of the channel records; calls follow an owner that moves. */
export class ShardOwners implements Service {
  readonly name = 'shard-owners';
  readonly #transport: Transport;
  readonly #runtime: Runtime;
  readonly #watch: RecordWatch<ChannelRecord>;
  /** Called once when the record of a channel changes. */
  readonly #onMove = new Map<string, Set<() => void>>();

  constructor(meta: MetaStore, transport: Transport, runtime: Runtime, logger: Logger) {
    this.#transport = transport;
    this.#runtime = runtime;
    this.#watch = new RecordWatch({ meta, prefix: keys.channels, decode: (bytes) => ChannelRecord.decode(bytes), runtime, logger });
  }

  async start(): Promise<void> {
    await this.#watch.start();
    this.#watch.onChange((changes) => {
      for (const { key } of changes) {
        const told = this.#onMove.get(key);
        this.#onMove.delete(key);
        for (const listener of told ?? []) listener();
      }
    });
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
    return retryWithin(this.#runtime, context, async () => {
      if (!this.#hasOwner(shard.channel)) await this.#moved(shard.channel, Math.min(OWNER_WAIT_MS, context.remaining()), context.signal);
      const address = this.#addressOf(shard.channel);
      return this.#whileOwner(shard.channel, context.signal, (signal) =>
        work(this.#transport.client(StreamingDefinition, address), { signal, timeoutMs: Math.min(tryTimeoutMs, context.remaining()) }),
      );
    });
  }

  /** One try: given up when the channel has moved, however long the former owner (out of reach, say) would be waited for. */
  async #whileOwner<T>(channel: string, signal: AbortSignal, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const trying = new AbortController();
    const cancel = (): void => trying.abort();
    let moved = false;
    let timer: TimerHandle | undefined;
    const forget = this.#onceMoved(channel, () => {
      timer = this.#runtime.after(FORMER_OWNER_MS, () => {
        moved = true;
        trying.abort();
      });
    });
    signal.addEventListener('abort', cancel, { once: true });
    if (signal.aborted) cancel();
    try {
      return await work(trying.signal);
    } catch (error) {
      if (moved && !signal.aborted) throw new CairnError('ChannelNotAvailable', `channel ${channel} has moved meanwhile`, { cause: error });
      throw error;
    } finally {
      forget();
      timer?.cancel();
      signal.removeEventListener('abort', cancel);
    }
  }

  /** Resolves when the record of a channel has changed, the time is up, or the caller has gone. */
  async #moved(channel: string, withinMs: number, signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const forget = this.#onceMoved(channel, resolve);
    const timer = this.#runtime.after(Math.max(0, withinMs), resolve);
    const gone = (): void => resolve();
    signal.addEventListener('abort', gone, { once: true });
    await promise;
    forget();
    timer.cancel();
    signal.removeEventListener('abort', gone);
  }

  #onceMoved(channel: string, listener: () => void): () => void {
    const key = keys.channel(channel);
    const listeners = this.#onMove.get(key) ?? new Set();
    this.#onMove.set(key, listeners.add(listener));
    return () => listeners.delete(listener);
  }

  #hasOwner(channel: string): boolean {
    return (this.#watch.records.get(keys.channel(channel))?.address ?? '') !== '';
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
