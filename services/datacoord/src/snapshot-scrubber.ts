import { asCairnError, hasCode, isRetriable, type Logger, type Runtime } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { SnapshotHealthRecord, type SnapshotRecord, SnapshotState } from '@cairn/proto/cairn/meta';
import type { VerifyReport } from '@cairn/proto/cairn/upkeep';
import { formatHash } from '@cairn/segment';
import { putRecord } from './changes/change.ts';
import type { SnapshotVerifier } from './check/snapshot-verifier.ts';
import type { LeaderStore } from './leader-store.ts';
import { damagedSnapshots, scrubbedBytes, scrubbedSnapshots } from './measures.ts';
import type { PinBoard } from './pin-board.ts';
import type { DataCoordSettings } from './settings.ts';

/** Findings that a mark names; the rest are counted. */
const NAMED_FINDINGS = 8;
/** What may be read at once before the rate counts. */
const BURST_MS = 1_000;

export interface SnapshotScrubberOptions {
  readonly store: LeaderStore;
  readonly pins: PinBoard;
  readonly verifier: SnapshotVerifier;
  readonly runtime: Runtime;
  readonly logger: Logger;
  readonly settings: DataCoordSettings;
  readonly stop: AbortSignal;
}

/**
 * Background passes over COMMITTED snapshots, one snapshot at a time, under a rate limit: the hash of visible rows where only reading tells it, and the
 * scrub, which reads every snapshot in full now and then. A damaged one is marked, and the mark goes when a later scrub finds it whole; nothing else
 * comes of a mark: a restore of such a snapshot is tried, and fails naming the object.
 */
export class SnapshotScrubber {
  readonly #options: SnapshotScrubberOptions;
  /** When the bytes read so far are paid for, on the monotonic clock. */
  #paidMs = 0;
  /** Those whose visible rows could not be read in this term: the scrub says why. */
  readonly #unreadable = new Set<number>();

  constructor(options: SnapshotScrubberOptions) {
    this.#options = options;
  }

  /** Every snapshot whose turn it is. One that cannot be looked at now (its store is away) keeps no other from its turn. */
  async round(): Promise<void> {
    const { stop, logger } = this.#options;
    const each = async (records: readonly SnapshotRecord[], work: (record: SnapshotRecord) => Promise<void>): Promise<void> => {
      for (const record of records) {
        if (stop.aborted) return;
        try {
          await work(record);
        } catch (error) {
          if (stop.aborted) return;
          // Dropped while it was read, most often.
          if (this.#isThere(record.id))
            logger.warn({ error, snapshot: record.name, id: record.id }, 'a snapshot could not be looked at; the next round tries again');
        }
      }
    };
    await each(
      this.#committed().filter((record) => this.#wantsVisible(record)),
      (record) => this.#settle(record),
    );
    await each(this.#due(), (record) => this.#scrub(record));
    this.#measure();
  }

  #committed(): SnapshotRecord[] {
    return [...this.#options.store.state.snapshots.values()].filter((record) => record.state === SnapshotState.SNAPSHOT_COMMITTED);
  }

  #wantsVisible({ id, contentHash, visibleHash }: SnapshotRecord): boolean {
    const known = visibleHash !== '' || contentHash === '' || this.#options.store.state.health.get(id)?.visibleHash;
    return !known && !this.#unreadable.has(id);
  }

  /** The one that waits longest first. */
  #due(): SnapshotRecord[] {
    const { store, runtime, settings } = this.#options;
    if (settings.scrubIntervalMs === 0) return [];
    const since = ({ id, createdMs }: SnapshotRecord): number => store.state.health.get(id)?.verifiedMs || createdMs;
    return this.#committed()
      .filter((record) => since(record) + settings.scrubIntervalMs <= runtime.now())
      .sort((a, b) => since(a) - since(b));
  }

  async #settle(record: SnapshotRecord): Promise<void> {
    const { verifier, logger } = this.#options;
    try {
      const { rows, hash } = await verifier.visible(record, (bytes) => this.#throttle(bytes));
      await this.#save(record.id, { visibleRows: rows, visibleHash: formatHash(hash) });
    } catch (error) {
      if (isRetriable(error) || !isDamage(error)) throw error;
      this.#unreadable.add(record.id);
      if (!this.#isThere(record.id)) return;
      logger.warn({ error, snapshot: record.name, id: record.id }, 'the visible rows of a snapshot cannot be read');
      await this.#save(record.id, { damage: asCairnError(error).message, verifiedMs: this.#options.runtime.now() });
    }
  }

  async #scrub(record: SnapshotRecord): Promise<void> {
    const { verifier, logger, store, runtime } = this.#options;
    const before = store.state.health.get(record.id)?.damage ?? '';
    const report = await verifier.verify(record, { deep: true, throttle: (bytes) => this.#throttle(bytes) });
    if (!this.#isThere(record.id)) return;
    const damage = damageOf(report);
    const visible = report.visibleHash === '' ? {} : { visibleRows: report.visibleRows, visibleHash: report.visibleHash };
    await this.#save(record.id, { damage, verifiedMs: runtime.now(), ...visible });
    const subject = { snapshot: record.name, id: record.id, objects: report.objects, bytes: report.bytes };
    scrubbedSnapshots.add(1, { outcome: damage === '' ? 'whole' : 'damaged' });
    if (damage !== '') logger.error({ ...subject, damage }, 'a snapshot is damaged');
    else if (before !== '') logger.info(subject, 'a snapshot that was damaged is whole again');
    else logger.debug(subject, 'a snapshot was scrubbed');
  }

  #isThere(id: number): boolean {
    return this.#options.store.state.snapshots.get(id)?.state === SnapshotState.SNAPSHOT_COMMITTED;
  }

  /** Nothing is written for a snapshot that is not COMMITTED any more: its drop takes this record along. */
  async #save(id: number, change: Partial<SnapshotHealthRecord>): Promise<void> {
    const { store, pins } = this.#options;
    await pins.exclusively(id, async () => {
      const snapshot = store.state.snapshots.held(id);
      if (snapshot?.record.state !== SnapshotState.SNAPSHOT_COMMITTED) return;
      const known = store.state.health.get(id) ?? SnapshotHealthRecord.fromPartial({ snapshotId: id });
      const next: SnapshotHealthRecord = { ...known, collectionId: snapshot.record.collectionId, ...change };
      await store.mustCommit({
        if: [{ kind: 'modRevision', key: snapshot.key, equals: snapshot.revision }],
        puts: [putRecord(keys.snapshotHealth(id), SnapshotHealthRecord, next)],
      });
    });
  }

  async #throttle(bytes: number): Promise<void> {
    const { runtime, settings, stop } = this.#options;
    const now = runtime.monotonic();
    scrubbedBytes.add(bytes);
    this.#paidMs = Math.max(this.#paidMs, now - BURST_MS) + (bytes * 1_000) / settings.scrubBytesPerSecond;
    if (this.#paidMs > now) await runtime.sleep(this.#paidMs - now, stop);
  }

  #measure(): void {
    const { health } = this.#options.store.state;
    damagedSnapshots.record(this.#committed().filter((record) => health.get(record.id)?.damage).length);
  }
}

function isDamage(error: unknown): boolean {
  return hasCode(error, 'ObjectDamaged') || hasCode(error, 'ObjectNotFound') || hasCode(error, 'NotSupported');
}

/** Words of a mark; empty: whole. */
function damageOf({ findings }: VerifyReport): string {
  const named = findings.slice(0, NAMED_FINDINGS).map((finding) => finding.detail);
  const more = findings.length > NAMED_FINDINGS ? [`and ${findings.length - NAMED_FINDINGS} more`] : [];
  return [...named, ...more].join('; ');
}
