import { assert, CairnError, KeyedMutex, type Logger, mapLimit, type Runtime } from '@cairn/base';
import type { IndexPool } from '@cairn/index';
import type { ObjectStore } from '@cairn/objects';
import type { ObjectRef, SegmentIndexRecord, SegmentRecord } from '@cairn/proto/cairn/meta';
import type { LoadSegmentsRequest } from '@cairn/proto/cairn/services';
import { type CollectionSchema, decodeSchema } from '@cairn/schema';
import { openSegment, type SealedSegment, type VectorMemory } from '@cairn/segment';
import type { WalStore } from '@cairn/wal';
import { DeleteHistory, type TailDelete } from './delete-history.ts';
import { DeleteTail } from './delete-tail.ts';
import type { DeltaLogs, FlushedDeletes } from './delta-logs.ts';
import { IndexOpener } from './index-opener.ts';
import type { LocalFile, LocalFiles } from './local-files.ts';
import { SegmentHolder } from './segment-holder.ts';

/** How a sealed segment is opened; tests put their own here. */
export type SegmentOpener = (record: SegmentRecord, schema: CollectionSchema) => Promise<SealedSegment>;

export interface ShardParts {
  readonly wal: WalStore;
  readonly deltaLogs: DeltaLogs;
  readonly files: LocalFiles;
  readonly pool: Pick<IndexPool, 'open' | 'release'>;
  readonly runtime: Runtime;
  readonly logger: Logger;
  readonly open: SegmentOpener;
  /** Segments of a request opened at once. */
  readonly openConcurrency: number;
  /** Deletes kept for segments that may still be loaded; above it the catalog's checkpoint is asked and what it covers is forgotten. */
  readonly maxHistoryBytes: number;
}

/** Least time between two looks at the checkpoint for the sake of memory. */
const TRIM_PAUSE_MS = 1000;

/**
 * Opens segments where libs/segment finds them. Vectors are read at their first use, so their objects are looked at here: a segment that opens can be
 * read. ObjectNotFound, ObjectDamaged name the object; a flipped bit of a vector is found at the first use, by its checksum.
 */
export function segmentOpener(objects: ObjectStore, runtime: Runtime, cacheDir: string | undefined, memory?: VectorMemory): SegmentOpener {
  return async (record, schema) => {
    const later = record.objects.filter((ref) => ref.role !== 'scalars' && schema.byId.has(ref.fieldId));
    await Promise.all(later.map((ref) => requireWhole(objects, ref)));
    return openSegment({ objects, runtime, record, schema, cacheDir, memory });
  };
}

async function requireWhole(objects: ObjectStore, { key, size }: ObjectRef): Promise<void> {
  const found = await objects.head(key);
  if (!found) throw new CairnError('ObjectNotFound', `object not found: ${key} in ${objects.uri}`);
  if (found.size !== size)
    throw new CairnError('ObjectDamaged', `object damaged: ${key} in ${objects.uri} has ${found.size} bytes, recorded were ${size}`);
}

/** The sealed segments of one shard that are loaded here, and the one tail of its deletes. */
export class HeldShard {
  readonly vchannel: string;
  readonly #parts: ShardParts;
  readonly #holders = new Map<number, SegmentHolder>();
  readonly #mutex = new KeyedMutex();
  readonly #indexes: IndexOpener;
  #schemaBytes: Uint8Array = new Uint8Array(0);
  #schema: CollectionSchema | undefined;
  #collectionId = 0;
  #history = new DeleteHistory(0);
  #tail: DeleteTail | undefined;
  #trimNotBefore = Number.NEGATIVE_INFINITY;
  #closed = false;

  constructor(vchannel: string, parts: ShardParts) {
    this.vchannel = vchannel;
    this.#parts = parts;
    this.#indexes = new IndexOpener(parts.files, parts.pool, parts.logger, parts.runtime);
  }

  get schema(): CollectionSchema {
    if (!this.#schema) throw new CairnError('CollectionNotLoaded', `shard ${this.vchannel} is not loaded on this node`);
    return this.#schema;
  }

  /** 0 before the first load. */
  get collectionId(): number {
    return this.#collectionId;
  }

  get segmentIds(): number[] {
    return [...this.#holders.keys()];
  }

  /** Sequence up to which deletes are applied; 0 before the first load. */
  get appliedDeletes(): number {
    return this.#tail?.applied ?? 0;
  }

  /** Bytes of deletes that are kept for segments to come. */
  get keptDeleteBytes(): number {
    return this.#history.bytes;
  }

  /**
   * Makes the segments searchable with all their deletes; those that are held already only take the new schema and indexes. One call at a time.
   * False when the shard was released meanwhile: another one must take its place.
   */
  load(request: LoadSegmentsRequest): Promise<boolean> {
    return this.#mutex.run('load', async () => {
      if (this.#closed) return false;
      this.#takeSchema(request);
      const wanted = request.segments.filter((record) => !this.#holders.has(record.id));
      const opened = await this.#open(wanted);
      try {
        await this.#join(request, opened);
      } catch (error) {
        await Promise.all(opened.filter((holder) => this.#holders.get(holder.record.id) !== holder).map((holder) => holder.retire()));
        throw error;
      }
      await this.#attachIndexes(request);
      return true;
    });
  }

  /** Waits until deletes up to the sequence are applied; Timeout (retriable) after `timeoutMs`. */
  async waitForDeletes(sequence: number, timeoutMs: number, signal?: AbortSignal): Promise<void> {
    if (sequence <= 0) return;
    if (!this.#tail) throw new CairnError('SegmentNotFound', `shard ${this.vchannel} is not loaded on this node`);
    await this.#tail.waitFor(sequence, timeoutMs, signal);
  }

  /** Runs a read over segments, which stay open until it ends. SegmentNotFound names the first that is not held here: its owner loads it again. */
  async read<T>(segmentIds: readonly number[], work: (segments: readonly SealedSegment[]) => Promise<T>): Promise<T> {
    const holders = segmentIds.map((id) => {
      const holder = this.#holders.get(id);
      if (!holder) throw new CairnError('SegmentNotFound', `segment ${id} of shard ${this.vchannel} is not loaded on this node`);
      return holder;
    });
    return SegmentHolder.reading(holders, () => work(holders.map((holder) => holder.segment)));
  }

  /** Lets go of segments; of all, and of the tail, when the list is empty. True when nothing is left. */
  async release(segmentIds: readonly number[]): Promise<boolean> {
    const empty = await this.#mutex.run('load', async () => {
      const ids = segmentIds.length > 0 ? segmentIds : [...this.#holders.keys()];
      const released = ids.flatMap((id) => this.#holders.get(id) ?? []);
      for (const holder of released) this.#holders.delete(holder.record.id);
      await Promise.all(released.map((holder) => holder.retire()));
      this.#closed ||= this.#holders.size === 0;
      return this.#closed;
    });
    // Outside the mutex: the tail may be reloading, which takes its turn there.
    if (empty) await this.#tail?.stop();
    return empty;
  }

  #takeSchema(request: LoadSegmentsRequest): void {
    this.#collectionId = request.collectionId;
    if (Buffer.compare(this.#schemaBytes, request.schema) === 0) return;
    const schema = decodeSchema(request.schema);
    // An owner that lags behind does not take a field away again: fields are only ever added.
    if (this.#schema && highestField(schema) < highestField(this.#schema)) return;
    this.#schemaBytes = request.schema;
    this.#schema = schema;
    for (const holder of this.#holders.values()) holder.segment.updateSchema(schema);
  }

  async #open(records: readonly SegmentRecord[]): Promise<SegmentHolder[]> {
    const opened: SegmentHolder[] = [];
    try {
      await mapLimit(records, this.#parts.openConcurrency, async (record) => {
        const segment = await this.#parts.open(record, this.schema);
        opened.push(new SegmentHolder(record, segment, (files) => this.#letGo(files)));
      });
      return opened;
    } catch (error) {
      await Promise.all(opened.map((holder) => holder.retire()));
      throw error;
    }
  }

  /** Gives new segments all deletes there are, then lets readers see them: flushed ones first, then in one step what the tail has brought. */
  async #join(request: LoadSegmentsRequest, opened: readonly SegmentHolder[]): Promise<void> {
    let flushed: FlushedDeletes = { checkpoint: request.checkpoint, logs: request.deltaLogs };
    if (this.#tail && this.#history.base > flushed.checkpoint) {
      // The owner's list is older than what was forgotten here.
      flushed = await this.#parts.deltaLogs.flushed(request.collectionId, this.vchannel);
    }
    if (opened.length > 0) await this.#parts.deltaLogs.apply(flushed.logs, opened);
    // Whatever forgets takes its turn with loads.
    assert(
      !this.#tail || this.#history.base <= flushed.checkpoint,
      `shard ${this.vchannel}: deletes between flushed and kept ones are missing`,
    );
    for (const holder of opened) {
      for (const entry of this.#history.after(flushed.checkpoint)) applyTo(holder, entry);
      this.#holders.set(holder.record.id, holder);
    }
    if (!this.#tail) this.#follow(request.channel, flushed.checkpoint);
    // Later requests bring at least these logs, so older deletes need not be kept. The tail may still be behind: what it brings is in the logs too.
    this.#history.forget(Math.min(flushed.checkpoint, this.appliedDeletes));
  }

  #follow(channel: string, applied: number): void {
    const { wal, runtime, logger } = this.#parts;
    this.#history = new DeleteHistory(applied);
    this.#tail = new DeleteTail({
      ...{ wal, runtime, logger, channel, applied },
      vchannel: this.vchannel,
      apply: (deletes) => this.#applyAll(deletes),
      reload: (from) => this.#reload(from),
    });
    this.#tail.start();
  }

  #applyAll(deletes: readonly TailDelete[]): void {
    for (const holder of this.#holders.values()) for (const entry of deletes) applyTo(holder, entry);
    this.#history.add(deletes);
    if (this.#history.bytes > this.#parts.maxHistoryBytes && this.#parts.runtime.monotonic() >= this.#trimNotBefore)
      void this.#trimHistory();
  }

  /** Forgets deletes that are in delta logs by now, when too many have gathered. */
  async #trimHistory(): Promise<void> {
    const { deltaLogs, runtime, logger } = this.#parts;
    this.#trimNotBefore = runtime.monotonic() + TRIM_PAUSE_MS;
    try {
      await this.#mutex.run('load', async () => {
        const { checkpoint } = await deltaLogs.shard(this.#collectionId, this.vchannel);
        this.#history.forget(Math.min(checkpoint, this.appliedDeletes));
      });
    } catch (error) {
      logger.warn({ vchannel: this.vchannel, error }, 'checkpoint could not be read; deletes are kept');
    }
  }

  /** The log begins behind what was applied: takes all flushed deletes instead. Not while segments join, which count on what is kept. */
  #reload(from: number): Promise<number> {
    return this.#mutex.run('load', async () => {
      const { checkpoint, logs } = await this.#parts.deltaLogs.flushed(this.#collectionId, this.vchannel);
      const missing = logs.filter((log) => log.lastSequence > from);
      await this.#parts.deltaLogs.apply(missing, [...this.#holders.values()]);
      this.#history.forget(checkpoint);
      return checkpoint;
    });
  }

  async #attachIndexes(request: LoadSegmentsRequest): Promise<void> {
    const alive = new Map(request.indexes.filter((index) => index.droppedTs === 0).map((index) => [index.id, index]));
    const wanted = request.segmentIndexes.flatMap((build): { holder: SegmentHolder; build: SegmentIndexRecord }[] => {
      const holder = this.#holders.get(build.segmentId);
      const held = holder?.holds(build) ?? false;
      return holder && !held && build.object && alive.has(build.indexId) ? [{ holder, build }] : [];
    });
    await mapLimit(wanted, this.#parts.openConcurrency, async ({ holder, build }) => {
      const opened = await this.#indexes.open(build, alive.get(build.indexId), holder.segment.rows);
      if (opened) holder.attach(build, opened);
    });
  }

  async #letGo(files: readonly LocalFile[]): Promise<void> {
    for (const file of files) await this.#indexes.release(file);
  }
}

function applyTo(holder: SegmentHolder, entry: TailDelete): void {
  if (entry.partitionId === 0 || entry.partitionId === holder.record.partitionId) holder.segment.applyDeletes(entry.deletes);
}

function highestField(schema: CollectionSchema): number {
  return schema.fields.reduce((highest, field) => Math.max(highest, field.id), 0);
}
