import { asCairnError, CairnError, isRetriable, retry, Turns } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { type DatabaseRecord, RestoreIntentRecord, RestoreJobRecord, RestoreJobState, type SnapshotRecord } from '@cairn/proto/cairn/meta';
import type { ListRestoreJobsRequest, RestorePlan, RestoreSnapshotRequest } from '@cairn/proto/cairn/services';
import { readSnapshot, type SnapshotBundle } from '@cairn/segment';
import { aliasConflict, checkName, putRecord } from './changes/change.ts';
import { CopyJobs, type CopyJobsOptions, isOver } from './copy-jobs.ts';
import { wantedOf } from './copy-source.ts';
import { restoreOwner } from './pin-board.ts';
import { isListed, withPace } from './restore-list.ts';
import { inPhase } from './restore-phase.ts';
import { planOf } from './restore-plan.ts';
import { checkShape, shapeOf } from './restore-shape.ts';
import { RestoreTarget } from './restore-target.ts';
import type { SnapshotManager } from './snapshot-manager.ts';

export interface RestoreManagerOptions extends CopyJobsOptions {
  readonly snapshots: SnapshotManager;
  readonly epoch: number;
}

/** What a request asks for, its names resolved. */
interface Wish {
  readonly snapshot: SnapshotRecord;
  readonly database: DatabaseRecord;
}

/** Reads of metadata and manifests before the caller is told. */
const READ = { attempts: 4, firstDelayMs: 100, maxDelayMs: 1_000 };
const PATIENT = { attempts: Number.POSITIVE_INFINITY, firstDelayMs: 100, maxDelayMs: 5_000, retriable: isRetriable };

/**
 * Begins restores. The intent comes first and names all that will be made (job, pin, target collection); then pin, metadata, target, indexes,
 * job. What fails before the job exists is undone by the intent, by this leader or the next.
 */
export class RestoreManager {
  readonly #options: RestoreManagerOptions;
  readonly #jobs: CopyJobs;
  /** `<database id>/<name>` of targets whose restore is beginning, with the collection of the snapshot. */
  readonly #targets = new Map<string, number>();
  /** Undos under way, by job id. */
  readonly #undoing = new Map<number, Promise<void>>();
  /** Calls under way that may come again, by request id. */
  readonly #starting = new Map<string, Promise<number>>();
  readonly #target: RestoreTarget;

  constructor(options: RestoreManagerOptions) {
    this.#options = options;
    this.#jobs = new CopyJobs(options);
    this.#target = new RestoreTarget(options.store, options.control, options.ids);
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

  /**
   * Answers with the job id once the job is recorded. Whatever fails before that leaves nothing behind. A repeat under the same request id gets
   * the same job.
   */
  async start(request: RestoreSnapshotRequest): Promise<number> {
    const { requestId } = request;
    if (requestId === '') return this.#start(request);
    const known = this.#starting.get(requestId) ?? this.#jobOf(request);
    if (known !== undefined) return known;
    const starting = this.#startAfterUndo(request).finally(() => this.#starting.delete(requestId));
    this.#starting.set(requestId, starting);
    return starting;
  }

  #jobOf({ requestId, targetCollection }: RestoreSnapshotRequest): number | undefined {
    const jobs = [...this.#options.store.state.jobs.values()];
    return jobs.find((job) => job.requestId === requestId && job.targetCollectionName === targetCollection)?.id;
  }

  /** An earlier try of the same request, under a leader before, may still hold the name. */
  async #startAfterUndo(request: RestoreSnapshotRequest): Promise<number> {
    for (const intent of [...this.#options.store.state.intents.values()])
      if (intent.requestId === request.requestId) await this.#undoLater(intent);
    return this.#start(request);
  }

  /** What the restore would copy and why it would be refused; nothing changes. Throws where the snapshot itself cannot be read. */
  async plan(request: RestoreSnapshotRequest): Promise<RestorePlan> {
    const { store } = this.#options;
    const wish = this.#wish(request);
    const bundle = await this.#read(wish.snapshot);
    const refusals = [
      () => this.#refuseTaken(wish.database, request.targetCollection),
      () => this.#refuseMany(wish.snapshot),
      () => wantedOf(bundle, request.partitions, !request.noIndex),
    ];
    const shape = shapeOf(request, bundle, this.#options.settings.restoreMode);
    return planOf({ request, shape, bundle, refusals, jobs: [...store.state.jobs.values()] });
  }

  /** The request with its defaults; refuses what no catalog could allow. */
  #wish(request: RestoreSnapshotRequest): Wish {
    const { store, snapshots } = this.#options;
    const name = request.snapshot;
    if (!name) throw new CairnError('MissingParameter', 'restore without a snapshot');
    if (request.targetCollection.trim() === '')
      throw new CairnError('MissingParameter', 'target_collection_name is required for restore snapshot');
    checkName('collection name', request.targetCollection);
    checkShape(request);
    const { state } = store;
    const snapshot = snapshots.committed(name);
    const home = snapshots.catalog.databaseName(snapshot);
    const database = state.database(request.targetDatabase === '' && state.hasDatabase(home) ? home : request.targetDatabase);
    return { snapshot, database };
  }

  async #start(request: RestoreSnapshotRequest): Promise<number> {
    const wish = this.#wish(request);
    this.#refuseTaken(wish.database, request.targetCollection);
    this.#refuseMany(wish.snapshot);
    const lock = `${wish.database.id}/${request.targetCollection}`;
    this.#targets.set(lock, wish.snapshot.collectionId);
    try {
      return await this.#begin(wish, request);
    } finally {
      this.#targets.delete(lock);
    }
  }

  /** Code 4, retriable, above the limit of jobs in all or of those from one collection. What is beginning counts. */
  #refuseMany({ collectionId }: SnapshotRecord): void {
    const { store, settings } = this.#options;
    const running = [...store.state.jobs.values()].filter((job) => !isOver(job));
    const beginning = [...this.#targets.values()];
    if (running.length + beginning.length >= settings.restoreMaxJobs)
      throw new CairnError('TooManyRequests', `${settings.restoreMaxJobs} restore jobs are running already (restore.maxJobs)`);
    const mine =
      running.filter((job) => job.sourceCollectionId === collectionId).length + beginning.filter((id) => id === collectionId).length;
    if (mine >= settings.restoreMaxJobsPerCollection)
      throw new CairnError(
        'TooManyRequests',
        `${settings.restoreMaxJobsPerCollection} restore jobs of this collection are running already (restore.maxJobsPerCollection)`,
      );
  }

  #refuseTaken(database: DatabaseRecord, name: string): void {
    const { state } = this.#options.store;
    const taken = state.collectionNamed(database, name) !== undefined || this.#targets.has(`${database.id}/${name}`);
    const exists = `target collection ${name} already exists in database ${database.name}`;
    if (taken) throw new CairnError('InvalidParameter', `${exists} (duplicate collection)`);
    if (state.alias(database, name)) throw aliasConflict(database, name, `${exists} (conflicts with an existing alias)`);
  }

  /** Metadata and manifests, verified. */
  #read(snapshot: SnapshotRecord): Promise<SnapshotBundle> {
    const { runtime, objects, stop } = this.#options;
    return retry(runtime, READ, () => readSnapshot(objects, snapshot.metadataKey, { withSegments: true, turns: new Turns(runtime) }), stop);
  }

  async #begin({ snapshot, database }: Wish, request: RestoreSnapshotRequest): Promise<number> {
    const { ids, pins, runtime, epoch, stop, settings, snapshots } = this.#options;
    const source = snapshots.catalog.collection(snapshot);
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
      requestId: request.requestId,
    };
    await pins.pin(snapshot.id, 0, restoreOwner(jobId), [putRecord(keys.restoreIntent(jobId), RestoreIntentRecord, intent)], intent.pinId);
    try {
      const bundle = await inPhase('read snapshot data', () => this.#read(snapshot));
      wantedOf(bundle, request.partitions, !request.noIndex);
      const shape = shapeOf(request, bundle, settings.restoreMode);
      const { noIndex, partitions } = request;
      await this.#target.make(intent, bundle, { noIndex, partitions, shards: shape.shards });
      const now = runtime.now();
      const job = RestoreJobRecord.fromPartial({
        id: jobId,
        snapshotId: snapshot.id,
        snapshotName: snapshot.name,
        sourceCollectionId: source.id,
        sourceCollectionName: source.name,
        sourceDatabaseName: snapshots.catalog.databaseName(snapshot),
        targetCollectionId: intent.targetCollectionId,
        targetCollectionName: intent.targetCollectionName,
        targetDatabaseName: database.name,
        pinId: intent.pinId,
        state: RestoreJobState.RESTORE_PENDING,
        startMs: now,
        deadlineMs: now + settings.restoreJobTimeoutMs,
        group: `restore-${jobId}`,
        ...shape,
        noIndex: request.noIndex,
        requestId: request.requestId,
        partitions: request.partitions,
      });
      await inPhase('restore data', () =>
        this.#options.control.submit(`restore-${jobId}-job`, { $case: 'restoreSnapshot', value: { job } }),
      );
      this.#jobs.drive(job, bundle);
      return jobId;
    } catch (error) {
      // A leader that is deposed here leaves it to the next, which finds the intent, or the job.
      if (!stop.aborted) await this.#undoLater(intent);
      throw asCairnError(error);
    }
  }

  /** Undoes an intent that has no job; goes on until it is done or the term ends. */
  #undoLater(intent: RestoreIntentRecord): Promise<void> {
    if (this.#options.store.state.jobs.get(intent.jobId)) return Promise.resolve();
    const known = this.#undoing.get(intent.jobId);
    if (known) return known;
    const undoing = this.#undoPatiently(intent).finally(() => this.#undoing.delete(intent.jobId));
    this.#undoing.set(intent.jobId, undoing);
    return undoing;
  }

  async #undoPatiently(intent: RestoreIntentRecord): Promise<void> {
    const { runtime, stop, logger } = this.#options;
    try {
      await retry(runtime, PATIENT, () => this.#undoIntent(intent), stop);
      logger.info({ job: intent.jobId, target: intent.targetCollectionName }, 'a restore that did not become a job was undone');
    } catch (error) {
      if (!stop.aborted) logger.warn({ error, job: intent.jobId }, 'undoing a restore failed; the next sweep tries again');
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
        void this.#jobs.cancel(job, `cancelled: target collection ${job.targetCollectionName} was dropped`);
    }
  }

  /** Cancels a job and answers it when it is over and undone; one that is over already as it is. */
  async cancel(jobId: number): Promise<RestoreJobRecord> {
    const job = this.job(jobId);
    if (isOver(job)) return job;
    await this.#jobs.cancel(job, 'cancelled');
    const ended = this.job(jobId);
    if (!isOver(ended)) throw new CairnError('ServiceNotReady', `restore job ${jobId} is not undone yet: this coordinator no longer leads`);
    return ended;
  }

  /** The job with its present progress; code 2100 for an unknown one. */
  job(jobId: number): RestoreJobRecord {
    const job = this.#options.store.state.jobs.get(jobId);
    if (!job) throw new CairnError('RestoreJobNotFound', `restore job not found: jobID=${jobId}`);
    return this.#shown(job);
  }

  #shown(job: RestoreJobRecord): RestoreJobRecord {
    return withPace(this.#jobs.shown(job), this.#options.runtime.now());
  }

  /** Jobs whose source or target lies in that database and has that name; empty filters let all pass. Newest first. */
  list(request: ListRestoreJobsRequest): RestoreJobRecord[] {
    const { state } = this.#options.store;
    return [...state.jobs.values()]
      .filter((job) => isListed(state, job, request))
      .sort((a, b) => b.id - a.id)
      .map((job) => this.#shown(job));
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
