/**
 * Faults x phases of a restore: each fault begins when a phase does. The job ends Completed and exact, or Failed and clean, and the rest of the house
 * is as it was. What dies at a single call is counted in kills.ts.
 */
import { kill, killPoints } from './kills.ts';
import { NO_LINK_FAULTS } from './links.ts';
import type { SimulatedRole, StoreName } from './process.ts';
import type { World } from './world.ts';

/** Virtual ms. */
const AWAY_MS = 30_000;
const BAD_MS = 12_000;
const BACK_MS = 2_000;

type Strike = (world: World) => void;

const crash =
  (role: SimulatedRole, which: readonly number[], backMs: readonly number[]): Strike =>
  (world) => {
    const processes = world.processes.filter((process) => process.role === role);
    for (const [i, number] of which.entries()) {
      const process = processes[number];
      process.crash();
      world.simulation.schedule(backMs[i], () => process.start());
    }
  };

const away =
  (store: StoreName): Strike =>
  (world) => {
    for (const process of world.processes) process.cut(store, AWAY_MS);
  };

const bad =
  (store: StoreName, faults: Partial<typeof NO_LINK_FAULTS>): Strike =>
  (world) => {
    Object.assign(world.linkFaults[store], faults);
    world.simulation.schedule(BAD_MS, () => Object.assign(world.linkFaults[store], NO_LINK_FAULTS));
  };

export const faults: Readonly<Record<string, Strike>> = {
  'a datanode is killed': crash('datanode', [0], [BACK_MS]),
  'all datanodes are killed, one comes back': crash('datanode', [0, 1], [BACK_MS, AWAY_MS]),
  'the coordinators are killed': crash('datacoord', [0, 1], [BACK_MS, BACK_MS]),
  'the streaming nodes are killed': crash('streaming', [0, 1], [BACK_MS, BACK_MS]),
  'the MetaStore is away for 30 s': away('meta'),
  'the log is away for 30 s': away('wal'),
  'the object store is away for 30 s': away('objects'),
  'the object store takes a second a call': bad('objects', { minDelayMs: 500, maxDelayMs: 500 }),
  'no room is left for objects': bad('objects', { full: true }),
  '503 on every third call': bad('objects', { refuseEvery: 3 }),
  'connections break in the middle of copies': bad('objects', { cutCopies: 0.5, unanswered: 0.3 }),
};

/** The first point of each phase among those of a clean run. */
function phasesOf(points: readonly string[]): Readonly<Record<string, number>> {
  const first = (what: string, from = 0): number => points.indexOf(what, from);
  const target = first('datacoord: wal.append');
  const indexes = first('datacoord: wal.append', target + 1);
  const job = first('datacoord: meta.txn restore/job/');
  return {
    'pinning the snapshot': first('datacoord: meta.txn pin/'),
    'reading its metadata': first('datacoord: objects.get'),
    'making the target': target,
    'making its indexes': indexes,
    'saving the job': job,
    'handing out tasks': first('datacoord: runTask', job),
    copying: first('datanode: objects.copy', job),
    publishing: first('datacoord: meta.txn catalog/', points.lastIndexOf('datanode: objects.copy')),
  };
}

export interface Cell {
  readonly fault: string;
  readonly phase: string;
  readonly problems: readonly string[];
}

/** Every cell of the matrix, one after another. */
export async function* restoreMatrix(): AsyncGenerator<Cell> {
  const points: string[] = [];
  for (const { at, where } of await killPoints('restore')) points[at] = where;
  for (const [phase, at] of Object.entries(phasesOf(points))) {
    if (at < 0) throw new Error(`a clean restore never comes to ${phase}`);
    for (const [fault, strike] of Object.entries(faults)) {
      const { problems } = await kill('restore', { where: points[at], at, lands: true, strike });
      yield { fault, phase, problems };
    }
  }
}
