import { CairnError, type Runtime, STORE_FULL } from '@cairn/base';
import { Etcd3, EtcdLeaseInvalidError, GRPCInvalidArgumentError, type IOptions } from 'etcd3';
import { type EtcdMember, EtcdMembers } from './etcd-members.ts';

export interface EtcdOptions {
  /** host:port of the members. */
  readonly endpoints: readonly string[];
  /** Put before every key, so that several clusters can share an etcd. */
  readonly prefix?: string;
  /** User and password; empty or absent: none. */
  readonly username?: string;
  readonly password?: string;
  /** PEM texts. `ca` given: connections are encrypted; certificate and key: shown to the server. */
  readonly tls?: { readonly ca: string; readonly cert?: string; readonly key?: string };
  /** Deadline of one call, retries included; default 5000. */
  readonly callTimeoutMs?: number;
  /** A member that has not taken a connection by then is passed over; default 2000. */
  readonly connectTimeoutMs?: number;
}

const DEFAULT_CONNECT_TIMEOUT_MS = 2000;
const DEFAULT_CALL_TIMEOUT_MS = 5000;
const RETRY_MS = 100;
/** A page of entries and a transaction's answer are far below; grpc-js' own 4 MB are not. */
const MAX_RECEIVE_BYTES = 64 * 2 ** 20;

type Policy = NonNullable<NonNullable<IOptions['faultHandling']>['global']>;

/** etcd3's own breaker opens for 5 s after three failures, longer than a lease lives; deadlines and retries are ours. */
const direct = { execute: async (call: (context: unknown) => unknown) => await call({}) } as unknown as Policy;

/** The lower-level clients of etcd3, with our deadline, retries and errors around each call. */
export class EtcdClient {
  readonly runtime: Runtime;
  readonly #members: EtcdMembers;
  readonly #callTimeoutMs: number;
  readonly #endpoints: string;
  #closed = false;

  constructor(options: EtcdOptions, runtime: Runtime) {
    this.runtime = runtime;
    this.#callTimeoutMs = options.callTimeoutMs ?? DEFAULT_CALL_TIMEOUT_MS;
    this.#endpoints = options.endpoints.join(', ');
    this.#members = new EtcdMembers({
      endpoints: options.endpoints,
      runtime,
      connectTimeoutMs: options.connectTimeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS,
      make: (endpoint) => clientOf(endpoint, options),
    });
  }

  get kv(): Etcd3['kv'] {
    return this.#members.current.client.kv;
  }

  get leases(): Etcd3['leaseClient'] {
    return this.#members.current.client.leaseClient;
  }

  /** The member that streams are opened on, once it takes connections. Rejects with StoreUnavailable. */
  async member(what: string): Promise<EtcdMember> {
    this.checkOpen(what);
    const member = await this.#members.connected();
    this.checkOpen(what);
    return member;
  }

  /** It did not answer in time, or broke off. */
  suspect(member: EtcdMember): void {
    if (!this.#closed) this.#members.suspect(member);
  }

  get closed(): boolean {
    return this.#closed;
  }

  /**
   * One call with a deadline. An idempotent one is tried again until then when etcd does not answer; another one only when it certainly was
   * not sent. Rejects with StoreUnavailable, Unavailable (compacted, lease lost) or Internal (etcd refuses the request as such).
   */
  async call<T>(what: string, idempotent: boolean, work: (options: { deadline: number }) => Promise<T>): Promise<T> {
    const end = this.runtime.monotonic() + this.#callTimeoutMs;
    for (;;) {
      this.checkOpen(what);
      let member: EtcdMember | undefined;
      try {
        member = await this.#within(end, this.member(what));
        const { several } = this.#members;
        const left = end - this.runtime.monotonic();
        // One member that hangs must leave time for another.
        const tryMs = several && idempotent ? left / 2 : left;
        const tryEnd = this.runtime.monotonic() + tryMs;
        return await this.#within(tryEnd, work({ deadline: this.runtime.now() + tryMs }), several ? member.left : undefined);
      } catch (error) {
        const failure = this.#translate(what, error);
        const again =
          failure.codeName === 'StoreUnavailable' &&
          failure.extraInfo[STORE_FULL] === undefined &&
          !refusedUs(error) &&
          (idempotent || member === undefined || neverSent(error));
        if (member && failure.codeName === 'StoreUnavailable' && failure.extraInfo[STORE_FULL] === undefined && !refusedUs(error))
          this.suspect(member);
        if (!again || this.runtime.monotonic() + RETRY_MS >= end) throw failure;
        await this.runtime.sleep(RETRY_MS);
      }
    }
  }

  checkOpen(what: string): void {
    if (this.#closed) throw new CairnError('StoreUnavailable', `etcd ${what}: the store is closed`);
  }

  close(): void {
    this.#closed = true;
    this.#members.close();
  }

  /**
   * gRPC's deadline frees the call, but goes by the wall clock and begins after connecting to authenticate; this one (monotonic) holds whatever
   * happens. `left`: nobody waits for that member any more.
   */
  async #within<T>(end: number, work: Promise<T>, left?: AbortSignal): Promise<T> {
    const { promise, reject } = Promise.withResolvers<never>();
    const ms = end - this.runtime.monotonic();
    const timer = this.runtime.after(ms + RETRY_MS, () =>
      reject(new CairnError('StoreUnavailable', `no answer within ${Math.round(ms)} ms`)),
    );
    const onLeft = (): void => reject(new CairnError('StoreUnavailable', 'its member was given up'));
    left?.addEventListener('abort', onLeft, { once: true });
    try {
      return await Promise.race([work, promise]);
    } finally {
      timer.cancel();
      left?.removeEventListener('abort', onLeft);
    }
  }

  #translate(what: string, error: unknown): CairnError {
    const message = error instanceof Error ? error.message : String(error);
    if (message.includes('has been compacted'))
      return new CairnError('Unavailable', `etcd ${what}: revision has been compacted`, { cause: error });
    if (error instanceof EtcdLeaseInvalidError || message.includes('lease not found'))
      return new CairnError('Unavailable', `etcd ${what}: lease is lost`, { cause: error });
    if (message.includes('database space exceeded'))
      return new CairnError(
        'StoreUnavailable',
        `etcd ${what} at ${this.#endpoints}: NOSPACE, its quota is used up: it reads and keeps leases, and writes again when it was compacted, defragmented and its alarm disarmed`,
        { cause: error, extraInfo: { [STORE_FULL]: 'etcd' } },
      );
    if (error instanceof GRPCInvalidArgumentError) return new CairnError('Internal', `etcd ${what}: ${message}`, { cause: error });
    return new CairnError('StoreUnavailable', `etcd ${what} at ${this.#endpoints}: ${message}`, { cause: error });
  }
}

/** Credentials do not become right by trying again at once. */
function refusedUs(error: unknown): boolean {
  return error instanceof Error && /authentication failed|permission denied/.test(error.message);
}

/** True when no connection stood, so that the request cannot have run. */
function neverSent(error: unknown): boolean {
  return error instanceof Error && /No connection established|Channel closed before call started/.test(error.message);
}

/** The library's client of one member. */
function clientOf(endpoint: string, { tls, username = '', password = '' }: EtcdOptions): Etcd3 {
  return new Etcd3({
    // With credentials the library takes encrypted addresses only.
    hosts: tls ? `https://${endpoint.replace(/^https?:\/\//, '')}` : endpoint,
    ...(tls
      ? {
          credentials: {
            rootCertificate: Buffer.from(tls.ca),
            ...(tls.cert && tls.key ? { certChain: Buffer.from(tls.cert), privateKey: Buffer.from(tls.key) } : {}),
          },
        }
      : {}),
    ...(username === '' ? {} : { auth: { username, password } }),
    faultHandling: { global: direct, host: () => direct },
    grpcOptions: {
      'grpc.max_receive_message_length': MAX_RECEIVE_BYTES,
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 1000,
      // etcd closes connections that ask more often than every 5 s.
      'grpc.keepalive_time_ms': 6000,
      'grpc.keepalive_timeout_ms': 4000,
      // A connection that was given up must not be found again in a pool.
      'grpc.use_local_subchannel_pool': 1,
    },
  });
}

/** The first key after all with this prefix. */
export function rangeEnd(prefix: Buffer): Buffer {
  for (let at = prefix.length - 1; at >= 0; at--) {
    if (prefix[at] === 0xff) continue;
    const end = Buffer.from(prefix.subarray(0, at + 1));
    end[at]++;
    return end;
  }
  // Zero stands for "to the end" in etcd.
  return Buffer.of(0);
}
