import { asCairnError, CairnError, mapLimit } from '@cairn/base';
import type { ObjectStore } from '@cairn/objects';
import { type SnapshotRecord, SnapshotState } from '@cairn/proto/cairn/meta';
import { readSnapshot } from '@cairn/segment';
import type { LeaderStore } from '../leader-store.ts';
import { ReferenceSet } from './reference-set.ts';

/** Snapshots read at once. */
const PARALLEL_READS = 4;

/**
 * The way from segments and index builds to snapshots: the reference set of every COMMITTED snapshot, read from its metadata once (it never changes) and kept small. What cannot be read blocks the
 * collection of garbage: a reference that is not known must be taken to exist.
 */
export class SnapshotReferences {
  readonly #store: LeaderStore;
  readonly #objects: ObjectStore;
  readonly #sets = new Map<number, ReferenceSet>();

  constructor(store: LeaderStore, objects: ObjectStore) {
    this.#store = store;
    this.#objects = objects;
  }

  /** Sets of all snapshots that are COMMITTED now, and why the rest of them is not known. */
  async load(): Promise<{ readonly sets: ReadonlyMap<number, ReferenceSet>; readonly blocked: readonly string[] }> {
    const committed = [...this.#store.state.snapshots.values()].filter((record) => record.state === SnapshotState.SNAPSHOT_COMMITTED);
    const ids = new Set(committed.map((record) => record.id));
    for (const id of this.#sets.keys()) if (!ids.has(id)) this.#sets.delete(id);
    const blocked: string[] = [];
    await mapLimit(
      committed.filter((record) => !this.#sets.has(record.id)),
      PARALLEL_READS,
      async (record) => {
        try {
          this.#sets.set(record.id, await this.read(record));
        } catch (error) {
          // Dropped while it was read: it refers to nothing any more.
          if (this.#store.state.snapshots.get(record.id)?.state !== SnapshotState.SNAPSHOT_COMMITTED) return;
          blocked.push(`references of snapshot ${record.name} (${record.id}) are not known: ${asCairnError(error).message}`);
        }
      },
    );
    return { sets: new Map(this.#sets), blocked };
  }

  /** From the bucket, whatever is remembered. */
  async read(record: SnapshotRecord): Promise<ReferenceSet> {
    const bundle = await readSnapshot(this.#objects, record.metadataKey, { withSegments: true });
    if (bundle.record.id !== record.id) throw new CairnError('ObjectDamaged', `${record.metadataKey} is of snapshot ${bundle.record.id}`);
    return new ReferenceSet(bundle);
  }

  /** Of one COMMITTED snapshot; read from the bucket at most once. */
  async of(record: SnapshotRecord): Promise<ReferenceSet> {
    const set = this.#sets.get(record.id) ?? (await this.read(record));
    this.#sets.set(record.id, set);
    return set;
  }

  /**
   * COMMITTED snapshots that refer to a segment, or to an index build, oldest first. Unavailable when what one of them refers to cannot be read now:
   * it might be among them.
   */
  async find(wanted: { readonly segmentId: number } | { readonly buildId: number }): Promise<SnapshotRecord[]> {
    const { sets, blocked } = await this.load();
    if (blocked.length > 0) throw new CairnError('Unavailable', blocked.join('; '));
    const { snapshots } = this.#store.state;
    const found: SnapshotRecord[] = [];
    for (const [id, set] of sets) {
      if (!('segmentId' in wanted ? set.hasSegment(wanted.segmentId) : set.hasBuild(wanted.buildId))) continue;
      const record = snapshots.get(id);
      if (record?.state === SnapshotState.SNAPSHOT_COMMITTED) found.push(record);
    }
    return found.sort((a, b) => a.ts - b.ts || a.id - b.id);
  }

  /** What is remembered of a snapshot. */
  known(id: number): ReferenceSet | undefined {
    return this.#sets.get(id);
  }
}
