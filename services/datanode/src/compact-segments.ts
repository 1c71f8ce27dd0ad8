import { CairnError, mapLimit, type Runtime } from '@cairn/base';
import type { ObjectStore } from '@cairn/objects';
import type { ObjectRef } from '@cairn/proto/cairn/meta';
import { CompactResult, type CompactTask } from '@cairn/proto/cairn/services';
import { decodeSchema } from '@cairn/schema';
import { mergeSegments, type SealedSegment, survivingRows, writeSegment } from '@cairn/segment';
import type { DeltaLogs } from './delta-logs.ts';
import type { SegmentOpener } from './held-shard.ts';

export interface CompactParts {
  readonly objects: ObjectStore;
  readonly runtime: Runtime;
  readonly open: SegmentOpener;
  readonly deltaLogs: Pick<DeltaLogs, 'flushed' | 'apply'>;
}

export interface Compacted {
  readonly objects: ObjectRef[];
  readonly result: CompactResult;
}

/** Inputs opened at once: each is one read of its scalars. */
const PARALLEL_OPENS = 4;

/**
 * Makes one segment of several, without the rows that are deleted or have outlived their time. Which those are is asked where loading asks: the shard's flushed deltas, applied to
 * the opened segments. Deletes that come later hit the result as they would have hit its inputs, since rows keep their timestamps and delta logs
 * stay. Writes nothing when all rows are gone, or fewer than the task asks for.
 */
export async function compactSegments(parts: CompactParts, task: CompactTask, signal: AbortSignal): Promise<Compacted> {
  const { objects, runtime, deltaLogs } = parts;
  const { collectionId, vchannel, prefix } = task;
  const schema = decodeSchema(task.schema);
  const until = task.purgeBeforeTs === 0 ? Number.POSITIVE_INFINITY : task.purgeBeforeTs;
  const { checkpoint, logs } = await deltaLogs.flushed(collectionId, vchannel);
  const opened: SealedSegment[] = [];
  const goOn = (): void => {
    if (signal.aborted) throw new CairnError('Cancelled', `compaction to ${prefix} was cancelled: its caller has gone`);
  };
  try {
    const segments = await mapLimit(task.segments, PARALLEL_OPENS, async (record) => {
      goOn();
      const segment = await parts.open(record, schema);
      opened.push(segment);
      return segment;
    });
    await deltaLogs.apply(
      logs,
      segments.map((segment, at) => ({ segment, record: task.segments[at] })),
    );
    goOn();
    const surviving = await survivingRows(segments, until, runtime, task.expiredUpTo);
    const { rows, purgedRows, purgedTs } = surviving;
    const open = logs.filter((log) => log.maxTs > until).map((log) => log.lastSequence);
    const result = CompactResult.fromPartial({ purgedRows, purgedTs, deletesFrom: Math.min(checkpoint + 1, ...open) });
    const total = rows + purgedRows;
    if (purgedRows * 100 < task.minPurgedPercent * total) return { objects: [], result: { ...result, kept: true, rows: total } };
    if (rows === 0) return { objects: [], result };
    const batch = await mergeSegments(surviving, schema, runtime);
    goOn();
    const written = await writeSegment({ objects, runtime, prefix, schema, batch });
    const { minTs, maxTs, bytes, contentHash } = written;
    return { objects: written.objects, result: { ...result, rows, minTs, maxTs, bytes, contentHash } };
  } finally {
    for (const segment of opened) await segment.close();
  }
}
