import { type Runtime, timestampMs } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { type MetaStore, TXN_MAX_OPS } from '@cairn/meta';
import { type CollectionRecord, DeltaLogRecord, SegmentRecord, SegmentState } from '@cairn/proto/cairn/meta';
import { counter } from '@cairn/telemetry';
import type { Held } from '../catalog-state.ts';
import { putRecord } from '../changes/change.ts';
import type { ControlApplier } from '../control-applier.ts';
import type { LeaderStore } from '../leader-store.ts';
import type { DataCoordSettings } from '../settings.ts';
import { publishedGroups } from '../snapshot-capture.ts';
import { mayHit } from './compaction-plan.ts';
import { CompactionHeld, type CompactionRules } from './compaction-rules.ts';

/** Logs retired in one transaction: a compare and a write each. */
const PAGE = Math.floor((TXN_MAX_OPS - 20) / 2);
/** Logs looked at in one go: each may be compared with every segment. */
const LOOKS = 200;
/** Between two thorough looks at one collection. */
const LOOK_MS = 1_000;

const retired = counter('cairn_compaction_retired_delta_logs', {
  description: 'Delta logs that no segment needed any more',
  unit: '{log}',
});

export interface DeltaRetirementOptions {
  readonly store: LeaderStore;
  readonly meta: MetaStore;
  readonly applier: ControlApplier;
  readonly rules: CompactionRules;
  readonly runtime: Runtime;
  readonly settings: DataCoordSettings;
}

/**
 * Drops delta logs that can hit no row of any segment any more. A log is needed by every segment of its shard and partition that has an older row,
 * unless that segment was compacted with all of the log applied. Segments dropped a while ago count too: an owner may still serve them until it has
 * seen what replaced them. Rows that are written later are newer than the log, so what is not needed now is not needed later. Snapshots
 * refer to the objects of their logs by themselves.
 */
export class DeltaRetirement {
  readonly #options: DeltaRetirementOptions;
  readonly #lookedAt = new Map<number, number>();
  #turn = 0;

  constructor(options: DeltaRetirementOptions) {
    this.#options = options;
  }

  /** `logs` and `segments` as a watch has them: only to see whether a thorough look is worth while. */
  async retire(collection: CollectionRecord, logs: readonly DeltaLogRecord[], segments: readonly SegmentRecord[]): Promise<void> {
    const { runtime, rules } = this.#options;
    const first = (this.#turn++ * LOOKS) % Math.max(LOOKS, logs.length);
    if (!logs.slice(first, first + LOOKS).some((log) => !isNeeded(log, segments)) || rules.heldBy(collection.id)) return;
    const last = this.#lookedAt.get(collection.id) ?? Number.NEGATIVE_INFINITY;
    if (runtime.monotonic() - last < LOOK_MS) return;
    this.#lookedAt.set(collection.id, runtime.monotonic());
    const found = await this.#unneeded(collection.id);
    for (let at = 0; at < found.length; at += PAGE) await this.#drop(collection.id, found.slice(at, at + PAGE));
  }

  /** Lets go of what was noted of collections that are gone. */
  forget(): void {
    for (const id of this.#lookedAt.keys()) if (!this.#options.store.state.collections.get(id)) this.#lookedAt.delete(id);
  }

  /** Read at one revision: a log and the rows that it deletes may come with one commit. */
  async #unneeded(collectionId: number): Promise<Held<DeltaLogRecord>[]> {
    const { store, meta, runtime, settings } = this.#options;
    const groups = publishedGroups(await store.list(keys.groups));
    const first = await store.retrying(() => meta.range({ prefix: keys.deltas(collectionId) }));
    const { revision } = first;
    const logs: Held<DeltaLogRecord>[] = [];
    const read = async (prefix: string, take: (key: string, value: Uint8Array, modRevision: number) => void): Promise<void> => {
      let after: string | undefined;
      for (;;) {
        const page = await store.retrying(() => meta.range({ prefix, revision, ...(after === undefined ? {} : { after }) }));
        for (const { key, value, modRevision } of page.entries) take(key, value, modRevision);
        after = page.entries.at(-1)?.key;
        if (!page.more || after === undefined) return;
      }
    };
    await read(keys.deltas(collectionId), (key, value, modRevision) => {
      const record = DeltaLogRecord.decode(value);
      if (record.droppedTs === 0 && groups.has(record.group)) logs.push({ key, revision: modRevision, record });
    });
    const needing: SegmentRecord[] = [];
    const keptSince = runtime.now() - settings.compactionDeltaKeepMs;
    await read(keys.segments(collectionId), (_key, value) => {
      const record = SegmentRecord.decode(value);
      if (record.state === SegmentState.SEGMENT_SEALED || timestampMs(record.droppedTs) > keptSince) needing.push(record);
    });
    const unneeded: Held<DeltaLogRecord>[] = [];
    for (const [at, log] of logs.entries()) {
      if (at % LOOKS === LOOKS - 1) await runtime.sleep(0);
      if (!isNeeded(log.record, needing)) unneeded.push(log);
    }
    return unneeded;
  }

  async #drop(collectionId: number, logs: readonly Held<DeltaLogRecord>[]): Promise<void> {
    const { applier, rules } = this.#options;
    try {
      const done = await applier.applyBeside((ts) => {
        const holder = rules.heldBy(collectionId);
        if (holder) throw new CompactionHeld(`snapshot ${holder.name} is being made`);
        return {
          if: logs.map(({ key, revision }) => ({ kind: 'modRevision', key, equals: revision }) as const),
          puts: logs.map(({ key, record }) => putRecord(key, DeltaLogRecord, { ...record, droppedTs: ts })),
          deletes: [],
        };
      });
      if (done) retired.add(logs.length);
    } catch (error) {
      // The next round looks again.
      if (!(error instanceof CompactionHeld)) throw error;
    }
  }
}

/** Whether the log may hit a row of one of these segments. */
function isNeeded(log: DeltaLogRecord, segments: readonly SegmentRecord[]): boolean {
  return segments.some((segment) => mayHit(log, segment) && !(segment.deletesFrom > 0 && log.lastSequence < segment.deletesFrom));
}
