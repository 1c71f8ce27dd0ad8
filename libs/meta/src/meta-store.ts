/**
 * MetaStore: the house's small, strongly consistent store. A small vocabulary that composes: get, range, If/Then/Else transactions, watch,
 * leases. Tenants: etcd (cluster), LMDB (embedded), memory (fault injection and simulation). One contract suite holds for all.
 */

export interface MetaEntry {
  readonly key: string;
  readonly value: Uint8Array;
  readonly createRevision: number;
  readonly modRevision: number;
}

/** What a transaction's If part can say. A missing key has revisions 0. */
export type Compare =
  | { readonly kind: 'exists'; readonly key: string }
  | { readonly kind: 'missing'; readonly key: string }
  | { readonly kind: 'modRevision'; readonly key: string; readonly equals: number }
  | { readonly kind: 'createRevision'; readonly key: string; readonly equals: number }
  | { readonly kind: 'value'; readonly key: string; readonly equals: Uint8Array };

export type Op =
  | { readonly kind: 'put'; readonly key: string; readonly value: Uint8Array; readonly lease?: string }
  | { readonly kind: 'delete'; readonly key: string }
  /** Deletes every key with this prefix. Counts as one op. */
  | { readonly kind: 'deletePrefix'; readonly prefix: string }
  | { readonly kind: 'get'; readonly key: string };

export interface Txn {
  readonly if?: readonly Compare[];
  readonly then: readonly Op[];
  readonly else?: readonly Op[];
}

export interface TxnResult {
  /** Whether every compare held, so that `then` ran. */
  readonly succeeded: boolean;
  readonly revision: number;
  /** One entry per `get` op of the branch that ran, in order. */
  readonly gets: readonly (MetaEntry | undefined)[];
}

/** Compares plus ops of one transaction, and the bytes of its keys and values. Over them is a programming error (Internal) in every tenant. */
export const TXN_MAX_OPS = 100;
export const TXN_MAX_BYTES = 1_000_000;

/** A page of a range ends at this many entries unless the caller says so, and before this many bytes of values. */
export const RANGE_PAGE_ENTRIES = 500;
export const RANGE_PAGE_BYTES = 2_000_000;

export interface RangeOptions {
  readonly prefix: string;
  /** Exclusive lower bound: go on after this key. */
  readonly after?: string;
  /** Entries a page; default 500. A page also ends before 2 MB of values. */
  readonly limit?: number;
  /** Reads as of this revision (paging over one state); compacted → Unavailable. Tenants without history may read now. */
  readonly revision?: number;
}

export interface RangePage {
  readonly entries: readonly MetaEntry[];
  readonly more: boolean;
  readonly revision: number;
}

export type WatchEvent =
  | { readonly kind: 'put'; readonly entry: MetaEntry }
  | { readonly kind: 'delete'; readonly key: string; readonly modRevision: number };

/**
 * `reset` stands for everything that was known: the tenant lost history (compaction, a long cut), so the listener drops what it held under the
 * prefix and takes `entries` instead. The first batch of a watch is always a reset. Events of one transaction come in one batch, in revision order.
 */
export type WatchBatch =
  | { readonly kind: 'reset'; readonly entries: readonly MetaEntry[]; readonly revision: number }
  | { readonly kind: 'events'; readonly events: readonly WatchEvent[]; readonly revision: number };

export interface LeaseOptions {
  /**
   * `lost` aborts only when the store says that the lease has ended, however long it cannot be asked: a lease that etcd prolonged over an outage of its
   * own is valid again then. For holders whose acts are guarded by validUntil(), by compares or by a fence. Otherwise `lost` aborts when validUntil() is past.
   */
  readonly ridesOutages?: boolean;
}

/** A lease keeps its keys alive while it is kept alive; they vanish `ttlMs` after the last keep-alive at the latest. */
export interface Lease {
  readonly id: string;
  readonly ttlMs: number;
  /**
   * Monotonic ms until which the lease is certainly alive, counted from the *sending* of the last successful keep-alive. An owner acts only
   * before it.
   */
  validUntil(): number;
  /** Aborts when the lease is lost or revoked; see LeaseOptions. */
  readonly lost: AbortSignal;
  /** Deletes its keys at once. */
  revoke(): Promise<void>;
}

export interface MetaStore {
  get(key: string): Promise<MetaEntry | undefined>;
  range(options: RangeOptions): Promise<RangePage>;
  /**
   * Atomic If/Then/Else. A store that cannot be reached: StoreUnavailable (retriable); the caller cannot know whether it ran and must make its
   * compares tell.
   */
  txn(txn: Txn): Promise<TxnResult>;
  /**
   * State of a prefix, then its changes, for ever, across reconnects and compaction, until the signal aborts. Slow consumers are held back by
   * the iterator, never by an unbounded queue: a tenant that would have to queue more than 10,000 events resets instead.
   */
  watch(prefix: string, signal: AbortSignal): AsyncIterable<WatchBatch>;
  grantLease(ttlMs: number, options?: LeaseOptions): Promise<Lease>;
  /** True when the store answers. */
  ping(): Promise<void>;
  close(): Promise<void>;
}

/** All entries of a prefix as of one revision, page by page. */
export async function* scan(store: MetaStore, prefix: string, pageSize = 500): AsyncGenerator<readonly MetaEntry[]> {
  let after: string | undefined;
  let revision: number | undefined;
  for (;;) {
    const page = await store.range({
      prefix,
      limit: pageSize,
      ...(after === undefined ? {} : { after }),
      ...(revision === undefined ? {} : { revision }),
    });
    revision ??= page.revision;
    if (page.entries.length > 0) yield page.entries;
    if (!page.more) return;
    after = page.entries.at(-1)?.key;
  }
}
