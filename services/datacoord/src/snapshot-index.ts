import { SnapshotRecord, SnapshotState } from '@cairn/proto/cairn/meta';

/** Definitions kept apart, of those seen last: snapshots of one collection mostly have the same one. */
const MAX_SHARED = 4_096;

/**
 * Decodes snapshot records so that 10,000 of them fit in little memory: equal definitions are one array, and nothing else of a record's bytes is kept.
 */
export class SnapshotCodec {
  readonly #shared = new Map<number, Uint8Array>();

  decode(bytes: Uint8Array): SnapshotRecord {
    const record = SnapshotRecord.decode(bytes);
    return { ...record, definition: this.#share(record) };
  }

  #share({ collectionId, definition }: SnapshotRecord): Uint8Array {
    const known = this.#shared.get(collectionId);
    if (known && Buffer.compare(known, definition) === 0) return known;
    if (this.#shared.size >= MAX_SHARED) this.#shared.clear();
    const copy = Uint8Array.from(definition);
    this.#shared.set(collectionId, copy);
    return copy;
  }
}

/** Place in a list: by timestamp, then id. */
export interface Place {
  readonly ts: number;
  readonly id: number;
}

function compare(a: Place, b: Place): number {
  return a.ts - b.ts || a.id - b.id;
}

/** Snapshots in order of time. New ones come at the end. */
class Timeline {
  readonly #records: SnapshotRecord[] = [];

  /** Position of the first that is not before `place`. */
  #at(place: Place): number {
    let low = 0;
    let high = this.#records.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const record = this.#records[middle];
      if (record && compare(record, place) < 0) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  put(record: SnapshotRecord): void {
    const at = this.#at(record);
    this.#records.splice(at, this.#records[at]?.id === record.id ? 1 : 0, record);
  }

  delete(record: SnapshotRecord): void {
    const at = this.#at(record);
    if (this.#records[at]?.id === record.id) this.#records.splice(at, 1);
  }

  get records(): readonly SnapshotRecord[] {
    return this.#records;
  }

  /** Those behind a place; all without one. */
  *after(place: Place | undefined): Generator<SnapshotRecord> {
    for (let at = place ? this.#at({ ts: place.ts, id: place.id + 1 }) : 0; at < this.#records.length; at++) {
      const record = this.#records[at];
      if (record) yield record;
    }
  }
}

interface OfCollection {
  readonly timeline: Timeline;
  /** PENDING and COMMITTED ones: they hold their name. */
  readonly names: Map<string, SnapshotRecord>;
  /** Names of the COMMITTED ones, oldest first; made when asked for, forgotten at the next change. */
  listed: string[] | undefined;
}

/** Snapshot records by (collection, name), by collection and by time; kept beside the table by id, from the same changes. */
export class SnapshotIndex {
  readonly #collections = new Map<number, OfCollection>();
  readonly #all = new Timeline();
  /** Not COMMITTED: few, looked at by every sweep. */
  readonly #unsettled = new Map<number, SnapshotRecord>();

  changed(before: SnapshotRecord | undefined, after: SnapshotRecord | undefined): void {
    if (before) this.#forget(before);
    if (after) this.#take(after);
  }

  #take(record: SnapshotRecord): void {
    const known = this.#collections.get(record.collectionId);
    const of = known ?? { timeline: new Timeline(), names: new Map(), listed: undefined };
    if (!known) this.#collections.set(record.collectionId, of);
    of.listed = undefined;
    of.timeline.put(record);
    this.#all.put(record);
    if (holdsName(record)) of.names.set(record.name, record);
    if (record.state !== SnapshotState.SNAPSHOT_COMMITTED) this.#unsettled.set(record.id, record);
  }

  #forget(record: SnapshotRecord): void {
    const of = this.#collections.get(record.collectionId);
    if (of) of.listed = undefined;
    of?.timeline.delete(record);
    this.#all.delete(record);
    this.#unsettled.delete(record.id);
    if (of?.names.get(record.name)?.id === record.id) of.names.delete(record.name);
    if (of?.timeline.records.length === 0) this.#collections.delete(record.collectionId);
  }

  /** The PENDING or COMMITTED one that has the name. */
  named(collectionId: number, name: string): SnapshotRecord | undefined {
    return this.#collections.get(collectionId)?.names.get(name);
  }

  /** All states, oldest first. */
  of(collectionId: number): readonly SnapshotRecord[] {
    return this.#collections.get(collectionId)?.timeline.records ?? [];
  }

  /** Names of a collection's COMMITTED ones, oldest first: one array for all who ask, until the next change. */
  committedNames(collectionId: number): string[] {
    const of = this.#collections.get(collectionId);
    if (!of) return [];
    of.listed ??= of.timeline.records.filter((record) => record.state === SnapshotState.SNAPSHOT_COMMITTED).map((record) => record.name);
    return of.listed;
  }

  /** Of one collection, or of all; oldest first, behind `place`. */
  after(place: Place | undefined, collectionId?: number): Iterable<SnapshotRecord> {
    if (collectionId === undefined) return this.#all.after(place);
    return this.#collections.get(collectionId)?.timeline.after(place) ?? [];
  }

  /** Collections that have any. */
  collections(): Iterable<number> {
    return this.#collections.keys();
  }

  /** PENDING, DELETING, FAILED. */
  unsettled(): Iterable<SnapshotRecord> {
    return this.#unsettled.values();
  }
}

function holdsName({ state }: SnapshotRecord): boolean {
  return state === SnapshotState.SNAPSHOT_PENDING || state === SnapshotState.SNAPSHOT_COMMITTED;
}
