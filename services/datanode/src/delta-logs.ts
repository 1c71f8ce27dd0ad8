import { CairnError, type Runtime } from '@cairn/base';
import { keys } from '@cairn/catalog';
import { type MetaStore, scan } from '@cairn/meta';
import type { ObjectStore } from '@cairn/objects';
import { DeltaLogRecord, GroupRecord, ShardRecord } from '@cairn/proto/cairn/meta';
import { deletesAsOf, readDeltaLog, type SealedSegment, sliceDeletes } from '@cairn/segment';

/** Deletes applied without a pause; some milliseconds. */
const SLICE_ROWS = 4096;

/** What the catalog says of a shard's flushed deletes. */
export interface FlushedDeletes {
  /** The logs hold every delete up to it. */
  readonly checkpoint: number;
  readonly logs: readonly DeltaLogRecord[];
}

/** Reads delta logs: from the object store, and which there are from the catalog. */
export class DeltaLogs {
  readonly #meta: MetaStore;
  readonly #objects: ObjectStore;
  readonly #runtime: Runtime;

  constructor(meta: MetaStore, objects: ObjectStore, runtime: Runtime) {
    this.#meta = meta;
    this.#objects = objects;
    this.#runtime = runtime;
  }

  /** Applies the logs to these segments, each log read once. Segments that readers see already may be among them: deletes only add up. */
  async apply(logs: readonly DeltaLogRecord[], segments: readonly DeletableSegment[]): Promise<void> {
    for (const log of logs) {
      const touched = segments.filter((segment) => concerns(log, segment));
      if (touched.length === 0 || !log.object) continue;
      // A log of a snapshot may straddle its point in time, and its deletes are older than the commit_ts of the rows: original times decide.
      const deletes = deletesAsOf(await readDeltaLog(this.#objects, log.object), log.asOf);
      const original = log.asOf > 0;
      for (const { segment } of touched) {
        for (let at = 0; at < deletes.ts.length; at += SLICE_ROWS) {
          if (at > 0) await this.#runtime.sleep(0);
          segment.applyDeletes(sliceDeletes(deletes, at, Math.min(at + SLICE_ROWS, deletes.ts.length)), { original });
        }
      }
    }
  }

  /** The shard's logs as the catalog has them now. */
  async flushed(collectionId: number, vchannel: string): Promise<FlushedDeletes> {
    // The checkpoint first: logs that are added after it was read do no harm, a log that is missing below it would.
    const shard = await this.shard(collectionId, vchannel);
    const logs: DeltaLogRecord[] = [];
    const published = new Map<string, boolean>();
    for await (const page of scan(this.#meta, keys.deltas(collectionId))) {
      for (const entry of page) {
        const log = DeltaLogRecord.decode(entry.value);
        if (log.shard !== shard.shard || log.droppedTs !== 0) continue;
        if (log.group !== '' && !published.has(log.group)) published.set(log.group, await this.#isPublished(log.group));
        if (log.group === '' || published.get(log.group)) logs.push(log);
      }
    }
    return { checkpoint: shard.checkpoint, logs };
  }

  /** The shard's record; its checkpoint is where the log is needed from. */
  async shard(collectionId: number, vchannel: string): Promise<ShardRecord> {
    for await (const page of scan(this.#meta, keys.shards(collectionId))) {
      for (const entry of page) {
        const shard = ShardRecord.decode(entry.value);
        if (shard.vchannel === vchannel) return shard;
      }
    }
    throw new CairnError('ChannelNotFound', `shard ${vchannel} of collection ${collectionId} is not in the catalog`);
  }

  async #isPublished(group: string): Promise<boolean> {
    const entry = await this.#meta.get(keys.group(group));
    return entry !== undefined && GroupRecord.decode(entry.value).published;
  }
}

/** What deletes are applied to. */
export interface DeletableSegment {
  readonly record: { readonly id: number; readonly partitionId: number; readonly minTs: number; readonly commitTs: number };
  readonly segment: Pick<SealedSegment, 'applyDeletes'>;
}

/** False when no delete of the log can hit a row: another partition, or all of them older than the oldest row. */
function concerns(log: DeltaLogRecord, { record }: DeletableSegment): boolean {
  const oldestRow = record.commitTs > 0 ? Math.min(record.minTs, record.commitTs) : record.minTs;
  return (log.partitionId === 0 || log.partitionId === record.partitionId) && log.maxTs > oldestRow;
}
