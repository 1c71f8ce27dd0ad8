import { type Runtime, Turns } from '@cairn/base';
import { keys, parseObjectName } from '@cairn/catalog';
import type { Compare } from '@cairn/meta';
import type { ObjectStore } from '@cairn/objects';
import { CollectionState, PrefixRecord } from '@cairn/proto/cairn/meta';
import type { GcItem } from '@cairn/proto/cairn/upkeep';
import type { LeaderStore } from '../leader-store.ts';
import { BucketListing, type ListedIndex } from './bucket-listing.ts';
import { NumberTable } from './number-table.ts';
import { numberOf } from './reference-set.ts';
import { type DroppedRecord, isReferenced, type ReferenceReader, type References } from './references.ts';

const EXAMPLES = 10;

/** Something to be recorded as dead, with what must still hold when it is. */
export interface Burial {
  readonly prefix: string;
  readonly reason: string;
  readonly bytes: number;
  readonly objects: number;
  readonly if: readonly Compare[];
  /** Key of the record that would name it; it must be missing or name another generation. */
  readonly notNamedBy?: string;
  /** Records that go in the same transaction. */
  readonly deletes: readonly string[];
}

export interface GarbagePlan {
  readonly blocked: readonly string[];
  readonly burials: readonly Burial[];
  /** Records of units that another collection owns (clones): they go, the objects stay. */
  readonly records: readonly DroppedRecord[];
  readonly dead: readonly GcItem[];
  readonly objects: number;
  readonly bytes: number;
  readonly unknownObjects: number;
  readonly unknownBytes: number;
  readonly unknownExamples: readonly string[];
  readonly references: References;
}

export interface PlannerOptions {
  readonly store: LeaderStore;
  readonly objects: ObjectStore;
  readonly references: ReferenceReader;
  readonly runtime: Runtime;
  /** Prefixes without a record that names them are left alone for this long: their writer may still commit. */
  readonly orphanMs: number;
  readonly graceMs: number;
}

/**
 * Says what is garbage and why. The bucket is listed first, references are read after: what was listed and is unreferenced then never gains a
 * reference again, since new ones are made only from living records.
 */
export class GarbagePlanner {
  readonly #options: PlannerOptions;

  constructor(options: PlannerOptions) {
    this.#options = options;
  }

  /** `listing`: with the bucket's contents (bytes, stale index objects, unknown objects); else from the records alone. */
  async plan(nowMs: number, listing: boolean): Promise<GarbagePlan> {
    const { store, objects, runtime, references: reader, graceMs } = this.#options;
    const turns = new Turns(runtime);
    const found = listing ? await BucketListing.read(objects, await this.#recorded(turns), turns) : new BucketListing(new NumberTable());
    const references = await reader.read();
    const own = references.dropped.filter((record) => ownerOf(record.unit) === record.collectionId);
    const dropped = new Map(own.map((record) => [record.unit, record]));
    const burials: Burial[] = [];
    const dead: GcItem[] = [];
    for await (const page of store.pages(keys.prefixes)) {
      for (const { value, modRevision } of page) {
        if (turns.due) await turns.give();
        const record = PrefixRecord.decode(value);
        const { objects, bytes } = found.of(record.prefix);
        if (record.dead) {
          const { prefix, purpose: reason, deadMs } = record;
          dead.push({ prefix, reason, objects, bytes, deadMs, dueMs: deadMs + graceMs });
          continue;
        }
        const fate = this.#fate(record, references, dropped, nowMs);
        if (fate) {
          const holds: Compare[] = [{ kind: 'modRevision', key: keys.prefix(record.prefix), equals: modRevision }, ...fate.if];
          burials.push({ ...fate, prefix: record.prefix, objects, bytes, if: holds });
          continue;
        }
        for (const index of found.indexesOf(record.prefix)) {
          if (!isStale(index, references)) continue;
          const { key } = index;
          const missing: Compare = { kind: 'missing', key: keys.prefix(key) };
          burials.push({
            prefix: key,
            reason: 'no build record names this index object',
            objects: 1,
            bytes: index.bytes,
            if: [missing],
            deletes: [],
          });
        }
      }
    }
    const unknown = await this.#unknown(found, turns);
    return {
      blocked: references.blocked,
      burials,
      records: references.dropped.filter((record) => ownerOf(record.unit) !== record.collectionId),
      dead,
      objects: found.objects,
      bytes: found.bytes,
      unknownObjects: unknown.objects,
      unknownBytes: unknown.bytes,
      unknownExamples: unknown.examples,
      references,
    };
  }

  /** Why a living prefix may be recorded as dead; undefined: it may not. */
  #fate(
    record: PrefixRecord,
    references: References,
    dropped: ReadonlyMap<string, DroppedRecord>,
    nowMs: number,
  ): Pick<Burial, 'reason' | 'if' | 'deletes' | 'notNamedBy'> | undefined {
    const { prefix, createdMs } = record;
    const name = parseObjectName(prefix);
    if (!name || name.kind === 'metadata' || isReferenced(references, prefix)) return undefined;
    const { state } = this.#options.store;
    if (name.kind === 'manifests') {
      if (state.snapshots.get(name.id)) return undefined;
      return { reason: `snapshot ${name.id} is gone`, if: [], notNamedBy: keys.snapshot(name.collection, name.id), deletes: [] };
    }
    if (references.held.has(name.collection)) return undefined;
    const key = name.kind === 'segment' ? keys.segment(name.collection, name.id) : keys.delta(name.collection, name.id);
    const gone = dropped.get(prefix);
    if (gone && gone.key === key) return { reason: gone.reason, if: [{ kind: 'modRevision', key, equals: gone.revision }], deletes: [key] };
    if (state.collections.get(name.collection)?.state === CollectionState.COLLECTION_DROPPED)
      return { reason: `collection ${name.collection} was dropped`, if: [], notNamedBy: key, deletes: [] };
    if (nowMs - createdMs < this.#options.orphanMs) return undefined;
    return { reason: `${record.purpose} did not commit it`, if: [], notNamedBy: key, deletes: [] };
  }

  /** Numbers of all prefixes that have a record now. */
  async #recorded(turns: Turns): Promise<NumberTable> {
    const numbers = new NumberTable();
    for await (const page of this.#options.store.pages(keys.prefixes)) {
      for (const { key } of page) numbers.set(numberOf(key.slice(keys.prefixes.length)), 1);
      if (turns.due) await turns.give();
    }
    return numbers;
  }

  /** What no record of ours covers: counted, with a few examples. */
  async #unknown(
    found: BucketListing,
    turns: Turns,
  ): Promise<{ readonly objects: number; readonly bytes: number; readonly examples: readonly string[] }> {
    const unknown = await found.unknown(turns);
    for (const { key, bytes, id } of found.metadata) {
      if (this.#options.store.state.snapshots.get(id)) continue;
      unknown.objects++;
      unknown.bytes += bytes;
      unknown.examples.push(key);
    }
    return { ...unknown, examples: unknown.examples.slice(0, EXAMPLES) };
  }
}

/** A build that was superseded, or whose index was dropped, and that no snapshot or clone names. Nothing is judged while a capture runs. */
function isStale({ key, build }: ListedIndex, references: References): boolean {
  return references.held.size === 0 && !references.pendingBuilds.has(build) && !isReferenced(references, key);
}

/** Collection whose prefix a unit lies under. */
function ownerOf(unit: string): number | undefined {
  return parseObjectName(unit)?.collection;
}
