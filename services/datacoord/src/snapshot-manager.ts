import {
  asCairnError,
  CairnError,
  codeNameOf,
  type Deferred,
  deferred,
  isRetriable,
  type Logger,
  REQUEST_ENDED,
  type Runtime,
  randomId,
  retry,
  Turns,
} from '@cairn/base';
import { keys, nextSnapshotState, paths } from '@cairn/catalog';
import type { ObjectStore } from '@cairn/objects';
import { CollectionState, SnapshotDefinition, SnapshotRecord, SnapshotState } from '@cairn/proto/cairn/meta';
import type { CreateSnapshotRequest, CreateSnapshotResponse, SnapshotInfo, SnapshotName } from '@cairn/proto/cairn/services';
import type { Transport } from '@cairn/rpc';
import { readSnapshot, type SnapshotContent, writeSnapshot, writeTombstone } from '@cairn/segment';
import { withSpan } from '@cairn/telemetry';
import type { Held } from './catalog-state.ts';
import type { Ids } from './change-preparer.ts';
import { putRecord } from './changes/change.ts';
import { checkSnapshotName } from './changes/snapshot.ts';
import type { ChannelAssigner } from './channel-assigner.ts';
import type { ControlApplier } from './control-applier.ts';
import type { ControlChannel } from './control-channel.ts';
import type { LeaderStore } from './leader-store.ts';
import type { PinBoard } from './pin-board.ts';
import type { PrefixSweeper } from './prefix-sweeper.ts';
import type { DataCoordSettings } from './settings.ts';
import { runBarrier } from './snapshot-barrier.ts';
import { captureSnapshot } from './snapshot-capture.ts';
import { type KeptBytes, SnapshotList } from './snapshot-list.ts';
import { type CreatePhase, recordPhase } from './snapshot-metrics.ts';

export interface SnapshotManagerOptions {
  readonly store: LeaderStore;
  readonly objects: ObjectStore;
  readonly transport: Transport;
  readonly runtime: Runtime;
  readonly logger: Logger;
  readonly settings: DataCoordSettings;
  readonly ids: Ids;
  readonly control: ControlChannel;
  readonly applier: ControlApplier;
  readonly channels: ChannelAssigner;
  readonly pins: PinBoard;
  readonly prefixes: PrefixSweeper;
  readonly stop: AbortSignal;
}

/** What its metadata says in all. */
interface SnapshotFigures {
  readonly rows: number;
  readonly bytes: number;
  readonly segments: number;
  readonly content?: SnapshotContent;
}

/** A PENDING snapshot that is being driven to its end. */
interface Drive {
  readonly outcome: Deferred<SnapshotRecord>;
  readonly cancel: AbortController;
}

/** Between tries of what must happen sooner or later (aborting, cleaning) while a store is away. */
const PATIENT = { attempts: Number.POSITIVE_INFINITY, firstDelayMs: 100, maxDelayMs: 5_000, retriable: isRetriable };

/**
 * The life of snapshots after their control message: barrier, capture, manifests, COMMITTED; or tombstone, FAILED, gone. One decider over two
 * stores: whoever ends a PENDING snapshot writes its metadata key first, by put-if-absent.
 */
export class SnapshotManager {
  readonly #options: SnapshotManagerOptions;
  readonly #drives = new Map<number, Drive>();
  readonly #removing = new Set<number>();
  /** DELETING ones whose objects went in this term, while a write of them may still come. */
  readonly #emptied = new Set<number>();

  /** What lists and descriptions say. */
  readonly catalog: SnapshotList;

  constructor(options: SnapshotManagerOptions) {
    this.#options = options;
    const { store, objects, pins, runtime } = options;
    this.catalog = new SnapshotList({ state: store.state, objects, pins, runtime });
  }

  /** Takes over what an earlier leader left: a PENDING one is rolled forward when its metadata is there, else aborted. */
  resume(): void {
    for (const record of [...this.#options.store.state.snapshotIndex.unsettled()]) {
      if (record.state !== SnapshotState.SNAPSHOT_PENDING || this.#drives.has(record.id)) continue;
      const interrupted = new CairnError('Unavailable', 'the coordinator changed while the snapshot was being made');
      this.#begin(record, async () => Promise.reject(interrupted));
    }
  }

  /** Answers when COMMITTED; throws the reason when it failed. A repeat under the same request id waits for the same snapshot. */
  async create(request: CreateSnapshotRequest): Promise<CreateSnapshotResponse> {
    const { control, runtime, store } = this.#options;
    const requestId = request.requestId === '' ? randomId(runtime) : request.requestId;
    const { database, collection, name, description, compactionProtectionSeconds } = request;
    checkSnapshotName(name);
    const value = { database, collection, id: 0, name, description, compactionProtectionSeconds };
    const begun = runtime.monotonic();
    const { id, ts } = await withSpan('control createSnapshot', { snapshot: name, collection }, () =>
      control.submit(requestId, { $case: 'createSnapshot', value }),
    );
    recordPhase('control', runtime.monotonic() - begun);
    const record = store.state.snapshots.get(id);
    // Made, and dropped since: a failure would have been the answer above.
    if (!record) return { id, ts };
    if (record.state === SnapshotState.SNAPSHOT_PENDING) {
      await this.#drive(record).outcome.promise;
      recordPhase('total', runtime.monotonic() - begun);
    } else if (record.state === SnapshotState.SNAPSHOT_FAILED) throw failure(record);
    return { id, ts };
  }

  #drive(record: SnapshotRecord): Drive {
    return this.#drives.get(record.id) ?? this.#begin(record, (signal) => this.#make(record, signal));
  }

  #begin(record: SnapshotRecord, work: (signal: AbortSignal) => Promise<SnapshotRecord>): Drive {
    const { runtime, stop, logger } = this.#options;
    const drive: Drive = { outcome: deferred(), cancel: new AbortController() };
    this.#drives.set(record.id, drive);
    const end = () => drive.cancel.abort(new CairnError('ServiceNotReady', 'this coordinator no longer leads'));
    stop.addEventListener('abort', end, { once: true });
    const timer = runtime.after(Math.max(0, record.deadlineMs - runtime.now()), () =>
      drive.cancel.abort(new CairnError('Timeout', `snapshot ${record.name} was not complete within its time limit`)),
    );
    work(drive.cancel.signal)
      .catch((error: unknown) => this.#abort(record.id, reasonOf(drive.cancel.signal, error)))
      .then(drive.outcome.resolve, (error: unknown) => {
        if (!stop.aborted) logger.warn({ error, snapshot: record.name, id: record.id }, 'snapshot failed');
        drive.outcome.reject(error);
      })
      .finally(() => {
        timer.cancel();
        stop.removeEventListener('abort', end);
        this.#drives.delete(record.id);
      });
    return drive;
  }

  async #make(record: SnapshotRecord, signal: AbortSignal): Promise<SnapshotRecord> {
    const { objects, store, runtime, settings } = this.#options;
    const definition = SnapshotDefinition.decode(record.definition);
    if (!definition.collection) throw new CairnError('Internal', `snapshot ${record.id} has no definition of its collection`);
    const { collection } = definition;
    await this.#phase('barrier', { id: record.id, ts: record.ts, shards: collection.shards.length }, () =>
      untilAborted(signal, runBarrier(record, collection, this.#options, signal)),
    );
    const policy = { attempts: Number.POSITIVE_INFINITY, firstDelayMs: 25, maxDelayMs: 1_000 };
    const turns = new Turns(runtime);
    const written = await untilAborted(
      signal,
      retry(
        runtime,
        policy,
        async () => {
          const contents = await this.#phase('capture', { id: record.id }, () => captureSnapshot(store.meta, record.ts, definition, turns));
          if (signal.aborted) throw asCairnError(signal.reason);
          return this.#phase('manifests', { id: record.id, segments: contents.segments.length }, () =>
            writeSnapshot(objects, {
              record,
              definition,
              contents,
              clusterId: settings.clusterId,
              turns,
              parallel: settings.manifestConcurrency,
            }),
          );
        },
        signal,
      ),
    );
    if (written.outcome === 'aborted') throw new CairnError('Unavailable', `snapshot ${record.name} was aborted by another coordinator`);
    return this.#phase('commit', { id: record.id }, () => this.#commit(record.id, written));
  }

  /** One part of a create: a span, and its time. */
  async #phase<T>(phase: CreatePhase, attributes: Record<string, number>, work: () => Promise<T>): Promise<T> {
    const { runtime } = this.#options;
    const begun = runtime.monotonic();
    const result = await withSpan(`snapshot ${phase}`, attributes, work);
    recordPhase(phase, runtime.monotonic() - begun);
    return result;
  }

  /** PENDING → COMMITTED, once the metadata is there. */
  async #commit(id: number, totals: SnapshotFigures): Promise<SnapshotRecord> {
    const held = this.#pending(id);
    const { rows, bytes, segments, content } = totals;
    // Its deadline from now on: when its last write was given up, at the latest.
    const deadlineMs = this.#options.runtime.now();
    const record: SnapshotRecord = {
      ...held.record,
      state: after(held.record, 'commit'),
      rows,
      bytes,
      segments,
      deadlineMs,
      contentHash: content?.stored ?? '',
      visibleRows: content?.visible ? content.visibleRows : 0,
      visibleHash: content?.visible ?? '',
    };
    await this.#options.store.mustCommit({
      if: [{ kind: 'modRevision', key: held.key, equals: held.revision }],
      puts: [putRecord(held.key, SnapshotRecord, record)],
    });
    this.#options.logger.info({ snapshot: record.name, id, rows, bytes, segments, ts: record.ts }, 'snapshot committed');
    return record;
  }

  #pending(id: number): Held<SnapshotRecord> {
    const held = this.#options.store.state.snapshots.held(id);
    if (held?.record.state !== SnapshotState.SNAPSHOT_PENDING) throw new CairnError('Internal', `snapshot ${id} is not PENDING any more`);
    return held;
  }

  /** Tombstone first. Metadata that stands there already wins: then the snapshot is rolled forward and returned. Throws the reason otherwise. */
  async #abort(id: number, reason: CairnError): Promise<SnapshotRecord> {
    const { objects, runtime, store, settings, stop, prefixes, applier } = this.#options;
    if (stop.aborted) throw reason;
    const { collectionId, metadataKey } = this.#pending(id).record;
    const decided = await retry(
      runtime,
      PATIENT,
      () => writeTombstone(objects, { collectionId, snapshotId: id, reason: reason.message }),
      stop,
    );
    if (decided === 'committed') {
      const bundle = await retry(runtime, PATIENT, () => readSnapshot(objects, metadataKey, { withSegments: false }), stop);
      return this.#commit(id, { ...bundle, segments: bundle.segmentCount });
    }
    const held = this.#pending(id);
    // From now on its deadline says when the tombstone and what was written may go.
    const failed: SnapshotRecord = {
      ...held.record,
      state: after(held.record, 'fail'),
      reason: reason.message,
      reasonCode: reason.code,
      deadlineMs: runtime.now() + settings.gcGraceMs,
    };
    // In one transaction: a repeat hears of the failure for as long as answers are kept, whatever becomes of the record.
    const answer = applier.amendment(failed.requestId, failure(failed));
    await store.mustCommit({
      if: [{ kind: 'modRevision', key: held.key, equals: held.revision }],
      puts: [putRecord(held.key, SnapshotRecord, failed), ...(answer ? [answer.put] : [])],
    });
    answer?.done();
    await prefixes.markDead(paths.snapshotManifests(collectionId, id));
    throw failure(failed);
  }

  /** Fails the PENDING snapshots of a collection that was dropped, and drops its unpinned ones unless they are to be retained. */
  async collectionDropped(collectionId: number): Promise<void> {
    for (const record of [...this.#options.store.state.snapshotIndex.of(collectionId)]) {
      if (record.state === SnapshotState.SNAPSHOT_PENDING) {
        this.#drives.get(record.id)?.cancel.abort(new CairnError('CollectionNotFound', 'its collection was dropped'));
      } else if (record.state === SnapshotState.SNAPSHOT_COMMITTED && this.#options.settings.snapshotOnCollectionDrop === 'cascade') {
        await this.#dropUnlessPinned(record);
      }
    }
  }

  /** Durable when it resolves; the objects follow. A missing snapshot is fine, a missing collection and a pinned snapshot are not. */
  async drop(request: SnapshotName): Promise<void> {
    const record = this.#find(request);
    if (record && !(await this.#dropUnlessPinned(record))) {
      throw new CairnError('SnapshotPinned', `active pins exist, unpin before dropping: snapshot is pinned[snapshot=${record.name}]`);
    }
  }

  /** False when pins hold it. */
  #dropUnlessPinned(record: SnapshotRecord): Promise<boolean> {
    const { pins, store } = this.#options;
    return pins.exclusively(record.id, async () => {
      const held = store.state.snapshots.held(record.id);
      if (held?.record.state !== SnapshotState.SNAPSHOT_COMMITTED) return true;
      if (pins.of(record.id).length > 0) return false;
      const deleting: SnapshotRecord = { ...held.record, state: after(held.record, 'drop') };
      await store.mustCommit({
        if: [{ kind: 'modRevision', key: held.key, equals: held.revision }],
        puts: [putRecord(held.key, SnapshotRecord, deleting)],
      });
      this.#remove(deleting);
      return true;
    });
  }

  /** Objects first, the record last. Goes on until done, or the next sweep takes it up again. */
  #remove(record: SnapshotRecord): void {
    const early = this.#writesMayCome(record);
    if (this.#removing.has(record.id) || (early && this.#emptied.has(record.id))) return;
    this.#removing.add(record.id);
    const { objects, prefixes, store, runtime, logger, stop } = this.#options;
    const prefix = paths.snapshotManifests(record.collectionId, record.id);
    const work = async (): Promise<void> => {
      await prefixes.markDead(prefix);
      await prefixes.deleteObjects(prefix);
      await objects.delete([record.metadataKey]);
      this.#emptied.add(record.id);
      if (early) return;
      this.#emptied.delete(record.id);
      const expired = [...store.state.pinsOf(record.id)].map((pin) => keys.pin(record.id, pin.id));
      await store.mustCommit({
        deletes: [
          keys.snapshot(record.collectionId, record.id),
          keys.snapshotHealth(record.id),
          keys.prefix(prefix),
          ...expired.slice(0, 90),
        ],
      });
    };
    retry(runtime, PATIENT, work, stop)
      .catch((error: unknown) => {
        if (!stop.aborted)
          logger.warn({ error, snapshot: record.name, id: record.id }, 'removing a snapshot failed; the next sweep tries again');
      })
      .finally(() => this.#removing.delete(record.id));
  }

  /**
   * A write of a manifest or of the metadata that was given up and tried again may still reach the store: until the grace time after the create
   * has passed the record stays, and the objects are deleted once more at its end.
   */
  #writesMayCome({ state, deadlineMs }: SnapshotRecord): boolean {
    const { runtime, settings } = this.#options;
    return state === SnapshotState.SNAPSHOT_DELETING && deadlineMs + settings.gcGraceMs > runtime.now();
  }

  /** Finishes what is left to remove: DELETING, FAILED after its grace time, unpinned ones of dropped collections. */
  async sweep(): Promise<void> {
    const { store, runtime, settings } = this.#options;
    for (const record of [...store.state.snapshotIndex.unsettled()]) {
      const graceOver = record.deadlineMs <= runtime.now();
      if (record.state === SnapshotState.SNAPSHOT_DELETING) this.#remove(record);
      else if (record.state === SnapshotState.SNAPSHOT_FAILED && graceOver) this.#remove(record);
    }
    if (settings.snapshotOnCollectionDrop !== 'cascade') return;
    for (const id of [...store.state.snapshotIndex.collections()]) {
      const collection = store.state.collections.get(id);
      if (!collection || collection.state === CollectionState.COLLECTION_DROPPED) await this.collectionDropped(id);
    }
  }

  async unpin(pinId: number): Promise<void> {
    await this.#options.pins.unpin(pinId);
  }

  /** The COMMITTED snapshot of that name, or of that id; "not found" otherwise. */
  committed(name: SnapshotName): SnapshotRecord {
    const record = this.#find(name);
    if (record) return record;
    const wanted = name.id > 0 ? `[id=${name.id}]` : `[snapshot=${name.name.trim()}][collection=${name.collection}]`;
    throw new CairnError('InvalidParameter', `snapshot not found${wanted}`);
  }

  #find(request: SnapshotName): SnapshotRecord | undefined {
    const { state } = this.#options.store;
    const committed = (record: SnapshotRecord | undefined) => (record?.state === SnapshotState.SNAPSHOT_COMMITTED ? record : undefined);
    if (request.id > 0) return committed(state.snapshots.get(request.id));
    const name = checkSnapshotName(request.name);
    return committed(state.snapshotIndex.named(state.resolve(request.database, request.collection).collection.id, name));
  }

  describe(name: SnapshotName, kept?: KeptBytes): SnapshotInfo {
    return this.catalog.describe(this.committed(name), kept);
  }
}

/** The answer to the create of a FAILED snapshot, and to every repeat of it: its request has ended, the name is free for another. */
function failure(record: SnapshotRecord): CairnError {
  return new CairnError(codeNameOf(record.reasonCode), `snapshot ${record.name} failed: ${record.reason}`, { extraInfo: REQUEST_ENDED });
}

/** The state that the table gives. */
function after({ state }: SnapshotRecord, event: 'commit' | 'fail' | 'drop'): SnapshotState {
  const next = nextSnapshotState(state, event);
  if (next === 'GONE') throw new CairnError('Internal', `a snapshot is not gone by ${event}`);
  return next;
}

/** Why it ended: what cancelled it, else its own error. */
function reasonOf(signal: AbortSignal, error: unknown): CairnError {
  return asCairnError(signal.aborted ? signal.reason : error);
}

/** `work`, or the reason of the abort when that comes first; the work is left to end by itself. */
function untilAborted<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  if (signal.aborted) {
    work.catch(() => undefined);
    return Promise.reject(asCairnError(signal.reason));
  }
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(asCairnError(signal.reason));
    signal.addEventListener('abort', onAbort, { once: true });
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', onAbort));
  });
}
