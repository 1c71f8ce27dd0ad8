import { SystemRuntime, silentLogger } from '@cairn/base';
import { NodeRecord } from '@cairn/proto/cairn/meta';
import type { Transport } from '@cairn/rpc';
import { describe, expect, test } from 'vitest';
import type { NodeDirectory } from '../src/node-directory.ts';
import { defaultSettings } from '../src/settings.ts';
import { type TaskKind, TaskRunner, type TaskSlot } from '../src/task-runner.ts';

function runnerOver(nodes: number, settings: Partial<typeof defaultSettings> = {}) {
  const alive = Array.from({ length: nodes }, (_, n) => ({ record: NodeRecord.fromPartial({ id: `d${n}`, role: 'datanode' }) }));
  const directory = { alive: () => alive, onChange: () => undefined } as unknown as NodeDirectory;
  const stop = new AbortController();
  const all = { ...defaultSettings, tasksPerNode: 2, copyTasksPerNode: 4, ...settings };
  const runner = new TaskRunner(directory, {} as Transport, new SystemRuntime(), silentLogger, all, stop.signal);
  const granted: { readonly owner: number; readonly slot: TaskSlot }[] = [];
  const ask = (kind: TaskKind, owner: number, tasks: number): void => {
    for (let n = 0; n < tasks; n++)
      void runner.acquire(kind, stop.signal, { owner }).then(
        (slot) => granted.push({ owner, slot }),
        () => undefined,
      );
  };
  const settle = () => new Promise((resolve) => setImmediate(resolve));
  return { granted, ask, settle };
}

describe('slots of datanodes', () => {
  test('one restore alone does not fill a node: another that comes finds room at once', async () => {
    const { granted, ask, settle } = runnerOver(1);
    ask('copy', 1, 50);
    await settle();
    expect(granted.map((one) => one.owner)).toEqual([1, 1]);
    ask('copy', 2, 1);
    await settle();
    expect(granted.map((one) => one.owner)).toEqual([1, 1, 2]);
  });

  test('restores take turns, however many tasks each has waiting', async () => {
    const { granted, ask, settle } = runnerOver(1, { copyTasksPerNode: 2 });
    ask('copy', 1, 20);
    ask('copy', 2, 20);
    ask('copy', 3, 2);
    await settle();
    for (let done = 0; done < 42; done++) {
      granted[done].slot.release();
      await settle();
    }
    const owners = granted.map((one) => one.owner);
    expect(owners).toHaveLength(42);
    expect(owners.lastIndexOf(3)).toBeLessThan(8);
    const early = owners.slice(2, 22);
    expect(Math.abs(early.filter((one) => one === 1).length - early.filter((one) => one === 2).length)).toBeLessThanOrEqual(2);
  });

  test('copies and builds have slots of their own; tasks go to the node that is less busy', async () => {
    const { granted, ask, settle } = runnerOver(2, { copyTasksPerNode: 1 });
    ask('copy', 1, 9);
    ask('build', 0, 9);
    ask('rewrite', 1, 9);
    await settle();
    const of = (node: string) => granted.filter((one) => one.slot.node.id === node).length;
    expect([of('d0'), of('d1')]).toEqual([5, 5]);
  });

  test('what was given back twice is free once', async () => {
    const { granted, ask, settle } = runnerOver(1, { copyTasksPerNode: 1 });
    ask('copy', 1, 3);
    await settle();
    granted[0].slot.release();
    granted[0].slot.release();
    await settle();
    expect(granted).toHaveLength(2);
  });
});
