import { CairnError, type Runtime } from '@cairn/base';
import type { Lease, MetaEntry, MetaStore, RangeOptions, RangePage, Txn, TxnResult, WatchBatch } from './meta-store.ts';
import { RANGE_PAGE_BYTES, RANGE_PAGE_ENTRIES } from './meta-store.ts';
import type { TransactionEngine } from './transaction-engine.ts';
import { checkKey } from './txn-limits.ts';

/**
 * A MetaStore over an engine of this process. Under simulation every instance has its own over one shared engine, with its own runtime: when
 * an instance dies its keep-alives stop with its timers, and its leases run out.
 */
export class EmbeddedMetaStore implements MetaStore {
  protected readonly engine: TransactionEngine;
  protected readonly runtime: Runtime;

  constructor(engine: TransactionEngine, runtime: Runtime) {
    this.engine = engine;
    this.runtime = runtime;
  }

  async get(key: string): Promise<MetaEntry | undefined> {
    checkKey(key);
    return this.engine.table.get(key);
  }

  /** These tenants keep no history: `revision` is not looked at, every page is of now. */
  async range(options: RangeOptions): Promise<RangePage> {
    return this.engine.table.range(options.prefix, options.after, Math.max(1, options.limit ?? RANGE_PAGE_ENTRIES), RANGE_PAGE_BYTES);
  }

  async txn(txn: Txn): Promise<TxnResult> {
    return await this.engine.txn(txn);
  }

  async *watch(prefix: string, signal: AbortSignal): AsyncGenerator<WatchBatch> {
    yield* this.engine.openWatch(prefix).batches(signal);
  }

  async grantLease(ttlMs: number): Promise<Lease> {
    return new EmbeddedLease(this.engine, this.runtime, ttlMs);
  }

  async ping(): Promise<void> {
    this.engine.table.revision();
  }

  async close(): Promise<void> {
    await this.engine.close();
  }
}

class EmbeddedLease implements Lease {
  readonly id: string;
  readonly ttlMs: number;
  readonly lost: AbortSignal;
  readonly #engine: TransactionEngine;
  readonly #runtime: Runtime;
  #validUntil: number;

  constructor(engine: TransactionEngine, runtime: Runtime, ttlMs: number) {
    if (!(ttlMs > 0)) throw new CairnError('Internal', `lease of ${ttlMs} ms`);
    this.#engine = engine;
    this.#runtime = runtime;
    this.#validUntil = runtime.monotonic() + ttlMs;
    const { id, lost } = engine.grant(ttlMs);
    this.id = id;
    this.ttlMs = ttlMs;
    this.lost = lost;
    this.#keepAliveLater();
  }

  validUntil(): number {
    return this.lost.aborted ? 0 : this.#validUntil;
  }

  async revoke(): Promise<void> {
    await this.#engine.revoke(this.id);
  }

  #keepAliveLater(): void {
    this.#runtime.after(this.ttlMs / 3, () => {
      const sent = this.#runtime.monotonic();
      if (!this.#engine.keepAlive(this.id)) return;
      this.#validUntil = sent + this.ttlMs;
      this.#keepAliveLater();
    });
  }
}
