import { CairnError, type Runtime } from '@cairn/base';
import { keys, type LeaderWatch } from '@cairn/catalog';
import type { MetaStore } from '@cairn/meta';
import { LeaderRecord } from '@cairn/proto/cairn/meta';
import { DataCoordDefinition, type SubmitResponse } from '@cairn/proto/cairn/services';
import { UpkeepDefinition } from '@cairn/proto/cairn/upkeep';
import type { ControlRecord } from '@cairn/proto/cairn/wal';
import type { CallOptions, Client, ServiceDefinition, Transport } from '@cairn/rpc';
import type { RequestContext } from './request-context.ts';
import { retryWithin } from './retry-within.ts';

export type DataCoord = Client<DataCoordDefinition>;
export type Change = NonNullable<ControlRecord['change']>;

/** Longest single try of a call that is safe to repeat, so that a leader that hangs does not eat the caller's whole time. */
const TRY_TIMEOUT_MS = 10_000;
/** While nobody leads the store is asked again after this long, if the watch has not told before, ms. */
const NO_LEADER_WAIT_MS = 500;

/** DataCoord, whoever leads it: found by the leader's record, looked up again when it does not answer. */
export class CoordinatorClient {
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

  /** A call that may be repeated: reads, and writes that carry a request id. */
  call<T>(
    context: RequestContext,
    work: (leader: DataCoord, options: CallOptions) => Promise<T>,
    tryTimeoutMs = TRY_TIMEOUT_MS,
  ): Promise<T> {
    return this.#callAs(DataCoordDefinition, context, work, tryTimeoutMs);
  }

  /** As `call`, for garbage collection and checks: one try may take all of the caller's time. */
  upkeep<T>(context: RequestContext, work: (leader: Client<UpkeepDefinition>, options: CallOptions) => Promise<T>): Promise<T> {
    return this.#callAs(UpkeepDefinition, context, work, Number.POSITIVE_INFINITY);
  }

  #callAs<D extends ServiceDefinition, T>(
    definition: D,
    context: RequestContext,
    work: (leader: Client<D>, options: CallOptions) => Promise<T>,
    tryTimeoutMs: number,
  ): Promise<T> {
    return retryWithin(this.#runtime, context, async () => {
      const address = this.#address ?? (await this.#find(context));
      const leader = this.#transport.client(definition, address);
      const timeoutMs = Math.min(tryTimeoutMs, context.remaining());
      try {
        return await this.#leaders.whileLeading(address, context.signal, (signal) => work(leader, { signal, timeoutMs }));
      } catch (error) {
        // Whatever failed: the next call asks the record who leads.
        this.#address = undefined;
        throw error;
      }
    });
  }

  /** One catalog change under the request's id, however often it has to be sent. */
  submit(context: RequestContext, change: Change): Promise<SubmitResponse> {
    return this.call(context, (leader, options) => leader.submit({ record: { requestId: context.requestId, change } }, options));
  }

  async #find(context: RequestContext): Promise<string> {
    const entry = await this.#meta.get(keys.leader);
    if (!entry) {
      if (this.#leaders.address === undefined)
        await this.#leaders.changed(Math.min(NO_LEADER_WAIT_MS, Math.max(0, context.remaining())), context.signal);
      throw new CairnError('ServiceNotReady', 'no DataCoord leads now');
    }
    const { address } = LeaderRecord.decode(entry.value);
    this.#address = address;
    return address;
  }
}
