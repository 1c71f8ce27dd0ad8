import { CairnError, type Config, PROTOCOL, type Service, Turns } from '@cairn/base';
import { keys, NodeRegistration, requireCompatibleNodes } from '@cairn/catalog';
import { type MetaEntry, scan } from '@cairn/meta';
import { type LeaderRecord, LeaderRecord as LeaderRecordCodec, SegmentRecord, SegmentState } from '@cairn/proto/cairn/meta';
import type { DataCoordDefinition, SubmitRequest, SubmitResponse } from '@cairn/proto/cairn/services';
import type { UpkeepDefinition } from '@cairn/proto/cairn/upkeep';
import type { Handlers } from '@cairn/rpc';
import { ExaminerPool } from '@cairn/segment';
import { snapshotBytes } from './check/snapshot-compare.ts';
import { LeadershipCampaign } from './leadership.ts';
import { type DataCoordSettings, defaultSettings } from './settings.ts';
import { publishedGroups } from './snapshot-capture.ts';
import { type DataCoordResources, LeaderTerm } from './term.ts';
import { upkeepHandlers } from './upkeep.ts';

/** Ids that one call may take. */
const MAX_IDS_PER_CALL = 10_000_000;
/** Threads that read and hash rows, started when there is something to verify. */
const EXAMINERS = 2;
const REGISTER_AGAIN_MS = 500;

/**
 * The coordinator. `handlers` answer while this node leads; a standby answers ServiceNotReady (retriable), naming who leads when it knows.
 */
export class DataCoordService implements Service {
  readonly name = 'datacoord';
  readonly handlers: Handlers<DataCoordDefinition>;
  /** Answers while this node leads, as `handlers`. */
  readonly upkeep: Handlers<UpkeepDefinition>;
  readonly #resources: DataCoordResources;
  readonly #campaign: LeadershipCampaign;
  readonly #stop = new AbortController();
  readonly #examiners: ExaminerPool;
  #term: LeaderTerm | undefined;
  #registration: NodeRegistration | undefined;
  #registering: Promise<void> | undefined;
  #campaigning: Promise<void> | undefined;

  constructor(resources: DataCoordResources) {
    this.#resources = resources;
    this.#examiners = new ExaminerPool(resources.runtime, EXAMINERS);
    const { meta, runtime, logger, nodeId, address, settings } = resources;
    this.#campaign = new LeadershipCampaign({
      meta,
      runtime,
      logger,
      nodeId,
      address,
      leaseTtlMs: settings.leaseTtlMs,
      begin: (leadership) => {
        this.#term = new LeaderTerm({ ...resources, examiners: this.#examiners }, leadership);
        return this.#term;
      },
    });
    this.handlers = this.#makeHandlers();
    this.upkeep = upkeepHandlers(() => this.#leader(), resources.objects, resources.runtime);
  }

  /** Returns at once; the campaign and the registration wait for the store by themselves. */
  async start(): Promise<void> {
    this.#registering = this.#keepRegistered();
    this.#campaigning = this.#campaignWhenFit();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#registration?.stop();
    await Promise.all([this.#campaigning?.then(() => this.#campaign.stop()), this.#registering]);
    await this.#examiners.stop();
  }

  /** A coordinator must not lead nodes that do not understand it. */
  async #campaignWhenFit(): Promise<void> {
    const { meta, runtime, logger, nodeId, protocol = PROTOCOL } = this.#resources;
    while (!this.#stop.signal.aborted) {
      try {
        await requireCompatibleNodes(meta, protocol);
        return await this.#campaign.start();
      } catch (error) {
        logger.warn({ error, nodeId }, 'the coordinator does not stand for election yet');
        await runtime.sleep(REGISTER_AGAIN_MS, this.#stop.signal).catch(() => undefined);
      }
    }
  }

  /** Under `node/datacoord/`, leader and standbys alike. A coordinator owns nothing by its node key, so a lost one is simply made again. */
  async #keepRegistered(): Promise<void> {
    const { meta, runtime, logger, nodeId, address, settings } = this.#resources;
    const record = { id: nodeId, role: 'datacoord', address, slots: 0 };
    while (!this.#stop.signal.aborted) {
      const registration = new NodeRegistration({ meta, runtime, logger, ttlMs: settings.leaseTtlMs, record });
      this.#registration = registration;
      try {
        await registration.start();
        await aborted(registration.lost);
      } catch (error) {
        if (this.#stop.signal.aborted) return;
        logger.warn({ error, nodeId }, 'the coordinator could not register');
      }
      await runtime.sleep(REGISTER_AGAIN_MS, this.#stop.signal).catch(() => undefined);
    }
  }

  /** True while this node leads and serves. */
  get leading(): boolean {
    return this.#term?.serving ?? false;
  }

  /** The term, from when it gives out timestamps and ids: a fail-over holds up writes no longer than that. */
  #stamping(): LeaderTerm {
    const term = this.#term;
    if (!term?.stamping) throw new CairnError('ServiceNotReady', `coordinator ${this.#resources.nodeId} does not lead now`);
    return term;
  }

  #leader(): LeaderTerm {
    const term = this.#term;
    if (!term?.serving) throw new CairnError('ServiceNotReady', `coordinator ${this.#resources.nodeId} does not lead now`);
    return term;
  }

  async #submit(request: SubmitRequest): Promise<SubmitResponse> {
    const { record } = request;
    const change = record?.change;
    if (!record || !change) throw new CairnError('InvalidParameter', 'a submitted message has no change');
    if (change.$case === 'createSnapshot' || change.$case === 'restoreSnapshot') {
      throw new CairnError('InvalidParameter', `${change.$case} goes by its own call, not by Submit`);
    }
    return this.#leader().control.submit(record.requestId, change);
  }

  #makeHandlers(): Handlers<DataCoordDefinition> {
    return {
      submit: (request) => this.#submit(request),
      allocTimestamps: async ({ count }) => ({ first: await this.#stamping().oracle.allocate(count) }),
      allocIds: async ({ count }) => {
        if (count < 1 || count > MAX_IDS_PER_CALL)
          throw new CairnError('InvalidParameter', `id count ${count} is out of range 1..${MAX_IDS_PER_CALL}`);
        return { first: await this.#stamping().ids.allocate(count) };
      },
      createSnapshot: async (request) => this.#leader().snapshots.create(request),
      dropSnapshot: async (request) => {
        await this.#leader().snapshots.drop(request);
        return {};
      },
      listSnapshots: async (request) => {
        const term = this.#leader();
        const sizes = request.sizes ? await snapshotBytes(await term.references.read(), new Turns(this.#resources.runtime)) : undefined;
        return term.snapshots.catalog.list(request, sizes);
      },
      describeSnapshot: async (request) => this.#leader().snapshots.describe(request),
      pinSnapshot: async ({ snapshot, ttlSeconds, requestId }) => {
        if (!snapshot) throw new CairnError('MissingParameter', 'pin without a snapshot');
        const { snapshots, pins } = this.#leader();
        return { pinId: await pins.pinOnce(requestId, snapshots.committed(snapshot).id, ttlSeconds) };
      },
      unpinSnapshot: async ({ pinId }) => {
        await this.#leader().snapshots.unpin(pinId);
        return {};
      },
      restoreSnapshot: async (request) => ({ jobId: await this.#leader().restores.start(request) }),
      planRestore: (request) => this.#leader().restores.plan(request),
      cancelRestoreJob: ({ jobId }) => this.#leader().restores.cancel(jobId),
      getRestoreJob: async ({ jobId }) => this.#leader().restores.job(jobId),
      listRestoreJobs: async (request) => ({ jobs: this.#leader().restores.list(request) }),
      compact: async (request) => this.#leader().compactor.begin(request),
      getCompaction: async ({ jobId }) => this.#leader().compactor.job(jobId),
      getIndexProgress: async ({ collectionId }) => ({ indexes: this.#leader().indexes.progress(collectionId) }),
      listSegments: async ({ collectionId }) => ({ segments: await this.#segments(collectionId) }),
      getClusterStatus: async () => {
        const term = this.#leader();
        const { nodeId, address } = this.#resources;
        return {
          nodes: term.nodes.all(),
          channels: term.channels.records(),
          leader: { nodeId, address, epoch: term.epoch },
          certificateKey: await term.drills.publicKey(),
        };
      },
    };
  }

  /** Sealed segments of a collection that are not dropped and not of an unfinished restore. */
  async #segments(collectionId: number): Promise<SegmentRecord[]> {
    const { meta } = this.#resources;
    const partitions = new Set(
      this.#leader()
        .store.state.partitionsOf(collectionId)
        .map((partition) => partition.id),
    );
    const groups: MetaEntry[] = [];
    for await (const page of scan(meta, keys.groups)) groups.push(...page);
    const published = publishedGroups(groups);
    const segments: SegmentRecord[] = [];
    for await (const page of scan(meta, keys.segments(collectionId))) {
      for (const entry of page) {
        const record = SegmentRecord.decode(entry.value);
        if (record.state === SegmentState.SEGMENT_SEALED && partitions.has(record.partitionId) && published.has(record.group))
          segments.push(record);
      }
    }
    return segments;
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

/** Who leads, as everybody sees it; undefined while nobody does. */
export async function readLeader(resources: Pick<DataCoordResources, 'meta'>): Promise<LeaderRecord | undefined> {
  const entry = await resources.meta.get(keys.leader);
  return entry && LeaderRecordCodec.decode(entry.value);
}

/** Settings of the coordinator out of the configuration. */
export function dataCoordSettings(config: Config): DataCoordSettings {
  return {
    ...defaultSettings,
    leaseTtlMs: config.node.leaseTtlMs,
    channels: config.wal.channels,
    resultRetentionMs: config.control.resultRetentionMs,
    snapshotTimeoutMs: config.snapshot.timeoutMs,
    snapshotOnCollectionDrop: config.snapshot.onCollectionDrop,
    restoreMaxJobs: config.restore.maxJobs,
    restoreMaxJobsPerCollection: config.restore.maxJobsPerCollection,
    restoreJobTimeoutMs: config.restore.jobTimeoutMs,
    restoreJobRetentionMs: config.restore.jobRetentionMs,
    restoreMode: config.restore.mode,
    scrubIntervalMs: config.scrub.intervalMs,
    scrubBytesPerSecond: config.scrub.bytesPerSecond,
    compactionEnabled: config.compaction.enabled,
    compactionIntervalMs: config.compaction.intervalMs,
    compactionTargetBytes: config.compaction.targetBytes,
    compactionMinSegments: config.compaction.minSegments,
    compactionMaxSegments: config.compaction.maxSegments,
    compactionDeletedPercent: config.compaction.deletedPercent,
    compactionRetentionMs: config.compaction.retentionMs,
    compactionTtlGraceMs: config.compaction.ttlGraceMs,
    compactionTasksPerNode: config.compaction.tasksPerNode,
    compactionJobRetentionMs: config.compaction.jobRetentionMs,
    gcGraceMs: config.gc.graceMs,
    gcIntervalMs: config.gc.intervalMs,
    gcOrphanMs: Math.max(config.gc.orphanMs, config.gc.graceMs),
    manifestConcurrency: config.snapshot.manifestConcurrency,
  };
}
