/** Clients at work, all at once: writers, readers, makers and users of snapshots, one who drops a collection and makes it anew. What they are told is compared with the model. */
import { differences, type Expectation, type Version } from '../support/model.ts';
import { type Outcome, type Row, SimulatedClient } from './client.ts';
import { ClientCollection, TakenSnapshot } from './collection.ts';
import type { World } from './world.ts';

const KEYS_PER_WRITER = 40;
const SHARDS = 2;
const MAX_ROWS = 12;
/** Longest time in which a restore job must end once nothing fails any more, virtual ms. */
const RESTORE_LIMIT_MS = 90_000;
const ALREADY_EXISTS = 1100;
const PINNED = 2601;
/** Snapshots of a collection that are restored at the end, about. */
const VERIFIED_RESTORES = 3;

interface Restore {
  readonly collection: ClientCollection;
  readonly snapshot: TakenSnapshot;
  readonly target: string;
  readonly jobId: bigint | undefined;
}

export class Workload {
  readonly #world: World;
  readonly #client: SimulatedClient;
  /** What was done, and how it ended: `insert done` → times. */
  readonly counts = new Map<string, number>();
  /** Never dropped. */
  readonly main = new ClientCollection('main');
  /** Dropped and made anew; undefined in between. */
  #other: ClientCollection | undefined;
  #otherNumber = 1;
  /** Calls to it under way. */
  #otherCalls = 0;
  /** Calls of the client without an answer before it was made. */
  #unanswered = 0;
  readonly #open: Restore[] = [];
  #stopped = false;
  #version = 0;
  #names = 0;
  #targets = 0;

  constructor(world: World) {
    this.#world = world;
    this.#client = new SimulatedClient(world);
  }

  async prepare(): Promise<void> {
    for (const name of ['main', 'other1']) {
      const created = await this.#client.createCollection(name, SHARDS);
      const prepared = await this.#client.prepare(name);
      if (created.kind !== 'done' || prepared.kind !== 'done')
        throw new Error(`collection ${name} was not made: ${JSON.stringify([created, prepared])}`);
    }
    this.#other = new ClientCollection('other1');
  }

  /** Works for `forMs` of virtual time, then lets everybody end what they do. */
  async run(forMs: number): Promise<void> {
    const { simulation } = this.#world;
    simulation.schedule(forMs, () => {
      this.#stopped = true;
    });
    const main = () => this.main;
    const other = () => (this.#other?.dropped === true ? undefined : this.#other);
    const counted = (work: () => Promise<void>) => async (): Promise<void> => {
      this.#otherCalls++;
      await work().finally(() => this.#otherCalls--);
    };
    await Promise.all([
      this.#loop(150, () => this.#write(main, 0)),
      this.#loop(150, () => this.#write(main, 1)),
      this.#loop(
        300,
        counted(() => this.#write(other, 0)),
      ),
      this.#loop(2_500, () => this.#flush(main)),
      this.#loop(800, () => this.#read(main)),
      this.#loop(
        1_500,
        counted(() => this.#read(other)),
      ),
      this.#loop(1_200, () => this.#useSnapshots(main)),
      this.#loop(1_500, () => this.#useSnapshots(main)),
      this.#loop(
        1_500,
        counted(() => this.#useSnapshots(other)),
      ),
      this.#loop(2_500, () => this.#restore(main)),
      this.#loop(
        4_000,
        counted(() => this.#restore(other)),
      ),
      this.#loop(9_000, () => this.#renewOther()),
    ]);
  }

  async #loop(pauseMs: number, step: () => Promise<void>): Promise<void> {
    const { outside, simulation } = this.#world;
    while (!this.#stopped) {
      await outside.sleep(2 * pauseMs * simulation.random());
      if (!this.#stopped) await step();
    }
  }

  #count(what: string, outcome: Outcome<unknown>): void {
    const key = `${what} ${outcome.kind}`;
    this.counts.set(key, (this.counts.get(key) ?? 0) + 1);
    const reason = outcome.kind === 'done' ? '' : `: ${outcome.reason}`;
    this.#world.note(`client: ${key}${reason}`);
  }

  #random = (): number => this.#world.simulation.random();
  #pick<T>(all: readonly T[]): T | undefined {
    return all[this.#world.simulation.below(all.length)];
  }

  // -- rows

  async #write(of: () => ClientCollection | undefined, writer: number): Promise<void> {
    const collection = of();
    if (!collection) return;
    const { model, name } = collection;
    const draw = this.#random();
    const kind = draw < 0.35 && !this.#world.trims ? 'insert' : draw < 0.75 ? 'upsert' : 'delete';
    const writes = new Map<number, Version>();
    const count = 1 + this.#world.simulation.below(MAX_ROWS);
    for (let i = 0; i < count; i++) {
      const key = model.pick(this.#random, KEYS_PER_WRITER, writer * KEYS_PER_WRITER);
      if (key === undefined || (kind === 'insert' && !model.isAbsent(key))) continue;
      writes.set(key, kind === 'delete' ? 0 : ++this.#version);
    }
    if (writes.size === 0) return;
    model.sent(writes);
    const rows = [...writes].map(([key, version]) => ({ key, version }));
    const outcome =
      kind === 'insert'
        ? await this.#client.insert(name, rows)
        : kind === 'upsert'
          ? await this.#client.upsert(name, rows)
          : await this.#client.delete(name, [...writes.keys()]);
    this.#count(kind, outcome);
    if (outcome.kind === 'done') model.acknowledged(writes);
    else model.unknown(writes);
    if (outcome.kind === 'refused' && !collection.dropped) this.#world.problem(`${kind} into ${name} was refused: ${outcome.reason}`);
  }

  async #flush(of: () => ClientCollection | undefined): Promise<void> {
    const collection = of();
    if (collection) this.#count('flush', await this.#client.flush(collection.name));
  }

  async #read(of: () => ClientCollection | undefined): Promise<void> {
    const collection = of();
    if (!collection) return;
    const watched = collection.model.watch();
    const outcome = await this.#client.rows(collection.name);
    const expected = watched();
    this.#count('read', outcome);
    if (collection.dropped) return;
    if (outcome.kind === 'done') this.#compare(`strong read of ${collection.name}`, outcome.value, expected);
    if (outcome.kind === 'refused') this.#world.problem(`read of ${collection.name} was refused: ${outcome.reason}`);
  }

  #compare(what: string, rows: readonly Row[], expected: Expectation): void {
    const found = differences(rows, expected);
    if (found.length > 0)
      this.#world.problem(`${what}: ${found.slice(0, 4).join('; ')}${found.length > 4 ? ` (+${found.length - 4})` : ''}`);
  }

  // -- snapshots

  async #useSnapshots(of: () => ClientCollection | undefined): Promise<void> {
    const collection = of();
    if (!collection) return;
    const draw = this.#random();
    if (draw < 0.5) await this.#create(collection);
    else if (draw < 0.6) await this.#createTogether(collection);
    else if (draw < 0.75) await this.#drop(collection);
    else if (draw < 0.88) await this.#pin(collection);
    else await this.#list(collection);
  }

  async #create(collection: ClientCollection): Promise<void> {
    const name = `s${++this.#names}`;
    const watched = collection.model.watch();
    const outcome = await this.#client.createSnapshot(collection.name, name);
    this.#count('create snapshot', outcome);
    if (outcome.kind === 'refused') watched();
    else collection.snapshots.push(new TakenSnapshot(name, outcome.kind === 'done' ? 'there' : 'maybe', watched));
    if (outcome.kind === 'refused' && !collection.dropped)
      this.#world.problem(`snapshot ${name} of ${collection.name} was refused: ${outcome.reason}`);
  }

  /** One name, several at once: one wins. */
  async #createTogether(collection: ClientCollection): Promise<void> {
    const name = `s${++this.#names}`;
    const watched = collection.model.watch();
    const outcomes = await Promise.all([1, 2, 3].map(() => this.#client.createSnapshot(collection.name, name)));
    for (const outcome of outcomes) this.#count('create one name', outcome);
    const done = outcomes.filter(({ kind }) => kind === 'done').length;
    const unknown = outcomes.some(({ kind }) => kind === 'unknown');
    if (done > 1) this.#world.problem(`snapshot ${name} of ${collection.name} was created ${done} times`);
    if (done === 0 && !unknown) {
      watched();
      if (!collection.dropped) this.#world.problem(`snapshot ${name}: all creates were refused: ${JSON.stringify(outcomes)}`);
      return;
    }
    for (const outcome of outcomes) {
      if (outcome.kind === 'refused' && outcome.code !== ALREADY_EXISTS && !collection.dropped)
        this.#world.problem(`snapshot ${name} of ${collection.name} was refused: ${outcome.reason}`);
    }
    collection.snapshots.push(new TakenSnapshot(name, done === 1 ? 'there' : 'maybe', watched));
  }

  async #drop(collection: ClientCollection): Promise<void> {
    const snapshot = this.#pick(collection.there());
    if (!snapshot) return;
    const held = snapshot.holds > 0;
    snapshot.state = 'dropping';
    const outcome = await this.#client.dropSnapshot(collection.name, snapshot.name);
    this.#count('drop snapshot', outcome);
    if (outcome.kind === 'done') snapshot.state = 'gone';
    else if (outcome.kind === 'refused') {
      snapshot.state = 'there';
      if (!held && snapshot.holds === 0 && !collection.dropped && outcome.code !== PINNED)
        this.#world.problem(`drop of snapshot ${snapshot.name} was refused: ${outcome.reason}`);
    }
  }

  /** Pins, tries to drop while pinned, unpins. */
  async #pin(collection: ClientCollection): Promise<void> {
    const snapshot = this.#pick(collection.there());
    if (!snapshot) return;
    snapshot.holds++;
    const ttlSeconds = 60;
    const pinned = await this.#client.pin(collection.name, snapshot.name, ttlSeconds);
    this.#count('pin', pinned);
    if (pinned.kind === 'refused' && snapshot.state === 'there' && !collection.dropped)
      this.#world.problem(`pin of snapshot ${snapshot.name} was refused: ${pinned.reason}`);
    if (pinned.kind === 'done' && !collection.dropped) {
      const dropped = await this.#client.dropSnapshot(collection.name, snapshot.name);
      this.#count('drop pinned', dropped);
      // One that was dropped already when the pin came would have refused the pin.
      if (dropped.kind === 'done' && !collection.dropped) {
        this.#world.problem(`snapshot ${snapshot.name} of ${collection.name} was dropped while pinned by ${pinned.value.pinId}`);
        snapshot.state = 'gone';
      }
      this.#count('unpin', await this.#client.unpin(pinned.value.pinId));
    }
    snapshot.holds--;
  }

  async #list(collection: ClientCollection): Promise<void> {
    const there = collection.there();
    const gone = collection.snapshots.filter(({ state }) => state === 'gone');
    const outcome = await this.#client.listSnapshots(collection.name);
    this.#count('list', outcome);
    if (outcome.kind !== 'done' || collection.dropped) return;
    const listed = new Set(outcome.value.snapshots);
    for (const snapshot of there)
      if (snapshot.state === 'there' && !listed.has(snapshot.name))
        this.#world.problem(`snapshot ${snapshot.name} is there and not listed`);
    for (const snapshot of gone) if (listed.has(snapshot.name)) this.#world.problem(`snapshot ${snapshot.name} is dropped and listed`);
  }

  // -- restores

  async #restore(of: () => ClientCollection | undefined): Promise<void> {
    const collection = of();
    const snapshot = collection && this.#pick(collection.there());
    if (!collection || !snapshot) return;
    const target = `r${++this.#targets}`;
    // Sometimes two at once into one target: one wins at most.
    const attempts = this.#random() < 0.15 ? 2 : 1;
    snapshot.holds++;
    const outcomes = await Promise.all(
      Array.from({ length: attempts }, () => this.#client.restore(collection.name, snapshot.name, target)),
    );
    for (const outcome of outcomes) this.#count('restore', outcome);
    const won = outcomes.flatMap((outcome) => (outcome.kind === 'done' ? [outcome.value.jobId] : []));
    if (won.length > 1) this.#world.problem(`${won.length} restores into ${target} were accepted`);
    if (attempts === 1 && outcomes[0].kind === 'refused' && snapshot.state === 'there' && !collection.dropped)
      this.#world.problem(`restore of ${snapshot.name} was refused: ${outcomes[0].reason}`);
    const restore: Restore = { collection, snapshot, target, jobId: won[0] };
    if (restore.jobId === undefined) this.#open.push(restore);
    else await this.#follow(restore, 20_000, false);
    snapshot.holds--;
  }

  /** Waits for the job, compares what it made, drops it. Without an end in time it is left for later, or, at the end, a problem. */
  async #follow(restore: Restore, limitMs: number, last: boolean): Promise<void> {
    const { target, snapshot, jobId } = restore;
    if (jobId === undefined) return this.#settleUnknown(restore);
    const { state, reason } = await this.#client.restored(jobId, limitMs);
    this.counts.set(`restore ${state}`, (this.counts.get(`restore ${state}`) ?? 0) + 1);
    this.#world.note(`client: restore job ${jobId} into ${target} ${state}: ${reason}`);
    if (state === 'unknown') {
      if (last) this.#world.problem(`restore of ${snapshot.name} into ${target}: ${reason}`);
      else this.#open.push(restore);
      return;
    }
    if (state === 'completed') return this.#compareTarget(restore, last);
    const there = await this.#client.hasCollection(target);
    if (there.kind === 'done' && there.value.value) this.#world.problem(`restore job ${jobId} failed (${reason}) and ${target} is there`);
    this.#world.note(`client: failed restore: ${reason}`);
  }

  async #compareTarget(restore: Restore, last: boolean): Promise<void> {
    const { target, snapshot, jobId } = restore;
    const loaded = await this.#client.load(target);
    const rows = loaded.kind === 'done' ? await this.#client.rows(target) : loaded;
    if (rows.kind === 'done') this.#compare(`${target}, restored from ${snapshot.name} by job ${jobId}`, rows.value, snapshot.expected());
    else if (last || rows.kind === 'refused')
      this.#world.problem(`${target} was restored by job ${jobId} and cannot be read: ${rows.reason}`);
    else {
      this.#open.push(restore);
      return;
    }
    const dropped = await this.#client.dropCollection(target);
    this.#count('drop target', dropped);
    if (last && dropped.kind !== 'done') this.#world.problem(`${target} cannot be dropped: ${dropped.reason}`);
  }

  /** A restore that nobody answered: its target is whole or not there. */
  async #settleUnknown(restore: Restore): Promise<void> {
    const there = await this.#client.hasCollection(restore.target);
    if (there.kind !== 'done') return this.#world.problem(`whether ${restore.target} is there cannot be learned: ${there.reason}`);
    if (there.value.value) await this.#compareTarget(restore, true);
  }

  // -- a collection that comes and goes

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
      this.#count('drop collection', outcome);
      if (outcome.kind === 'unknown') return;
      this.#other = undefined;
    }
    while (this.#otherCalls > 0) await outside.sleep(50);
    if (this.#client.unanswered > this.#unanswered) this.#otherNumber++;
    this.#unanswered = this.#client.unanswered;
    const name = `other${this.#otherNumber}`;
    const created = await this.#client.createCollection(name, SHARDS);
    this.#count('create collection', created);
    const next = new ClientCollection(name);
    const prepared = created.kind === 'done' ? await this.#client.prepare(name) : created;
    this.#count('prepare collection', prepared);
    // Of one that may not be whole nothing is asked; the next round drops it.
    if (prepared.kind !== 'done') next.dropped = true;
    this.#other = next;
  }

  // -- the end

  /** When nothing fails any more: everything that was promised holds. */
  async verify(): Promise<void> {
    for (const restore of this.#open.splice(0)) await this.#follow(restore, RESTORE_LIMIT_MS, true);
    for (const collection of [this.main, this.#other]) {
      if (!collection || collection.dropped) continue;
      await this.#verifyRows(collection);
      await this.#verifySnapshots(collection);
    }
  }

  async #verifyRows(collection: ClientCollection): Promise<void> {
    const rows = await this.#client.rows(collection.name, 8);
    if (rows.kind === 'done') this.#compare(`${collection.name} at the end`, rows.value, collection.model.now());
    else this.#world.problem(`${collection.name} cannot be read at the end: ${rows.reason}`);
  }

  async #verifySnapshots(collection: ClientCollection): Promise<void> {
    const outcome = await this.#client.listSnapshots(collection.name);
    if (outcome.kind !== 'done') return this.#world.problem(`snapshots of ${collection.name} cannot be listed: ${outcome.reason}`);
    const listed = new Set(outcome.value.snapshots);
    const restorable: TakenSnapshot[] = [];
    for (const snapshot of collection.snapshots) {
      const there = listed.delete(snapshot.name);
      if (snapshot.state === 'there' && !there) this.#world.problem(`snapshot ${snapshot.name} was acknowledged and is not there`);
      if (snapshot.state === 'gone' && there) this.#world.problem(`snapshot ${snapshot.name} was dropped and is there`);
      if (there) restorable.push(snapshot);
    }
    // The newest, and others by the seed.
    const chosen = restorable.filter((_, i) => i === restorable.length - 1 || this.#random() < VERIFIED_RESTORES / restorable.length);
    for (const snapshot of chosen) await this.#verifyRestore(collection, snapshot);
    for (const name of listed) this.#world.problem(`snapshot ${name} of ${collection.name} is there and nobody made it`);
  }

  async #verifyRestore(collection: ClientCollection, snapshot: TakenSnapshot): Promise<void> {
    const target = `r${++this.#targets}`;
    const outcome = await this.#client.restore(collection.name, snapshot.name, target);
    if (outcome.kind !== 'done') return this.#world.problem(`snapshot ${snapshot.name} cannot be restored: ${outcome.reason}`);
    const restore = { collection, snapshot, target, jobId: outcome.value.jobId };
    const { state, reason } = await this.#client.restored(outcome.value.jobId, RESTORE_LIMIT_MS);
    if (state === 'completed') await this.#compareTarget(restore, true);
    else this.#world.problem(`restore of ${snapshot.name} at the end: ${state}: ${reason}`);
  }
}
