import { CairnError } from '@cairn/base';
import { CollectionState, CompactionTaskState, CopyTaskState, RestoreJobState, SnapshotState } from '@cairn/proto/cairn/meta';
import { defineMachine, type StateMachine } from './state-machine.ts';

/** The record is removed. */
const GONE = 'GONE';
const illegal = undefined;

/** A snapshot. Only COMMITTED ones are seen by users; FAILED and DELETING ones go when their objects are gone. */
export const snapshotMachine = defineMachine('snapshot', {
  PENDING: { commit: 'COMMITTED', fail: 'FAILED', drop: illegal, remove: illegal },
  COMMITTED: { commit: illegal, fail: illegal, drop: 'DELETING', remove: illegal },
  DELETING: { commit: illegal, fail: illegal, drop: illegal, remove: GONE },
  FAILED: { commit: illegal, fail: illegal, drop: illegal, remove: GONE },
  GONE: { commit: illegal, fail: illegal, drop: illegal, remove: illegal },
});

/** A restore job. Once it publishes it can no longer be cancelled. `remove`: its retention is over. */
export const restoreJobMachine = defineMachine('restore job', {
  PENDING: { execute: 'EXECUTING', publish: illegal, complete: illegal, fail: 'FAILED', cancel: 'CANCELLED', remove: illegal },
  EXECUTING: { execute: illegal, publish: 'PUBLISHING', complete: illegal, fail: 'FAILED', cancel: 'CANCELLED', remove: illegal },
  PUBLISHING: { execute: illegal, publish: illegal, complete: 'COMPLETED', fail: 'FAILED', cancel: illegal, remove: illegal },
  COMPLETED: { execute: illegal, publish: illegal, complete: illegal, fail: illegal, cancel: illegal, remove: GONE },
  FAILED: { execute: illegal, publish: illegal, complete: illegal, fail: illegal, cancel: illegal, remove: GONE },
  CANCELLED: { execute: illegal, publish: illegal, complete: illegal, fail: illegal, cancel: illegal, remove: GONE },
  GONE: { execute: illegal, publish: illegal, complete: illegal, fail: illegal, cancel: illegal, remove: illegal },
});

/** One copy task of a job. `dispatch` raises its epoch; again while IN_PROGRESS when its worker was lost. */
export const copyTaskMachine = defineMachine('copy task', {
  PENDING: { dispatch: 'IN_PROGRESS', requeue: illegal, complete: illegal, fail: 'FAILED', remove: GONE },
  IN_PROGRESS: { dispatch: 'IN_PROGRESS', requeue: 'PENDING', complete: 'COMPLETED', fail: 'FAILED', remove: GONE },
  COMPLETED: { dispatch: illegal, requeue: illegal, complete: illegal, fail: illegal, remove: GONE },
  FAILED: { dispatch: illegal, requeue: illegal, complete: illegal, fail: illegal, remove: GONE },
  GONE: { dispatch: illegal, requeue: illegal, complete: illegal, fail: illegal, remove: illegal },
});

/**
 * One compaction. `dispatch` raises its epoch; again while EXECUTING when its worker or coordinator was lost. Its commit drops the inputs and makes
 * the result visible; a task that lost a race (an input changed, was dropped or is protected) fails and leaves nothing.
 */
export const compactionTaskMachine = defineMachine('compaction task', {
  PENDING: { dispatch: 'EXECUTING', complete: illegal, fail: 'FAILED', remove: GONE },
  EXECUTING: { dispatch: 'EXECUTING', complete: 'COMPLETED', fail: 'FAILED', remove: GONE },
  COMPLETED: { dispatch: illegal, complete: illegal, fail: illegal, remove: GONE },
  FAILED: { dispatch: illegal, complete: illegal, fail: illegal, remove: GONE },
  GONE: { dispatch: illegal, complete: illegal, fail: illegal, remove: illegal },
});

/** A collection. A restored one is named but not readable until published; a dropped one is kept while anything refers to its data. */
export const collectionMachine = defineMachine('collection', {
  RESTORING: { publish: 'LIVE', drop: 'DROPPED', remove: illegal },
  LIVE: { publish: illegal, drop: 'DROPPED', remove: illegal },
  DROPPED: { publish: illegal, drop: illegal, remove: GONE },
  GONE: { publish: illegal, drop: illegal, remove: illegal },
});

type Next<E extends string, N extends number> = (state: N, event: E) => N | typeof GONE;

/** The machine over the numbers that records carry. */
function overNumbers<S extends string, E extends string, N extends number>(
  machine: StateMachine<S, E>,
  prefix: string,
  numbers: Readonly<Record<string, N>>,
): Next<E, N> {
  const names = new Map<number, S>(
    machine.states.flatMap((state) => (state === GONE ? [] : [[numbers[`${prefix}${state}`], state] as const])),
  );
  return (state, event) => {
    const name = names.get(state);
    if (name === undefined) throw new CairnError('Internal', `${machine.name}: unknown state ${state}`);
    const after = machine.next(name, event);
    return after === GONE ? GONE : numbers[`${prefix}${after}`];
  };
}

type EventsOf<M> = M extends StateMachine<string, infer E> ? E : never;

/** The state a record has after an event, or 'GONE' when it is to be removed; Internal for an illegal event. */
export const nextSnapshotState: Next<EventsOf<typeof snapshotMachine>, SnapshotState> = overNumbers(
  snapshotMachine,
  'SNAPSHOT_',
  SnapshotState,
);
export const nextRestoreJobState: Next<EventsOf<typeof restoreJobMachine>, RestoreJobState> = overNumbers(
  restoreJobMachine,
  'RESTORE_',
  RestoreJobState,
);
export const nextCopyTaskState: Next<EventsOf<typeof copyTaskMachine>, CopyTaskState> = overNumbers(
  copyTaskMachine,
  'COPY_',
  CopyTaskState,
);
export const nextCompactionTaskState: Next<EventsOf<typeof compactionTaskMachine>, CompactionTaskState> = overNumbers(
  compactionTaskMachine,
  'COMPACTION_',
  CompactionTaskState,
);
export const nextCollectionState: Next<EventsOf<typeof collectionMachine>, CollectionState> = overNumbers(
  collectionMachine,
  'COLLECTION_',
  CollectionState,
);
