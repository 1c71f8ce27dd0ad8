import { type Runtime, Turns } from '@cairn/base';
import { keys, parseObjectName } from '@cairn/catalog';
import {
  CollectionState,
  CompactionTaskState,
  DeltaLogRecord,
  IndexBuildState,
  RestoreJobState,
  SegmentIndexRecord,
  SegmentRecord,
  SegmentState,
  SnapshotState,
} from '@cairn/proto/cairn/meta';
import { compactionPrefix } from '../compaction/compaction-task.ts';
import type { LeaderStore } from '../leader-store.ts';
import { NumberTable } from './number-table.ts';
import { numberOf, type ReferenceSet, unitOf } from './reference-set.ts';
import type { SnapshotReferences } from './snapshot-references.ts';

/** Units gone through between two looks at the clock. */
const STRETCH = 256;
/** Who refers to a unit: a live record, a snapshot. */
const LIVE = 1;
const KEPT = 2;

/** A segment or delta log record that nobody needs any more, though its objects may be another's too. */
export interface DroppedRecord {
  readonly key: string;
  readonly revision: number;
  readonly collectionId: number;
  readonly id: number;
  /** Unit it names. */
  readonly unit: string;
  readonly reason: string;
}

/** Everything that anything refers to, at one moment. */
export interface References {
  /** Empty: complete. */
  readonly blocked: readonly string[];
  /** Numbers of the units that snapshots and live records refer to. */
  readonly units: { has(number: number): boolean };
  /** Of live records alone. */
  readonly live: { has(number: number): boolean };
  readonly snapshots: ReadonlyMap<number, ReferenceSet>;
  readonly dropped: readonly DroppedRecord[];
  /** Index builds that a datanode may be writing. */
  readonly pendingBuilds: ReadonlySet<number>;
  /** Collections whose records are all kept: a snapshot of them is being made, or they are being restored. */
  readonly held: ReadonlySet<number>;
}

/**
 * References are derived, never counted: read from snapshots, then from records, then from snapshots again, so that one that moves from a
 * record to a snapshot (create) or the other way (clone) is seen at one of its places. Where a record's owner is not known it counts as live.
 */
export class ReferenceReader {
  readonly #store: LeaderStore;
  readonly #snapshots: SnapshotReferences;
  readonly #runtime: Runtime;

  constructor(store: LeaderStore, snapshots: SnapshotReferences, runtime: Runtime) {
    this.#store = store;
    this.#snapshots = snapshots;
    this.#runtime = runtime;
  }

  async read(): Promise<References> {
    const before = await this.#snapshots.load();
    const held = this.#held();
    const turns = new Turns(this.#runtime);
    const units = new NumberTable();
    const lives = (unit: string): void => units.mark(numberOf(unit), LIVE);
    const pendingBuilds = new Set<number>();
    // Before the records: what a compaction commits meanwhile is seen there.
    for (const task of this.#store.state.compactionTasks.values()) {
      if (task.state !== CompactionTaskState.COMPACTION_EXECUTING) continue;
      lives(compactionPrefix(task));
      for (const build of task.buildIds) pendingBuilds.add(build);
    }
    const dropped: DroppedRecord[] = [];
    // Segments that are not live, for their builds; judged again at the end by what was held meanwhile.
    const judged: { readonly collectionId: number; readonly units: readonly string[]; readonly record: DroppedRecord }[] = [];
    for await (const page of this.#store.pages(keys.allSegments)) {
      for (const { key, value, modRevision } of page) {
        if (turns.due) await turns.give();
        const record = SegmentRecord.decode(value);
        const { prefix: own } = record;
        // Nearly always all of a segment lies under its prefix: one unit.
        const elsewhere = record.objects.filter((object) => own === '' || object.role === 'index' || !object.key.startsWith(own));
        const units = [...(own === '' ? [] : [own]), ...elsewhere.map(unitOf)];
        const reason = this.#whyNoSegment(record);
        if (reason === undefined) for (const unit of units) lives(unit);
        else {
          const { collectionId, id, prefix } = record;
          judged.push({ collectionId, units, record: { key, revision: modRevision, collectionId, id, unit: prefix, reason } });
        }
      }
    }
    for await (const page of this.#store.pages(keys.allDeltas)) {
      for (const { key, value, modRevision } of page) {
        if (turns.due) await turns.give();
        const record = DeltaLogRecord.decode(value);
        if (!record.object) continue;
        const reason = this.#whyNoDeltaLog(record);
        if (reason === undefined) lives(record.object.key);
        else {
          const { collectionId, id, object } = record;
          judged.push({
            collectionId,
            units: [object.key],
            record: { key, revision: modRevision, collectionId, id, unit: object.key, reason },
          });
        }
      }
    }
    const goneSegments = new Set(judged.map(({ record }) => record.key));
    for await (const page of this.#store.pages(keys.allSegmentIndexes)) {
      for (const { value } of page) {
        if (turns.due) await turns.give();
        const record = SegmentIndexRecord.decode(value);
        if (record.state === IndexBuildState.INDEX_BUILD_PENDING) pendingBuilds.add(record.buildId);
        if (!record.object) continue;
        const gone =
          goneSegments.size > 0 && goneSegments.has(keys.segment(record.collectionId, record.segmentId)) && !held.has(record.collectionId);
        if (!gone) lives(record.object.key);
      }
    }
    for (const id of this.#held()) held.add(id);
    const after = await this.#snapshots.load();
    for (const { collectionId, units, record } of judged) {
      if (held.has(collectionId)) for (const unit of units) lives(unit);
      else dropped.push(record);
    }
    const snapshots = new Map([...before.sets, ...after.sets]);
    for (const set of snapshots.values()) {
      const numbers = set.numbers();
      for (let at = 0; at < numbers.length; at++) {
        units.mark(numbers[at] as number, KEPT);
        if (at % STRETCH === 0 && turns.due) await turns.give();
      }
    }
    const live = { has: (number: number) => ((units.get(number) ?? 0) & LIVE) !== 0 };
    return { blocked: after.blocked, units, live, snapshots, dropped, pendingBuilds, held };
  }

  /** Capture may still take what was live at a pending snapshot's T; a running restore stages records in its target. */
  #held(): Set<number> {
    const { state } = this.#store;
    const held = new Set<number>();
    for (const snapshot of state.snapshots.values()) if (snapshot.state === SnapshotState.SNAPSHOT_PENDING) held.add(snapshot.collectionId);
    for (const job of state.jobs.values()) if (!isOver(job.state)) held.add(job.targetCollectionId);
    for (const intent of state.intents.values()) held.add(intent.targetCollectionId);
    for (const collection of state.collections.values())
      if (collection.state === CollectionState.COLLECTION_RESTORING) held.add(collection.id);
    return held;
  }

  #whyNoSegment(record: SegmentRecord): string | undefined {
    const collection = this.#store.state.collections.get(record.collectionId);
    if (!collection) return `collection ${record.collectionId} is gone`;
    if (collection.state === CollectionState.COLLECTION_DROPPED) return `collection ${collection.name} (${collection.id}) was dropped`;
    const partition = this.#store.state.partition(record.collectionId, record.partitionId);
    if (partition && partition.droppedTs > 0) return `partition ${partition.name} (${partition.id}) was dropped`;
    if (record.state === SegmentState.SEGMENT_DROPPED) return `segment ${record.id} was replaced or dropped`;
    return undefined;
  }

  #whyNoDeltaLog(record: DeltaLogRecord): string | undefined {
    const collection = this.#store.state.collections.get(record.collectionId);
    if (!collection) return `collection ${record.collectionId} is gone`;
    if (collection.state === CollectionState.COLLECTION_DROPPED) return `collection ${collection.name} (${collection.id}) was dropped`;
    return record.droppedTs > 0 ? `delta log ${record.id} was replaced or dropped` : undefined;
  }
}

export function isOver(state: RestoreJobState): boolean {
  return (
    state === RestoreJobState.RESTORE_COMPLETED || state === RestoreJobState.RESTORE_FAILED || state === RestoreJobState.RESTORE_CANCELLED
  );
}

/** Whether anything refers to this prefix or object. */
export function isReferenced(references: References, prefix: string): boolean {
  const name = parseObjectName(prefix);
  return references.units.has(numberOf(prefix)) || (name?.kind === 'delta' && references.units.has(numberOf(name.prefix)));
}
