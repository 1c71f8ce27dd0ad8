import { asCairnError, CairnError, isRetriable, retry } from '@cairn/base';
import { keys } from '@cairn/catalog';
import {
  type CollectionRecord,
  CollectionState,
  type DatabaseRecord,
  RestoreIntentRecord,
  RestoreJobRecord,
  RestoreJobState,
  type SnapshotRecord,
} from '@cairn/proto/cairn/meta';
import type { ListRestoreJobsRequest, RestoreSnapshotRequest } from '@cairn/proto/cairn/services';
import { CollectionSchema as WireSchema } from '@cairn/proto/milvus/schema';
import { readSnapshot, type SnapshotBundle } from '@cairn/segment';
import { checkName, putRecord } from './changes/change.ts';
import { CopyJobs, type CopyJobsOptions, isOver } from './copy-jobs.ts';
import { restoreOwner } from './pin-board.ts';
import type { SnapshotManager } from './snapshot-manager.ts';

export interface RestoreManagerOptions extends CopyJobsOptions {
  readonly snapshots: SnapshotManager;
  readonly epoch: number;
}

const PATIENT = { attempts: Number.POSITIVE_INFINITY, firstDelayMs: 100, maxDelayMs: 5_000, retriable: isRetriable };

/**
 * Begins restores. The intent comes first and names all that will be made (job, pin, target collection); then pin, metadata, target, indexes,
 * job. What fails before the job exists is undone by the intent, by this leader or the next.
 */
export class RestoreManager {
  readonly #options: RestoreManagerOptions;
  readonly #jobs: CopyJobs;
  /** `<database id>/<name>` of targets whose restore is beginning. */
  readonly #targets = new Set<string>();
  readonly #undoing = new Set<number>();

  constructor(options: RestoreManagerOptions) {
    this.#options = options;
    this.#jobs = new CopyJobs(options);
  }

  /** After a job has made its collection visible. */
  onPublished(listener: () => void): void {
    this.#jobs.onPublished(listener);
  }

  /** Takes over from an earlier leader: intents without a job are undone, jobs go on. */
  resume(): void {
    for (const intent of [...this.#options.store.state.intents.values()]) void this.#undoLater(intent);
    for (const job of [...this.#options.store.state.jobs.values()]) this.#jobs.drive(job);
  }

  /** Answers with the job id once the job is recorded. Whatever fails before that leaves nothing behind. */
  async start(request: RestoreSnapshotRequest): Promise<number> {
    const { store, settings, snapshots } = this.#options;
    const name = request.snapshot;
    if (!name) throw new CairnError('MissingParameter', 'restore without a snapshot');
    if (request.targetCollection.trim() === '')
      throw new CairnError('MissingParameter', 'target_collection_name is required for restore snapshot');
    checkName('collection name', request.targetCollection);
    const mode = request.mode === '' ? settings.restoreMode : request.mode;
    if (mode !== 'copy') throw new CairnError('NotSupported', `not supported: restore mode ${mode}`);
    const snapshot = snapshots.committed(name);
    const { state } = store;
    const source = state.resolve(name.database, name.collection);
    const database = state.database(request.targetDatabase === '' ? source.database.name : request.targetDatabase);
    this.#refuseTaken(database, request.targetCollection);
    const active = this.#targets.size + [...state.jobs.values()].filter((job) => !isOver(job)).length;
    if (active >= settings.restoreMaxJobs)
      throw new CairnError('TooManyRequests', `${settings.restoreMaxJobs} restore jobs are running already (restore.maxJobs)`);
    const lock = `${database.id}/${request.targetCollection}`;
    this.#targets.add(lock);
    try {
      return await this.#begin(snapshot, source.collection, source.database, database, request);
    } finally {
      this.#targets.delete(lock);
    }
  }

  #refuseTaken(database: DatabaseRecord, name: string): void {
    const { state } = this.#options.store;
    const taken = state.collectionNamed(database, name) !== undefined || this.#targets.has(`${database.id}/${name}`);
    const why = taken ? 'duplicate collection' : state.alias(database, name) ? 'conflicts with an existing alias' : undefined;
    if (why) throw new CairnError('InvalidParameter', `target collection ${name} already exists in database ${database.name} (${why})`);
  }

  async #begin(
    snapshot: SnapshotRecord,
    source: CollectionRecord,
    sourceDatabase: DatabaseRecord,
    database: DatabaseRecord,
    request: RestoreSnapshotRequest,
  ): Promise<number> {
    const { ids, pins, runtime, epoch, objects, stop, settings } = this.#options;
    const jobId = await ids.allocate(3);
    const intent: RestoreIntentRecord = {
      jobId,
      snapshotId: snapshot.id,
      collectionId: snapshot.collectionId,
      pinId: jobId + 1,
      targetDatabaseName: database.name,
      targetCollectionName: request.targetCollection,
      targetCollectionId: jobId + 2,
      leaderEpoch: epoch,
      createdMs: runtime.now(),
    };
    await pins.pin(snapshot.id, 0, restoreOwner(jobId), [putRecord(keys.restoreIntent(jobId), RestoreIntentRecord, intent)], intent.pinId);
    try {
      const bundle = await retry(
        runtime,
        { attempts: 4, firstDelayMs: 100, maxDelayMs: 1_000 },
        () => readSnapshot(objects, snapshot.metadataKey, { withSegments: true }),
        stop,
      );
      await this.#createTarget(intent, bundle);
      if (!request.noIndex) await this.#createIndexes(intent, bundle);
      this.#validateTarget(intent, bundle, request.noIndex);
      const now = runtime.now();
      const job = RestoreJobRecord.fromPartial({
        id: jobId,
        snapshotId: snapshot.id,
        snapshotName: snapshot.name,
        sourceCollectionId: source.id,
        sourceCollectionName: source.name,
        sourceDatabaseName: sourceDatabase.name,
        targetCollectionId: intent.targetCollectionId,
        targetCollectionName: intent.targetCollectionName,
        targetDatabaseName: database.name,
        pinId: intent.pinId,
        state: RestoreJobState.RESTORE_PENDING,
        startMs: now,
        deadlineMs: now + settings.restoreJobTimeoutMs,
        group: `restore-${jobId}`,
        mode: 'copy',
        noIndex: request.noIndex,
      });
      await this.#options.control.submit(`restore-${jobId}-job`, { $case: 'restoreSnapshot', value: { job } });
      this.#jobs.drive(job);
      return jobId;
    } catch (error) {
      // A leader that is deposed here leaves it to the next, which finds the intent, or the job.
      if (!stop.aborted) await this.#undoLater(intent);
      throw asCairnError(error);
    }
  }

  /** The collection as it was at T, under its new name, RESTORING: fields keep their ids, partitions their names and order. */
  async #createTarget(intent: RestoreIntentRecord, bundle: SnapshotBundle): Promise<void> {
    const { control, ids } = this.#options;
    const { collection: was, partitions } = bundle.definition;
    if (!was) throw new CairnError('ObjectDamaged', `the metadata of snapshot ${intent.snapshotId} does not define its collection`);
    const first = await ids.allocate(Math.max(1, partitions.length));
    const id = intent.targetCollectionId;
    const collection: CollectionRecord = {
      ...was,
      id,
      name: intent.targetCollectionName,
      schema: WireSchema.encode({ ...WireSchema.decode(was.schema), name: intent.targetCollectionName }).finish(),
      state: CollectionState.COLLECTION_RESTORING,
      restoreJobId: intent.jobId,
      droppedTs: 0,
    };
    const value = {
      database: intent.targetDatabaseName,
      collection,
      partitions: partitions.map((partition, at) => ({ ...partition, id: first + at, collectionId: id })),
      checkpoints: [],
    };
    await control.submit(`restore-${intent.jobId}-collection`, { $case: 'createCollection', value });
  }

  async #createIndexes(intent: RestoreIntentRecord, bundle: SnapshotBundle): Promise<void> {
    for (const index of bundle.definition.indexes) {
      const value = {
        database: intent.targetDatabaseName,
        collection: intent.targetCollectionName,
        index: { ...index, id: 0, collectionId: intent.targetCollectionId },
        field: '',
        restoreJobId: intent.jobId,
      };
      await this.#options.control.submit(`restore-${intent.jobId}-index-${index.id}`, { $case: 'createIndex', value });
    }
  }

  #validateTarget(intent: RestoreIntentRecord, bundle: SnapshotBundle, noIndex: boolean): void {
    const { state } = this.#options.store;
    const partitions = new Set(state.partitionsOf(intent.targetCollectionId).map((partition) => partition.name));
    const missing = bundle.definition.partitions.find((partition) => !partitions.has(partition.name));
    if (missing) throw new CairnError('Internal', `restore job ${intent.jobId}: its target has no partition ${missing.name}`);
    const indexes = new Set(state.indexesOf(intent.targetCollectionId).map((index) => index.name));
    const unindexed = noIndex ? undefined : bundle.definition.indexes.find((index) => !indexes.has(index.name));
    if (unindexed) throw new CairnError('Internal', `restore job ${intent.jobId}: its target has no index ${unindexed.name}`);
  }

  /** Undoes an intent that has no job; goes on until it is done or the term ends. */
  async #undoLater(intent: RestoreIntentRecord): Promise<void> {
    const { runtime, stop, logger, store } = this.#options;
    if (store.state.jobs.get(intent.jobId) || this.#undoing.has(intent.jobId)) return;
    this.#undoing.add(intent.jobId);
    try {
      await retry(runtime, PATIENT, () => this.#undoIntent(intent), stop);
      logger.info({ job: intent.jobId, target: intent.targetCollectionName }, 'a restore that did not become a job was undone');
    } catch (error) {
      if (!stop.aborted) logger.warn({ error, job: intent.jobId }, 'undoing a restore failed; the next sweep tries again');
    } finally {
      this.#undoing.delete(intent.jobId);
    }
  }

  /** In reverse: indexes go with the target, then pin and intent. */
  async #undoIntent(intent: RestoreIntentRecord): Promise<void> {
    const { control, store } = this.#options;
    const value = { database: intent.targetDatabaseName, name: intent.targetCollectionName, collectionId: intent.targetCollectionId };
    await control.submit(`restore-${intent.jobId}-undo`, { $case: 'dropCollection', value });
    await store.mustCommit({ deletes: [keys.restoreIntent(intent.jobId), keys.pin(intent.snapshotId, intent.pinId)] });
  }

  /** A restoring target that is dropped cancels its job. */
  targetDropped(collectionId: number): void {
    for (const job of this.#options.store.state.jobs.values()) {
      if (job.targetCollectionId === collectionId && !isOver(job))
        this.#jobs.cancel(job.id, `cancelled: target collection ${job.targetCollectionName} was dropped`);
    }
  }

  /** The job with its present progress; code 2100 for an unknown one. */
  job(jobId: number): RestoreJobRecord {
    const job = this.#options.store.state.jobs.get(jobId);
    if (!job) throw new CairnError('RestoreJobNotFound', `restore job not found: jobID=${jobId}`);
    return this.#jobs.shown(job);
  }

  /** Jobs whose source or target lies in that database and has that name; empty filters let all pass. Newest first. */
  list(request: ListRestoreJobsRequest): RestoreJobRecord[] {
    const { database, collection } = request;
    const matches = (databaseName: string, name: string): boolean =>
      (database === '' || databaseName === database) && (collection === '' || name === collection);
    return [...this.#options.store.state.jobs.values()]
      .filter(
        (job) => matches(job.targetDatabaseName, job.targetCollectionName) || matches(job.sourceDatabaseName, job.sourceCollectionName),
      )
      .sort((a, b) => b.id - a.id)
      .map((job) => this.#jobs.shown(job));
  }

  async sweep(): Promise<void> {
    const { store } = this.#options;
    for (const intent of [...store.state.intents.values()]) {
      // One that is beginning right now has its target locked.
      const database = store.state.hasDatabase(intent.targetDatabaseName) ? store.state.database(intent.targetDatabaseName) : undefined;
      if (database && this.#targets.has(`${database.id}/${intent.targetCollectionName}`)) continue;
      await this.#undoLater(intent);
    }
    await this.#jobs.sweep();
  }
}
