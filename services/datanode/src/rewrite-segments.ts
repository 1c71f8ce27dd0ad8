import { CairnError, mapLimit, type Runtime } from '@cairn/base';
import type { ObjectStore } from '@cairn/objects';
import { type RewriteTask, RewrittenSegment } from '@cairn/proto/cairn/services';
import { decodeSchema, hashKeys, shardOf, takeColumn } from '@cairn/schema';
import { mergeSegments, type SealedSegment, type Surviving, survivingRows, writeSegment } from '@cairn/segment';
import type { DeltaLogs } from './delta-logs.ts';
import type { SegmentOpener } from './held-shard.ts';

export interface RewriteParts {
  readonly objects: ObjectStore;
  readonly runtime: Runtime;
  readonly open: SegmentOpener;
  readonly deltaLogs: Pick<DeltaLogs, 'apply'>;
}

/** Inputs opened at once: each is one read of its scalars. */
const PARALLEL_OPENS = 4;
/** Keys hashed in one stretch: about a millisecond. */
const STRETCH_ROWS = 4_096;

/**
 * Writes the rows that readers of a snapshot see in these segments into one segment a shard of the target, by the hash that routes writes there. Rows
 * keep timestamps and row ids. One shard after the other, column by column, so that memory holds one result and one column of one input.
 */
export async function rewriteSegments(
  parts: RewriteParts,
  task: RewriteTask,
  onShard: () => void,
  signal: AbortSignal,
): Promise<RewrittenSegment[]> {
  const { objects, runtime, deltaLogs } = parts;
  const schema = decodeSchema(task.schema);
  const shards = task.prefixes.length;
  const opened: SealedSegment[] = [];
  const goOn = (): void => {
    if (signal.aborted) throw new CairnError('Cancelled', `rewriting to ${task.prefixes[0]} was cancelled: its caller has gone`);
  };
  try {
    const segments = await mapLimit(task.segments, PARALLEL_OPENS, async (record) => {
      goOn();
      const segment = await parts.open(record, schema);
      opened.push(segment);
      return segment;
    });
    for (const shard of new Set(task.segments.map((record) => record.shard))) {
      const logs = task.deltaLogs.filter((log) => log.shard === shard);
      const touched = segments.flatMap((segment, at) =>
        task.segments[at].shard === shard ? [{ segment, record: task.segments[at] }] : [],
      );
      await deltaLogs.apply(logs, touched);
    }
    goOn();
    const surviving = await survivingRows(segments, Number.POSITIVE_INFINITY, runtime);
    const routed = await routeRows(surviving, schema.primaryKey.id, shards, runtime);
    const written: RewrittenSegment[] = [];
    for (const [shard, share] of routed.entries()) {
      goOn();
      if (share.rows > 0) {
        const batch = await mergeSegments(share, schema, runtime);
        goOn();
        const {
          rows,
          minTs,
          maxTs,
          bytes,
          contentHash,
          objects: refs,
        } = await writeSegment({ objects, runtime, prefix: task.prefixes[shard], schema, batch });
        written.push(
          RewrittenSegment.fromPartial({ shard, rows, minTs, maxTs, bytes, contentHash, objects: refs, purgedTs: surviving.purgedTs }),
        );
      }
      onShard();
    }
    return written;
  } finally {
    for (const segment of opened) await segment.close();
  }
}

/** The surviving rows of each shard of the target. */
async function routeRows({ parts }: Surviving, keyField: number, shards: number, runtime: Runtime): Promise<Surviving[]> {
  const routed = Array.from({ length: shards }, () => ({
    parts: [] as { segment: SealedSegment; rows: Int32Array }[],
    rows: 0,
    purgedRows: 0,
    purgedTs: 0,
  }));
  for (const { segment, rows } of parts) {
    const keys = await segment.column(keyField);
    const targets = new Uint16Array(rows.length);
    const counts = new Int32Array(shards);
    for (let at = 0; at < rows.length; at += STRETCH_ROWS) {
      const hashes = hashKeys(takeColumn(keys, rows.subarray(at, at + STRETCH_ROWS)));
      for (let i = 0; i < hashes.length; i++) {
        const shard = shardOf(hashes[i], shards);
        targets[at + i] = shard;
        counts[shard]++;
      }
      await runtime.sleep(0);
    }
    const shares = Array.from(counts, (count) => new Int32Array(count));
    counts.fill(0);
    for (let i = 0; i < rows.length; i++) shares[targets[i]][counts[targets[i]]++] = rows[i];
    for (const [shard, share] of shares.entries()) {
      routed[shard].parts.push({ segment, rows: share });
      routed[shard].rows += share.length;
    }
  }
  return routed;
}
