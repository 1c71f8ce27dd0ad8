import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CollectionState, CompactionTaskState, CopyTaskState, RestoreJobState, SnapshotState } from '@cairn/proto/cairn/meta';
import { describe, expect, test } from 'vitest';
import {
  collectionMachine,
  compactionTaskMachine,
  copyTaskMachine,
  nextCollectionState,
  nextCopyTaskState,
  nextRestoreJobState,
  nextSnapshotState,
  restoreJobMachine,
  type StateMachine,
  snapshotMachine,
} from '../src/index.ts';

const machines = [
  { machine: snapshotMachine, first: 'PENDING', prefix: 'SNAPSHOT_', numbers: SnapshotState },
  { machine: restoreJobMachine, first: 'PENDING', prefix: 'RESTORE_', numbers: RestoreJobState },
  { machine: copyTaskMachine, first: 'PENDING', prefix: 'COPY_', numbers: CopyTaskState },
  { machine: compactionTaskMachine, first: 'PENDING', prefix: 'COMPACTION_', numbers: CompactionTaskState },
  { machine: collectionMachine, first: 'RESTORING', prefix: 'COLLECTION_', numbers: CollectionState },
] as readonly { machine: StateMachine<string, string>; first: string; prefix: string; numbers: Readonly<Record<string, number>> }[];

describe.each(machines)('state machine: $machine.name', ({ machine, first, prefix, numbers }) => {
  test('lists every event in every state, legal or not', () => {
    for (const state of machine.states)
      expect([state, Object.keys(machine.table[state]).sort()]).toEqual([state, [...machine.events].sort()]);
  });

  test('leads only to its own states, reaches each of them, and ends in GONE alone', () => {
    const reached = new Set([first]);
    for (const state of reached) {
      for (const event of machine.events) if (machine.can(state, event)) reached.add(machine.next(state, event));
    }
    // A collection is born live as well as restoring.
    expect([...reached].sort()).toEqual([...machine.states].sort());
    expect(machine.states.filter((state) => machine.isTerminal(state))).toEqual(['GONE']);
  });

  test('an illegal event is an error that names machine, state and event', () => {
    expect(() => machine.next('GONE', machine.events[0])).toThrow(`${machine.name}: event ${machine.events[0]} is illegal in state GONE`);
  });

  test('its states are exactly those of the records', () => {
    const names = Object.keys(numbers).filter((name) => name.startsWith(prefix));
    expect(
      machine.states
        .filter((state) => state !== 'GONE')
        .map((state) => `${prefix}${state}`)
        .sort(),
    ).toEqual(names.sort());
  });

  test('the page for people prints it as the code has it', () => {
    const page = readFileSync(join(import.meta.dirname, '../../../docs/state-machines.md'), 'utf8');
    expect(page).toContain(machine.toMarkdown());
  });
});

test('states of records move as the tables say', () => {
  expect(nextSnapshotState(SnapshotState.SNAPSHOT_PENDING, 'commit')).toBe(SnapshotState.SNAPSHOT_COMMITTED);
  expect(() => nextSnapshotState(SnapshotState.SNAPSHOT_FAILED, 'commit')).toThrow('illegal');
  expect(nextSnapshotState(SnapshotState.SNAPSHOT_DELETING, 'remove')).toBe('GONE');
  expect(nextRestoreJobState(RestoreJobState.RESTORE_PUBLISHING, 'complete')).toBe(RestoreJobState.RESTORE_COMPLETED);
  expect(() => nextRestoreJobState(RestoreJobState.RESTORE_PUBLISHING, 'cancel')).toThrow('illegal');
  expect(nextCopyTaskState(CopyTaskState.COPY_IN_PROGRESS, 'requeue')).toBe(CopyTaskState.COPY_PENDING);
  expect(nextCollectionState(CollectionState.COLLECTION_RESTORING, 'publish')).toBe(CollectionState.COLLECTION_LIVE);
});
