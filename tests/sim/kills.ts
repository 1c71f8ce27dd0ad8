/**
 * A kill at every await of one operation: a clean run counts the points (calls to stores and other processes, timers) between its start and the
 * moment when its aftermath is over; then it is run again for each point, and the process that stands there dies: before its call is sent, and after.
 * It comes back, and everything promised of the operation and of the rest must hold.
 */
import { DrillState } from '@cairn/proto/cairn/meta';
import { verifyCertificate } from '@cairn/segment';
import { differences } from '../support/model.ts';
import type { Outcome, Row } from '../support/outcome.ts';
import { checkEverything } from './check-everything.ts';
import { SimulatedClient } from './client.ts';
import { World } from './world.ts';

export const OPERATIONS = ['create', 'abort', 'drop', 'pin', 'restore', 'clone', 'publish', 'compact', 'drill'] as const;
export type Operation = (typeof OPERATIONS)[number];

export interface KillPoint {
  /** What the process was doing: `role: call`. */
  readonly where: string;
  readonly at: number;
  /** Whether the call that it was sending arrives. */
  readonly lands: boolean;
  /** Befalls the world there instead of the death; over after `BEFALLEN_MS` at most. */
  readonly strike?: (world: World) => void;
}

export interface KillResult extends KillPoint {
  readonly problems: readonly string[];
}

const SEED = 7;
const SHARDS = 2;
const ROWS = 24;
/** Virtual ms. */
const CALM_MS = 2_000;
const AFTERMATH_MS = 1_500;
const RECOVERY_MS = 4_000;
/** Time for whatever strikes to be over, virtual ms. */
const BEFALLEN_MS = 36_000;
/** Longer than a snapshot may take. */
const AWAY_MS = 18_000;
const QUIET_MS = 45_000;
const RESTORE_LIMIT_MS = 60_000;
const LIMIT_MS = 600_000;
const PINNED = 2601;
/** Tries of calls that must work in the end. */
const TRIES = 10;
const PIN_SECONDS = 5;
const POLL_MS = 300;
/** Reasons of failed drills that say the snapshot is not whole. */
const SPEAKS_AGAINST = /is not the snapshot|rows were counted after/;

/** Every point of the operation, twice where a call is sent: it does not arrive, it does. */
export async function killPoints(operation: Operation): Promise<readonly KillPoint[]> {
  const points = await new KillRun(operation).run();
  // Aborting is what the coordinator does when no owner writes the barrier; publishing is what the coordinator does after the last object has been copied.
  const first = operation === 'publish' ? points.lastIndexOf('datanode: objects.copy') + 1 : 0;
  return points.flatMap((where, at) => {
    const coordinatorOnly = operation === 'publish' || operation === 'abort';
    if (at < first || (coordinatorOnly && !where.startsWith('datacoord'))) return [];
    return where.endsWith(': timer') ? [{ where, at, lands: false }] : [false, true].map((lands) => ({ where, at, lands }));
  });
}

export async function kill(operation: Operation, point: KillPoint, log = false): Promise<KillResult> {
  const run = new KillRun(operation, point, log);
  await run.run();
  return { ...point, problems: run.problems };
}

class KillRun {
  readonly #operation: Operation;
  readonly #point: KillPoint | undefined;
  readonly #world: World;
  readonly #client: SimulatedClient;
  #version = 0;
  readonly #rows = new Map<number, number>();

  constructor(operation: Operation, point?: KillPoint, log = false) {
    this.#operation = operation;
    this.#point = point;
    this.#world = new World({ seed: SEED, log });
    this.#client = new SimulatedClient(this.#world);
    if (!log) Error.stackTraceLimit = 0;
  }

  get problems(): readonly string[] {
    return this.#world.problems;
  }

  /** The points that were passed. */
  async run(): Promise<readonly string[]> {
    const world = this.#world;
    let points: readonly string[] = [];
    const story = async (): Promise<void> => {
      world.start();
      await this.#prepare();
      await world.outside.sleep(CALM_MS);
      world.recordPoints(this.#point);
      const settle = await this.#begin();
      await world.outside.sleep(AFTERMATH_MS);
      points = world.takePoints();
      await world.outside.sleep(this.#point?.strike ? BEFALLEN_MS : this.#point ? RECOVERY_MS : 0);
      await settle();
      await this.#verify();
    };
    try {
      await world.simulation.run(story(), LIMIT_MS);
    } catch (error) {
      world.problem(`the run did not end: ${String(error)}`);
    }
    world.end();
    return points;
  }

  /** Rows sealed, growing, deleted and replaced, on two shards; a snapshot of them unless the operation makes it. */
  async #prepare(): Promise<void> {
    this.#must('create collection', await this.#client.createCollection('main', SHARDS));
    this.#must('prepare', await this.#client.prepare('main'));
    await this.#write(Array.from({ length: ROWS }, (_, key) => key));
    this.#must('flush', await this.#client.flush('main'));
    await this.#write(Array.from({ length: ROWS / 2 }, (_, key) => key * 3));
    const gone = [1, 2, 3];
    this.#must('delete', await this.#client.delete('main', gone));
    for (const key of gone) this.#rows.delete(key);
    if (this.#operation !== 'create' && this.#operation !== 'abort') this.#must('snapshot', await this.#client.createSnapshot('main', 's'));
  }

  async #write(keys: readonly number[]): Promise<void> {
    const rows = keys.map((key) => ({ key, version: ++this.#version }));
    this.#must('upsert', await this.#client.upsert('main', rows));
    for (const { key, version } of rows) this.#rows.set(key, version);
  }

  /** Begins the operation; answers how to see, once all is calm, that it was done or not, and nothing between. */
  #begin(): Promise<() => Promise<void>> {
    switch (this.#operation) {
      case 'create':
        return this.#create();
      case 'abort':
        for (const process of this.#world.processes) if (process.role === 'streaming') process.cut('wal', AWAY_MS);
        return this.#create();
      case 'drop':
        return this.#drop();
      case 'pin':
        return this.#pin();
      case 'restore':
      case 'publish':
        return this.#restore('copy');
      case 'clone':
        return this.#restore('reference');
      case 'compact':
        return this.#compact();
      case 'drill':
        return this.#drill();
      default:
        throw new Error(`unknown operation ${this.#operation satisfies never}`);
    }
  }

  async #create(): Promise<() => Promise<void>> {
    const rows = new Map(this.#rows);
    const outcome = await this.#client.createSnapshot('main', 's', TRIES);
    if (outcome.kind === 'refused' && this.#operation === 'create') this.#world.problem(`create was refused: ${outcome.reason}`);
    if (this.#operation === 'abort') await this.#world.outside.sleep(AWAY_MS);
    return async () => {
      const listed = await this.#listed();
      if (outcome.kind === 'done' && !listed) this.#world.problem('the snapshot was acknowledged and is not there');
      await this.#write([0, 5]);
      if (!listed) this.#must('create once more', await this.#client.createSnapshot('main', 's', TRIES));
      this.#must('create another', await this.#client.createSnapshot('main', 'another', TRIES));
      if (listed) await this.#restoreAndCompare('r1', rows);
    };
  }

  async #drop(): Promise<() => Promise<void>> {
    const outcome = await this.#client.dropSnapshot('main', 's', TRIES);
    if (outcome.kind === 'refused') this.#world.problem(`drop was refused: ${outcome.reason}`);
    return async () => {
      const listed = await this.#listed();
      if (outcome.kind === 'done' && listed) this.#world.problem('the snapshot was dropped and is there');
      if (listed) await this.#restoreAndCompare('r1', new Map(this.#rows));
      this.#must('drop once more', await this.#client.dropSnapshot('main', 's', TRIES));
      this.#must('create anew', await this.#client.createSnapshot('main', 's', TRIES));
      await this.#restoreAndCompare('r2', new Map(this.#rows));
    };
  }

  async #pin(): Promise<() => Promise<void>> {
    const outcome = await this.#client.pin('main', 's', PIN_SECONDS);
    if (outcome.kind === 'refused') this.#world.problem(`pin was refused: ${outcome.reason}`);
    const dropped = outcome.kind === 'done' ? await this.#client.dropSnapshot('main', 's', TRIES) : undefined;
    if (dropped?.kind === 'done') this.#world.problem('a pinned snapshot was dropped');
    if (dropped?.kind === 'refused' && dropped.code !== PINNED) this.#world.problem(`the drop was refused with ${dropped.code}`);
    if (outcome.kind === 'done') {
      const unpinned = await this.#client.unpin(outcome.value.pinId);
      if (unpinned.kind === 'refused') this.#world.problem(`unpin was refused: ${unpinned.reason}`);
    }
    return async () => {
      // A pin whose answer was lost ends by itself.
      await this.#world.outside.sleep(PIN_SECONDS * 1_000);
      if (!(await this.#listed())) this.#world.problem('the snapshot is gone');
      await this.#restoreAndCompare('r1', new Map(this.#rows));
      this.#must('drop', await this.#client.dropSnapshot('main', 's', TRIES));
    };
  }

  /** Two more flushed segments and deletes, merged and purged; the snapshot that was there keeps what it has. */
  async #compact(): Promise<() => Promise<void>> {
    const before = new Map(this.#rows);
    for (const keys of [
      [4, 8, 12],
      [5, 10, 15],
    ]) {
      await this.#write(keys);
      const flushed = await this.#client.flush('main');
      if (flushed.kind === 'refused') this.#world.problem(`flush was refused: ${flushed.reason}`);
    }
    const begun = await this.#client.compact('main');
    if (begun.kind === 'refused') this.#world.problem(`compaction was refused: ${begun.reason}`);
    return async () => {
      await this.#compare('main', this.#rows);
      await this.#restoreAndCompare('r1', before);
      this.#must('create', await this.#client.createSnapshot('main', 'after', TRIES));
      this.#must('drop', await this.#client.dropSnapshot('main', 's', TRIES));
      await this.#restoreAndCompare('r2', this.#rows, 'after');
    };
  }

  /** A drill: Completed with a certificate of exactly these rows, or Failed for a reason that is no word against the snapshot; one more completes. */
  async #drill(): Promise<() => Promise<void>> {
    const rows = this.#rows.size;
    const begun = await this.#client.startDrill('main', 's');
    if (begun.kind === 'refused') this.#world.problem(`the drill was refused: ${begun.reason}`);
    const ended = begun.kind === 'done' ? await this.#drilled(begun.value.id, rows) : undefined;
    return async () => {
      if (begun.kind === 'done' && ended === undefined && (await this.#drilled(begun.value.id, rows)) === undefined)
        this.#world.problem('the drill does not end');
      const again = await this.#client.startDrill('main', 's');
      this.#must('drill once more', again);
      if (again.kind === 'done') {
        const state = await this.#drilled(again.value.id, rows);
        if (state !== DrillState.DRILL_COMPLETED) this.#world.problem(`the drill after it is ${state ?? 'not over'}`);
      }
      await this.#restoreAndCompare('r1', new Map(this.#rows));
      this.#must('drop', await this.#client.dropSnapshot('main', 's', TRIES));
    };
  }

  /** How a drill ended; undefined: it did not. */
  async #drilled(id: number, rows: number): Promise<DrillState | undefined> {
    const until = this.#world.simulation.nowMs + RESTORE_LIMIT_MS;
    while (this.#world.simulation.nowMs < until) {
      await this.#world.outside.sleep(POLL_MS);
      const found = await this.#client.getDrill(id);
      if (found.kind !== 'done' || found.value.state === DrillState.DRILL_RUNNING) continue;
      const { state, reason, certificate } = found.value;
      if (state !== DrillState.DRILL_COMPLETED) {
        if (SPEAKS_AGAINST.test(reason)) this.#world.problem(`the drill says of a whole snapshot: ${reason}`);
        return state;
      }
      const { visible_rows: certified } = verifyCertificate(certificate).body.content;
      if (certified !== rows) this.#world.problem(`the certificate says ${certified} rows, the snapshot has ${rows}`);
      return state;
    }
    return undefined;
  }

  async #restore(mode: 'copy' | 'reference'): Promise<() => Promise<void>> {
    const rows = new Map(this.#rows);
    const begun = await this.#client.restoreChosen('main', 's', 'r1', { mode });
    if (begun.kind === 'refused') this.#world.problem(`restore was refused: ${begun.reason}`);
    const jobId = begun.kind === 'done' ? begun.value.jobId : undefined;
    const ended = jobId === undefined ? undefined : await this.#client.restored(jobId, RESTORE_LIMIT_MS);
    if (ended?.state === 'unknown') this.#world.problem(ended.reason);
    return async () => {
      const there = await this.#has('r1');
      if (ended?.state === 'completed' && !there) this.#world.problem('the job is completed and its target is not there');
      if (ended?.state === 'failed' && there) this.#world.problem(`the job failed (${ended.reason}) and its target is there`);
      await this.#write([0, 5]);
      if (there) await this.#compare('r1', rows);
      this.#must('drop target', await this.#client.dropCollection('r1'));
      await this.#restoreAndCompare('r1', rows);
      this.#must('drop', await this.#client.dropSnapshot('main', 's', TRIES));
    };
  }

  async #restoreAndCompare(target: string, rows: ReadonlyMap<number, number>, snapshot = 's'): Promise<void> {
    const begun = await this.#client.restore('main', snapshot, target);
    this.#must(`restore into ${target}`, begun);
    if (begun.kind !== 'done') return;
    const { state, reason } = await this.#client.restored(begun.value.jobId, RESTORE_LIMIT_MS);
    if (state === 'completed') await this.#compare(target, rows);
    else this.#world.problem(`restore into ${target} ${state}: ${reason}`);
  }

  async #compare(collection: string, rows: ReadonlyMap<number, number>): Promise<void> {
    this.#must(`load ${collection}`, await this.#client.load(collection));
    const read: Outcome<Row[]> = await this.#client.rows(collection, TRIES);
    if (read.kind !== 'done') return this.#world.problem(`${collection} cannot be read: ${read.reason}`);
    const expected = new Map(Array.from({ length: ROWS * 2 }, (_, key) => [key, new Set([rows.get(key) ?? 0])]));
    for (const difference of differences(read.value, expected)) this.#world.problem(`${collection}: ${difference}`);
  }

  async #listed(): Promise<boolean> {
    const outcome = await this.#client.listSnapshots('main');
    this.#must('list', outcome);
    return outcome.kind === 'done' && outcome.value.snapshots.includes('s');
  }

  async #has(collection: string): Promise<boolean> {
    const outcome = await this.#client.hasCollection(collection);
    this.#must(`has ${collection}`, outcome);
    return outcome.kind === 'done' && outcome.value.value;
  }

  async #verify(): Promise<void> {
    await this.#compare('main', this.#rows);
    await this.#world.outside.sleep(QUIET_MS);
    await checkEverything(this.#world);
  }

  #must(what: string, outcome: Outcome<unknown>): void {
    if (outcome.kind !== 'done') this.#world.problem(`${what} was ${outcome.kind}: ${outcome.reason}`);
  }
}
