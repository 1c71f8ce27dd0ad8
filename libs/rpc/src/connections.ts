import type { Runtime, TimerHandle } from '@cairn/base';
import { type ClientOptions, connectivityState, credentials, Client as GrpcClient } from '@grpc/grpc-js';

/**
 * The gRPC connections of one process to other nodes, one an address. The library itself waits for a connection as long as the kernel does: two
 * minutes where packets are swallowed, for ever where a socket is taken and nobody speaks. So one that does not stand within the limit is given up
 * here: its calls are Unavailable, and the next call begins anew, also where the address answers again by then.
 */
export class Connections {
  readonly #runtime: Runtime;
  readonly #options: ClientOptions;
  readonly #connectTimeoutMs: number;
  readonly #clients = new Map<string, GrpcClient>();

  constructor(runtime: Runtime, options: ClientOptions, connectTimeoutMs: number) {
    this.#runtime = runtime;
    // A connection that was given up must not be found again in a pool.
    this.#options = { ...options, 'grpc.use_local_subchannel_pool': 1 };
    this.#connectTimeoutMs = connectTimeoutMs;
  }

  /** The connection to an address, begun at its first use. */
  to(address: string): GrpcClient {
    let client = this.#clients.get(address);
    if (!client) {
      client = new GrpcClient(address, credentials.createInsecure(), this.#options);
      this.#clients.set(address, client);
      this.#follow(address, client);
    }
    return client;
  }

  close(): void {
    for (const client of this.#clients.values()) client.close();
    this.#clients.clear();
  }

  /** Gives the connection up when it tries for too long; after a failed try it stays "failed" for the library while it tries again. */
  #follow(address: string, client: GrpcClient): void {
    const channel = client.getChannel();
    let limit: TimerHandle | undefined;
    const changed = (): void => {
      const state = channel.getConnectivityState(false);
      const tries = state === connectivityState.CONNECTING || state === connectivityState.TRANSIENT_FAILURE;
      if (!tries) {
        limit?.cancel();
        limit = undefined;
      } else limit ??= this.#runtime.after(this.#connectTimeoutMs, () => this.#giveUp(address, client));
      if (state !== connectivityState.SHUTDOWN) channel.watchConnectivityState(state, Number.POSITIVE_INFINITY, changed);
    };
    changed();
  }

  #giveUp(address: string, client: GrpcClient): void {
    if (this.#clients.get(address) === client) this.#clients.delete(address);
    client.close();
  }
}
