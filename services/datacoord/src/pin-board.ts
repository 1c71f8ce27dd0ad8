import { CairnError, KeyedMutex, type Runtime } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { PinRecord, SnapshotState } from '@cairn/proto/cairn/meta';
import type { Ids } from './change-preparer.ts';
import { putRecord } from './changes/change.ts';
import type { LeaderStore, Put } from './leader-store.ts';

/** Thirty days, as in Milvus. */
export const MAX_PIN_SECONDS = 2_592_000;
/** Pins of one snapshot at most. */
const MAX_PINS = 10_000;
const SWEEP_PAGE = 90;

const USER = 'user';

/** Owner of a pin that a restore holds: the intent first, then the job of the same id. */
export const restoreOwner = (jobId: number): string => `restore:${jobId}`;

/**
 * Pins: what keeps a snapshot from being dropped. Pinning and dropping one snapshot exclude each other here (one leader, one lock a snapshot), and
 * a pin's transaction compares the COMMITTED record it protects.
 */
export class PinBoard {
  readonly #store: LeaderStore;
  readonly #ids: Ids;
  readonly #runtime: Runtime;
  readonly #locks = new KeyedMutex();

  constructor(store: LeaderStore, ids: Ids, runtime: Runtime) {
    this.#store = store;
    this.#ids = ids;
    this.#runtime = runtime;
  }

  /** Runs `work` while nobody else pins or drops the snapshot. */
  exclusively<T>(snapshotId: number, work: () => Promise<T>): Promise<T> {
    return this.#locks.run(snapshotId.toString(), work);
  }

  /** Pins that hold now. */
  of(snapshotId: number): PinRecord[] {
    const now = this.#runtime.now();
    return [...this.#store.state.pinsOf(snapshotId)].filter((pin) => pin.expiresMs === 0 || pin.expiresMs > now);
  }

  /**
   * A user's pin. A repeat under the same request id gets the same pin, as long as it holds; an empty id is never the same. Returns the pin's id.
   */
  async pinOnce(requestId: string, snapshotId: number, ttlSeconds: number): Promise<number> {
    if (requestId === '') return this.pin(snapshotId, ttlSeconds, USER);
    return this.#locks.run(`${snapshotId}/${requestId}`, async () => {
      const known = this.of(snapshotId).find((pin) => pin.requestId === requestId);
      return known?.id ?? this.pin(snapshotId, ttlSeconds, USER, [], undefined, requestId);
    });
  }

  /**
   * Pins a COMMITTED snapshot; ttlSeconds 0: for ever. `beside` is written in the same transaction (a restore's intent). `id` is allocated unless
   * given. Returns the pin's id.
   */
  async pin(
    snapshotId: number,
    ttlSeconds: number,
    owner: string,
    beside: readonly Put[] = [],
    id?: number,
    requestId = '',
  ): Promise<number> {
    if (!Number.isSafeInteger(ttlSeconds) || ttlSeconds < 0)
      throw new CairnError('InvalidParameter', `ttl_seconds must be non-negative, got ${ttlSeconds}`);
    if (ttlSeconds > MAX_PIN_SECONDS)
      throw new CairnError('InvalidParameter', `ttl_seconds exceeds maximum: ${ttlSeconds} > ${MAX_PIN_SECONDS}`);
    const pinId = id ?? (await this.#ids.allocate(1));
    return this.exclusively(snapshotId, async () => {
      const held = this.#store.state.snapshots.held(snapshotId);
      if (!held || held.record.state !== SnapshotState.SNAPSHOT_COMMITTED)
        throw new CairnError('InvalidParameter', `snapshot not found[id=${snapshotId}]`);
      if (this.of(snapshotId).length >= MAX_PINS)
        throw new CairnError('TooManyRequests', `snapshot ${held.record.name} has ${MAX_PINS} pins already`);
      const now = this.#runtime.now();
      const expiresMs = ttlSeconds === 0 ? 0 : now + ttlSeconds * 1_000;
      const record: PinRecord = {
        id: pinId,
        snapshotId,
        collectionId: held.record.collectionId,
        createdMs: now,
        expiresMs,
        owner,
        requestId,
      };
      await this.#store.mustCommit({
        if: [{ kind: 'modRevision', key: held.key, equals: held.revision }],
        puts: [putRecord(keys.pin(snapshotId, pinId), PinRecord, record), ...beside],
      });
      return pinId;
    });
  }

  /** An unknown id is fine: the pin may have expired. Pins of restores and drills are not a user's to release. */
  async unpin(pinId: number): Promise<void> {
    if (pinId === 0) throw new CairnError('MissingParameter', 'missing parameter: pin_id');
    const pin = this.#store.state.pins.get(pinId);
    if (!pin || pin.owner !== USER) return;
    await this.#store.mustCommit({ deletes: [keys.pin(pin.snapshotId, pinId)] });
  }

  /** Key of a pin, for a transaction that releases it with something else. */
  keyOf(pinId: number): string | undefined {
    return this.#store.state.pins.held(pinId)?.key;
  }

  /** Removes expired pins. */
  async sweep(): Promise<void> {
    const now = this.#runtime.now();
    const expired = [...this.#store.state.pins.values()].filter((pin) => pin.expiresMs !== 0 && pin.expiresMs <= now);
    for (let at = 0; at < expired.length; at += SWEEP_PAGE) {
      await this.#store.mustCommit({ deletes: expired.slice(at, at + SWEEP_PAGE).map((pin) => keys.pin(pin.snapshotId, pin.id)) });
    }
  }
}
