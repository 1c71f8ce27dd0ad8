import { CairnError, type Runtime } from '@cairn/base';
import { keys } from '@cairn/catalog';
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

/** DataCoord, whoever leads it: found by the leader's record, looked up again when it does not answer. */
export class CoordinatorClient {
  readonly #meta: MetaStore;
  readonly #transport: Transport;
  readonly #runtime: Runtime;
  #address: string | undefined;

  constructor(meta: MetaStore, transport: Transport, runtime: Runtime) {
    this.#meta = meta;
    this.#transport = transport;
    this.#runtime = runtime;
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
      const address = this.#address ?? (await this.#find());
      try {
        return await work(this.#transport.client(definition, address), {
          signal: context.signal,
          timeoutMs: Math.min(tryTimeoutMs, context.remaining()),
        });
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

  async #find(): Promise<string> {
    const entry = await this.#meta.get(keys.leader);
    if (!entry) throw new CairnError('ServiceNotReady', 'no DataCoord leads now');
    const { address } = LeaderRecord.decode(entry.value);
    this.#address = address;
    return address;
  }
}
