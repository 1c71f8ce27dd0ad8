import { CairnError, isRetriable, type Runtime, retry } from '@cairn/base';
import { keys, type LeaderWatch } from '@cairn/catalog';
import type { MetaStore } from '@cairn/meta';
import { LeaderRecord } from '@cairn/proto/cairn/meta';
import { DataCoordDefinition } from '@cairn/proto/cairn/services';
import type { CallOptions, Client, Transport } from '@cairn/rpc';

const FIRST_DELAY_MS = 5;
const MAX_DELAY_MS = 100;
/** While nobody leads the store is asked again after this long, if the watch has not told before, ms. */
const NO_LEADER_WAIT_MS = 500;
/** The first try is short, so that a leader that is out of reach does not hold up writes much longer than its lease lives; later ones less. */
const FIRST_TIMEOUT_MS = 1_000;
const MAX_TIMEOUT_MS = 3_000;

/** What a channel owner needs of DataCoord. */
export interface StampSource {
  /** First of `count` consecutive timestamps, all greater than any given out before. Waits while DataCoord fails over, until the signal. */
  allocTimestamps(count: number, signal: AbortSignal): Promise<number>;
  /** First of `count` consecutive ids. Waits like allocTimestamps. */
  allocIds(count: number, signal: AbortSignal): Promise<number>;
}

/** DataCoord's leader, found by its record; a leader that does not answer is looked up again until the caller's signal aborts. */
export class Coordinator implements StampSource {
  readonly #meta: MetaStore;
  readonly #transport: Transport;
  readonly #runtime: Runtime;
  readonly #leaders: LeaderWatch;
  #address: string | undefined;

  /** `leaders`: started and stopped by whoever made it. */
  constructor(meta: MetaStore, transport: Transport, runtime: Runtime, leaders: LeaderWatch) {
    this.#meta = meta;
    this.#transport = transport;
    this.#runtime = runtime;
    this.#leaders = leaders;
  }

  async allocTimestamps(count: number, signal: AbortSignal): Promise<number> {
    return this.#call(signal, async (leader, options) => (await leader.allocTimestamps({ count }, options)).first);
  }

  async allocIds(count: number, signal: AbortSignal): Promise<number> {
    return this.#call(signal, async (leader, options) => (await leader.allocIds({ count }, options)).first);
  }

  async #call<T>(signal: AbortSignal, work: (leader: Client<DataCoordDefinition>, options: CallOptions) => Promise<T>): Promise<T> {
    const policy = { attempts: Number.POSITIVE_INFINITY, firstDelayMs: FIRST_DELAY_MS, maxDelayMs: MAX_DELAY_MS, retriable: isRetriable };
    const found = retry(
      this.#runtime,
      policy,
      async (attempt) => {
        const address = this.#address ?? (await this.#find(signal));
        const timeoutMs = Math.min(MAX_TIMEOUT_MS, FIRST_TIMEOUT_MS * attempt);
        const leader = this.#transport.client(DataCoordDefinition, address);
        try {
          return await this.#leaders.whileLeading(address, signal, (trying) => work(leader, { signal: trying, timeoutMs }));
        } catch (error) {
          this.#address = undefined;
          throw error;
        }
      },
      signal,
    );
    return found.catch((error: unknown) => {
      // Ours, not the caller's: a write that waited for a stamp has not happened, and may be sent to whoever owns the channel next.
      if (signal.aborted) throw new CairnError('ServiceNotReady', 'this node no longer waits for the coordinator', { cause: error });
      throw error;
    });
  }

  async #find(signal: AbortSignal): Promise<string> {
    const entry = await this.#meta.get(keys.leader);
    if (!entry) {
      if (this.#leaders.address === undefined) await this.#leaders.changed(NO_LEADER_WAIT_MS, signal);
      throw new CairnError('ServiceNotReady', 'no DataCoord leads now');
    }
    this.#address = LeaderRecord.decode(entry.value).address;
    return this.#address;
  }
}

/** Ids taken from blocks, so that few writes wait for DataCoord. What is left of a block when the process ends is lost, never given twice. */
export class IdReserve {
  readonly #source: StampSource;
  readonly #blockIds: number;
  readonly #signal: AbortSignal;
  #next = 0;
  #end = 0;
  #refill: Promise<void> | undefined;

  constructor(source: StampSource, blockIds: number, signal: AbortSignal) {
    this.#source = source;
    this.#blockIds = blockIds;
    this.#signal = signal;
  }

  /** First of `count` consecutive ids when the block holds that many. */
  tryTake(count: number): number | undefined {
    if (this.#end - this.#next < count) return undefined;
    const first = this.#next;
    this.#next += count;
    return first;
  }

  async take(count: number): Promise<number> {
    if (count > this.#blockIds) return this.#source.allocIds(count, this.#signal);
    for (;;) {
      const first = this.tryTake(count);
      if (first !== undefined) return first;
      this.#refill ??= this.#fill().finally(() => {
        this.#refill = undefined;
      });
      await this.#refill;
    }
  }

  async #fill(): Promise<void> {
    const first = await this.#source.allocIds(this.#blockIds, this.#signal);
    this.#next = first;
    this.#end = first + this.#blockIds;
  }
}
