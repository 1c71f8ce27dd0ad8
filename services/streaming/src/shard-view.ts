import { asCairnError, CairnError, hasCode, type Logger, type Runtime } from '@cairn/base';
import type { SegmentRecord } from '@cairn/proto/cairn/meta';
import { DataNodeDefinition, type LoadSegmentsRequest } from '@cairn/proto/cairn/services';
import type { Transport } from '@cairn/rpc';
import { encodeSchema } from '@cairn/schema';
import type { StreamingCatalog } from './catalog-face.ts';
import type { CollectionSegments } from './collection-segments.ts';
import { type DataNodeInstance, Placement } from './placement.ts';
import type { GrowingPart, Shard } from './shard.ts';

/** Segments of one LoadSegments call. */
const SEGMENTS_PER_LOAD = 64;
const RETRY_FIRST_MS = 50;
const RETRY_MAX_MS = 5000;

/** Where one request reads: fixed at one instant, so that each row is in exactly one source. Released when the request is done. */
export interface ReadView {
  readonly growing: readonly GrowingPart[];
  readonly holders: readonly { readonly node: DataNodeInstance; readonly segmentIds: readonly number[] }[];
  /** Rows deleted at or before it may be gone: a read at an earlier timestamp would miss them. */
  readonly purgedTs: number;
  release(): void;
}

interface Entry {
  readonly record: SegmentRecord;
  /** Who serves it. */
  holder: DataNodeInstance | undefined;
  /** What it was loaded with: schema version and index builds. */
  loadedAs: string;
  /** Compacted away; read until what has its rows now is served. */
  leaving: boolean;
  /** It, or a segment it was sent together with, could not be loaded: it goes alone, after those that were tried less often. */
  failures: number;
  /** An object of the store that is missing or damaged, so that it cannot be loaded. */
  damage: CairnError | undefined;
}

/** Something at a datanode that goes once no request that may use it is left. */
interface Garbage {
  readonly usedBy: Set<ReadView>;
  readonly run: () => void;
}

/** What goes to a datanode in one call: segments that never failed together, then the others one by one, so that one bad object holds up nothing else. */
function nextBatch(due: readonly Entry[]): readonly Entry[] {
  const fresh = due.filter((entry) => entry.failures === 0);
  if (fresh.length > 0) return fresh.slice(0, SEGMENTS_PER_LOAD);
  return due.toSorted((a, b) => a.failures - b.failures).slice(0, 1);
}

export interface ShardViewOptions {
  readonly shard: Shard;
  readonly segments: CollectionSegments;
  readonly catalog: StreamingCatalog;
  readonly transport: Transport;
  readonly runtime: Runtime;
  readonly logger: Logger;
  readonly loadTimeoutMs: number;
  nodes(): readonly DataNodeInstance[];
}

/**
 * Where the rows of a loaded shard are read: sealed segments on datanodes, the rest here. A sealed segment takes the place of its growing source only
 * when a datanode serves it, in one step; what was replaced is released when no request uses it any more.
 */
export class ShardView {
  readonly #options: ShardViewOptions;
  readonly #entries = new Map<number, Entry>();
  readonly #placement = new Placement();
  readonly #busy = new Set<string>();
  readonly #delays = new Map<string, number>();
  readonly #reads = new Set<ReadView>();
  readonly #garbage = new Set<Garbage>();
  readonly #over = new AbortController();
  /** Segments whose rows are still read from their leaving sources. */
  #deferred: ReadonlySet<number> = new Set();
  /** What a segment was compacted into, as the results say it: the news of the sources may come later. */
  #into: ReadonlyMap<number, number> = new Map();
  /** Of segments that were here: what they or their compaction left out. */
  #purgedTs = 0;
  #partitions: ReadonlySet<number> = new Set();
  /** The segments that were there when the collection was loaded are known; before, nothing can be read. */
  #listed = false;
  #changed = Promise.withResolvers<void>();

  constructor(options: ShardViewOptions) {
    this.#options = options;
    options.segments.ready.then(
      () => this.reconcile(),
      () => undefined,
    );
  }

  /** Rows of sealed segments, and those of them that a datanode serves. */
  get progress(): { sealedRows: number; loadedRows: number; complete: boolean } {
    let sealedRows = 0;
    let loadedRows = 0;
    for (const { record, holder, leaving } of this.#entries.values()) {
      if (leaving) continue;
      sealedRows += record.rows;
      if (holder || this.#deferred.has(record.id)) loadedRows += record.rows;
    }
    return {
      sealedRows,
      loadedRows,
      complete: this.#listed && [...this.#entries.values()].every((entry) => this.#isCovered(entry)),
    };
  }

  /** Why a segment cannot be loaded, naming the object that is missing or damaged; undefined: nothing is known to be. It is tried on. */
  get damage(): CairnError | undefined {
    for (const entry of this.#entries.values()) if (entry.damage && !entry.leaving && !this.#isCovered(entry)) return entry.damage;
    return undefined;
  }

  holders(): { segmentId: number; nodeId: string; rows: number }[] {
    return [...this.#entries.values()]
      .filter(({ record }) => !this.#deferred.has(record.id))
      .map(({ record, holder }) => ({ segmentId: record.id, nodeId: holder?.nodeId ?? '', rows: record.rows }));
  }

  /** Whether the partition is loaded and alive. */
  hasPartition(partitionId: number): boolean {
    return this.#partitions.has(partitionId);
  }

  /**
   * The sources of one read, all of them: waits until every sealed segment has a living holder or its growing source. An empty list of partitions
   * means all that are loaded. CollectionNotFullyLoaded (retriable) when the signal aborts first.
   */
  async acquire(partitionIds: readonly number[], signal: AbortSignal): Promise<ReadView> {
    const asked = partitionIds.length > 0 ? new Set(partitionIds) : undefined;
    for (;;) {
      if (this.#over.signal.aborted) throw this.#over.signal.reason;
      const wanted = asked ?? this.#partitions;
      const missing = this.#missing(wanted);
      if (missing === undefined) return this.#snapshot(wanted);
      await this.#nextChange(signal, missing);
    }
  }

  /** A datanode turned out not to hold what it should: the segments are loaded again. */
  lost(node: DataNodeInstance, segmentIds: readonly number[]): void {
    for (const id of segmentIds) {
      const entry = this.#entries.get(id);
      if (entry?.holder?.key === node.key) entry.holder = undefined;
    }
    this.#settle();
    this.reconcile();
  }

  /** Brings what is loaded where in line with segments, partitions, indexes and living nodes. Called at each change of any of them. */
  reconcile(): void {
    if (this.#over.signal.aborted) return;
    // Known from the catalog at once: a read of a partition that is loaded waits for the segments' first listing, it is not refused.
    this.#takePartitions();
    if (!this.#options.segments.isReady) return;
    this.#takeSegments();
    this.#listed = true;
    const nodes = this.#options.nodes();
    const alive = new Set(nodes.map((node) => node.key));
    const due = new Map<string, { node: DataNodeInstance; entries: Entry[] }>();
    for (const entry of this.#entries.values()) if (entry.holder && !alive.has(entry.holder.key)) entry.holder = undefined;
    this.#settle();
    const formOf = this.#forms();
    for (const entry of this.#entries.values()) {
      // Its objects may be gone already: it is read where it is, and loaded nowhere else.
      if (entry.leaving) continue;
      const node = this.#placement.of(entry.record.id, nodes);
      if (!node || (entry.holder?.key === node.key && entry.loadedAs === formOf(entry.record.id))) continue;
      const batch = due.get(node.key) ?? { node, entries: [] };
      batch.entries.push(entry);
      due.set(node.key, batch);
    }
    for (const { node, entries } of due.values()) {
      if (!this.#busy.has(node.key)) void this.#load(node, nextBatch(entries));
    }
    this.#notify();
  }

  /** The collection is released: datanodes let go of the shard once no request uses it. Resolves then. */
  async close(reason: CairnError): Promise<void> {
    const nodes = new Map<string, DataNodeInstance>();
    for (const { holder } of this.#entries.values()) if (holder) nodes.set(holder.key, holder);
    this.abandon(reason);
    const idle = Promise.withResolvers<void>();
    this.#discard(idle.resolve);
    await idle.promise;
    await Promise.all([...nodes.values()].map((node) => this.#release(node, [])));
  }

  /** The channel belongs to another node now: what is loaded stays for its view. */
  abandon(reason: CairnError): void {
    this.#over.abort(reason);
    this.#notify();
  }

  // ---- what is read

  #readable(entry: Entry): boolean {
    return entry.holder !== undefined || this.#options.shard.retains(entry.record.id);
  }

  /** Its rows can be read now: here, at a datanode, or from what it was compacted from. */
  #isCovered(entry: Entry): boolean {
    return this.#readable(entry) || this.#deferred.has(entry.record.id);
  }

  /** Why a read must wait; undefined: it need not. */
  #missing(wanted: ReadonlySet<number>): string | undefined {
    if (!this.#listed) return 'its segments are not listed yet';
    for (const entry of this.#entries.values()) {
      if (wanted.has(entry.record.partitionId) && !this.#isCovered(entry))
        return entry.damage?.message ?? `segment ${entry.record.id} is on no datanode yet`;
    }
    return undefined;
  }

  #snapshot(wanted: ReadonlySet<number>): ReadView {
    const byNode = new Map<string, { node: DataNodeInstance; segmentIds: number[] }>();
    let purgedTs = this.#purgedTs;
    for (const { record, holder } of this.#entries.values()) {
      if (!wanted.has(record.partitionId) || this.#deferred.has(record.id)) continue;
      purgedTs = Math.max(purgedTs, record.purgedTs);
      // Without a holder the growing source is still here.
      if (!holder) continue;
      const group = byNode.get(holder.key) ?? { node: holder, segmentIds: [] };
      group.segmentIds.push(record.id);
      byNode.set(holder.key, group);
    }
    const growing = this.#options.shard.parts().filter((part) => wanted.has(part.partitionId) && this.#partitions.has(part.partitionId));
    const view: ReadView = { growing, holders: [...byNode.values()], purgedTs, release: () => this.#done(view) };
    this.#reads.add(view);
    return view;
  }

  #done(view: ReadView): void {
    this.#reads.delete(view);
    for (const item of this.#garbage) {
      item.usedBy.delete(view);
      if (item.usedBy.size > 0) continue;
      this.#garbage.delete(item);
      item.run();
    }
  }

  /** Runs once no request of now is left. */
  #discard(run: () => void): void {
    if (this.#reads.size === 0) run();
    else this.#garbage.add({ usedBy: new Set(this.#reads), run });
  }

  #notify(): void {
    this.#changed.resolve();
    this.#changed = Promise.withResolvers<void>();
  }

  async #nextChange(signal: AbortSignal, why: string): Promise<void> {
    const { shard } = this.#options;
    const late = (): CairnError =>
      new CairnError('CollectionNotFullyLoaded', `collection ${shard.collectionId} not fully loaded: ${shard.vchannel}, ${why}`);
    if (signal.aborted) throw late();
    const { promise, reject } = Promise.withResolvers<never>();
    const onAbort = (): void => reject(late());
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      await Promise.race([this.#changed.promise, promise]);
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  // ---- what is loaded

  #takePartitions(): void {
    const { catalog, shard } = this.#options;
    const load = catalog.load(shard.collectionId);
    if (!load) return;
    const alive = catalog.partitions(shard.collectionId).filter((partition) => partition.droppedTs === 0);
    const loaded = load.partitionIds.length === 0 ? alive : alive.filter((partition) => load.partitionIds.includes(partition.id));
    this.#partitions = new Set(loaded.map((partition) => partition.id));
  }

  #takeSegments(): void {
    const { segments, shard } = this.#options;
    const gone = new Map(this.#entries);
    const sealed = segments.sealed(shard.index);
    this.#into = new Map(sealed.flatMap((record) => record.compactedFrom.map((from): [number, number] => [from, record.id])));
    for (const record of sealed) {
      if (this.#into.has(record.id)) continue;
      if (!this.#partitions.has(record.partitionId)) {
        // Nobody will read it, so nobody will drop its source.
        shard.drop(record.id);
        continue;
      }
      gone.delete(record.id);
      const entry = this.#entries.get(record.id);
      if (!entry) this.#entries.set(record.id, { record, holder: undefined, loadedAs: '', leaving: false, failures: 0, damage: undefined });
    }
    for (const [id, entry] of gone) {
      const record = segments.segment(id);
      const compacted = record !== undefined && this.#intoOf(id) > 0 && this.#partitions.has(record.partitionId);
      if (compacted) entry.leaving = true;
      else this.#remove(id, entry);
    }
    this.#settle();
  }

  #remove(id: number, entry: Entry): void {
    const { segments, shard } = this.#options;
    this.#purgedTs = Math.max(this.#purgedTs, segments.segment(id)?.purgedTs ?? 0, entry.record.purgedTs);
    this.#entries.delete(id);
    this.#placement.forget(id);
    shard.drop(id);
    const { holder } = entry;
    if (holder) this.#discard(() => void this.#release(holder, [id]));
  }

  /**
   * The swap of a compaction, in one step: sources are read until the segment that has their rows now is served, then they go and it is read. When
   * one of the sources cannot be read any more, all of them go, and reads wait for the segment. So too when nobody knows which segment that is: a
   * transaction is seen whole, so a segment without a record is not one to come, it was compacted further and its record has been removed.
   */
  #settle(): void {
    const sources = new Map<number, [number, Entry][]>();
    for (const [id, entry] of this.#entries) {
      if (!entry.leaving) continue;
      const heir = this.#heirOf(id);
      const of = sources.get(heir);
      if (of) of.push([id, entry]);
      else sources.set(heir, [[id, entry]]);
    }
    const deferred = new Set<number>();
    for (const [heir, of] of sources) {
      const entry = this.#entries.get(heir);
      const waits = entry !== undefined && !entry.holder && this.#readsSources(heir);
      if (waits) deferred.add(heir);
      // What was never loaded stands between the sources and their heir: it goes in any case.
      for (const [id, source] of of) if (!waits || !this.#readable(source)) this.#remove(id, source);
    }
    this.#deferred = deferred;
  }

  /** The segment at the end of the chain of compactions that this one went into. */
  #heirOf(id: number): number {
    let heir = id;
    for (let next = this.#intoOf(heir); next > 0; next = this.#intoOf(heir)) heir = next;
    return heir;
  }

  #intoOf(id: number): number {
    return this.#options.segments.segment(id)?.compactedInto || (this.#into.get(id) ?? 0);
  }

  /** Whether every row of it can be read from entries that it was compacted from. */
  #readsSources(id: number): boolean {
    const from = this.#options.segments.segment(id)?.compactedFrom ?? [];
    return (
      from.length > 0 &&
      from.every((source) => {
        const entry = this.#entries.get(source);
        return (entry?.leaving === true && this.#readable(entry)) || this.#readsSources(source);
      })
    );
  }

  /** What decides whether a loaded segment must be sent again, as of now. */
  #forms(): (segmentId: number) => string {
    const { catalog, segments, shard } = this.#options;
    const live = new Set(catalog.indexes(shard.collectionId).flatMap((index) => (index.droppedTs === 0 ? [index.id] : [])));
    const version = catalog.collection(shard.collectionId)?.record.schemaVersion ?? 0;
    return (segmentId) => {
      const builds = segments.indexes(segmentId).filter((build) => live.has(build.indexId));
      return `${version}/${builds
        .map((build) => build.buildId)
        .sort((a, b) => a - b)
        .join(',')}`;
    };
  }

  async #load(node: DataNodeInstance, entries: readonly Entry[]): Promise<void> {
    const { transport, loadTimeoutMs, logger, runtime, shard } = this.#options;
    const request = this.#loadRequest(entries);
    if (!request) return;
    this.#busy.add(node.key);
    const formOf = this.#forms();
    const forms = entries.map((entry) => formOf(entry.record.id));
    try {
      await transport
        .client(DataNodeDefinition, node.address)
        .loadSegments(request, { signal: this.#over.signal, timeoutMs: loadTimeoutMs });
      this.#delays.delete(node.key);
      for (const [at, entry] of entries.entries()) this.#loaded(node, entry, forms[at] ?? '');
    } catch (error) {
      if (this.#over.signal.aborted) return;
      const delay = Math.min(RETRY_MAX_MS, (this.#delays.get(node.key) ?? RETRY_FIRST_MS / 2) * 2);
      this.#delays.set(node.key, delay);
      const damage = hasCode(error, 'ObjectNotFound', 'ObjectDamaged') ? asCairnError(error) : undefined;
      for (const entry of entries) {
        entry.failures++;
        entry.damage = damage;
      }
      logger.warn(
        { vchannel: shard.vchannel, node: node.nodeId, segments: entries.map((entry) => entry.record.id), error: asCairnError(error) },
        'segments could not be loaded, it is tried again',
      );
      await runtime.sleep(delay);
    } finally {
      this.#busy.delete(node.key);
    }
    this.reconcile();
  }

  #loadRequest(entries: readonly Entry[]): LoadSegmentsRequest | undefined {
    const { catalog, segments, shard } = this.#options;
    const collection = catalog.collection(shard.collectionId);
    if (!collection) return undefined;
    return {
      vchannel: shard.vchannel,
      collectionId: shard.collectionId,
      schema: encodeSchema(collection.schema),
      segments: entries.map((entry) => entry.record),
      segmentIndexes: entries.flatMap((entry) => segments.indexes(entry.record.id)),
      indexes: catalog.indexes(shard.collectionId).filter((index) => index.droppedTs === 0),
      deltaLogs: segments.deltaLogs(shard.index),
      channel: shard.record.channel,
      checkpoint: shard.checkpoint,
      deleteSequence: shard.lastDeleteSequence,
    };
  }

  #loaded(node: DataNodeInstance, entry: Entry, form: string): void {
    const { shard, nodes } = this.#options;
    const { id } = entry.record;
    const before = entry.holder;
    if (this.#entries.get(id) !== entry) {
      // Dropped meanwhile.
      this.#discard(() => void this.#release(node, [id]));
      return;
    }
    if (!nodes().some((living) => living.key === node.key)) return;
    entry.holder = node;
    entry.loadedAs = form;
    entry.failures = 0;
    entry.damage = undefined;
    shard.drop(id);
    this.#settle();
    if (!before || before.key === node.key) return;
    this.#discard(() => {
      if (this.#entries.get(id)?.holder?.key !== before.key) void this.#release(before, [id]);
    });
  }

  async #release(node: DataNodeInstance, segmentIds: readonly number[]): Promise<void> {
    const { transport, shard, logger, nodes } = this.#options;
    if (!nodes().some((living) => living.key === node.key)) return;
    try {
      await transport
        .client(DataNodeDefinition, node.address)
        .releaseSegments({ vchannel: shard.vchannel, segmentIds: [...segmentIds] }, {});
    } catch (error) {
      // It costs memory there, nothing else; a node that starts again is empty.
      logger.warn(
        { vchannel: shard.vchannel, node: node.nodeId, segmentIds, error: asCairnError(error) },
        'a datanode did not release segments',
      );
    }
  }
}
