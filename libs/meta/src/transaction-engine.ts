import { asCairnError, CairnError, type Deferred, deferred, type Runtime } from '@cairn/base';
import type { Compare, MetaEntry, Op, Txn, TxnResult, WatchEvent } from './meta-store.ts';
import type { MetaTable, TableChange } from './meta-table.ts';
import { TableWatch } from './table-watch.ts';
import { checkTxn } from './txn-limits.ts';

/** Transactions that may wait for the commit before them. */
const QUEUE_LIMIT = 10_000;
/** Transactions of one durable commit. */
const BATCH_LIMIT = 500;

interface LeaseState {
  readonly id: string;
  readonly ttlMs: number;
  expiresAt: number;
  /** Being deleted: nothing may be put on it any more. */
  gone: boolean;
  readonly keys: Set<string>;
  readonly lost: AbortController;
}

type Job =
  | { readonly kind: 'txn'; readonly txn: Txn; readonly done: Deferred<TxnResult> }
  | { readonly kind: 'revoke'; readonly lease: LeaseState; readonly done: Deferred<void> };

interface Applied {
  readonly revision: number;
  readonly events: WatchEvent[];
  /** Lease of each put of `events`, by key. */
  readonly leases: ReadonlyMap<string, string>;
  readonly settle: () => void;
}

/**
 * The core of the embedded tenants: one line of transactions over a table. What waits while a commit is being made durable goes into the next
 * one together. Nobody sees a change, by read, by watch or by answer, before it is durable.
 */
export class TransactionEngine {
  readonly #table: MetaTable;
  readonly #runtime: Runtime;
  readonly #leases = new Map<string, LeaseState>();
  readonly #leaseOf = new Map<string, string>();
  readonly #watches = new Set<TableWatch>();
  #queue: Job[] = [];
  #working: Promise<void> | undefined;
  #nextLease = 1;
  #closed = false;

  constructor(table: MetaTable, runtime: Runtime) {
    this.#table = table;
    this.#runtime = runtime;
  }

  get table(): MetaTable {
    this.#checkOpen();
    return this.#table;
  }

  txn(txn: Txn): Promise<TxnResult> {
    checkTxn(txn);
    this.#checkOpen();
    if (this.#queue.length >= QUEUE_LIMIT)
      throw new CairnError('TooManyRequests', `meta store: ${QUEUE_LIMIT} transactions are waiting already`);
    const done = deferred<TxnResult>();
    this.#push({ kind: 'txn', txn, done });
    return done.promise;
  }

  openWatch(prefix: string): TableWatch {
    this.#checkOpen();
    const watch = new TableWatch(this.#table, this.#runtime, prefix, () => this.#watches.delete(watch));
    this.#watches.add(watch);
    return watch;
  }

  /** A new lease, alive for `ttlMs` from now and from each keepAlive. */
  grant(ttlMs: number): { readonly id: string; readonly lost: AbortSignal } {
    this.#checkOpen();
    const lease: LeaseState = {
      id: String(this.#nextLease++),
      ttlMs,
      expiresAt: this.#runtime.monotonic() + ttlMs,
      gone: false,
      keys: new Set(),
      lost: new AbortController(),
    };
    this.#leases.set(lease.id, lease);
    this.#expireLater(lease);
    return { id: lease.id, lost: lease.lost.signal };
  }

  /** False when the lease is gone. */
  keepAlive(id: string): boolean {
    const lease = this.#leases.get(id);
    if (!lease || lease.gone || this.#closed) return false;
    lease.expiresAt = this.#runtime.monotonic() + lease.ttlMs;
    return true;
  }

  /** Ends a lease and deletes its keys; one that is gone already is fine. */
  revoke(id: string): Promise<void> {
    const lease = this.#leases.get(id);
    if (!lease || lease.gone || this.#closed) return Promise.resolve();
    lease.gone = true;
    const done = deferred<void>();
    this.#push({ kind: 'revoke', lease, done });
    return done.promise;
  }

  /** Lets what is queued finish, then closes the table. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    while (this.#working) await this.#working;
    for (const lease of this.#leases.values()) lease.lost.abort(new CairnError('StoreUnavailable', 'meta store is closed'));
    for (const watch of [...this.#watches]) watch.fail(new CairnError('StoreUnavailable', 'meta store is closed'));
    await this.#table.close();
  }

  #checkOpen(): void {
    if (this.#closed) throw new CairnError('StoreUnavailable', 'meta store is closed');
  }

  #expireLater(lease: LeaseState): void {
    this.#runtime.after(Math.max(1, lease.expiresAt - this.#runtime.monotonic()), () => {
      if (lease.gone || this.#closed) return;
      // Timers of a process that stood still fire late but in order: a keep-alive that was due came first and moved expiresAt.
      if (this.#runtime.monotonic() < lease.expiresAt) this.#expireLater(lease);
      else this.revoke(lease.id).catch(() => this.#retryRevoke(lease));
    });
  }

  /** A full disk, say: the keys stay until their deletion is durable, so go on trying. */
  #retryRevoke(lease: LeaseState): void {
    lease.gone = false;
    lease.expiresAt = this.#runtime.monotonic();
    this.#runtime.after(1000, () => this.#expireLater(lease));
  }

  #push(job: Job): void {
    this.#queue.push(job);
    this.#wake();
  }

  #wake(): void {
    this.#working ??= this.#work().finally(() => {
      this.#working = undefined;
      // A job may have come after the last look at the queue and before this line.
      if (this.#queue.length > 0) this.#wake();
    });
  }

  async #work(): Promise<void> {
    // One turn later, so that transactions sent together are committed together.
    await Promise.resolve();
    while (this.#queue.length > 0) {
      const batch = this.#takeBatch();
      const overlay = new Overlay(this.#table);
      const applied: Applied[] = [];
      for (const job of batch) {
        try {
          applied.push(job.kind === 'txn' ? this.#applyTxn(job.txn, job.done, overlay) : this.#applyRevoke(job.lease, job.done, overlay));
        } catch (error) {
          job.done.reject(asCairnError(error));
        }
      }
      try {
        if (overlay.changes.size > 0) await this.#table.commit([...overlay.changes.values()], overlay.revision);
        for (const one of applied) this.#publish(one);
      } catch (error) {
        const failure = new CairnError('StoreUnavailable', `meta store cannot write: ${asCairnError(error).message}`, { cause: error });
        for (const job of batch) job.done.reject(failure);
      }
    }
  }

  /** A revocation goes alone: it needs the lease's keys as published. */
  #takeBatch(): Job[] {
    if (this.#queue[0].kind === 'revoke') return this.#queue.splice(0, 1);
    const stop = this.#queue.findIndex((job) => job.kind === 'revoke');
    return this.#queue.splice(0, Math.min(BATCH_LIMIT, stop < 0 ? this.#queue.length : stop));
  }

  #applyTxn(txn: Txn, done: Deferred<TxnResult>, overlay: Overlay): Applied {
    const succeeded = (txn.if ?? []).every((compare) => holds(compare, overlay.get(compare.key)));
    const ops = succeeded ? txn.then : (txn.else ?? []);
    const leases = new Map<string, string>();
    for (const op of ops) {
      if (op.kind !== 'put' || op.lease === undefined) continue;
      const lease = this.#leases.get(op.lease);
      if (!lease || lease.gone) throw new CairnError('Unavailable', `lease ${op.lease} of ${op.key} is lost`);
      leases.set(op.key, op.lease);
    }
    const revision = overlay.revision + 1;
    const events: WatchEvent[] = [];
    const gets: (MetaEntry | undefined)[] = [];
    for (const op of ops) applyOp(op, overlay, revision, events, gets);
    if (events.length > 0) overlay.revision = revision;
    const result: TxnResult = { succeeded, revision: overlay.revision, gets };
    return { revision, events, leases, settle: () => done.resolve(result) };
  }

  #applyRevoke(lease: LeaseState, done: Deferred<void>, overlay: Overlay): Applied {
    const revision = overlay.revision + 1;
    const events: WatchEvent[] = [];
    for (const key of [...lease.keys].sort()) applyOp({ kind: 'delete', key }, overlay, revision, events, []);
    if (events.length > 0) overlay.revision = revision;
    const settle = () => {
      this.#leases.delete(lease.id);
      lease.lost.abort(new CairnError('Unavailable', `lease ${lease.id} is lost`));
      done.resolve();
    };
    return { revision, events, leases: new Map(), settle };
  }

  #publish(applied: Applied): void {
    for (const event of applied.events) {
      const key = event.kind === 'put' ? event.entry.key : event.key;
      const before = this.#leaseOf.get(key);
      const now = applied.leases.get(key);
      if (before !== undefined && before !== now) {
        this.#leases.get(before)?.keys.delete(key);
        this.#leaseOf.delete(key);
      }
      if (event.kind === 'put' && now !== undefined) {
        this.#leases.get(now)?.keys.add(key);
        this.#leaseOf.set(key, now);
      }
    }
    if (applied.events.length > 0) for (const watch of this.#watches) watch.offer(applied.events, applied.revision);
    applied.settle();
  }
}

/** The table as it will be once the batch being built is committed. */
class Overlay {
  readonly changes = new Map<string, TableChange>();
  revision: number;
  readonly #table: MetaTable;

  constructor(table: MetaTable) {
    this.#table = table;
    this.revision = table.revision();
  }

  get(key: string): MetaEntry | undefined {
    const change = this.changes.get(key);
    return change ? change.entry : this.#table.get(key);
  }

  keys(prefix: string): string[] {
    const keys = new Set(this.#table.keys(prefix));
    for (const [key, change] of this.changes) {
      if (!key.startsWith(prefix)) continue;
      if (change.entry) keys.add(key);
      else keys.delete(key);
    }
    return [...keys].sort();
  }

  set(key: string, entry: MetaEntry | undefined, leased: boolean): void {
    this.changes.set(key, { key, entry, leased });
  }
}

function holds(compare: Compare, entry: MetaEntry | undefined): boolean {
  switch (compare.kind) {
    case 'exists':
      return entry !== undefined;
    case 'missing':
      return entry === undefined;
    case 'modRevision':
      return (entry?.modRevision ?? 0) === compare.equals;
    case 'createRevision':
      return (entry?.createRevision ?? 0) === compare.equals;
    case 'value':
      return entry !== undefined && Buffer.compare(entry.value, compare.equals) === 0;
  }
}

function applyOp(op: Op, overlay: Overlay, revision: number, events: WatchEvent[], gets: (MetaEntry | undefined)[]): void {
  if (op.kind === 'get') {
    gets.push(overlay.get(op.key));
    return;
  }
  if (op.kind === 'put') {
    const entry: MetaEntry = {
      key: op.key,
      value: op.value,
      createRevision: overlay.get(op.key)?.createRevision ?? revision,
      modRevision: revision,
    };
    overlay.set(op.key, entry, op.lease !== undefined);
    events.push({ kind: 'put', entry });
    return;
  }
  for (const key of op.kind === 'delete' ? [op.key] : overlay.keys(op.prefix)) {
    if (!overlay.get(key)) continue;
    overlay.set(key, undefined, false);
    events.push({ kind: 'delete', key, modRevision: revision });
  }
}
