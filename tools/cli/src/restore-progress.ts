import { type RestoreJobRecord, RestoreJobState } from '@cairn/proto/cairn/meta';
import { SingleBar } from 'cli-progress';
import { bytes, printOne, type Row } from './output.ts';
import { CommandError, EXIT, type Session } from './session.ts';

const POLL_MS = 200;

const names: Readonly<Record<RestoreJobState, string>> = {
  [RestoreJobState.RESTORE_PENDING]: 'Pending',
  [RestoreJobState.RESTORE_EXECUTING]: 'Executing',
  [RestoreJobState.RESTORE_PUBLISHING]: 'Publishing',
  [RestoreJobState.RESTORE_COMPLETED]: 'Completed',
  [RestoreJobState.RESTORE_FAILED]: 'Failed',
  [RestoreJobState.RESTORE_CANCELLED]: 'Cancelled',
};

/** State of a job by its name, in any case; undefined: there is none such. */
export function stateNamed(name: string): RestoreJobState | undefined {
  const found = Object.entries(names).find(([, known]) => known.toLowerCase() === name.toLowerCase());
  return found && (Number(found[0]) as RestoreJobState);
}

const ended = new Set<RestoreJobState>([
  RestoreJobState.RESTORE_COMPLETED,
  RestoreJobState.RESTORE_FAILED,
  RestoreJobState.RESTORE_CANCELLED,
]);

/** By verified bytes; 100 only when Completed. */
function percent(job: RestoreJobRecord): number {
  if (job.state === RestoreJobState.RESTORE_COMPLETED) return 100;
  return job.totalBytes === 0 ? 0 : Math.min(99, Math.floor((job.copiedBytes * 100) / job.totalBytes));
}

export function jobRow(job: RestoreJobRecord): Row {
  return {
    job_id: job.id,
    snapshot: job.snapshotName,
    source: `${job.sourceDatabaseName}.${job.sourceCollectionName}`,
    target: `${job.targetDatabaseName}.${job.targetCollectionName}`,
    state: names[job.state],
    progress: `${percent(job)} %`,
    copied: `${bytes(job.copiedBytes)} of ${bytes(job.totalBytes)}`,
    started: new Date(job.startMs).toISOString(),
    seconds: job.timeCostMs / 1000,
    rate: job.bytesPerSecond === 0 ? null : `${bytes(job.bytesPerSecond)}/s`,
    eta_seconds: job.etaMs === 0 ? null : Math.ceil(job.etaMs / 1000),
    reason: job.reason,
  };
}

/** Follows a job to its end, with a bar on a terminal; a job that ends other than Completed fails the command with exit code 4. */
export async function watchJob(session: Session, id: number): Promise<void> {
  const bar = process.stderr.isTTY
    ? new SingleBar({ format: '{bar} {percentage} %  {state}  {copied}  {rate}  {left}', stream: process.stderr })
    : undefined;
  bar?.start(100, 0, { state: 'Pending', copied: '', rate: '', left: '' });
  for (;;) {
    const job = await session.admin.getRestoreJob({ jobId: id }, session.options);
    const row = jobRow(job);
    bar?.update(percent(job), {
      state: row['state'],
      copied: row['copied'],
      rate: row['rate'] ?? '',
      left: row['eta_seconds'] === null ? '' : `${row['eta_seconds']} s left`,
    });
    if (ended.has(job.state)) {
      bar?.stop();
      printOne(session.format, row);
      if (job.state !== RestoreJobState.RESTORE_COMPLETED)
        throw new CommandError(`restore job ${id} ended ${names[job.state]}: ${job.reason}`, EXIT.jobFailed);
      return;
    }
    await session.runtime.sleep(POLL_MS);
  }
}
