import { asCairnError, type Runtime } from '@cairn/base';
import { isHidden, keys, type RecordType } from '@cairn/catalog';
import type { ObjectStore } from '@cairn/objects';
import {
  CollectionState,
  CopyTaskRecord,
  CopyTaskState,
  DeltaLogRecord,
  DrillState,
  GroupRecord,
  IndexBuildState,
  RestoreJobState,
  SegmentIndexRecord,
  SegmentRecord,
  SegmentState,
  SnapshotState,
} from '@cairn/proto/cairn/meta';
import type { CheckResponse, Finding } from '@cairn/proto/cairn/upkeep';
import { type ExaminerPool, readSnapshot } from '@cairn/segment';
import { CatalogState, type RecordTable } from '../catalog-state.ts';
import { isOpen } from '../compaction/compaction-task.ts';
import { drillOwner } from '../drill-manager.ts';
import type { BucketIdentity } from '../gc/bucket-identity.ts';
import type { GarbagePlanner } from '../gc/garbage-plan.ts';
import { ReferenceSet } from '../gc/reference-set.ts';
import { isOver, isReferenced } from '../gc/references.ts';
import type { SnapshotReferences } from '../gc/snapshot-references.ts';
import type { LeaderStore } from '../leader-store.ts';
import { restoreOwner } from '../pin-board.ts';
import type { DataCoordSettings } from '../settings.ts';
import type { SnapshotIndex } from '../snapshot-index.ts';
import { checkObjects, type ReferredObject } from './object-check.ts';

/** What ends by itself (an expired pin, a FAILED snapshot, a dead prefix) may be late by this before it is a finding. */
const LATE_MS = 60_000;
/** A compaction that nobody asked for and that is older than this hangs. */
const COMPACTION_MS = 6 * 3_600_000;
/** A finding counts when it is there in this many rounds running: what is under way meanwhile is none. */
const ROUNDS = 3;
const BETWEEN_ROUNDS_MS = 500;

export interface ConsistencyCheckerOptions {
  readonly store: LeaderStore;
  readonly objects: ObjectStore;
  readonly runtime: Runtime;
  readonly settings: DataCoordSettings;
  readonly identity: BucketIdentity;
  readonly planner: GarbagePlanner;
  readonly snapshotReferences: SnapshotReferences;
  readonly pool: ExaminerPool;
}

type Kind = 'object' | 'reference' | 'prefix' | 'pin' | 'job' | 'snapshot' | 'group' | 'memory' | 'bucket';

/** Collects findings of one round. */
class Findings {
  readonly list: Finding[] = [];

  add(kind: Kind, subject: string, detail: string): void {
    this.list.push({ kind, subject, detail });
  }
}

const keyOf = (finding: Finding): string => `${finding.kind} ${finding.subject} ${finding.detail}`;

/** Compares stores, records and the leader's memory; the promises of snapshots.md as far as they can be seen from outside. Changes nothing. */
export class ConsistencyChecker {
  readonly #options: ConsistencyCheckerOptions;

  constructor(options: ConsistencyCheckerOptions) {
    this.#options = options;
  }

  async run(deep: boolean): Promise<CheckResponse> {
    const { runtime } = this.#options;
    const started = runtime.monotonic();
    let result = await this.#round(deep);
    for (let round = 1; round < ROUNDS && result.findings.length > 0; round++) {
      await runtime.sleep(BETWEEN_ROUNDS_MS);
      const before = new Set(result.findings.map(keyOf));
      const next = await this.#round(deep);
      result = { ...next, findings: next.findings.filter((finding) => before.has(keyOf(finding))) };
    }
    return { ...result, elapsedMs: Math.round(runtime.monotonic() - started) };
  }

  async #round(deep: boolean): Promise<CheckResponse> {
    const findings = new Findings();
    await this.#identity(findings);
    await this.#memory(findings);
    this.#pins(findings);
    await this.#restores(findings);
    this.#drills(findings);
    const groups = await this.#groups(findings);
    this.#compactions(findings);
    const live = await this.#live(findings, groups);
    const snapshots = await this.#snapshots(findings);
    await this.#prefixes(findings);
    const { objects, pool } = this.#options;
    const checked = await checkObjects(objects, [...live.objects, ...snapshots.objects], deep ? pool : undefined);
    for (const { key, by, detail } of checked.damage) findings.add('object', key, `${detail} (${by})`);
    return {
      findings: findings.list,
      objects: checked.objects,
      bytes: checked.bytes,
      segments: live.segments,
      snapshots: snapshots.count,
      elapsedMs: 0,
    };
  }

  async #identity(findings: Findings): Promise<void> {
    try {
      await this.#options.identity.require();
    } catch (error) {
      findings.add('bucket', this.#options.objects.uri, asCairnError(error).message);
    }
  }

  async #all<T>(prefix: string, type: RecordType<T>): Promise<T[]> {
    const all: T[] = [];
    for await (const page of this.#options.store.pages(prefix)) for (const { value } of page) all.push(type.decode(value));
    return all;
  }

  /** What the leader knows is what the store holds. */
  async #memory(findings: Findings): Promise<void> {
    const { store } = this.#options;
    const fresh = new CatalogState();
    for (const prefix of CatalogState.prefixes) for await (const page of store.pages(prefix)) for (const entry of page) fresh.put(entry);
    const compare = <T>(what: string, known: RecordTable<T>, stored: RecordTable<T>): void => {
      for (const id of new Set([...known.ids(), ...stored.ids()])) {
        const [held, found] = [known.held(id), stored.held(id)];
        if (held?.revision !== found?.revision)
          findings.add('memory', `${what} ${id}`, `known at revision ${held?.revision ?? 'none'}, stored at ${found?.revision ?? 'none'}`);
      }
    };
    compare('collection', store.state.collections, fresh.collections);
    compare('database', store.state.databases, fresh.databases);
    compare('load', store.state.loads, fresh.loads);
    compare('snapshot', store.state.snapshots, fresh.snapshots);
    // By (collection, name) and in the order of their collection; by segment and by index build is compared with their metadata below.
    const [held, stored] = [store.state.snapshotIndex, fresh.snapshotIndex];
    for (const collection of new Set([...held.collections(), ...stored.collections()])) {
      const idsOf = (index: SnapshotIndex): string =>
        index
          .of(collection)
          .map(({ id }) => id)
          .join(', ') || 'none';
      if (idsOf(held) !== idsOf(stored))
        findings.add('memory', `snapshots of collection ${collection}`, `known are ${idsOf(held)}, stored ${idsOf(stored)}`);
      for (const { name } of new Set([...held.of(collection), ...stored.of(collection)])) {
        const [known, found] = [held.named(collection, name)?.id, stored.named(collection, name)?.id];
        if (known !== found)
          findings.add(
            'memory',
            `snapshot name ${name} of collection ${collection}`,
            `known as ${known ?? 'free'}, stored as ${found ?? 'free'}`,
          );
      }
    }
    compare('health of snapshot', store.state.health, fresh.health);
    compare('drill', store.state.drills, fresh.drills);
    compare('pin', store.state.pins, fresh.pins);
    compare('restore intent', store.state.intents, fresh.intents);
    compare('restore job', store.state.jobs, fresh.jobs);
    compare('compaction task', store.state.compactionTasks, fresh.compactionTasks);
    compare('compaction job', store.state.compactionJobs, fresh.compactionJobs);
  }

  #pins(findings: Findings): void {
    const { store, runtime } = this.#options;
    const { state } = store;
    for (const { snapshotId } of state.health.values())
      if (!state.snapshots.get(snapshotId)) findings.add('snapshot', `${snapshotId}`, 'a record of its health is there, it is not');
    for (const pin of state.pins.values()) {
      if (!state.snapshots.get(pin.snapshotId)) findings.add('pin', `${pin.id}`, `its snapshot ${pin.snapshotId} is not there`);
      if (pin.expiresMs !== 0 && pin.expiresMs + LATE_MS < runtime.now())
        findings.add('pin', `${pin.id}`, `expired at ${pin.expiresMs} and is still there`);
      if (pin.owner.startsWith('drill:')) {
        const drill = [...state.drills.values()].find((one) => drillOwner(one.id) === pin.owner && one.pinId === pin.id);
        if (drill?.state !== DrillState.DRILL_RUNNING) findings.add('pin', `${pin.id}`, `its owner ${pin.owner} is gone`);
      }
      if (!pin.owner.startsWith('restore:')) continue;
      const owned = [...state.intents.values()].some((intent) => restoreOwner(intent.jobId) === pin.owner && intent.pinId === pin.id);
      const job = [...state.jobs.values()].find((one) => restoreOwner(one.id) === pin.owner);
      if (!owned && !(job && !isOver(job.state))) findings.add('pin', `${pin.id}`, `its owner ${pin.owner} is gone`);
    }
  }

  async #restores(findings: Findings): Promise<void> {
    const { store, runtime } = this.#options;
    const { state } = store;
    const now = runtime.now();
    for (const job of state.jobs.values()) {
      const name = `${job.id}`;
      const target = state.collections.get(job.targetCollectionId);
      if (!isOver(job.state)) {
        if (job.deadlineMs + LATE_MS < now)
          findings.add('job', name, `its time ended at ${job.deadlineMs}, it is still in state ${job.state}`);
        continue;
      }
      if (job.endMs === 0) findings.add('job', name, 'it is over and has no end time');
      const restoring = target?.state === CollectionState.COLLECTION_RESTORING && target.restoreJobId === job.id;
      if (restoring) findings.add('job', name, `it is over, its target ${job.targetCollectionName} is still being restored`);
      if (job.state === RestoreJobState.RESTORE_COMPLETED) {
        if (job.copiedBytes !== job.totalBytes || job.copiedObjects !== job.totalObjects)
          findings.add('job', name, `Completed with ${job.copiedBytes} of ${job.totalBytes} bytes`);
      } else if (target && target.state !== CollectionState.COLLECTION_DROPPED)
        findings.add('job', name, `it did not complete, its target ${job.targetCollectionName} is still there`);
    }
    for (const intent of state.intents.values()) {
      if (!state.jobs.get(intent.jobId) && intent.createdMs + LATE_MS < now)
        findings.add('job', `${intent.jobId}`, `a restore intent of ${intent.createdMs} has no job`);
    }
    for (const task of await this.#all(keys.copyTasks, CopyTaskRecord)) {
      const job = state.jobs.get(task.jobId);
      if (!job) findings.add('job', `task ${task.id}`, `its job ${task.jobId} is not there`);
      else if (isOver(job.state) && (task.state === CopyTaskState.COPY_PENDING || task.state === CopyTaskState.COPY_IN_PROGRESS))
        findings.add('job', `task ${task.id}`, `its job ${task.jobId} is over, it is not`);
      else if (
        job.rewriteData ? task.targetSegmentIds.length !== job.shards : task.targetSegmentIds.length !== task.sourceSegmentIds.length
      )
        findings.add(
          'job',
          `task ${task.id}`,
          'its target segments are not one a source segment, or one a shard where rows are written anew',
        );
      else if (task.targetDeltaIds.length !== task.sourceDeltaIds.length)
        findings.add('job', `task ${task.id}`, 'delta logs of source and target are not one for one');
    }
  }

  #drills(findings: Findings): void {
    const { state } = this.#options.store;
    const running = [...state.drills.values()].filter((one) => one.state === DrillState.DRILL_RUNNING);
    const targets = new Set(running.map((one) => one.targetCollectionName));
    for (const { id, name, state: now } of state.collections.values())
      if (isHidden(name) && now !== CollectionState.COLLECTION_DROPPED && !targets.has(name))
        findings.add('job', name, `collection ${id} of a drill that is over is still there`);
  }

  /** A job has its tasks, an open task has inputs and comes to an end. */
  #compactions(findings: Findings): void {
    const { store, runtime } = this.#options;
    const { compactionJobs, compactionTasks } = store.state;
    const tasks = new Map<number, number>();
    const taken = new Map<number, number>();
    for (const task of compactionTasks.values()) {
      const name = `compaction ${task.id}`;
      tasks.set(task.jobId, (tasks.get(task.jobId) ?? 0) + 1);
      if (task.jobId > 0 && !compactionJobs.get(task.jobId)) findings.add('job', name, `its job ${task.jobId} is not there`);
      if (task.sourceSegmentIds.length === 0) findings.add('job', name, 'it has no inputs');
      if (!isOpen(task)) {
        if (task.endedMs === 0) findings.add('job', name, 'it is over and has no end time');
        continue;
      }
      if (task.jobId === 0 && task.createdMs + COMPACTION_MS < runtime.now())
        findings.add('job', name, `it did not end since ${task.createdMs}`);
      if (task.jobId > 0) continue;
      // Who asks for a compaction may name what another has taken: the later one fails, or goes on with what became of it.
      for (const id of task.sourceSegmentIds) {
        if (taken.has(id)) findings.add('job', name, `segment ${id} is an input of compaction ${taken.get(id)} too`);
        taken.set(id, task.id);
      }
    }
    for (const job of compactionJobs.values()) {
      const found = tasks.get(job.id) ?? 0;
      if (found > job.tasks) findings.add('job', `compaction job ${job.id}`, `${found} tasks, recorded ${job.tasks}`);
    }
  }

  /** Groups that are visible. Unpublished ones belong to a running job, or are about to be undone. */
  async #groups(findings: Findings): Promise<ReadonlySet<string>> {
    const { store, runtime } = this.#options;
    const running = new Set([...store.state.jobs.values()].filter((job) => !isOver(job.state)).map((job) => job.group));
    const published = new Set(['']);
    for (const group of await this.#all(keys.groups, GroupRecord)) {
      if (group.published) published.add(group.group);
      else if (!running.has(group.group) && group.createdMs + LATE_MS < runtime.now())
        findings.add('group', group.group, 'it is not published, and no job works on it');
    }
    return published;
  }

  async #live(findings: Findings, published: ReadonlySet<string>): Promise<{ objects: ReferredObject[]; segments: number }> {
    const { state } = this.#options.store;
    const objects: ReferredObject[] = [];
    const segments = new Set<string>();
    const replaced = new Map<string, number>();
    const alive = (id: number): boolean => state.collections.get(id)?.state === CollectionState.COLLECTION_LIVE;
    for (const segment of await this.#all(keys.allSegments, SegmentRecord)) {
      if (!alive(segment.collectionId) || segment.state !== SegmentState.SEGMENT_SEALED || !published.has(segment.group)) continue;
      const partition = state.partition(segment.collectionId, segment.partitionId);
      if (partition && partition.droppedTs > 0) continue;
      segments.add(keys.segment(segment.collectionId, segment.id));
      const by = `segment ${segment.id} of collection ${segment.collectionId}`;
      for (const object of segment.objects) objects.push({ object, rows: segment.rows, by });
      for (const from of segment.compactedFrom) replaced.set(keys.segment(segment.collectionId, from), segment.id);
      if (segment.minTs > segment.maxTs) findings.add('reference', by, `row timestamps ${segment.minTs} to ${segment.maxTs}`);
    }
    // Its rows would be read twice.
    for (const [key, id] of replaced)
      if (segments.has(key)) findings.add('reference', key, `it is live beside segment ${id}, which was made from it`);
    for (const log of await this.#all(keys.allDeltas, DeltaLogRecord)) {
      if (!alive(log.collectionId) || log.droppedTs > 0 || !published.has(log.group)) continue;
      const by = `delta log ${log.id} of collection ${log.collectionId}`;
      if (log.object) objects.push({ object: log.object, rows: log.rows, by });
      else findings.add('reference', by, 'it has no object');
    }
    for (const build of await this.#all(keys.allSegmentIndexes, SegmentIndexRecord)) {
      const present = segments.has(keys.segment(build.collectionId, build.segmentId));
      if (!present || !build.object || build.state !== IndexBuildState.INDEX_BUILD_FINISHED || !published.has(build.group)) continue;
      objects.push({ object: build.object, by: `index build ${build.buildId} of segment ${build.segmentId}` });
    }
    return { objects, segments: segments.size };
  }

  async #snapshots(findings: Findings): Promise<{ objects: ReferredObject[]; count: number }> {
    const { store, objects: bucket, runtime, snapshotReferences } = this.#options;
    const now = runtime.now();
    const objects: ReferredObject[] = [];
    const names = new Map<string, number>();
    let count = 0;
    for (const record of [...store.state.snapshots.values()]) {
      const subject = `${record.name} (${record.id})`;
      const open = record.state === SnapshotState.SNAPSHOT_PENDING || record.state === SnapshotState.SNAPSHOT_FAILED;
      if (open && record.deadlineMs + LATE_MS < now)
        findings.add('snapshot', subject, `its time ended at ${record.deadlineMs}, it is still in state ${record.state}`);
      if (record.state !== SnapshotState.SNAPSHOT_COMMITTED) continue;
      count++;
      const name = `${record.collectionId}/${record.name}`;
      if (names.has(name)) findings.add('snapshot', subject, `snapshot ${names.get(name)} has the same name`);
      names.set(name, record.id);
      try {
        const bundle = await readSnapshot(bucket, record.metadataKey, { withSegments: true });
        const { record: found, segmentCount: segments, rows, bytes } = bundle;
        if (found.id !== record.id || found.ts !== record.ts || found.collectionId !== record.collectionId || found.name !== record.name)
          findings.add('snapshot', subject, `its metadata is of ${found.name} (${found.id}) at ${found.ts}`);
        if (segments !== record.segments || rows !== record.rows || bytes !== record.bytes)
          findings.add(
            'snapshot',
            subject,
            `${segments} segments, ${rows} rows, ${bytes} bytes; recorded ${record.segments}, ${record.rows}, ${record.bytes}`,
          );
        const known = snapshotReferences.known(record.id);
        if (known && !known.equals(new ReferenceSet(bundle)))
          findings.add('reference', subject, 'the references kept in memory are not those of its metadata');
        const by = `snapshot ${subject}`;
        for (const segment of bundle.segments) for (const object of segment.objects) objects.push({ object, rows: segment.rows, by });
        for (const log of bundle.deltaLogs) if (log.object) objects.push({ object: log.object, rows: log.rows, by });
        for (const build of bundle.segmentIndexes) if (build.object) objects.push({ object: build.object, by });
      } catch (error) {
        if (store.state.snapshots.get(record.id)?.state === SnapshotState.SNAPSHOT_COMMITTED)
          findings.add('snapshot', subject, asCairnError(error).message);
      }
    }
    return { objects, count };
  }

  /** Every object of ours is needed, or on its way out in time. */
  async #prefixes(findings: Findings): Promise<void> {
    const { planner, runtime, settings } = this.#options;
    const now = runtime.now();
    const plan = await planner.plan(now, true);
    for (const words of plan.blocked) findings.add('reference', 'garbage collection', words);
    const late = settings.gcGraceMs + settings.gcIntervalMs + LATE_MS;
    for (const item of plan.dead) {
      if (isReferenced(plan.references, item.prefix))
        findings.add('reference', item.prefix, 'recorded as dead, and something refers to it');
      else if (plan.blocked.length === 0 && item.deadMs + late < now)
        findings.add('prefix', item.prefix, `dead since ${item.deadMs} and not deleted`);
    }
    for (const key of plan.unknownExamples) findings.add('prefix', key, 'an object that no record of ours covers');
  }
}
