import { connect } from 'node:net';
import { asCairnError, CairnError, type Runtime } from '@cairn/base';
import type { Etcd3 } from 'etcd3';

/** A member of the etcd cluster, as it is used now. */
export interface EtcdMember {
  readonly endpoint: string;
  readonly client: Etcd3;
  /** Aborts when it is not used any more: what still waits for its answer had better ask another. */
  readonly left: AbortSignal;
}

export interface EtcdMembersOptions {
  /** host:port of each, with or without http(s):// before it. */
  readonly endpoints: readonly string[];
  readonly runtime: Runtime;
  /** A member that has not taken a connection by then is passed over, ms. */
  readonly connectTimeoutMs: number;
  /** Makes the client of one member; it need not connect yet. */
  make(endpoint: string): Etcd3;
}

const DEFAULT_PORT = 2379;

/**
 * Which member everything of this process goes to: one for calls, watches and leases alike, so that a lease that is not answered tells of a watch
 * that has gone blind. The gRPC library waits for a connection as long as the kernel does (two minutes where packets are swallowed) and finds the
 * same hanging one again: so a member is connected to first, within a limit, and one that failed gets a client of its own anew.
 */
export class EtcdMembers {
  readonly #options: EtcdMembersOptions;
  #at: number;
  #member: EtcdMember;
  #leave = new AbortController();
  #proven = false;
  #proving: Promise<EtcdMember> | undefined;

  constructor(options: EtcdMembersOptions) {
    this.#options = options;
    // Processes spread over the members.
    this.#at = Math.floor(options.runtime.random() * options.endpoints.length);
    this.#member = this.#make();
  }

  get several(): boolean {
    return this.#options.endpoints.length > 1;
  }

  /** The member in use. */
  get current(): EtcdMember {
    return this.#member;
  }

  /** The member in use, after it took a connection; the next ones are tried when it does not. StoreUnavailable when none does. */
  async connected(): Promise<EtcdMember> {
    if (this.#proven) return this.#member;
    this.#proving ??= this.#prove().finally(() => {
      this.#proving = undefined;
    });
    return this.#proving;
  }

  /** It did not answer, or broke off: the next one is used from now on, or this one over a new connection when it is the only one. */
  suspect(member: EtcdMember): void {
    if (member !== this.#member) return;
    const leave = this.#leave;
    this.#at = (this.#at + 1) % this.#options.endpoints.length;
    this.#proven = false;
    this.#leave = new AbortController();
    this.#member = this.#make();
    leave.abort();
    member.client.close();
  }

  close(): void {
    this.#leave.abort();
    this.#member.client.close();
  }

  #make(): EtcdMember {
    const endpoint = this.#options.endpoints[this.#at] ?? '';
    return { endpoint, client: this.#options.make(endpoint), left: this.#leave.signal };
  }

  async #prove(): Promise<EtcdMember> {
    let failure: unknown;
    for (let tries = 0; tries < this.#options.endpoints.length; tries++) {
      const member = this.#member;
      try {
        await this.#reach(member.endpoint);
        if (member === this.#member) this.#proven = true;
        return this.#member;
      } catch (error) {
        failure = error;
        this.suspect(member);
      }
    }
    throw new CairnError('StoreUnavailable', `no member takes a connection: ${asCairnError(failure).message}`, { cause: failure });
  }

  #reach(endpoint: string): Promise<void> {
    const { runtime, connectTimeoutMs } = this.#options;
    const { hostname, port } = new URL(/^https?:\/\//.test(endpoint) ? endpoint : `http://${endpoint}`);
    return new Promise((resolve, reject) => {
      const socket = connect({ host: hostname.replace(/^\[|\]$/g, ''), port: Number(port) || DEFAULT_PORT });
      const timer = runtime.after(connectTimeoutMs, () => end(new Error(`${endpoint} takes no connection within ${connectTimeoutMs} ms`)));
      const end = (error?: Error): void => {
        timer.cancel();
        socket.destroy();
        if (error) reject(error);
        else resolve();
      };
      socket.once('connect', () => end());
      socket.on('error', (error) => end(error));
    });
  }
}
