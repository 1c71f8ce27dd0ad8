import { asCairnError, CairnError, type Logger, type ProtocolRange, type Runtime, randomId } from '@cairn/base';
import { IdAllocator, keys } from '@cairn/catalog';
import type { Leadership, MetaStore } from '@cairn/meta';
import type { ObjectStore } from '@cairn/objects';
import { LeaderRecord } from '@cairn/proto/cairn/meta';
import type { Transport } from '@cairn/rpc';
import type { ExaminerPool } from '@cairn/segment';
import type { WalStore } from '@cairn/wal';
import { DEFAULT_DATABASE } from './catalog-state.ts';
import { ChangePreparer, type Ids } from './change-preparer.ts';
import { ChannelAssigner } from './channel-assigner.ts';
import { ConsistencyChecker } from './check/consistency-checker.ts';
import { SnapshotVerifier } from './check/snapshot-verifier.ts';
import { CollectionRemoval } from './collection-removal.ts';
import { CompactionRules } from './compaction/compaction-rules.ts';
import { Compactor } from './compaction/compactor.ts';
import { ControlApplier } from './control-applier.ts';
import { ControlChannel } from './control-channel.ts';
import { DrillManager } from './drill-manager.ts';
import { DropFollower } from './drop-follower.ts';
import { BucketIdentity } from './gc/bucket-identity.ts';
import { GarbageCollector } from './gc/garbage-collector.ts';
import { GarbagePlanner } from './gc/garbage-plan.ts';
import { ReferenceReader } from './gc/references.ts';
import { SnapshotReferences } from './gc/snapshot-references.ts';
import { IndexBuilder } from './index-builder.ts';
import { LeaderStore } from './leader-store.ts';
import type { Term } from './leadership.ts';
import { NodeDirectory } from './node-directory.ts';
import { Periodic } from './periodic.ts';
import { PinBoard } from './pin-board.ts';
import { PrefixSweeper } from './prefix-sweeper.ts';
import { RestoreManager } from './restore-manager.ts';
import type { DataCoordSettings } from './settings.ts';
import { SnapshotManager } from './snapshot-manager.ts';
import { recordCounts } from './snapshot-metrics.ts';
import { SnapshotScrubber } from './snapshot-scrubber.ts';
import { TaskRunner } from './task-runner.ts';
import { TimestampOracle } from './timestamp-oracle.ts';

/** What a coordinator is given; the same for all of its terms. */
export interface DataCoordResources {
  readonly meta: MetaStore;
  readonly objects: ObjectStore;
  readonly wal: WalStore;
  readonly transport: Transport;
  readonly runtime: Runtime;
  readonly logger: Logger;
  readonly settings: DataCoordSettings;
  /** Versions that it speaks; default: this program's. */
  readonly protocol?: ProtocolRange;
  readonly nodeId: string;
  readonly address: string;
}

export interface TermResources extends DataCoordResources {
  /** Threads that hash rows; the service's. */
  readonly examiners: ExaminerPool;
}

/** Id of the database that every cluster has. */
const DEFAULT_DATABASE_ID = 1;
/** Ids reserved at once; proxies take them in batches for auto ids. */
const ID_BATCH = 10_000;

/** Everything that exists only while this node leads. Made anew for each leadership; nothing of it outlives the term. */
export class LeaderTerm implements Term {
  readonly over: Promise<string>;
  readonly store: LeaderStore;
  readonly oracle: TimestampOracle;
  readonly ids: Ids;
  readonly nodes: NodeDirectory;
  readonly channels: ChannelAssigner;
  readonly applier: ControlApplier;
  readonly pins: PinBoard;
  readonly prefixes: PrefixSweeper;
  readonly tasks: TaskRunner;
  readonly identity: BucketIdentity;
  readonly snapshotReferences: SnapshotReferences;
  readonly references: ReferenceReader;
  readonly planner: GarbagePlanner;
  readonly garbage: GarbageCollector;
  readonly checker: ConsistencyChecker;
  readonly verifier: SnapshotVerifier;
  #control: ControlChannel | undefined;
  #snapshots: SnapshotManager | undefined;
  #restores: RestoreManager | undefined;
  #drills: DrillManager | undefined;
  #indexes: IndexBuilder | undefined;
  #removals: CollectionRemoval | undefined;
  #compactor: Compactor | undefined;
  #epoch = 0;
  #stamping = false;
  #serving = false;
  readonly #resources: TermResources;
  readonly #leadership: Leadership;
  readonly #abort = new AbortController();
  readonly #end: (reason: string) => void;

  constructor(resources: TermResources, leadership: Leadership) {
    const over = Promise.withResolvers<string>();
    this.over = over.promise;
    this.#end = over.resolve;
    this.#resources = resources;
    this.#leadership = leadership;
    const { meta, wal, transport, runtime, logger, settings, objects } = resources;
    const stop = this.#abort.signal;
    this.store = new LeaderStore(meta, leadership, runtime, logger, stop, (reason) =>
      this.#fail(new CairnError('ServiceNotReady', reason)),
    );
    this.oracle = new TimestampOracle(this.store, leadership, runtime, logger);
    const allocator = new IdAllocator(meta, { batch: ID_BATCH, only: () => [leadership.holds] });
    this.ids = { allocate: (count) => this.store.retrying(() => allocator.allocate(count)) };
    this.nodes = new NodeDirectory(meta, runtime, logger, stop);
    this.channels = new ChannelAssigner(this.store, wal, this.nodes, transport, settings, runtime, logger, stop);
    this.applier = new ControlApplier(this.store, this.oracle, runtime, logger, settings);
    this.pins = new PinBoard(this.store, this.ids, runtime);
    this.prefixes = new PrefixSweeper(this.store, objects, runtime, logger, settings, stop);
    this.tasks = new TaskRunner(this.nodes, transport, runtime, logger, settings, stop);
    const { store, prefixes } = this;
    this.identity = new BucketIdentity(store, objects, runtime);
    this.snapshotReferences = new SnapshotReferences(store, objects);
    this.references = new ReferenceReader(store, this.snapshotReferences, runtime);
    const { gcGraceMs: graceMs, gcOrphanMs: orphanMs } = settings;
    this.planner = new GarbagePlanner({ store, objects, references: this.references, runtime, graceMs, orphanMs });
    const { identity, references, planner } = this;
    prefixes.permit(() => identity.require());
    this.garbage = new GarbageCollector({ store, runtime, logger, settings, identity, planner, references, prefixes, stop });
    const { snapshotReferences } = this;
    this.verifier = new SnapshotVerifier({ objects, runtime, pool: resources.examiners });
    this.checker = new ConsistencyChecker({
      store,
      objects,
      runtime,
      settings,
      identity,
      planner,
      snapshotReferences,
      pool: resources.examiners,
    });
  }

  /** A part of the term, once it serves. */
  get control(): ControlChannel {
    return this.#part(this.#control);
  }
  get snapshots(): SnapshotManager {
    return this.#part(this.#snapshots);
  }
  get restores(): RestoreManager {
    return this.#part(this.#restores);
  }
  get drills(): DrillManager {
    return this.#part(this.#drills);
  }
  get indexes(): IndexBuilder {
    return this.#part(this.#indexes);
  }
  get compactor(): Compactor {
    return this.#part(this.#compactor);
  }
  get serving(): boolean {
    return this.#serving && !this.#abort.signal.aborted;
  }
  /** Timestamps and ids are given out; from before the term serves. */
  get stamping(): boolean {
    return this.#stamping && !this.#abort.signal.aborted;
  }
  get epoch(): number {
    return this.#epoch;
  }

  #part<T>(part: T | undefined): T {
    if (part === undefined) throw new CairnError('ServiceNotReady', 'the leading coordinator is starting');
    return part;
  }

  async start(): Promise<void> {
    try {
      await this.#start();
    } catch (error) {
      this.#fail(error);
    }
  }

  async #start(): Promise<void> {
    const { wal, runtime, logger, settings } = this.#resources;
    const stop = this.#abort.signal;
    const electedMs = runtime.monotonic();
    this.#epoch = await this.#begin();
    // Writes wait for stamps and ids alone: both are greater than any before, whatever of the catalog is still to be read.
    this.#stamping = true;
    await this.store.load();
    await this.applier.load();
    await this.nodes.start();
    const preparer = new ChangePreparer(this.store.state, this.ids, this.channels, wal, runtime, settings);
    const failed = (error: unknown) => this.#fail(error);
    const control = new ControlChannel({
      wal,
      epoch: this.#epoch,
      applier: this.applier,
      preparer,
      runtime,
      logger,
      settings,
      stop,
      failed,
    });
    await control.start();
    await this.store.retrying(() => this.channels.start());
    this.#control = control;
    await this.#bootstrap(control);
    const clusterId = await this.#clusterId();
    const parts = { ...this.#resources, settings: { ...settings, clusterId }, store: this.store, ids: this.ids, control, stop };
    this.#indexes = new IndexBuilder({ ...parts, tasks: this.tasks });
    this.#snapshots = new SnapshotManager({
      ...parts,
      applier: this.applier,
      channels: this.channels,
      pins: this.pins,
      prefixes: this.prefixes,
    });
    this.#restores = new RestoreManager({
      ...parts,
      applier: this.applier,
      snapshots: this.#snapshots,
      pins: this.pins,
      prefixes: this.prefixes,
      tasks: this.tasks,
      epoch: this.#epoch,
    });
    this.#removals = new CollectionRemoval(this.store, this.applier, runtime, logger, settings);
    const drops = new DropFollower(this.store, this.#snapshots, this.#restores, runtime, logger, settings, stop);
    const { indexes, restores } = this;
    this.applier.onApplied((change) => {
      if (change.$case === 'dropCollection' || change.$case === 'dropPartition' || change.$case === 'dropIndex') drops.poke();
      indexes.poke();
    });
    restores.onPublished(() => indexes.poke());
    await this.#indexes.start();
    this.#compactor = new Compactor({
      ...parts,
      applier: this.applier,
      tasks: this.tasks,
      prefixes: this.prefixes,
      rules: new CompactionRules(this.store, this.snapshotReferences, parts.runtime, parts.settings.compactionTtlGraceMs),
      segments: this.#indexes.segments,
    });
    await this.#compactor.start();
    this.#snapshots.resume();
    this.#restores.resume();
    this.#drills = new DrillManager({
      ...parts,
      channels: this.channels,
      oracle: this.oracle,
      pins: this.pins,
      snapshots: this.#snapshots,
      restores: this.#restores,
      verifier: this.verifier,
    });
    this.#drills.resume();
    drops.poke();
    new Periodic('garbage collection', settings.gcIntervalMs, () => this.garbage.round(), runtime, logger, stop).poke();
    const scrubber = new SnapshotScrubber({ ...parts, pins: this.pins, verifier: this.verifier });
    new Periodic('scrub', settings.scrubPeriodMs, () => scrubber.round(), runtime, logger, stop).poke();
    new Periodic('sweep', settings.sweepPeriodMs, () => this.#sweep(), runtime, logger, stop).poke();
    this.#serving = true;
    const tookMs = Math.round(runtime.monotonic() - electedMs);
    logger.info({ nodeId: this.#resources.nodeId, epoch: this.#epoch, tookMs }, 'leading coordinator');
  }

  /**
   * Raises the epoch, in every term: the control channel is fenced with it, and tasks of earlier leaders are told apart by it. The first limit of
   * the timestamps goes with it in one transaction: everybody who writes waits for that.
   */
  async #begin(): Promise<number> {
    const { nodeId, address } = this.#resources;
    const readEpoch = () => this.store.retrying(() => this.store.meta.get(keys.controlEpoch));
    for (;;) {
      const [entry] = await Promise.all([readEpoch(), this.oracle.load()]);
      const { limit, put } = this.oracle.firstLimit();
      const epoch = (entry ? Number(Buffer.from(entry.value).toString()) : 0) + 1;
      const revision = await this.store.commit({
        if: [{ kind: 'modRevision', key: keys.controlEpoch, equals: entry?.modRevision ?? 0 }],
        puts: [
          { key: keys.controlEpoch, value: Buffer.from(epoch.toString()) },
          { key: this.#leadership.key, value: LeaderRecord.encode({ nodeId, address, epoch }).finish(), lease: this.#leadership.lease.id },
          put,
        ],
      });
      if (revision === undefined) continue;
      this.oracle.start(limit);
      return epoch;
    }
  }

  async #bootstrap(control: ControlChannel): Promise<void> {
    if (this.store.state.hasDatabase(DEFAULT_DATABASE)) return;
    const value = { name: DEFAULT_DATABASE, id: DEFAULT_DATABASE_ID, properties: [] };
    await control.submit('bootstrap-default-database', { $case: 'createDatabase', value });
  }

  /** Identity of the catalog, made once; manifests carry it. */
  async #clusterId(): Promise<string> {
    const key = keys.clusterIdentity;
    const entry = await this.store.retrying(() => this.store.meta.get(key));
    if (entry) return Buffer.from(entry.value).toString();
    const id = randomId(this.#resources.runtime);
    await this.store.mustCommit({ if: [{ kind: 'missing', key }], puts: [{ key, value: Buffer.from(id) }] });
    return id;
  }

  async #sweep(): Promise<void> {
    await this.applier.sweepResults(await this.oracle.allocate(1));
    recordCounts(this.store.state, this.#resources.runtime.now());
    await this.pins.sweep();
    await this.snapshots.sweep();
    await this.restores.sweep();
    await this.drills.sweep();
    await this.prefixes.sweep();
    await this.#removals?.sweep();
  }

  #fail(error: unknown): void {
    if (this.#abort.signal.aborted) return;
    this.#resources.logger.warn({ error, epoch: this.#epoch }, 'this term of the coordinator ends');
    this.#end(asCairnError(error).message);
    this.#abort.abort();
  }

  async stop(reason: string): Promise<void> {
    this.#end(reason);
    this.#serving = false;
    this.#abort.abort();
    this.oracle.stop();
  }
}
