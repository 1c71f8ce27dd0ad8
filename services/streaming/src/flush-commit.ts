import { CairnError, type Runtime, retry } from '@cairn/base';
import { commit, groupedPut, keys, plainPut } from '@cairn/catalog';
import type { Compare, MetaStore } from '@cairn/meta';
import { DeltaLogRecord, PrefixRecord, SegmentRecord, ShardRecord } from '@cairn/proto/cairn/meta';
import type { Shard } from './shard.ts';

const RETRY = { attempts: Number.POSITIVE_INFINITY, firstDelayMs: 10, maxDelayMs: 2000 };
/** Prefix records written, or compared, in one transaction. */
const PREFIXES_PER_TXN = 40;

/** The owner's proof: every commit compares the revision of the channel record that made it owner. */
export interface OwnerProof {
  readonly channel: string;
  readonly epoch: number;
  readonly revision: number;
}

/** What became of a commit: done, or which compare did not hold. */
export type CommitOutcome = 'committed' | 'deposed' | 'shard gone' | 'prefix dead';

export interface FlushCommit {
  readonly segments: readonly SegmentRecord[];
  readonly deltaLogs: readonly DeltaLogRecord[];
  readonly prefixes: readonly PrefixRecord[];
  readonly shard: ShardRecord;
}

/** The MetaStore side of flushing: prefix records before any object, then one transaction that makes the objects part of the shard. */
export class FlushCommitter {
  readonly #meta: MetaStore;
  readonly #runtime: Runtime;
  readonly #proof: OwnerProof;
  readonly #signal: AbortSignal;

  constructor(meta: MetaStore, runtime: Runtime, proof: OwnerProof, signal: AbortSignal) {
    this.#meta = meta;
    this.#runtime = runtime;
    this.#proof = proof;
    this.#signal = signal;
  }

  get #owns(): Compare {
    return { kind: 'modRevision', key: keys.channel(this.#proof.channel), equals: this.#proof.revision };
  }

  /** Records prefixes that are about to be written to. False when this owner is deposed. */
  async recordPrefixes(prefixes: readonly PrefixRecord[]): Promise<boolean> {
    for (let at = 0; at < prefixes.length; at += PREFIXES_PER_TXN) {
      const page = prefixes.slice(at, at + PREFIXES_PER_TXN);
      const then = page.map(
        (record) => ({ kind: 'put', key: keys.prefix(record.prefix), value: PrefixRecord.encode(record).finish() }) as const,
      );
      // Repeating it after an unknown outcome writes the same again.
      const result = await retry(this.#runtime, RETRY, () => this.#meta.txn({ if: [this.#owns], then }), this.#signal);
      if (!result.succeeded) return false;
    }
    return true;
  }

  /** Segments, delta logs and the checkpoint in one step, if the owner still owns, the shard is as it was, and the prefixes live. */
  async commit(shard: Shard, flush: FlushCommit): Promise<CommitOutcome> {
    const shardKey = keys.shard(shard.collectionId, shard.index);
    const newBytes = ShardRecord.encode(flush.shard).finish();
    const compares: Compare[] = [this.#owns, { kind: 'value', key: shardKey, equals: shard.recordBytes }];
    const prefixes = flush.prefixes.map(
      (record): Compare => ({ kind: 'value', key: keys.prefix(record.prefix), equals: PrefixRecord.encode(record).finish() }),
    );
    // With very many partitions the last transaction has no room for them: then they are looked at just before it.
    if (prefixes.length > PREFIXES_PER_TXN) {
      if (!(await this.#allHold(prefixes))) return 'prefix dead';
    } else compares.push(...prefixes);
    const puts = [
      ...flush.segments.map((record) => groupedPut(keys.segment(record.collectionId, record.id), SegmentRecord, record)),
      ...flush.deltaLogs.map((record) => groupedPut(keys.delta(record.collectionId, record.id), DeltaLogRecord, record)),
      plainPut(shardKey, ShardRecord, flush.shard),
    ];
    return retry(
      this.#runtime,
      RETRY,
      async () => {
        // An unknown outcome is tried again as it is: that try may still come, and must not meet another commit of ours.
        const { succeeded } = await commit(this.#meta, this.#runtime, { if: compares, puts });
        return succeeded ? 'committed' : this.#outcome(shard, shardKey, newBytes);
      },
      this.#signal,
    );
  }

  /** After a refused transaction: what the store says now. An earlier try of it may have been done. */
  async #outcome(shard: Shard, shardKey: string, newBytes: Uint8Array): Promise<CommitOutcome> {
    const [owner, stored] = await Promise.all([this.#meta.get(keys.channel(this.#proof.channel)), this.#meta.get(shardKey)]);
    if (stored && Buffer.compare(stored.value, newBytes) === 0) return 'committed';
    if (owner?.modRevision !== this.#proof.revision) return 'deposed';
    if (!stored) return 'shard gone';
    if (Buffer.compare(stored.value, shard.recordBytes) !== 0) {
      throw new CairnError(
        'Internal',
        `${shard.vchannel}: its record was changed by someone who does not own ${this.#proof.channel} at epoch ${this.#proof.epoch}`,
      );
    }
    return 'prefix dead';
  }

  async #allHold(compares: readonly Compare[]): Promise<boolean> {
    for (let at = 0; at < compares.length; at += PREFIXES_PER_TXN) {
      const page = compares.slice(at, at + PREFIXES_PER_TXN);
      if (!(await retry(this.#runtime, RETRY, () => this.#meta.txn({ if: page, then: [] }), this.#signal)).succeeded) return false;
    }
    return true;
  }
}
