import { CairnError, deferred, KeyedMutex, type Logger, mapLimit, type Runtime, retry, type Semaphore } from '@cairn/base';
import { paths } from '@cairn/catalog';
import type { ObjectStore } from '@cairn/objects';
import { type DeltaLogRecord, type PrefixRecord, type SegmentRecord, SegmentState, ShardRecord } from '@cairn/proto/cairn/meta';
import { writeDeltaLog, writeSegment } from '@cairn/segment';
import { withSpan } from '@cairn/telemetry';
import type { IdReserve } from './coordinator.ts';
import type { FlushCommit, FlushCommitter, OwnerProof } from './flush-commit.ts';
import { flushedRows, flushSeconds } from './measures.ts';
import type { SealedCut, Shard } from './shard.ts';

/** Objects of one flush written at once. */
const WRITES_AT_ONCE = 4;
const FIRST_DELAY_MS = 50;
const MAX_DELAY_MS = 5000;

/** A cut on its way. */
export interface FlushTicket {
  readonly cut: number;
  readonly cutTs: number;
  /** Ids of the segments it becomes. */
  readonly segmentIds: Promise<readonly number[]>;
  /** Resolves when they are committed. */
  readonly done: Promise<void>;
}

/** What a committed flush changed. */
export interface Flushed {
  readonly segments: readonly SegmentRecord[];
  readonly deltaLogs: readonly DeltaLogRecord[];
}

export interface FlusherOptions {
  readonly objects: ObjectStore;
  readonly committer: FlushCommitter;
  readonly ids: IdReserve;
  readonly proof: OwnerProof;
  readonly runtime: Runtime;
  readonly logger: Logger;
  /** Shards of the node flushed at once. */
  readonly slots: Semaphore;
  readonly signal: AbortSignal;
  /** True while readers need flushed rows here until a datanode serves them. */
  isServed(shard: Shard): boolean;
  onFlushed(shard: Shard, flushed: Flushed): void;
  /** The collection was dropped: the shard ends. */
  onGone(shard: Shard): void;
  onDeposed(reason: string): void;
}

interface Job {
  readonly ticket: FlushTicket;
  readonly cut: SealedCut;
  readonly settle: { resolve(): void; reject(error: unknown): void };
}

/**
 * Turns sealed cuts into segments and delta logs, oldest first, each shard on its own. A cut is never given up while this node owns the channel: a
 * store that is away is tried again with back-off, and writes go on meanwhile.
 */
export class Flusher {
  readonly #options: FlusherOptions;
  readonly #jobs = new Map<Shard, Job[]>();
  /** Commits of one shard follow each other: each compares the record the one before wrote. */
  readonly #commits = new KeyedMutex();

  constructor(options: FlusherOptions) {
    this.#options = options;
  }

  /** Seals what grows in the shard at `sequence`, the last one applied, and flushes it in the background. undefined: nothing grew. */
  seal(shard: Shard, sequence: number, ts: number): FlushTicket | undefined {
    const cut = shard.seal(sequence, ts);
    if (!cut) return undefined;
    const settle = deferred<void>();
    const segmentIds = this.#allocate(cut.parts.length);
    const job: Job = { cut, settle, ticket: { cut: cut.cut, cutTs: cut.cutTs, segmentIds, done: settle.promise } };
    const waiting = this.#jobs.get(shard);
    if (waiting) waiting.push(job);
    else {
      const jobs = [job];
      this.#jobs.set(shard, jobs);
      void this.#run(shard, jobs);
    }
    return job.ticket;
  }

  /** Tickets of the shard that are not done, oldest first. */
  pending(shard: Shard): readonly FlushTicket[] {
    return (this.#jobs.get(shard) ?? []).map((job) => job.ticket);
  }

  /**
   * Moves the checkpoint of a shard without anything unflushed at or below `sequence`, which must be the end of a write or a barrier. Does nothing
   * when the checkpoint is there already.
   */
  async advance(shard: Shard, sequence: number, ts: number): Promise<void> {
    const plan = (): FlushCommit | undefined => {
      if (sequence <= shard.checkpoint || shard.sealed.length > 0) return undefined;
      const record: ShardRecord = { ...shard.record, checkpoint: sequence, checkpointTs: Math.max(ts, shard.record.checkpointTs) };
      return { segments: [], deltaLogs: [], prefixes: [], shard: record };
    };
    await this.#commit(shard, plan, ({ shard: record }, bytes) => shard.moveCheckpoint(record, bytes));
  }

  /** The end of ownership: whoever waits for a flush hears of it. */
  end(error: unknown): void {
    for (const jobs of this.#jobs.values()) for (const job of jobs.splice(0)) job.settle.reject(error);
    this.#jobs.clear();
  }

  /** Not async: whoever flushes hears of a failure, and where the ownership ends first nobody does, which must not end the process. */
  #allocate(count: number): Promise<readonly number[]> {
    if (count === 0) return Promise.resolve([]);
    const ids = this.#options.ids.take(count).then((first) => Array.from({ length: count }, (_, at) => first + at));
    ids.catch(() => undefined);
    return ids;
  }

  async #run(shard: Shard, jobs: Job[]): Promise<void> {
    const { runtime, logger, signal, slots } = this.#options;
    for (let job = jobs[0]; job !== undefined && !signal.aborted; job = jobs[0]) {
      const { cut, ticket, settle } = job;
      try {
        let attempt = 0;
        const policy = {
          attempts: Number.POSITIVE_INFINITY,
          firstDelayMs: FIRST_DELAY_MS,
          maxDelayMs: MAX_DELAY_MS,
          retriable: () => !signal.aborted,
          onRetry: (error: unknown) => logger.warn({ vchannel: shard.vchannel, cut: cut.cut, error }, 'flush failed, it is tried again'),
        };
        await retry(runtime, policy, () => slots.run(() => this.#measured(shard, cut, ticket, ++attempt)), signal);
        jobs.shift();
        settle.resolve();
      } catch (error) {
        // Only the end of ownership leads here; the new owner replays what was sealed.
        logger.debug({ vchannel: shard.vchannel, cut: cut.cut, error }, 'flush ended with the ownership');
        settle.reject(error);
        jobs.shift();
        break;
      }
    }
    if (this.#jobs.get(shard) === jobs) this.#jobs.delete(shard);
  }

  async #measured(shard: Shard, cut: SealedCut, ticket: FlushTicket, attempt: number): Promise<void> {
    const { runtime } = this.#options;
    const startedMs = runtime.monotonic();
    await withSpan('streaming.flush', { 'cairn.vchannel': shard.vchannel, 'cairn.cut': cut.cut }, () =>
      this.#flush(shard, cut, ticket, attempt),
    );
    flushSeconds.record((runtime.monotonic() - startedMs) / 1000);
    flushedRows.add(cut.parts.reduce((rows, part) => rows + part.segment.rows, 0));
  }

  async #flush(shard: Shard, cut: SealedCut, ticket: FlushTicket, attempt: number): Promise<void> {
    const { objects, proof, runtime, ids } = this.#options;
    const segmentIds = await ticket.segmentIds;
    const ranges = shard.deletesUpTo(cut.cut);
    const firstDeltaId = ranges.length > 0 ? await ids.take(ranges.length) : 0;
    // A new generation at each try: object keys never repeat.
    const generation = `e${proof.epoch}a${attempt}`;
    const { collectionId, index } = shard;
    const prefixOf = (at: number): string => paths.segment(collectionId, cut.parts[at]?.partitionId ?? 0, segmentIds[at] ?? 0, generation);
    const deltaKey = (at: number): string => paths.delta(collectionId, index, firstDeltaId + at, generation);
    const prefixes = [...cut.parts.map((_, at) => prefixOf(at)), ...ranges.map((_, at) => deltaKey(at))].map((prefix) =>
      this.#prefixRecord(prefix),
    );
    if (!(await this.#options.committer.recordPrefixes(prefixes))) return this.#deposed();

    const segments = await mapLimit(cut.parts, WRITES_AT_ONCE, async (part, at): Promise<SegmentRecord> => {
      const prefix = prefixOf(at);
      const written = await writeSegment({ objects, runtime, prefix, schema: part.schema, batch: part.segment.freeze() });
      return {
        id: segmentIds[at] ?? 0,
        collectionId,
        partitionId: part.partitionId,
        shard: index,
        generation,
        prefix,
        rows: written.rows,
        minTs: written.minTs,
        maxTs: written.maxTs,
        objects: written.objects,
        state: SegmentState.SEGMENT_SEALED,
        droppedTs: 0,
        firstSequence: part.firstSequence,
        lastSequence: part.lastSequence,
        asOf: 0,
        group: '',
        sorted: true,
        compactedFrom: [],
        commitTs: 0,
        contentHash: written.contentHash,
        schemaVersion: part.schemaVersion,
        bytes: written.bytes,
        level: 0,
        compactedInto: 0,
        purgedTs: 0,
        deletesFrom: 0,
      };
    });
    const deltaLogs = await mapLimit(ranges, WRITES_AT_ONCE, async (range, at): Promise<DeltaLogRecord> => {
      const { object, rows, minTs, maxTs } = await writeDeltaLog(objects, deltaKey(at), range.deletes);
      const sequences = { firstSequence: shard.checkpoint + 1, lastSequence: cut.cut };
      const common = { collectionId, shard: index, partitionId: range.partitionId, asOf: 0, group: '', droppedTs: 0 };
      return { id: firstDeltaId + at, ...common, rows, minTs, maxTs, ...sequences, object };
    });

    const plan = (): FlushCommit => {
      const record: ShardRecord = { ...shard.record, checkpoint: cut.cut, checkpointTs: Math.max(cut.cutTs, shard.record.checkpointTs) };
      return { segments, deltaLogs, prefixes, shard: record };
    };
    await this.#commit(shard, plan, (flush, bytes) => {
      shard.flushed(cut, flush.shard, bytes, segmentIds, this.#options.isServed(shard));
      this.#options.onFlushed(shard, { segments, deltaLogs });
    });
  }

  async #commit(
    shard: Shard,
    plan: () => FlushCommit | undefined,
    done: (flush: FlushCommit, recordBytes: Uint8Array) => void,
  ): Promise<void> {
    await this.#commits.run(shard.vchannel, async () => {
      const flush = plan();
      if (!flush) return;
      const outcome = await this.#options.committer.commit(shard, flush);
      if (outcome === 'deposed' || this.#options.signal.aborted) return this.#deposed();
      if (outcome === 'committed') return done(flush, ShardRecord.encode(flush.shard).finish());
      if (outcome === 'prefix dead') throw new CairnError('StoreUnavailable', `${shard.vchannel}: a prefix of the flush was declared dead`);
      this.#options.onGone(shard);
    });
  }

  #deposed(): never {
    this.#options.onDeposed('a commit was refused');
    throw new CairnError(
      'ChannelNotAvailable',
      `channel ${this.#options.proof.channel}: epoch ${this.#options.proof.epoch} no longer owns it`,
    );
  }

  #prefixRecord(prefix: string): PrefixRecord {
    return { prefix, dead: false, createdMs: this.#options.runtime.now(), deadMs: 0, purpose: 'flush' };
  }
}
