/**
 * Clients at work, all at once: writers, readers, makers and users of snapshots, one who drops a collection and makes it anew, one who renames,
 * one who adds and drops partitions, two who update parts of the same rows. What they are told is compared with the model.
 */
import { SimulatedClient } from './client.ts';
import { ClientCollection } from './collection.ts';
import { DrillWork } from './drill-work.ts';
import { Marks } from './marks.ts';
import { RestoreWork } from './restore-work.ts';
import { RowWork } from './row-work.ts';
import { ShapeWork } from './shape-work.ts';
import { SnapshotWork } from './snapshot-work.ts';
import { WorkParts } from './work-parts.ts';
import type { World } from './world.ts';

const SHARDS = 2;
/** Snapshots of a collection that are restored at the end, about. */
const VERIFIED_RESTORES = 3;
/** Of the runs: a drill is a restore, a load and two readings of all rows. */
const DRILLED_AT_THE_END = 0.3;
const WANDERER_ALIAS = 'wanderer';

export class Workload {
  readonly #world: World;
  readonly #client: SimulatedClient;
  readonly #parts: WorkParts;
  readonly #marks: Marks;
  readonly #rows: RowWork;
  readonly #snapshots: SnapshotWork;
  readonly #restores: RestoreWork;
  readonly #drills: DrillWork;
  readonly #shapes: ShapeWork;
  /** Never dropped; its partitions come and go. */
  readonly #main = new ClientCollection('main');
  /** Renamed and truncated, with an alias that stays. */
  readonly #wanderer = new ClientCollection('w0', WANDERER_ALIAS);
  /** Dropped and made anew; undefined in between. */
  #other: ClientCollection | undefined;
  #otherNumber = 1;
  /** Calls to it under way. */
  #otherCalls = 0;
  /** Calls of the client without an answer before it was made. */
  #unanswered = 0;
  #stopped = false;

  constructor(world: World) {
    this.#world = world;
    this.#client = new SimulatedClient(world);
    this.#parts = new WorkParts(world, this.#client);
    this.#marks = new Marks(this.#parts);
    this.#rows = new RowWork(this.#parts);
    this.#snapshots = new SnapshotWork(this.#parts);
    this.#restores = new RestoreWork(this.#parts);
    this.#drills = new DrillWork(this.#parts);
    this.#shapes = new ShapeWork(this.#parts);
  }

  get counts(): ReadonlyMap<string, number> {
    return this.#parts.counts;
  }

  async prepare(): Promise<void> {
    for (const name of ['main', 'other1', 'w0']) {
      const created = await this.#client.createCollection(name, SHARDS);
      const prepared = await this.#client.prepare(name);
      if (created.kind !== 'done' || prepared.kind !== 'done')
        throw new Error(`collection ${name} was not made: ${JSON.stringify([created, prepared])}`);
    }
    const alias = await this.#client.createAlias('w0', WANDERER_ALIAS);
    if (alias.kind !== 'done') throw new Error(`alias was not made: ${alias.reason}`);
    this.#other = new ClientCollection('other1');
    await this.#marks.prepare(SHARDS);
  }

  /** Works for `forMs` of virtual time, then lets everybody end what they do. */
  async run(forMs: number): Promise<void> {
    this.#world.simulation.schedule(forMs, () => {
      this.#stopped = true;
    });
    const main = this.#main;
    const wanderer = this.#wanderer;
    const rows = this.#rows;
    const snapshots = this.#snapshots;
    const restores = this.#restores;
    /** Work on the collection that comes and goes, while it is there. */
    const other = (work: (collection: ClientCollection) => Promise<void>) => async (): Promise<void> => {
      if (!this.#other || this.#other.dropped) return;
      this.#otherCalls++;
      await work(this.#other).finally(() => this.#otherCalls--);
    };
    await Promise.all([
      this.#loop(200, () => rows.write(main, 0)),
      this.#loop(200, () => rows.write(main, 1)),
      this.#loop(
        300,
        other((it) => rows.write(it, 0)),
      ),
      this.#loop(300, () => (this.#parts.coin(0.03) ? rows.truncate(wanderer) : rows.write(wanderer, 0))),
      ...[300, 300].map((pauseMs) => this.#loop(pauseMs, () => this.#marks.append())),
      this.#loop(3_000, () => this.#marks.flush()),
      this.#loop(2_500, () => rows.flush(main)),
      this.#loop(4_000, () => rows.flush(wanderer)),
      this.#loop(1_500, () => rows.compact(main)),
      this.#loop(3_000, () => rows.compact(wanderer)),
      this.#loop(
        3_000,
        other((it) => rows.compact(it)),
      ),
      this.#loop(600, () => rows.read(main)),
      this.#loop(
        1_500,
        other((it) => rows.read(it)),
      ),
      this.#loop(1_500, () => rows.read(wanderer)),
      this.#loop(1_200, () => snapshots.use(main)),
      this.#loop(1_500, () => snapshots.use(main)),
      this.#loop(
        1_500,
        other((it) => snapshots.use(it)),
      ),
      this.#loop(1_500, () => snapshots.use(wanderer)),
      this.#loop(2_500, () => restores.restore(main)),
      this.#loop(
        4_000,
        other((it) => restores.restore(it)),
      ),
      this.#loop(4_000, () => restores.restore(wanderer)),
      this.#loop(6_000, () => this.#drills.drill(main)),
      this.#loop(8_000, () => this.#drills.drill(wanderer)),
      this.#loop(2_500, () => this.#shapes.partition(main)),
      this.#loop(3_000, () => this.#shapes.rename(wanderer)),
      this.#loop(6_000, () => this.#renewOther()),
    ]);
  }

  async #loop(pauseMs: number, step: () => Promise<void>): Promise<void> {
    const { outside, simulation } = this.#world;
    while (!this.#stopped) {
      await outside.sleep(2 * pauseMs * simulation.random());
      if (!this.#stopped) await step();
    }
  }

  /**
   * Drops it amid whatever others do with it, and makes it anew: under the same name, unless some call may still be under way that would reach
   * the new one by its name.
   */
  async #renewOther(): Promise<void> {
    const { outside } = this.#world;
    const collection = this.#other;
    if (collection) {
      collection.dropped = true;
      const outcome = await this.#client.dropCollection(collection.name);
      this.#parts.count('drop collection', outcome);
      if (outcome.kind === 'unknown') return;
      this.#other = undefined;
    }
    while (this.#otherCalls > 0) await outside.sleep(50);
    if (this.#client.unanswered > this.#unanswered) this.#otherNumber++;
    this.#unanswered = this.#client.unanswered;
    const name = `other${this.#otherNumber}`;
    const created = await this.#client.createCollection(name, SHARDS);
    this.#parts.count('create collection', created);
    const next = new ClientCollection(name);
    const prepared = created.kind === 'done' ? await this.#client.prepare(name) : created;
    this.#parts.count('prepare collection', prepared);
    // Of one that may not be whole nothing is asked; the next round drops it.
    if (prepared.kind !== 'done') next.dropped = true;
    this.#other = next;
  }

  /** When nothing fails any more: everything that was promised holds. */
  async verify(): Promise<void> {
    if (!(await this.#shapes.settle(this.#wanderer))) this.#world.problem('nobody says which name the renamed collection has');
    await this.#restores.settle();
    await this.#drills.settle();
    await this.#marks.verify();
    for (const collection of [this.#main, this.#wanderer, this.#other]) {
      if (!collection || collection.dropped) continue;
      await this.#verifyRows(collection);
      const restorable = await this.#snapshots.listedAtTheEnd(collection);
      // The newest, and others by the seed.
      const chosen = restorable.filter((_, i) => i === restorable.length - 1 || this.#parts.coin(VERIFIED_RESTORES / restorable.length));
      for (const snapshot of chosen) await this.#restores.verify(collection, snapshot);
      const [tried] = chosen;
      if (tried && collection === this.#main && this.#parts.coin(DRILLED_AT_THE_END)) await this.#drills.verify(collection, tried);
    }
    await this.#restores.settle();
  }

  async #verifyRows(collection: ClientCollection): Promise<void> {
    const rows = await this.#client.rows(collection.name, 8);
    if (rows.kind === 'done') this.#parts.compare(`${collection.name} at the end`, rows.value, collection.model.now());
    else this.#world.problem(`${collection.name} cannot be read at the end: ${rows.reason}`);
  }
}
