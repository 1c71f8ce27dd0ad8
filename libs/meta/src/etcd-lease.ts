import { asCairnError, CairnError, type Deferred, deferred, hasCode, type Logger, type Runtime } from '@cairn/base';
import type { ILeaseKeepAliveRequest, ILeaseKeepAliveResponse } from 'etcd3';
import type { EtcdClient } from './etcd-client.ts';
import type { EtcdMember } from './etcd-members.ts';
import type { Lease, LeaseOptions } from './meta-store.ts';

interface KeepAliveStream {
  readonly member: EtcdMember;
  readonly calls: Awaited<ReturnType<EtcdClient['leases']['leaseKeepAlive']>>;
}

/** A keep-alive is sent every third of the life, and gives up waiting after another third. */
const PARTS = 3;
const REOPEN_MS = 100;
/** Of failures in a row every so many-th is logged. */
const WARN_EVERY = 10;

/**
 * A lease whose end this process knows no later than etcd does: validity counts from the sending of the last keep-alive that was answered,
 * by the monotonic clock. `lost` aborts when it is over, even if etcd has not said so; that of a lease that rides out outages only when etcd has: an etcd
 * that was away as a whole prolongs what it knew, and a keep-alive that it answers with a life proves that the key was there all the time.
 */
export class EtcdLease implements Lease {
  readonly id: string;
  readonly ttlMs: number;
  readonly #client: EtcdClient;
  readonly #runtime: Runtime;
  readonly #logger: Logger;
  readonly #lost = new AbortController();
  #validUntil: number;
  #stream: KeepAliveStream | undefined;
  #answer: Deferred<ILeaseKeepAliveResponse> | undefined;

  private constructor(client: EtcdClient, logger: Logger, id: string, ttlMs: number, sentAt: number, rides: boolean) {
    this.#client = client;
    this.#runtime = client.runtime;
    this.#logger = logger;
    this.id = id;
    this.ttlMs = ttlMs;
    this.#validUntil = sentAt + ttlMs;
    if (!rides) this.#watchEnd();
    this.#keepAlive(sentAt).catch((error) => this.#end(asCairnError(error)));
  }

  /** etcd counts whole seconds: the key may outlive `ttlMs` by less than one, and etcd has a least life of its own (2 s as it comes). */
  static async grant(client: EtcdClient, ttlMs: number, logger: Logger, options: LeaseOptions = {}): Promise<EtcdLease> {
    let sentAt = 0;
    const answer = await client.call('lease grant', true, (options) => {
      sentAt = client.runtime.monotonic();
      return client.leases.leaseGrant({ TTL: Math.ceil(ttlMs / 1000) }, options);
    });
    return new EtcdLease(client, logger, answer.ID, Math.min(ttlMs, Number(answer.TTL) * 1000), sentAt, options.ridesOutages ?? false);
  }

  get lost(): AbortSignal {
    return this.#lost.signal;
  }

  validUntil(): number {
    return this.#lost.signal.aborted ? 0 : this.#validUntil;
  }

  async revoke(): Promise<void> {
    this.abandon();
    try {
      await this.#client.call('lease revoke', true, (options) => this.#client.leases.leaseRevoke({ ID: this.id }, options));
    } catch (error) {
      // Gone already, by itself or by an earlier try whose answer was lost.
      if (!hasCode(error, 'Unavailable')) throw error;
    }
  }

  /** No longer keeps it alive; etcd ends it within its life. */
  abandon(): void {
    this.#end(new CairnError('Unavailable', `lease ${this.id} was given up`));
  }

  #watchEnd(): void {
    this.#runtime.after(Math.max(1, this.#validUntil - this.#runtime.monotonic()), () => {
      if (this.#lost.signal.aborted) return;
      if (this.#runtime.monotonic() < this.#validUntil) this.#watchEnd();
      else this.#end(new CairnError('Unavailable', `lease ${this.id} was not kept alive for ${this.ttlMs} ms`));
    });
  }

  async #keepAlive(grantedAt: number): Promise<void> {
    let sentAt = grantedAt;
    let failures = 0;
    while (!this.#lost.signal.aborted) {
      await this.#pause(sentAt + this.ttlMs / PARTS - this.#runtime.monotonic());
      if (this.#lost.signal.aborted) return;
      sentAt = this.#runtime.monotonic();
      try {
        const answer = await this.#ask();
        if (Number(answer.TTL) <= 0) return this.#end(new CairnError('Unavailable', `lease ${this.id} is lost`));
        this.#validUntil = Math.max(this.#validUntil, sentAt + this.ttlMs);
        failures = 0;
      } catch (error) {
        if (this.#lost.signal.aborted) return;
        if (failures++ % WARN_EVERY === 0)
          this.#logger.warn({ error: asCairnError(error), lease: this.id }, 'lease: keep-alive failed, trying again');
        const member = this.#stream?.member;
        this.#closeStream();
        if (member) this.#client.suspect(member);
        // The next try comes soon, not after another third.
        sentAt = this.#runtime.monotonic() - this.ttlMs / PARTS + REOPEN_MS;
      }
    }
  }

  /** Sends one keep-alive and waits for its answer, for a third of the lease's life. */
  async #ask(): Promise<ILeaseKeepAliveResponse> {
    const answer = deferred<ILeaseKeepAliveResponse>();
    this.#answer = answer;
    const timer = this.#runtime.after(this.ttlMs / PARTS, () =>
      answer.reject(new CairnError('StoreUnavailable', 'keep-alive was not answered')),
    );
    try {
      await Promise.race([this.#send(answer), answer.promise]);
      return await answer.promise;
    } finally {
      timer.cancel();
      this.#answer = undefined;
    }
  }

  /** Sends a keep-alive for `answer`; opens the stream first where there is none. */
  async #send(answer: Deferred<ILeaseKeepAliveResponse>): Promise<void> {
    const stream = this.#stream ?? (await this.#open());
    // Too late: the answer would be taken for that of a later one.
    if (this.#answer !== answer) return stream.calls.cancel();
    this.#stream = stream;
    const request: ILeaseKeepAliveRequest = { ID: this.id };
    stream.calls.write(request);
  }

  async #open(): Promise<KeepAliveStream> {
    const member = await this.#client.member('lease keep-alive');
    const calls = await member.client.leaseClient.leaseKeepAlive();
    const stream = { member, calls };
    const failed = (error: Error) => {
      if (this.#stream !== stream) return;
      this.#answer?.reject(new CairnError('StoreUnavailable', `keep-alive stream: ${error.message}`, { cause: error }));
      if (!this.#answer) this.#closeStream();
    };
    calls.on('data', (response) => {
      if (this.#stream === stream) this.#answer?.resolve(response);
    });
    calls.on('error', failed);
    calls.on('end', () => failed(new Error('ended')));
    return stream;
  }

  async #pause(ms: number): Promise<void> {
    if (ms <= 0) return;
    await this.#runtime.sleep(ms, this.#lost.signal).catch(() => undefined);
  }

  #closeStream(): void {
    const stream = this.#stream;
    this.#stream = undefined;
    stream?.calls.cancel();
  }

  #end(reason: CairnError): void {
    if (this.#lost.signal.aborted) return;
    this.#closeStream();
    this.#lost.abort(reason);
  }
}
