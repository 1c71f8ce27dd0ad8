import type { Runtime } from '@cairn/base';
import { indexBuildOf, keys, parseObjectName } from '@cairn/catalog';
import type { Compare } from '@cairn/meta';
import type { ObjectStore } from '@cairn/objects';
import { CollectionState, PrefixRecord } from '@cairn/proto/cairn/meta';
import type { GcItem } from '@cairn/proto/cairn/upkeep';
import type { LeaderStore } from '../leader-store.ts';
import { type DroppedRecord, isReferenced, type ReferenceReader, type References } from './references.ts';

const EXAMPLES = 10;
/** Entries gone through before the event loop has its turn. */
const STRETCH = 10_000;

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

interface Listed {
  readonly objects: number;
  readonly bytes: number;
}

/** What the bucket holds: totals by prefix, and every index object, since one segment's prefix collects those of several builds. */
interface Listing {
  readonly prefixes: Map<string, Listed>;
  readonly indexes: { readonly key: string; readonly bytes: number }[];
  readonly stray: { readonly key: string; readonly bytes: number }[];
  readonly metadata: { readonly key: string; readonly bytes: number; readonly id: number }[];
  objects: number;
  bytes: number;
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
    const { store, references: reader, graceMs } = this.#options;
    const found = listing ? await this.#list() : emptyListing();
    const references = await reader.read();
    const own = references.dropped.filter((record) => ownerOf(record.unit) === record.collectionId);
    const dropped = new Map(own.map((record) => [record.unit, record]));
    const burials: Burial[] = [];
    const dead: GcItem[] = [];
    const known = new Set<string>();
    const alive = new Set<string>();
    for await (const page of store.pages(keys.prefixes)) {
      for (const { value, modRevision } of page) {
        const record = PrefixRecord.decode(value);
        const { objects, bytes } = found.prefixes.get(record.prefix) ?? { objects: 0, bytes: 0 };
        known.add(record.prefix);
        if (record.dead) {
          const { prefix, purpose: reason, deadMs } = record;
          dead.push({ prefix, reason, objects, bytes, deadMs, dueMs: deadMs + graceMs });
          continue;
        }
        alive.add(record.prefix);
        const fate = this.#fate(record, references, dropped, nowMs);
        if (fate) {
          const holds: Compare[] = [{ kind: 'modRevision', key: keys.prefix(record.prefix), equals: modRevision }, ...fate.if];
          burials.push({ ...fate, prefix: record.prefix, objects, bytes, if: holds });
        }
      }
    }
    for (const { key, bytes } of found.indexes) {
      if (this.#staleIndex(key, references, alive)) {
        const missing: Compare = { kind: 'missing', key: keys.prefix(key) };
        burials.push({ prefix: key, reason: 'no build record names this index object', objects: 1, bytes, if: [missing], deletes: [] });
      }
    }
    const unknown = await this.#unknown(found, known);
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

  /** A build that was superseded, or whose index was dropped, and that no snapshot or clone names. Nothing is judged while a capture runs. */
  #staleIndex(key: string, references: References, alive: ReadonlySet<string>): boolean {
    const name = parseObjectName(key);
    if (name?.kind !== 'segment' || !alive.has(name.prefix) || isReferenced(references, key)) return false;
    const build = indexBuildOf(name.name);
    return build !== undefined && !references.pendingBuilds.has(build) && references.held.size === 0;
  }

  /** What no record of ours covers: counted, with a few examples. */
  async #unknown(
    found: Listing,
    known: ReadonlySet<string>,
  ): Promise<{ readonly objects: number; readonly bytes: number; readonly examples: readonly string[] }> {
    const { store, runtime } = this.#options;
    const unknown = { objects: 0, bytes: 0, examples: [] as string[] };
    const count = (key: string, objects: number, bytes: number): void => {
      unknown.objects += objects;
      unknown.bytes += bytes;
      if (unknown.examples.length < EXAMPLES) unknown.examples.push(key);
    };
    for (const { key, bytes } of found.stray) count(key, 1, bytes);
    for (const { key, bytes, id } of found.metadata) if (!store.state.snapshots.get(id)) count(key, 1, bytes);
    let seen = 0;
    for (const [prefix, { objects, bytes }] of found.prefixes) {
      if (!known.has(prefix)) count(prefix, objects, bytes);
      if (++seen % STRETCH === 0) await runtime.sleep(0);
    }
    return unknown;
  }

  async #list(): Promise<Listing> {
    const listing = emptyListing();
    for (const root of ['segments/', 'deltas/', 'snapshots/']) {
      let after: string | undefined;
      do {
        const page = await this.#options.objects.list(root, after === undefined ? {} : { after });
        for (const object of page.objects) take(listing, object.key, object.size);
        after = page.next;
      } while (after !== undefined);
    }
    return listing;
  }
}

function take(listing: Listing, key: string, bytes: number): void {
  listing.objects++;
  listing.bytes += bytes;
  const name = parseObjectName(key);
  if (!name) listing.stray.push({ key, bytes });
  else if (name.kind === 'metadata') listing.metadata.push({ key, bytes, id: name.id });
  else {
    const before = listing.prefixes.get(name.prefix) ?? { objects: 0, bytes: 0 };
    listing.prefixes.set(name.prefix, { objects: before.objects + 1, bytes: before.bytes + bytes });
    if (name.kind === 'segment' && indexBuildOf(name.name) !== undefined) listing.indexes.push({ key, bytes });
  }
}

function emptyListing(): Listing {
  return { prefixes: new Map(), indexes: [], stray: [], metadata: [], objects: 0, bytes: 0 };
}

/** Collection whose prefix a unit lies under. */
function ownerOf(unit: string): number | undefined {
  return parseObjectName(unit)?.collection;
}
