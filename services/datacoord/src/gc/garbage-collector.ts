import { asCairnError, type Logger, type Runtime, Turns } from '@cairn/base';
import { keys } from '@cairn/catalog';
import type { Compare } from '@cairn/meta';
import { DeltaLogRecord, PrefixRecord, SegmentRecord } from '@cairn/proto/cairn/meta';
import type { GcItem, GcReport } from '@cairn/proto/cairn/upkeep';
import { counter, gauge } from '@cairn/telemetry';
import { putRecord } from '../changes/change.ts';
import { snapshotBytes } from '../check/snapshot-compare.ts';
import type { LeaderStore } from '../leader-store.ts';
import type { PrefixSweeper } from '../prefix-sweeper.ts';
import type { DataCoordSettings } from '../settings.ts';
import { recordBytes } from '../snapshot-metrics.ts';
import type { BucketIdentity } from './bucket-identity.ts';
import type { Burial, GarbagePlan, GarbagePlanner } from './garbage-plan.ts';
import { type DroppedRecord, isReferenced, type ReferenceReader } from './references.ts';

const REPORT_ITEMS = 1_000;
/** Records in one transaction: a segment's and those of its index builds, below the store's limit. */
const DELETE_PAGE = 80;
/** The whole bucket is listed at every so many rounds; the others go by records alone. */
const LISTING_ROUNDS = 10;

const blockedGauge = gauge<{ reason: string }>('cairn_gc_blocked', {
  description: '1 while garbage collection may delete nothing: the bucket is not ours (bucket), or references are not known (references)',
  unit: '{state}',
});
const loadedGauge = gauge('cairn_gc_references_loaded', {
  description: 'Part of the committed snapshots whose references are known, 0 to 1',
  unit: '1',
});
const markedCount = counter('cairn_gc_marked', { description: 'Prefixes recorded as dead by garbage collection', unit: '{prefix}' });
const deletedCount = counter('cairn_gc_deleted', { description: 'Dead prefixes whose objects were deleted', unit: '{prefix}' });
const deletedBytes = counter('cairn_gc_deleted_bytes', { description: 'Bytes of deleted objects', unit: 'By' });
const deadGauge = gauge('cairn_gc_dead', { description: 'Prefixes recorded as dead and not yet deleted', unit: '{prefix}' });

export interface GarbageCollectorOptions {
  readonly store: LeaderStore;
  readonly runtime: Runtime;
  readonly logger: Logger;
  readonly settings: DataCoordSettings;
  readonly identity: BucketIdentity;
  readonly planner: GarbagePlanner;
  readonly references: ReferenceReader;
  readonly prefixes: PrefixSweeper;
  readonly stop: AbortSignal;
}

/**
 * Garbage collection: what nothing refers to is recorded as dead, with a compare on everything that made it so; after the grace time references
 * are read once more, and only what still has none is deleted. One round at a time.
 */
export class GarbageCollector {
  readonly #options: GarbageCollectorOptions;
  #turn: Promise<unknown> = Promise.resolve();
  #rounds = 0;
  #blocked = '';

  constructor(options: GarbageCollectorOptions) {
    this.#options = options;
    // A dead prefix goes only after a second look at what refers to it.
    options.prefixes.guard(async (due) => this.#unreferenced(due));
  }

  async plan(limit: number): Promise<GcReport> {
    const { planner, runtime } = this.#options;
    const blocked = await this.#foreign();
    const plan = await planner.plan(runtime.now(), true);
    return report({ ...plan, blocked: [...blocked, ...plan.blocked] }, limit, { marked: 0, deletedPrefixes: 0, deletedBytes: 0 });
  }

  /** A full round now, in turn with the periodic ones. */
  run(limit: number): Promise<GcReport> {
    return this.#inTurn(() => this.#collect(true, limit));
  }

  /** The periodic round. */
  async round(): Promise<void> {
    await this.#inTurn(() => this.#collect(this.#rounds++ % LISTING_ROUNDS === 0, 0));
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(work, work);
    this.#turn = turn.catch(() => undefined);
    return turn;
  }

  async #collect(listing: boolean, limit: number): Promise<GcReport> {
    const { planner, runtime, prefixes, logger, stop } = this.#options;
    const foreign = await this.#foreign();
    const plan = await planner.plan(runtime.now(), listing);
    const blocked = [...foreign, ...plan.blocked];
    this.#say(foreign, plan.blocked);
    if (listing) recordBytes((await snapshotBytes(plan.references, new Turns(runtime))).values());
    const done = { marked: 0, deletedPrefixes: 0, deletedBytes: 0 };
    if (blocked.length > 0) return report({ ...plan, blocked }, limit, done);
    for (const burial of plan.burials) {
      if (stop.aborted) break;
      if (await this.#bury(burial)) done.marked++;
    }
    for (const record of plan.records) {
      if (stop.aborted) break;
      await this.#forget(record);
    }
    const swept = await prefixes.sweep(true);
    done.deletedPrefixes = swept.prefixes;
    done.deletedBytes = swept.bytes;
    markedCount.add(done.marked);
    deletedCount.add(swept.prefixes);
    deletedBytes.add(swept.bytes);
    deadGauge.record(plan.dead.length + done.marked - swept.prefixes);
    if (done.marked + swept.prefixes > 0) logger.info({ ...done }, 'garbage collected');
    return report(plan, limit, done);
  }

  #say(bucket: readonly string[], references: readonly string[]): void {
    const blocked = [...bucket, ...references];
    blockedGauge.record(bucket.length > 0 ? 1 : 0, { reason: 'bucket' });
    blockedGauge.record(references.length > 0 ? 1 : 0, { reason: 'references' });
    const committed = this.#options.store.state.snapshots.size;
    loadedGauge.record(committed === 0 ? 1 : Math.max(0, 1 - references.length / committed));
    const words = blocked.join('; ');
    if (words !== this.#blocked && words !== '') this.#options.logger.warn({ blocked }, 'garbage collection deletes nothing');
    this.#blocked = words;
  }

  async #foreign(): Promise<string[]> {
    try {
      await this.#options.identity.require();
      return [];
    } catch (error) {
      return [asCairnError(error).message];
    }
  }

  /** False when something it was judged by has changed: the next round judges again. */
  async #bury(burial: Burial): Promise<boolean> {
    const { store, runtime, prefixes } = this.#options;
    const record: PrefixRecord = {
      prefix: burial.prefix,
      dead: true,
      createdMs: runtime.now(),
      deadMs: runtime.now(),
      purpose: burial.reason,
    };
    const notNamed = burial.notNamedBy === undefined ? [] : await this.#notNaming(burial.notNamedBy, burial.prefix);
    if (notNamed === undefined) return false;
    const deletes: string[] = [...burial.deletes];
    for (const key of burial.deletes) deletes.push(...(await this.#buildsOf(key)));
    const revision = await store.commit({
      if: [...burial.if, ...notNamed],
      puts: [putRecord(keys.prefix(burial.prefix), PrefixRecord, record)],
      deletes: deletes.slice(0, DELETE_PAGE),
    });
    if (revision === undefined) return false;
    for (let at = DELETE_PAGE; at < deletes.length; at += DELETE_PAGE)
      await store.mustCommit({ deletes: deletes.slice(at, at + DELETE_PAGE) });
    prefixes.buried(record);
    return true;
  }

  /** Compares that hold while the record at `key` is missing or names another generation; undefined when it names this very prefix. */
  async #notNaming(key: string, prefix: string): Promise<readonly Compare[] | undefined> {
    const { store } = this.#options;
    const entry = await store.retrying(() => store.meta.get(key));
    if (!entry) return [{ kind: 'missing', key }];
    const named = key.startsWith(keys.allSegments)
      ? SegmentRecord.decode(entry.value).prefix
      : key.startsWith(keys.allDeltas)
        ? DeltaLogRecord.decode(entry.value).object?.key
        : prefix;
    return named === prefix ? undefined : [{ kind: 'modRevision', key, equals: entry.modRevision }];
  }

  /** Keys of the index builds of a segment record; none for a delta log's. */
  async #buildsOf(key: string): Promise<string[]> {
    const [kind, collection, id] = key.split('/');
    if (kind !== 'segment') return [];
    const { store } = this.#options;
    return (await store.list(`${keys.segmentIndexes(Number(collection))}${id}/`)).map((entry) => entry.key);
  }

  /** A record of a clone that is gone: its objects belong to another prefix. */
  async #forget({ key, revision }: DroppedRecord): Promise<void> {
    const deletes = [key, ...(await this.#buildsOf(key))];
    await this.#options.store.commit({ if: [{ kind: 'modRevision', key, equals: revision }], deletes: deletes.slice(0, DELETE_PAGE) });
  }

  /** Of dead prefixes that are due, those that may go. A reference to a dead one is a bug of ours: it is kept, and said aloud. */
  async #unreferenced(due: readonly string[]): Promise<readonly string[]> {
    const { identity, references, logger } = this.#options;
    await identity.require();
    const found = await references.read();
    if (found.blocked.length > 0) {
      this.#say([], found.blocked);
      return [];
    }
    return due.filter((prefix) => {
      const referenced = isReferenced(found, prefix);
      if (referenced) logger.error({ prefix }, 'a dead prefix is referred to; it is kept');
      return !referenced;
    });
  }
}

function report(
  plan: GarbagePlan,
  limit: number,
  done: { readonly marked: number; readonly deletedPrefixes: number; readonly deletedBytes: number },
): GcReport {
  const fresh = plan.burials.map(({ prefix, reason, objects, bytes }): GcItem => ({ prefix, reason, objects, bytes, deadMs: 0, dueMs: 0 }));
  const items = [...fresh, ...plan.dead];
  return {
    blocked: [...plan.blocked],
    items: items.slice(0, limit === 0 ? REPORT_ITEMS : limit),
    candidateCount: items.length,
    candidateBytes: items.reduce((sum, item) => sum + item.bytes, 0),
    ...done,
    objects: plan.objects,
    bytes: plan.bytes,
    unknownObjects: plan.unknownObjects,
    unknownBytes: plan.unknownBytes,
    unknownExamples: [...plan.unknownExamples],
  };
}
