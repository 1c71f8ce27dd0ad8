import { asCairnError } from '@cairn/base';
import { type RestoreJobRecord, RestoreJobState } from '@cairn/proto/cairn/meta';
import type { RestorePlan, RestoreSnapshotRequest } from '@cairn/proto/cairn/services';
import type { SnapshotBundle } from '@cairn/segment';
import { rewriteTotals, totalsOf, wantedOf } from './copy-source.ts';
import type { RestoreShape } from './restore-shape.ts';

export interface RestorePlanOptions {
  readonly request: RestoreSnapshotRequest;
  readonly shape: RestoreShape;
  readonly bundle: SnapshotBundle;
  /** Each throws why the restore would be refused. */
  readonly refusals: readonly (() => unknown)[];
  /** Jobs that are still known, for the rate. */
  readonly jobs: readonly RestoreJobRecord[];
}

/** A restore as it would be, without doing any of it. */
export function planOf({ request, shape, bundle, refusals, jobs }: RestorePlanOptions): RestorePlan {
  const conflicts = refusals.flatMap((refusal) => {
    try {
      refusal();
      return [];
    } catch (error) {
      return [asCairnError(error).message];
    }
  });
  const { partitions, indexes, collection } = bundle.definition;
  const names = partitions.map((partition) => partition.name);
  const known = (collection?.numPartitions ?? 0) > 0 ? [] : request.partitions.filter((name) => names.includes(name));
  const wanted = wantedOf(bundle, known, !request.noIndex);
  const { mode, shards, rewriteData } = shape;
  const totals = rewriteData ? rewriteTotals(wanted) : totalsOf(wanted);
  const bytes = mode === 'reference' ? 0 : totals.bytes;
  return {
    segments: totals.segments,
    deltaLogs: wanted.deltaLogs.length,
    objects: totals.objects,
    bytes,
    rows: totals.rows,
    partitions: known.length > 0 ? known : names,
    indexes: request.noIndex ? [] : indexes.map((index) => index.name),
    mode,
    shards,
    rewriteData,
    estimateMs: Math.ceil(bytes * msPerByte(jobs)),
    conflicts,
  };
}

/** Median of the completed jobs that copied something; 0 when there is none. */
function msPerByte(jobs: readonly RestoreJobRecord[]): number {
  const rates = jobs
    .filter((job) => job.state === RestoreJobState.RESTORE_COMPLETED && job.mode === 'copy' && job.copiedBytes > 0)
    .map((job) => (job.endMs - job.startMs) / job.copiedBytes)
    .sort((a, b) => a - b);
  return rates[Math.floor(rates.length / 2)] ?? 0;
}
