import type { Turns } from '@cairn/base';
import type { DeltaLogRecord, SegmentRecord, SnapshotDefinition } from '@cairn/proto/cairn/meta';
import { decodeSchema } from '@cairn/schema';
import { addHashes, formatHash, parseHash } from './row-hash.ts';
import type { SnapshotContent } from './snapshot-metadata.ts';

/**
 * False when no delete of the log can hit a row of the segment: another shard or partition, all older than the oldest row, or all after the log's mask.
 * The mask of the segment is for its rows alone: rows that a clone got at T may be deleted later.
 */
export function mayDelete(log: DeltaLogRecord, segment: SegmentRecord): boolean {
  return (
    log.shard === segment.shard &&
    (log.partitionId === 0 || log.partitionId === segment.partitionId) &&
    log.maxTs > segment.minTs &&
    (log.asOf === 0 || log.minTs <= log.asOf)
  );
}

/** How late deletes come for each shard and partition: tells of many segments, without going through the logs for each, that no delete can hit them. */
export class DeleteWindows {
  readonly #latest = new Map<string, number>();

  constructor(deltaLogs: readonly DeltaLogRecord[]) {
    for (const log of deltaLogs) {
      if (log.asOf > 0 && log.minTs > log.asOf) continue;
      const key = `${log.shard} ${log.partitionId}`;
      this.#latest.set(key, Math.max(log.maxTs, this.#latest.get(key) ?? 0));
    }
  }

  /** As `mayDelete` of any of the logs. */
  mayHit({ shard, partitionId, minTs }: SegmentRecord): boolean {
    const latest = (partition: number): number => this.#latest.get(`${shard} ${partition}`) ?? 0;
    return Math.max(latest(0), latest(partitionId)) > minTs;
  }
}

/**
 * True when readers of the snapshot see all stored rows of the segment just as they are stored: no delete can hit them, none lies after the mask,
 * and no field was added later with a default. Then its content hash is also that of its visible rows.
 */
export function isSeenAsStored(
  segment: SegmentRecord,
  deletes: DeleteWindows,
  schema: { readonly version: number; readonly defaults: boolean },
): boolean {
  if (segment.contentHash === '' || (segment.asOf > 0 && segment.maxTs > segment.asOf)) return false;
  if (segment.schemaVersion !== schema.version && schema.defaults) return false;
  return !deletes.mayHit(segment);
}

/** Version of a snapshot's schema, and whether any of its fields gives rows without its column a value. */
export function schemaTraits({ collection }: SnapshotDefinition): { readonly version: number; readonly defaults: boolean } {
  const bytes = collection?.schema ?? new Uint8Array();
  if (bytes.byteLength === 0) return { version: collection?.schemaVersion ?? 0, defaults: false };
  const { fields } = decodeSchema(bytes);
  return {
    version: collection?.schemaVersion ?? 0,
    defaults: fields.some((field) => field.defaultValue !== undefined || field.isDynamic),
  };
}

/** Segments summed between two looks at the clock. */
const STRETCH = 256;

/** Content hashes of what a snapshot at `ts` lists, as far as the records alone tell them; `ts` masks every reference. */
export async function contentOf(
  contents: { readonly segments: readonly SegmentRecord[]; readonly deltaLogs: readonly DeltaLogRecord[] },
  definition: SnapshotDefinition,
  ts: number,
  turns?: Turns,
): Promise<SnapshotContent> {
  const { segments, deltaLogs } = contents;
  const deletes = new DeleteWindows(deltaLogs);
  const traits = schemaTraits(definition);
  let sum = addHashes([]);
  let visibleRows = 0;
  let seen = true;
  for (let at = 0; at < segments.length; at += STRETCH) {
    if (turns?.due) await turns.give();
    const some = segments.slice(at, at + STRETCH);
    if (some.some((segment) => segment.contentHash === '')) return { stored: '', visibleRows: -1, visible: '' };
    sum = addHashes([sum, ...some.map((segment) => parseHash(segment.contentHash))]);
    for (const segment of some) visibleRows += segment.rows;
    const masked = (segment: SegmentRecord) => ({ ...segment, asOf: segment.asOf > 0 ? Math.min(segment.asOf, ts) : ts });
    seen &&= some.every((segment) => isSeenAsStored(masked(segment), deletes, traits));
  }
  const stored = formatHash(sum);
  return seen ? { stored, visibleRows, visible: stored } : { stored, visibleRows: -1, visible: '' };
}
