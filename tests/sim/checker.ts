/**
 * What must hold of the stores when nothing happens any more: no snapshot, restore, group or pin is left half-way, everything that a live record
 * refers to exists with its length and checksum, and no log was trimmed beyond what its shards have flushed.
 */
import { checksum } from '@cairn/base';
import { keys, type RecordType } from '@cairn/catalog';
import { type MetaStore, scan } from '@cairn/meta';
import type { ObjectStore } from '@cairn/objects';
import {
  ChannelRecord,
  CollectionRecord,
  CollectionState,
  CopyTaskRecord,
  CopyTaskState,
  DeltaLogRecord,
  DrillRecord,
  DrillState,
  GroupRecord,
  IndexBuildState,
  type ObjectRef,
  PartitionRecord,
  PinRecord,
  RestoreIntentRecord,
  RestoreJobRecord,
  RestoreJobState,
  SegmentIndexRecord,
  SegmentRecord,
  SegmentState,
  ShardRecord,
  SnapshotRecord,
  SnapshotState,
} from '@cairn/proto/cairn/meta';
import { readSnapshot } from '@cairn/segment';
import type { WalStore } from '@cairn/wal';

export interface CheckedStores {
  readonly meta: MetaStore;
  readonly objects: ObjectStore;
  readonly wal: WalStore;
}

const JOB_OVER: readonly RestoreJobState[] = [
  RestoreJobState.RESTORE_COMPLETED,
  RestoreJobState.RESTORE_FAILED,
  RestoreJobState.RESTORE_CANCELLED,
];

/** Findings in words; empty when all is well. `nowMs`: wall clock, for pins that have expired. */
export class ConsistencyChecker {
  readonly #stores: CheckedStores;
  readonly #nowMs: number;
  readonly #findings: string[] = [];
  readonly #checked = new Map<string, string | undefined>();

  constructor(stores: CheckedStores, nowMs: number) {
    this.#stores = stores;
    this.#nowMs = nowMs;
  }

  async run(): Promise<readonly string[]> {
    await this.#checkSnapshots();
    await this.#checkRestores();
    await this.#checkLiveData();
    await this.#checkLogs();
    return this.#findings;
  }

  #found(text: string): void {
    this.#findings.push(text);
  }

  async #all<T>(prefix: string, type: RecordType<T>): Promise<{ readonly key: string; readonly record: T }[]> {
    const all: { key: string; record: T }[] = [];
    for await (const page of scan(this.#stores.meta, prefix))
      for (const { key, value } of page) all.push({ key, record: type.decode(value) });
    return all;
  }

  async #object(ref: ObjectRef | undefined, what: string): Promise<void> {
    if (!ref) return this.#found(`${what} has no object`);
    if (!this.#checked.has(ref.key)) this.#checked.set(ref.key, await this.#damage(ref));
    const damage = this.#checked.get(ref.key);
    if (damage !== undefined) this.#found(`${what}: object ${ref.key} ${damage}`);
  }

  async #damage(ref: ObjectRef): Promise<string | undefined> {
    const { objects } = this.#stores;
    if (!(await objects.head(ref.key))) return 'is missing';
    const bytes = await objects.get(ref.key);
    if (bytes.length !== ref.size) return `has ${bytes.length} bytes, its record says ${ref.size}`;
    return checksum(bytes) === ref.crc32c ? undefined : 'has another checksum than its record says';
  }

  async #checkSnapshots(): Promise<void> {
    for (const { record } of await this.#all(keys.snapshots, SnapshotRecord)) {
      const name = `snapshot ${record.name} (${record.id}) of collection ${record.collectionId}`;
      if (record.state !== SnapshotState.SNAPSHOT_COMMITTED) {
        this.#found(`${name} is still ${nameOf(SnapshotState, record.state)}`);
        continue;
      }
      try {
        const bundle = await readSnapshot(this.#stores.objects, record.metadataKey, { withSegments: true });
        if (bundle.rows !== record.rows || bundle.segmentCount !== record.segments)
          this.#found(`${name}: its record says ${record.rows} rows, its metadata ${bundle.rows}`);
        for (const segment of bundle.segments)
          for (const object of segment.objects) await this.#object(object, `${name}, segment ${segment.id}`);
        for (const log of bundle.deltaLogs) await this.#object(log.object, `${name}, delta log ${log.id}`);
        for (const build of bundle.segmentIndexes)
          if (build.object) await this.#object(build.object, `${name}, index of segment ${build.segmentId}`);
      } catch (error) {
        this.#found(`${name} cannot be read: ${String(error)}`);
      }
    }
  }

  async #checkRestores(): Promise<void> {
    const jobs = new Map((await this.#all(keys.restoreJobs, RestoreJobRecord)).map(({ record }) => [record.id, record]));
    for (const job of jobs.values())
      if (!JOB_OVER.includes(job.state)) this.#found(`restore job ${job.id} is still ${nameOf(RestoreJobState, job.state)}`);
    for (const { record } of await this.#all(keys.restoreIntents, RestoreIntentRecord))
      this.#found(`the intent of restore job ${record.jobId} is still there`);
    for (const { record } of await this.#all(keys.copyTasks, CopyTaskRecord)) {
      const over = record.state === CopyTaskState.COPY_COMPLETED || record.state === CopyTaskState.COPY_FAILED;
      const job = jobs.get(record.jobId);
      if (!job || (!over && !JOB_OVER.includes(job.state)))
        this.#found(`copy task ${record.id} of job ${record.jobId} is ${nameOf(CopyTaskState, record.state)}`);
    }
    for (const { record } of await this.#all(keys.drills, DrillRecord))
      if (record.state === DrillState.DRILL_RUNNING) this.#found(`drill ${record.id} of snapshot ${record.snapshotId} is still running`);
    for (const { record } of await this.#all(keys.pins, PinRecord)) {
      if (record.owner !== 'user') this.#found(`pin ${record.id} of ${record.owner} on snapshot ${record.snapshotId} is still there`);
      else if (record.expiresMs > 0 && record.expiresMs < this.#nowMs) this.#found(`pin ${record.id} has expired and is still there`);
    }
    for (const { record } of await this.#all(keys.groups, GroupRecord))
      if (!record.published) this.#found(`group ${record.group} was never published and is still there`);
    const collections = await this.#all('catalog/collection/', CollectionRecord);
    for (const { record } of collections) {
      if (record.state === CollectionState.COLLECTION_RESTORING) this.#found(`collection ${record.name} (${record.id}) is still restoring`);
    }
  }

  async #checkLiveData(): Promise<void> {
    const collections = new Map((await this.#all('catalog/collection/', CollectionRecord)).map(({ record }) => [record.id, record]));
    const partitions = new Map((await this.#all('catalog/partition/', PartitionRecord)).map(({ record }) => [record.id, record]));
    const groups = new Map((await this.#all(keys.groups, GroupRecord)).map(({ record }) => [record.group, record]));
    const live = (collectionId: number, group: string): boolean =>
      collections.get(collectionId)?.state === CollectionState.COLLECTION_LIVE && (group === '' || groups.get(group)?.published === true);
    const segments = await this.#all(keys.allSegments, SegmentRecord);
    const known = new Set(segments.map(({ record }) => record.id));
    const alive = new Set<number>();
    const sealed = new Set(segments.flatMap(({ record }) => (record.state === SegmentState.SEGMENT_SEALED ? [record.id] : [])));
    for (const { record } of segments)
      for (const from of record.compactedFrom)
        if (sealed.has(record.id) && sealed.has(from)) this.#found(`segment ${from} is live beside ${record.id}, which was made from it`);
    for (const { record } of segments) {
      if (record.group !== '' && !groups.has(record.group) && record.state === SegmentState.SEGMENT_SEALED && live(record.collectionId, ''))
        this.#found(`segment ${record.id} belongs to group ${record.group}, which is not there`);
      const dropped = (partitions.get(record.partitionId)?.droppedTs ?? 1) > 0 || record.state !== SegmentState.SEGMENT_SEALED;
      if (dropped || !live(record.collectionId, record.group)) continue;
      alive.add(record.id);
      for (const object of record.objects) await this.#object(object, `segment ${record.id}`);
    }
    for (const { record } of await this.#all(keys.allDeltas, DeltaLogRecord))
      if (live(record.collectionId, record.group) && record.droppedTs === 0) await this.#object(record.object, `delta log ${record.id}`);
    for (const { record } of await this.#all(keys.allSegmentIndexes, SegmentIndexRecord)) {
      if (!live(record.collectionId, record.group)) continue;
      if (!known.has(record.segmentId)) this.#found(`index build ${record.buildId} is of segment ${record.segmentId}, which is not there`);
      // A small segment is searched exactly: its build is finished without an object.
      if (record.state === IndexBuildState.INDEX_BUILD_FINISHED && record.object && alive.has(record.segmentId))
        await this.#object(record.object, `index build ${record.buildId}`);
    }
  }

  async #checkLogs(): Promise<void> {
    const collections = new Map((await this.#all('catalog/collection/', CollectionRecord)).map(({ record }) => [record.id, record]));
    const shards = await this.#all(keys.allShards, ShardRecord);
    for (const { record } of await this.#all(keys.channels, ChannelRecord)) {
      const { firstSequence } = await this.#stores.wal.state(record.channel);
      for (const { record: shard } of shards) {
        const live = collections.get(shard.collectionId)?.state === CollectionState.COLLECTION_LIVE;
        if (live && shard.channel === record.channel && shard.checkpoint + 1 < firstSequence)
          this.#found(
            `channel ${record.channel} begins at ${firstSequence}, shard ${shard.vchannel} is flushed up to ${shard.checkpoint} only`,
          );
      }
    }
  }
}

function nameOf(states: Readonly<Record<string, number>>, state: number): string {
  return Object.keys(states).find((name) => states[name] === state) ?? String(state);
}
