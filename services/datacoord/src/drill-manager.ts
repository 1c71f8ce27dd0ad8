import { asCairnError, CAIRN_VERSION, CairnError, checksum, isRetriable, type Logger, type Runtime, retry, Turns } from '@cairn/base';
import { HIDDEN_PREFIX, keys, paths } from '@cairn/catalog';
import type { ObjectStore } from '@cairn/objects';
import {
  type CollectionRecord,
  DrillRecord,
  DrillState,
  RestoreJobState,
  SnapshotDefinition,
  type SnapshotRecord,
} from '@cairn/proto/cairn/meta';
import type { Certificate, StartDrillRequest } from '@cairn/proto/cairn/upkeep';
import type { Transport } from '@cairn/rpc';
import { CERTIFICATE_SEED_BYTES, type CertificateBody, certificateKey, formatHash, readSnapshot, signCertificate } from '@cairn/segment';
import type { Ids } from './change-preparer.ts';
import { putRecord } from './changes/change.ts';
import type { ChannelAssigner } from './channel-assigner.ts';
import type { SnapshotVerifier } from './check/snapshot-verifier.ts';
import type { ControlChannel } from './control-channel.ts';
import { isOver } from './copy-jobs.ts';
import { DrillReader } from './drill-checks.ts';
import type { LeaderStore } from './leader-store.ts';
import { drills } from './measures.ts';
import type { PinBoard } from './pin-board.ts';
import type { RestoreManager } from './restore-manager.ts';
import type { DataCoordSettings } from './settings.ts';
import { captureSnapshot } from './snapshot-capture.ts';
import type { SnapshotManager } from './snapshot-manager.ts';
import type { TimestampOracle } from './timestamp-oracle.ts';

export interface DrillManagerOptions {
  readonly store: LeaderStore;
  readonly objects: ObjectStore;
  readonly transport: Transport;
  readonly runtime: Runtime;
  readonly logger: Logger;
  readonly settings: DataCoordSettings;
  readonly ids: Ids;
  readonly control: ControlChannel;
  readonly channels: ChannelAssigner;
  readonly oracle: TimestampOracle;
  readonly pins: PinBoard;
  readonly snapshots: SnapshotManager;
  readonly restores: RestoreManager;
  readonly verifier: SnapshotVerifier;
  readonly stop: AbortSignal;
}

/** Drills of the cluster at once: each is a restore and a load. */
const MAX_DRILLS = 2;
const POLL_MS = 50;
const PATIENT = { attempts: Number.POSITIVE_INFINITY, firstDelayMs: 100, maxDelayMs: 5_000, retriable: isRetriable };

export const drillOwner = (id: number): string => `drill:${id}`;

/**
 * Drills: a snapshot is restored into a hidden collection, loaded, counted, searched, hashed and dropped, and a signed certificate is left beside it. The
 * record comes first, with a pin; whatever ends a drill early, this leader or the next drops what it made.
 */
export class DrillManager {
  readonly #options: DrillManagerOptions;
  /** Driven or undone in this term. */
  readonly #busy = new Set<number>();
  #seed: Promise<Uint8Array> | undefined;
  #starting: Promise<unknown> = Promise.resolve();

  constructor(options: DrillManagerOptions) {
    this.#options = options;
  }

  /** Ends what earlier leaders left running. */
  resume(): void {
    for (const record of this.#options.store.state.drills.values())
      if (record.state === DrillState.DRILL_RUNNING && !this.#busy.has(record.id)) void this.#takeOver(record);
  }

  /** Answers when the drill is recorded. A repeat under the same request id gets the same drill. */
  start(request: StartDrillRequest): Promise<DrillRecord> {
    // In turn: what is known and what runs is looked up before the record is there.
    const started = this.#starting.then(() => this.#begin(request));
    this.#starting = started.catch(() => undefined);
    return started;
  }

  async #begin(request: StartDrillRequest): Promise<DrillRecord> {
    const { snapshots, store, ids, pins, runtime } = this.#options;
    const known = [...store.state.drills.values()].find((one) => request.requestId !== '' && one.requestId === request.requestId);
    if (known) return known;
    const snapshot = snapshots.committed({ ...request, id: 0 });
    const running = [...store.state.drills.values()].filter((one) => one.state === DrillState.DRILL_RUNNING).length;
    if (running >= MAX_DRILLS) throw new CairnError('TooManyRequests', `${MAX_DRILLS} drills are running already`);
    const id = await ids.allocate(2);
    const database = store.state.resolve(request.database, request.collection).database.name;
    const record = DrillRecord.fromPartial({
      id,
      snapshotId: snapshot.id,
      collectionId: snapshot.collectionId,
      pinId: id + 1,
      targetDatabaseName: database,
      targetCollectionName: `${HIDDEN_PREFIX}${id}`,
      phase: 'restore',
      createdMs: runtime.now(),
      requestId: request.requestId,
    });
    this.#busy.add(id);
    try {
      await pins.pin(snapshot.id, 0, drillOwner(id), [putRecord(keys.drill(id), DrillRecord, record)], record.pinId);
    } catch (error) {
      this.#busy.delete(id);
      throw error;
    }
    void this.#drive(record, snapshot, request);
    return record;
  }

  get(id: number): DrillRecord {
    const record = this.#options.store.state.drills.get(id);
    if (!record) throw new CairnError('InvalidParameter', `drill not found[id=${id}]`);
    return record;
  }

  /** Certificates beside a snapshot, oldest first, as they are: whoever reads them verifies. */
  async certificates(snapshot: SnapshotRecord): Promise<Certificate[]> {
    const { objects } = this.#options;
    const certificates: Certificate[] = [];
    let after: string | undefined;
    do {
      const page = await objects.list(this.#prefix(snapshot), after === undefined ? {} : { after });
      for (const { key } of page.objects) certificates.push({ key, text: Buffer.from(await objects.get(key)).toString('utf8') });
      after = page.next;
    } while (after !== undefined);
    return certificates;
  }

  /** Public part of the key that certificates are signed with, raw, in base64. */
  async publicKey(): Promise<string> {
    return certificateKey(await this.#key());
  }

  /** Ended drills that are old, and running ones that nobody works on. */
  async sweep(): Promise<void> {
    const { store, settings, runtime } = this.#options;
    const before = runtime.now() - settings.restoreJobRetentionMs;
    const old = [...store.state.drills.values()].filter((one) => one.state !== DrillState.DRILL_RUNNING && one.endedMs < before);
    for (const { id } of old) await store.mustCommit({ deletes: [keys.drill(id)] });
    this.resume();
  }

  #prefix({ collectionId, id }: SnapshotRecord): string {
    return `${paths.snapshotManifests(collectionId, id)}certificates/`;
  }

  /** Made once in the life of a cluster. */
  #key(): Promise<Uint8Array> {
    this.#seed ??= this.#readKey().catch((error: unknown) => {
      this.#seed = undefined;
      throw error;
    });
    return this.#seed;
  }

  async #readKey(): Promise<Uint8Array> {
    const { store, runtime } = this.#options;
    const key = keys.certificateKey;
    const read = async () => (await store.retrying(() => store.meta.get(key)))?.value;
    const known = await read();
    if (known) return known;
    await store.commit({ if: [{ kind: 'missing', key }], puts: [{ key, value: runtime.randomBytes(CERTIFICATE_SEED_BYTES) }] });
    const made = await read();
    if (!made) throw new CairnError('Internal', 'the key of certificates was made and is not there');
    return made;
  }

  async #drive(record: DrillRecord, snapshot: SnapshotRecord, request: StartDrillRequest): Promise<void> {
    const { logger, stop, store, runtime } = this.#options;
    try {
      const body = await this.#work(record, snapshot, request);
      await this.#phase(record, 'drop');
      await this.#drop(record);
      await this.#phase(record, 'sign');
      const text = signCertificate({ ...body, ended_ms: runtime.now() }, await this.#key());
      const key = `${this.#prefix(snapshot)}${record.id}-${checksum(Buffer.from(text)).toString(16).padStart(8, '0')}.json`;
      await store.mustCommit({
        puts: [putRecord(keys.drill(record.id), DrillRecord, { ...this.get(record.id), certificateKey: key, certificate: text })],
      });
      await this.#complete(record.id);
    } catch (error) {
      // A leader that is deposed leaves it to the next.
      if (stop.aborted) return;
      drills.add(1, { outcome: 'failed' });
      logger.error({ error, snapshot: snapshot.name, id: snapshot.id, drill: record.id }, 'a drill failed');
      await this.#undo(this.get(record.id), asCairnError(error));
    }
  }

  /**
   * Puts the certificate that the record holds, then says COMPLETED. The record has it first: whoever finds the drill after a crash goes on here, for there is
   * nothing left to undo, and so no certificate lies beside a drill that is FAILED.
   */
  async #complete(id: number): Promise<void> {
    const { logger, objects, pins, runtime, stop, store } = this.#options;
    const { certificate, certificateKey, pinId, snapshotId } = this.get(id);
    await retry(runtime, PATIENT, () => objects.put(certificateKey, Buffer.from(certificate)), stop);
    const pin = pins.keyOf(pinId);
    await store.mustCommit({
      puts: [
        putRecord(keys.drill(id), DrillRecord, { ...this.get(id), state: DrillState.DRILL_COMPLETED, phase: '', endedMs: runtime.now() }),
      ],
      deletes: pin === undefined ? [] : [pin],
    });
    drills.add(1, { outcome: 'completed' });
    logger.info({ snapshot: snapshotId, drill: id, certificate: certificateKey }, 'a drill was completed');
    this.#busy.delete(id);
  }

  /** A drill that an earlier leader left: signed ones are completed, others undone. */
  async #takeOver(record: DrillRecord): Promise<void> {
    if (record.certificateKey === '') return this.#undo(record, new CairnError('Unavailable', 'the coordinator changed during the drill'));
    this.#busy.add(record.id);
    try {
      await this.#complete(record.id);
    } catch (error) {
      if (!this.#options.stop.aborted) await this.#undo(record, asCairnError(error));
    } finally {
      this.#busy.delete(record.id);
    }
  }

  /** Everything up to the drop; what it found. */
  async #work(record: DrillRecord, snapshot: SnapshotRecord, request: StartDrillRequest): Promise<CertificateBody> {
    const { store, settings, restores, verifier, control, oracle, objects, stop } = this.#options;
    const { targetDatabaseName: database, targetCollectionName: name } = record;
    const restore = {
      snapshot: { database: request.database, collection: request.collection, name: request.name, id: 0 },
      targetDatabase: database,
      targetCollection: name,
      noIndex: false,
      shards: 0,
      rewriteData: false,
      mode: 'copy',
      requestId: `drill-${record.id}`,
      partitions: [],
    };
    const job = await this.#restored(await restores.start(restore));
    const { collection } = store.state.resolveLive(database, name);
    const indexes = store.state.indexesOf(collection.id);
    let [counted, searched]: [number | null, CertificateBody['searched']] = [null, null];
    if (await this.#load(record, collection, control)) {
      const reader = new DrillReader(this.#options, collection, await oracle.allocate(1), stop);
      await reader.loaded();
      await this.#phase(record, 'count');
      counted = await reader.count();
      await this.#phase(record, 'search');
      searched = await reader.searchSamples(indexes);
    }
    await this.#phase(record, 'hash');
    const bundle = await readSnapshot(objects, snapshot.metadataKey, { withSegments: false });
    const expected = await verifier.visible(snapshot);
    const target: SnapshotDefinition = {
      collection,
      databaseName: database,
      partitions: store.state.partitionsOf(collection.id),
      indexes,
    };
    const contents = await captureSnapshot(store.meta, await oracle.allocate(1), target, new Turns(this.#options.runtime));
    const found = await verifier.readVisible(contents, target);
    if (found.rows !== expected.rows || found.hash !== expected.hash)
      throw new CairnError(
        'ObjectDamaged',
        `what was restored is not the snapshot: ${found.rows} rows with content hash ${formatHash(found.hash)}, expected ${expected.rows} with ${formatHash(expected.hash)}`,
      );
    if (counted !== null && counted !== expected.rows)
      throw new CairnError('ObjectDamaged', `${counted} rows were counted after the restore, expected ${expected.rows}`);
    const metadata = bundle.manifestObjects.at(-1);
    const source = SnapshotDefinition.decode(snapshot.definition);
    return {
      cluster_id: settings.clusterId,
      cairn_version: CAIRN_VERSION,
      drill_id: record.id,
      snapshot: {
        id: snapshot.id,
        name: snapshot.name,
        database: source.databaseName,
        collection: source.collection?.name ?? '',
        collection_id: snapshot.collectionId,
        timestamp: snapshot.ts,
        created_ms: snapshot.createdMs,
        metadata_key: snapshot.metadataKey,
        metadata_crc32c: (metadata?.crc32c ?? 0).toString(16).padStart(8, '0'),
        format_version: bundle.formatVersion,
      },
      started_ms: record.createdMs,
      ended_ms: 0,
      restored: { segments: job.totalSegments, objects: job.totalObjects, bytes: job.totalBytes },
      counted_rows: counted,
      searched,
      content: { visible_rows: found.rows, snapshot_hash: formatHash(expected.hash), restored_hash: formatHash(found.hash) },
    };
  }

  async #restored(jobId: number) {
    const { restores, runtime, stop } = this.#options;
    for (;;) {
      const job = restores.job(jobId);
      if (job.state === RestoreJobState.RESTORE_COMPLETED) return job;
      if (isOver(job)) throw new CairnError('ObjectDamaged', `the restore failed: ${job.reason}`);
      await runtime.sleep(POLL_MS, stop);
    }
  }

  /** False when the collection cannot be loaded, for want of an index: it is hashed only. */
  async #load(record: DrillRecord, collection: CollectionRecord, control: ControlChannel): Promise<boolean> {
    await this.#phase(record, 'load');
    const { targetDatabaseName: database, targetCollectionName: name } = record;
    const value = { database, collection: name, partitions: [], replicas: 1, resourceGroups: [], loadFields: [], refresh: false };
    try {
      await control.submit(`drill-${collection.id}-load`, { $case: 'load', value });
      return true;
    } catch (error) {
      if (error instanceof CairnError && error.codeName === 'IndexNotFound') return false;
      throw error;
    }
  }

  async #phase({ id }: DrillRecord, phase: string): Promise<void> {
    await this.#options.store.mustCommit({ puts: [putRecord(keys.drill(id), DrillRecord, { ...this.get(id), phase })] });
  }

  /** Drops the target, whatever there is of it, and waits until no restore can make it any more. */
  async #drop({ targetDatabaseName: database, targetCollectionName: name, id }: DrillRecord): Promise<void> {
    const { store, control, runtime, stop } = this.#options;
    const { state } = store;
    for (;;) {
      const found = state.hasDatabase(database) ? state.collectionNamed(state.database(database), name) : undefined;
      if (found)
        await control.submit(`drill-${id}-drop-${found.id}`, {
          $case: 'dropCollection',
          value: { database, name, collectionId: found.id },
        });
      const begun = [...state.intents.values()].some((one) => one.targetCollectionName === name && !state.jobs.get(one.jobId));
      const copying = [...state.jobs.values()].some((one) => one.targetCollectionName === name && !isOver(one));
      if (!found && !begun && !copying) return;
      await runtime.sleep(POLL_MS, stop);
    }
  }

  async #undo(record: DrillRecord, reason: CairnError): Promise<void> {
    const { runtime, logger, objects, stop, store, pins } = this.#options;
    this.#busy.add(record.id);
    try {
      await retry(runtime, PATIENT, () => this.#drop(record), stop);
      // Of a put whose answer was lost.
      if (record.certificateKey !== '') await retry(runtime, PATIENT, () => objects.delete([record.certificateKey]), stop);
      const pin = pins.keyOf(record.pinId);
      const reasoned = `${record.phase}: ${reason.message}`;
      const ended = { state: DrillState.DRILL_FAILED, reason: reasoned, endedMs: runtime.now(), certificateKey: '', certificate: '' };
      await store.mustCommit({
        puts: [putRecord(keys.drill(record.id), DrillRecord, { ...record, ...ended })],
        deletes: pin === undefined ? [] : [pin],
      });
    } catch (error) {
      if (!stop.aborted) logger.warn({ error, drill: record.id }, 'undoing a drill failed; the next sweep tries again');
    } finally {
      this.#busy.delete(record.id);
    }
  }
}
