import { type RestoreJobRecord, RestoreJobState } from '@cairn/proto/cairn/meta';
import { counter, gauge, histogram } from '@cairn/telemetry';

const jobGauge = gauge<{ state: string }>('cairn_restore_jobs', { description: 'Restore jobs that are listed, by state', unit: '{job}' });
const taskGauge = gauge<{ state: 'waiting' | 'running' }>('cairn_restore_tasks', {
  description: 'Tasks of restores that wait for a datanode, and that run',
  unit: '{task}',
});
const ended = histogram<{ mode: string; outcome: string }>('cairn_restore_seconds', {
  description: 'Time of a restore, from its job to its end, by mode and outcome',
  unit: 's',
});
const taskSeconds = histogram('cairn_restore_task_seconds', {
  description: 'Time of a task of a restore, from its dispatch until its records are staged',
  unit: 's',
});
const publishSeconds = histogram('cairn_restore_publish_seconds', {
  description: 'Time from the last copy of a restore to all being visible',
  unit: 's',
});
const copiedBytes = counter('cairn_restore_copied_bytes', { description: 'Bytes of tasks of restores that were completed', unit: 'By' });
const copiedObjects = counter('cairn_restore_copied_objects', { description: 'Objects of the same', unit: '{object}' });
const taskRetries = counter('cairn_restore_task_retries', {
  description: 'Tasks of restores that were handed out once more',
  unit: '{task}',
});

const STATES = {
  pending: RestoreJobState.RESTORE_PENDING,
  executing: RestoreJobState.RESTORE_EXECUTING,
  publishing: RestoreJobState.RESTORE_PUBLISHING,
  completed: RestoreJobState.RESTORE_COMPLETED,
  failed: RestoreJobState.RESTORE_FAILED,
  cancelled: RestoreJobState.RESTORE_CANCELLED,
} as const;

/** The jobs as they are shown at this moment. */
export function recordJobs(jobs: Iterable<RestoreJobRecord>): void {
  const all = [...jobs];
  for (const [state, number] of Object.entries(STATES)) jobGauge.record(all.filter((job) => job.state === number).length, { state });
}

export function recordEnd({ mode, state, startMs, endMs }: RestoreJobRecord): void {
  const outcome = Object.entries(STATES).find(([, number]) => number === state)?.[0] ?? 'unknown';
  ended.record(Math.max(0, endMs - startMs) / 1_000, { mode: mode || 'copy', outcome });
}

export function recordPublish(ms: number): void {
  publishSeconds.record(ms / 1_000);
}

/** Tasks of this coordinator's restores, as they come and go. */
export class TaskMeasures {
  #waiting = 0;
  #running = 0;

  /** A task waits for a datanode; call the answer when it waits no more. */
  waits(): () => void {
    this.#tell(1, 0);
    return () => this.#tell(-1, 0);
  }

  runs(): () => void {
    this.#tell(0, 1);
    return () => this.#tell(0, -1);
  }

  completed(ms: number, bytes: number, objects: number): void {
    taskSeconds.record(ms / 1_000);
    copiedBytes.add(bytes);
    copiedObjects.add(objects);
  }

  again(): void {
    taskRetries.add(1);
  }

  #tell(waiting: number, running: number): void {
    this.#waiting += waiting;
    this.#running += running;
    taskGauge.record(this.#waiting, { state: 'waiting' });
    taskGauge.record(this.#running, { state: 'running' });
  }
}
