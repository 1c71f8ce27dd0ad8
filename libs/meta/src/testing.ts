import { CairnError, type Runtime } from '@cairn/base';
import type { Lease, LeaseOptions, MetaEntry, MetaStore, RangeOptions, RangePage, Txn, TxnResult, WatchBatch } from './meta-store.ts';

/** Before a watch that was cut comes back. */
const RESUBSCRIBE_MS = 5;

export type MetaMethod = 'get' | 'range' | 'txn' | 'grantLease' | 'revoke' | 'ping' | 'watch';

/** What happens to a call: it waits first, it fails unseen by the store, or it succeeds and its answer is lost. */
export type MetaFault =
  | { readonly kind: 'delay'; readonly ms: number }
  | { readonly kind: 'failBefore' }
  /** For `watch`: the batch is lost and the watch starts again with a reset. */
  | { readonly kind: 'timeoutAfter' };

export interface MetaCall {
  readonly method: MetaMethod;
  /** Key, prefix, or the keys a transaction writes. */
  readonly keys: readonly string[];
}

/** Decides the fault of a call; undefined: none. */
export type MetaFaultHook = (call: MetaCall) => MetaFault | undefined;

/** Chances of each fault, 0 to 1, drawn from the runtime (so a seed replays them). */
export function randomFaults(
  runtime: Runtime,
  chances: { delay?: number; failBefore?: number; timeoutAfter?: number; maxDelayMs?: number },
): MetaFaultHook {
  return () => {
    const drawn = runtime.random();
    const failBefore = chances.failBefore ?? 0;
    const timeoutAfter = failBefore + (chances.timeoutAfter ?? 0);
    if (drawn < failBefore) return { kind: 'failBefore' };
    if (drawn < timeoutAfter) return { kind: 'timeoutAfter' };
    if (drawn < timeoutAfter + (chances.delay ?? 0)) return { kind: 'delay', ms: runtime.random() * (chances.maxDelayMs ?? 50) };
    return undefined;
  };
}

/** Any MetaStore with faults put between it and its caller. */
export class FaultyMetaStore implements MetaStore {
  readonly #inner: MetaStore;
  readonly #runtime: Runtime;
  readonly #hook: MetaFaultHook;

  constructor(inner: MetaStore, runtime: Runtime, hook: MetaFaultHook) {
    this.#inner = inner;
    this.#runtime = runtime;
    this.#hook = hook;
  }

  get(key: string): Promise<MetaEntry | undefined> {
    return this.#call({ method: 'get', keys: [key] }, () => this.#inner.get(key));
  }

  range(options: RangeOptions): Promise<RangePage> {
    return this.#call({ method: 'range', keys: [options.prefix] }, () => this.#inner.range(options));
  }

  txn(txn: Txn): Promise<TxnResult> {
    const keys = [...txn.then, ...(txn.else ?? [])]
      .filter((op) => op.kind !== 'get')
      .map((op) => (op.kind === 'deletePrefix' ? op.prefix : op.key));
    return this.#call({ method: 'txn', keys }, () => this.#inner.txn(txn));
  }

  async *watch(prefix: string, signal: AbortSignal): AsyncGenerator<WatchBatch> {
    while (!signal.aborted) {
      for await (const batch of this.#inner.watch(prefix, signal)) {
        const fault = this.#hook({ method: 'watch', keys: [prefix] });
        if (fault?.kind === 'delay') await this.#runtime.sleep(fault.ms);
        else if (fault) break;
        yield batch;
      }
      if (!signal.aborted) await this.#runtime.sleep(RESUBSCRIBE_MS);
    }
  }

  grantLease(ttlMs: number, options?: LeaseOptions): Promise<Lease> {
    return this.#call({ method: 'grantLease', keys: [] }, async () => {
      const inner = await this.#inner.grantLease(ttlMs, options);
      return {
        id: inner.id,
        ttlMs: inner.ttlMs,
        lost: inner.lost,
        validUntil: () => inner.validUntil(),
        revoke: () => this.#call({ method: 'revoke', keys: [] }, () => inner.revoke()),
      };
    });
  }

  ping(): Promise<void> {
    return this.#call({ method: 'ping', keys: [] }, () => this.#inner.ping());
  }

  close(): Promise<void> {
    return this.#inner.close();
  }

  async #call<T>(call: MetaCall, work: () => Promise<T>): Promise<T> {
    const fault = this.#hook(call);
    if (fault?.kind === 'failBefore')
      throw new CairnError('StoreUnavailable', `meta ${call.method} ${call.keys.join(', ')}: fault before the call`);
    if (fault?.kind === 'delay') await this.#runtime.sleep(fault.ms);
    const result = await work();
    if (fault?.kind === 'timeoutAfter')
      throw new CairnError('StoreUnavailable', `meta ${call.method} ${call.keys.join(', ')}: fault after the call`);
    return result;
  }
}
