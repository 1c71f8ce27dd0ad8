import { asCairnError, CairnError, type Logger, type Runtime, retry, silentLogger } from '@cairn/base';
import type { Compare, Lease, MetaStore } from './meta-store.ts';

/** Leadership of a named election: `holds` is the compare that every transaction of the leader carries, so a deposed one changes nothing. */
export interface Leadership {
  readonly key: string;
  readonly lease: Lease;
  readonly holds: Compare;
  /** Aborts when leadership is lost. */
  readonly lost: AbortSignal;
  resign(): Promise<void>;
}

/** Takes part in an election: waits for its turn, returns when it leads. */
export interface Election {
  /** `value` tells others who leads (an address, say). Rejects with Cancelled when the signal aborts. */
  campaign(value: Uint8Array, signal: AbortSignal): Promise<Leadership>;
}

export type ElectionFactory = (store: MetaStore, runtime: Runtime, key: string, ttlMs: number) => Election;

/** An election over one key, see LeaseElection. */
export const createElection: ElectionFactory = (store, runtime, key, ttlMs) => new LeaseElection(store, runtime, key, ttlMs);

const RETRY_FIRST_MS = 50;
const RETRY_MAX_MS = 1000;

/**
 * The leader is who created the key, with a lease. Others watch it and try again when it is gone. Who leads is the key's createRevision: a
 * later leader's key has another one, so a compare on it fences the earlier.
 */
export class LeaseElection implements Election {
  readonly #store: MetaStore;
  readonly #runtime: Runtime;
  readonly #key: string;
  readonly #ttlMs: number;
  readonly #logger: Logger;

  constructor(store: MetaStore, runtime: Runtime, key: string, ttlMs: number, logger: Logger = silentLogger) {
    this.#store = store;
    this.#runtime = runtime;
    this.#key = key;
    this.#ttlMs = ttlMs;
    this.#logger = logger;
  }

  async campaign(value: Uint8Array, signal: AbortSignal): Promise<Leadership> {
    return await retry(
      this.#runtime,
      {
        // Waiting for one's turn has no end of its own; the signal ends it.
        attempts: Number.POSITIVE_INFINITY,
        firstDelayMs: RETRY_FIRST_MS,
        maxDelayMs: RETRY_MAX_MS,
        onRetry: (error, attempt) => this.#logger.warn({ error, attempt, key: this.#key }, 'election: store does not answer, trying again'),
      },
      () => this.#untilLeading(value, signal),
      signal,
    );
  }

  async #untilLeading(value: Uint8Array, signal: AbortSignal): Promise<Leadership> {
    const watching = new AbortController();
    const stop = () => watching.abort();
    signal.addEventListener('abort', stop, { once: true });
    try {
      if (signal.aborted) throw new CairnError('Cancelled', `campaign for ${this.#key} was cancelled`);
      for await (const batch of this.#store.watch(this.#key, watching.signal)) {
        const free =
          batch.kind === 'reset'
            ? !batch.entries.some((entry) => entry.key === this.#key)
            : batch.events.findLast((event) => (event.kind === 'put' ? event.entry.key : event.key) === this.#key)?.kind === 'delete';
        const leadership = free ? await this.#tryToLead(value) : undefined;
        if (!leadership) continue;
        if (!signal.aborted) return leadership;
        await leadership.resign();
      }
      throw new CairnError('Cancelled', `campaign for ${this.#key} was cancelled`);
    } finally {
      signal.removeEventListener('abort', stop);
      watching.abort();
    }
  }

  async #tryToLead(value: Uint8Array): Promise<Leadership | undefined> {
    const key = this.#key;
    const lease = await this.#store.grantLease(this.#ttlMs);
    try {
      const result = await this.#store.txn({ if: [{ kind: 'missing', key }], then: [{ kind: 'put', key, value, lease: lease.id }] });
      if (result.succeeded) {
        const holds: Compare = { kind: 'createRevision', key, equals: result.revision };
        return { key, lease, holds, lost: lease.lost, resign: () => lease.revoke() };
      }
    } catch (error) {
      // The put may have happened: only the end of this lease makes sure that nobody leads by it.
      await this.#end(lease);
      throw asCairnError(error);
    }
    await this.#end(lease);
    return undefined;
  }

  async #end(lease: Lease): Promise<void> {
    try {
      await lease.revoke();
    } catch (error) {
      // It is no longer kept alive, so it runs out by itself.
      this.#logger.warn({ error, key: this.#key }, 'election: lease could not be revoked');
    }
  }
}
