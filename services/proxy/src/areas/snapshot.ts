import { CairnError, hasCode, toWireTimestamp } from '@cairn/base';
import { type RestoreJobRecord, RestoreJobState } from '@cairn/proto/cairn/meta';
import { type RestoreSnapshotInfo, RestoreSnapshotState } from '@cairn/proto/milvus/milvus';
import type { Area } from '../milvus-methods.ts';
import type { ProxyParts } from '../parts.ts';
import { checkCollectionName, checkSeconds, checkSnapshotName } from '../snapshot-rules.ts';
import { notSupported, OK } from '../status.ts';

type SnapshotMethods =
  | 'createSnapshot'
  | 'dropSnapshot'
  | 'listSnapshots'
  | 'describeSnapshot'
  | 'restoreSnapshot'
  | 'getRestoreSnapshotState'
  | 'listRestoreSnapshotJobs'
  | 'pinSnapshotData'
  | 'unpinSnapshotData'
  | 'exportSnapshot'
  | 'getExportSnapshotState'
  | 'restoreExternalSnapshot';

/** Longest protection from compaction that may be asked for: 7 days. */
const MAX_PROTECTION_SECONDS = 604_800;
/** What the Milvus call answers with: names, all at once. */
const ALL_NAMES = { partition: '', pageSize: 0, pageToken: '', all: false, namesOnly: true, bareNames: true, sizes: false } as const;
/** The Milvus call names one collection, source or target. */
const EITHER_SIDE = { sourceDatabase: '', sourceCollection: '', targetDatabase: '', targetCollection: '' } as const;
/** Longest life of a pin: 30 days. */
const MAX_PIN_SECONDS = 2_592_000;

/**
 * Snapshots: the proxy checks what can be checked without the catalog, with Milvus's words; DataCoord does the work. A collection may be named by
 * an alias everywhere.
 */
export function snapshotArea({ coordinator, config, runtime }: ProxyParts): Area<SnapshotMethods> {
  /** Creating and restoring take as long as they take; a repeat of a create says "already exists", so one try gets all the time. */
  const unbounded = Number.POSITIVE_INFINITY;
  return {
    createSnapshot: async (request, context) => {
      const name = checkSnapshotName(request.name);
      requireCollection(request.collectionName, 'create snapshot');
      const seconds = checkSeconds('compaction_protection_seconds', request.compactionProtectionSeconds, MAX_PROTECTION_SECONDS);
      await coordinator.call(
        context,
        (leader, options) =>
          leader.createSnapshot(
            {
              requestId: context.requestId,
              database: context.database(request.dbName),
              collection: request.collectionName,
              name,
              description: request.description,
              compactionProtectionSeconds: seconds,
            },
            options,
          ),
        unbounded,
      );
      return OK;
    },

    dropSnapshot: async (request, context) => {
      const name = checkSnapshotName(request.name);
      requireCollection(request.collectionName, 'drop snapshot');
      const snapshot = { database: context.database(request.dbName), collection: request.collectionName, name, id: 0 };
      await coordinator.call(context, (leader, options) => leader.dropSnapshot(snapshot, options));
      return OK;
    },

    listSnapshots: async (request, context) => {
      requireCollection(request.collectionName, 'ListSnapshots');
      const database = context.database(request.dbName);
      const { names, snapshots } = await coordinator.call(context, (leader, options) =>
        leader.listSnapshots({ ...ALL_NAMES, database, collection: request.collectionName }, options),
      );
      // A coordinator that is older than `bareNames` fills in `snapshots`.
      return { status: OK, snapshots: snapshots.length > 0 ? snapshots.map((snapshot) => snapshot.name) : names };
    },

    describeSnapshot: async (request, context) => {
      const name = checkSnapshotName(request.name);
      requireCollection(request.collectionName, 'describe snapshot');
      const snapshot = { database: context.database(request.dbName), collection: request.collectionName, name, id: 0 };
      const info = await coordinator.call(context, (leader, options) => leader.describeSnapshot(snapshot, options));
      return {
        status: OK,
        name: info.name,
        description: info.description,
        collectionName: info.collection,
        partitionNames: info.partitions,
        createTs: toWireTimestamp(info.ts),
        s3Location: info.location,
      };
    },

    restoreSnapshot: async (request, context) => {
      const name = checkSnapshotName(request.name);
      requireCollection(request.collectionName, 'restore snapshot');
      if (request.targetCollectionName === '') {
        throw new CairnError('MissingParameter', 'target_collection_name is required for restore snapshot');
      }
      checkCollectionName(request.targetCollectionName, config.limits.maxNameLength);
      const database = context.database(request.dbName);
      const { jobId } = await coordinator.call(
        context,
        (leader, options) =>
          leader.restoreSnapshot(
            {
              snapshot: { database, collection: request.collectionName, name, id: 0 },
              targetDatabase: request.targetDbName || database,
              targetCollection: request.targetCollectionName,
              noIndex: false,
              shards: 0,
              rewriteData: request.rewriteData,
              mode: '',
              requestId: context.requestId,
              partitions: [],
            },
            options,
          ),
        unbounded,
      );
      return { status: OK, jobId: BigInt(jobId) };
    },

    getRestoreSnapshotState: async (request, context) => {
      const jobId = Number(request.jobId);
      if (jobId <= 0) throw new CairnError('MissingParameter', 'job_id is required for get restore snapshot state');
      try {
        const job = await coordinator.call(context, (leader, options) => leader.getRestoreJob({ jobId }, options));
        return { status: OK, info: restoreInfo(job, runtime.now()) };
      } catch (error) {
        if (!hasCode(error, 'RestoreJobNotFound')) throw error;
        throw new CairnError('RestoreJobNotFound', `restore job not found: jobID=${jobId}`);
      }
    },

    listRestoreSnapshotJobs: async (request, context) => {
      const { jobs } = await coordinator.call(context, (leader, options) =>
        leader.listRestoreJobs({ ...EITHER_SIDE, database: request.dbName, collection: request.collectionName }, options),
      );
      return { status: OK, jobs: jobs.map((job) => restoreInfo(job, runtime.now())) };
    },

    pinSnapshotData: async (request, context) => {
      const name = checkSnapshotName(request.name);
      requireCollection(request.collectionName, 'pin snapshot data');
      const ttlSeconds = checkSeconds('ttl_seconds', request.ttlSeconds, MAX_PIN_SECONDS);
      const snapshot = { database: context.database(request.dbName), collection: request.collectionName, name, id: 0 };
      const { pinId } = await coordinator.call(context, (leader, options) =>
        leader.pinSnapshot({ snapshot, ttlSeconds, requestId: context.requestId }, options),
      );
      return { status: OK, pinId: BigInt(pinId) };
    },

    unpinSnapshotData: async (request, context) => {
      const pinId = Number(request.pinId);
      if (pinId === 0) throw new CairnError('MissingParameter', 'pin_id is required for unpin snapshot data');
      // An unknown pin is fine; a number that no pin can have is unknown.
      if (pinId < 0 || !Number.isSafeInteger(pinId)) return OK;
      await coordinator.call(context, (leader, options) => leader.unpinSnapshot({ pinId }, options));
      return OK;
    },

    exportSnapshot: async () => {
      throw notSupported('ExportSnapshot');
    },
    getExportSnapshotState: async () => {
      throw notSupported('GetExportSnapshotState');
    },
    restoreExternalSnapshot: async () => {
      throw notSupported('RestoreExternalSnapshot');
    },
  };
}

function requireCollection(name: string, what: string): void {
  if (name === '') throw new CairnError('MissingParameter', `collection_name is required for ${what}`);
}

/** Milvus knows four states and 100 % only at Completed: publishing is still executing, a cancelled job is a failed one. */
const STATES: Readonly<Record<RestoreJobState, RestoreSnapshotState>> = {
  [RestoreJobState.RESTORE_PENDING]: RestoreSnapshotState.RestoreSnapshotPending,
  [RestoreJobState.RESTORE_EXECUTING]: RestoreSnapshotState.RestoreSnapshotExecuting,
  [RestoreJobState.RESTORE_PUBLISHING]: RestoreSnapshotState.RestoreSnapshotExecuting,
  [RestoreJobState.RESTORE_COMPLETED]: RestoreSnapshotState.RestoreSnapshotCompleted,
  [RestoreJobState.RESTORE_FAILED]: RestoreSnapshotState.RestoreSnapshotFailed,
  [RestoreJobState.RESTORE_CANCELLED]: RestoreSnapshotState.RestoreSnapshotFailed,
};

/** A restore job in Milvus's words. `nowMs`: unix ms, for the time that a running job has taken. */
export function restoreInfo(job: RestoreJobRecord, nowMs: number): RestoreSnapshotInfo {
  const endMs = job.endMs > 0 ? job.endMs : Math.max(nowMs, job.startMs);
  return {
    jobId: BigInt(job.id),
    snapshotName: job.snapshotName,
    dbName: job.targetDatabaseName,
    collectionName: job.targetCollectionName,
    state: STATES[job.state],
    progress: restoreProgress(job),
    reason: job.state === RestoreJobState.RESTORE_CANCELLED ? job.reason || 'cancelled' : job.reason,
    startTime: BigInt(job.startMs),
    timeCost: BigInt(endMs - job.startMs),
  };
}

function restoreProgress(job: RestoreJobRecord): number {
  if (job.state === RestoreJobState.RESTORE_COMPLETED) return 100;
  if (job.state === RestoreJobState.RESTORE_PUBLISHING) return 99;
  if (job.totalBytes === 0) return 0;
  return Math.min(99, Math.floor((job.copiedBytes / job.totalBytes) * 100));
}
