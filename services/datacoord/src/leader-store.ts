import { CairnError, hasCode, type Logger, type Runtime, retry } from '@cairn/base';
import type { Compare, Leadership, MetaEntry, MetaStore, Op, TxnResult } from '@cairn/meta';
import { CatalogState } from './catalog-state.ts';

export interface Put {
  readonly key: string;
  readonly value: Uint8Array;
  readonly lease?: string;
}

/** One transaction of the leader: all compares must hold, and leadership too. */
export interface Commit {
  readonly if?: readonly Compare[];
  readonly puts?: readonly Put[];
  readonly deletes?: readonly string[];
}

/**
 * Every write of the leader to the MetaStore. Adds the compare of the leader key, so that a deposed one changes nothing; retries a store that is
 * away with back-off, for as long as it leads; and mirrors what was committed into the leader's CatalogState.
 *
 * A try that was given up may reach the store after the next one did, and after what was done since: its compares may hold again (a record that
 * was made and deleted meanwhile) or it may have none. So every transaction also compares the leader key's modRevision, and a commit that had such
 * a try writes the leader key anew before it resolves: from then on that try changes nothing.
 */
export class LeaderStore {
  readonly meta: MetaStore;
  readonly state: CatalogState;
  readonly #leadership: Leadership;
  readonly #runtime: Runtime;
  readonly #logger: Logger;
  readonly #stop: AbortSignal;
  readonly #deposed: (reason: string) => void;
  /** The leader key as last seen: its modRevision guards every transaction. */
  #guard: MetaEntry | undefined;

  /** `stop` ends every wait (the end of the term); `deposed` is called when a transaction shows that another leads. */
  constructor(
    meta: MetaStore,
    leadership: Leadership,
    runtime: Runtime,
    logger: Logger,
    stop: AbortSignal,
    deposed: (reason: string) => void,
  ) {
    this.meta = meta;
    this.state = new CatalogState();
    this.#leadership = leadership;
    this.#runtime = runtime;
    this.#logger = logger;
    this.#stop = stop;
    this.#deposed = deposed;
  }

  /** Reads what the state mirrors. Stable, since only a leader writes it and we lead. */
  async load(): Promise<void> {
    for (const prefix of CatalogState.prefixes) {
      for await (const page of this.pages(prefix)) for (const entry of page) this.state.put(entry);
    }
  }

  /** All entries of a prefix as of one revision, page by page; each page is asked for until the store answers. */
  async *pages(prefix: string): AsyncGenerator<readonly MetaEntry[]> {
    let after: string | undefined;
    let revision: number | undefined;
    for (;;) {
      const options = { prefix, ...(after === undefined ? {} : { after }), ...(revision === undefined ? {} : { revision }) };
      const page = await this.retrying(() => this.meta.range(options));
      revision ??= page.revision;
      if (page.entries.length > 0) yield page.entries;
      if (!page.more) return;
      after = page.entries.at(-1)?.key;
    }
  }

  /** All entries of a prefix as of one revision. */
  async list(prefix: string): Promise<MetaEntry[]> {
    const entries: MetaEntry[] = [];
    for await (const page of this.pages(prefix)) entries.push(...page);
    return entries;
  }

  /**
   * Runs the transaction. Resolves with its revision, or undefined when a compare (other than leadership) did not hold. An unknown outcome is
   * cleared up by looking whether the first write is there: a caller's first put must differ from what anyone else would write.
   * ServiceNotReady when leadership is lost.
   */
  async commit(commit: Commit): Promise<number | undefined> {
    const puts = commit.puts ?? [];
    const deletes = commit.deletes ?? [];
    const probe = puts[0]?.key ?? deletes[0];
    const then: Op[] = [...puts.map((put): Op => ({ kind: 'put', ...put })), ...deletes.map((key): Op => ({ kind: 'delete', key }))];
    const gets: Op[] = [{ kind: 'get', key: this.#leadership.key }, ...(probe === undefined ? [] : [{ kind: 'get', key: probe } as const])];
    let doubtful = false;
    const attempt = async (): Promise<TxnResult | 'other guard'> => {
      const guard = this.#guard ?? (await this.#readGuard());
      const guarded: Compare = { kind: 'modRevision', key: guard.key, equals: guard.modRevision };
      try {
        const result = await this.meta.txn({ if: [this.#leadership.holds, guarded, ...(commit.if ?? [])], then, else: gets });
        return result.succeeded || !this.#sawGuard(result.gets[0], guard) ? result : 'other guard';
      } catch (error) {
        doubtful = true;
        throw error;
      }
    };
    let result = await this.retrying(attempt);
    while (result === 'other guard') result = await this.retrying(attempt);
    let revision = result.succeeded ? result.revision : this.#afterRefusal(result, puts, deletes, doubtful);
    if (doubtful) {
      const now = await this.#renewGuard(puts[0]?.key);
      // The try that was given up may have come after the one that answered, where nothing but leadership is compared: the same once more, later.
      if (revision !== undefined && now && Buffer.compare(now.value, puts[0]?.value ?? now.value) === 0)
        revision = Math.max(revision, now.modRevision);
    }
    if (revision === undefined) return undefined;
    for (const put of puts) this.state.put({ key: put.key, value: put.value, modRevision: revision });
    for (const key of deletes) this.state.delete(key);
    return revision;
  }

  /** As `commit`, where a refusal by any other compare than leadership would be a bug of ours. */
  async mustCommit(commit: Commit): Promise<number> {
    const revision = await this.commit(commit);
    if (revision === undefined) {
      throw new CairnError(
        'Internal',
        `a transaction over ${commit.puts?.[0]?.key ?? commit.deletes?.[0]} was refused: a record changed that only the leader changes`,
      );
    }
    return revision;
  }

  async #readGuard(): Promise<MetaEntry> {
    const entry = await this.meta.get(this.#leadership.key);
    const { holds } = this.#leadership;
    if (!entry || (holds.kind === 'createRevision' && entry.createRevision !== holds.equals)) throw this.#lost();
    this.#sawGuard(entry, entry);
    return entry;
  }

  /** Takes a newer state of our leader key; true when it is another one than `used`. */
  #sawGuard(entry: MetaEntry | undefined, used: MetaEntry): boolean {
    if (!entry || entry.createRevision !== used.createRevision) return false;
    if (entry.modRevision > (this.#guard?.modRevision ?? 0)) this.#guard = entry;
    return entry.modRevision !== used.modRevision;
  }

  /** Writes the leader key anew, unchanged. Returns what `probe` is at that moment. */
  async #renewGuard(probe: string | undefined): Promise<MetaEntry | undefined> {
    const { key, holds, lease } = this.#leadership;
    const guard = this.#guard ?? (await this.retrying(() => this.#readGuard()));
    const renewed: Op = { kind: 'put', key, value: guard.value, lease: lease.id };
    const gets: Op[] = probe === undefined ? [] : [{ kind: 'get', key: probe }];
    const result = await this.retrying(() => this.meta.txn({ if: [holds], then: [...gets, renewed] }));
    if (!result.succeeded) throw this.#lost();
    this.#sawGuard({ ...guard, modRevision: result.revision }, guard);
    return result.gets[0];
  }

  #lost(): CairnError {
    this.#deposed(`the leader key ${this.#leadership.key} is another's`);
    return new CairnError('ServiceNotReady', 'this coordinator no longer leads');
  }

  #afterRefusal(result: TxnResult, puts: readonly Put[], deletes: readonly string[], doubtful: boolean): number | undefined {
    const [leader, probe] = result.gets;
    const { holds } = this.#leadership;
    if (holds.kind === 'createRevision' && (leader?.createRevision ?? 0) !== holds.equals) {
      throw this.#lost();
    }
    if (!doubtful) return undefined;
    const first = puts[0];
    if (first) return probe && Buffer.compare(probe.value, first.value) === 0 ? probe.modRevision : undefined;
    return deletes.length > 0 && probe === undefined ? result.revision : undefined;
  }

  /** Calls `work` until the store answers or the term ends. Only StoreUnavailable is worth another try. */
  async retrying<T>(work: () => Promise<T>): Promise<T> {
    const policy = {
      attempts: Number.POSITIVE_INFINITY,
      firstDelayMs: 20,
      maxDelayMs: 2_000,
      retriable: (error: unknown) => hasCode(error, 'StoreUnavailable'),
      onRetry: (error: unknown, attempt: number) => {
        if (attempt % 10 === 1) this.#logger.warn({ error, attempt }, 'meta store is away, trying again');
      },
    };
    try {
      return await retry(this.#runtime, policy, work, this.#stop);
    } catch (error) {
      if (this.#stop.aborted) throw new CairnError('ServiceNotReady', 'this coordinator no longer leads', { cause: error });
      throw error;
    }
  }
}
