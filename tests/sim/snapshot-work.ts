/** Makers and users of snapshots: create, several creates of one name, drop, pin, list. */
import { type ClientCollection, TakenSnapshot } from './collection.ts';
import type { WorkParts } from './work-parts.ts';

const ALREADY_EXISTS = 1100;
const PINNED = 2601;
/** Longer than any clock jumps, s. */
const LONG_PIN_SECONDS = 60;
const ALIAS_CHANCE = 0.5;

export class SnapshotWork {
  readonly #parts: WorkParts;

  constructor(parts: WorkParts) {
    this.#parts = parts;
  }

  async use(collection: ClientCollection): Promise<void> {
    const draw = this.#parts.random();
    if (draw < 0.48) await this.create(collection);
    else if (draw < 0.58) await this.#createTogether(collection);
    else if (draw < 0.74) await this.#drop(collection);
    else if (draw < 0.8) await this.#pinBriefly(collection);
    else if (draw < 0.9) await this.#pin(collection);
    else await this.#list(collection);
  }

  async create(collection: ClientCollection): Promise<void> {
    const parts = this.#parts;
    const name = parts.name('s');
    const before = [...collection.partitions];
    const address = collection.address(parts.coin(ALIAS_CHANCE));
    const watched = collection.model.watch();
    const outcome = await parts.client.createSnapshot(address.name, name);
    parts.count('create snapshot', outcome);
    if (outcome.kind === 'refused') watched();
    else this.#taken(collection, name, outcome.kind === 'done', watched, before);
    if (outcome.kind === 'refused' && !address.excused())
      parts.problem(`snapshot ${name} of ${address.name} was refused: ${outcome.reason}`);
  }

  #taken(
    collection: ClientCollection,
    name: string,
    there: boolean,
    watched: ReturnType<ClientCollection['model']['watch']>,
    before: readonly string[],
  ): void {
    const partitions = before.filter((partition) => collection.partitions.has(partition));
    collection.snapshots.push(new TakenSnapshot(name, there ? 'there' : 'maybe', watched, there ? partitions : []));
  }

  /** One name, several at once: one wins. */
  async #createTogether(collection: ClientCollection): Promise<void> {
    const parts = this.#parts;
    const name = parts.name('s');
    const before = [...collection.partitions];
    const address = collection.address(parts.coin(ALIAS_CHANCE));
    const watched = collection.model.watch();
    const outcomes = await Promise.all([1, 2, 3].map(() => parts.client.createSnapshot(address.name, name)));
    for (const outcome of outcomes) parts.count('create one name', outcome);
    const done = outcomes.filter(({ kind }) => kind === 'done').length;
    const unknown = outcomes.some(({ kind }) => kind === 'unknown');
    if (done > 1) parts.problem(`snapshot ${name} of ${address.name} was created ${done} times`);
    if (done === 0 && !unknown) {
      watched();
      if (!address.excused()) parts.problem(`snapshot ${name}: all creates were refused: ${JSON.stringify(outcomes)}`);
      return;
    }
    for (const outcome of outcomes) {
      if (outcome.kind === 'refused' && outcome.code !== ALREADY_EXISTS && !address.excused())
        parts.problem(`snapshot ${name} of ${address.name} was refused: ${outcome.reason}`);
    }
    this.#taken(collection, name, done === 1, watched, before);
  }

  async #drop(collection: ClientCollection): Promise<void> {
    const parts = this.#parts;
    const snapshot = parts.pick(collection.there());
    if (!snapshot) return;
    const held = snapshot.holds > 0;
    const address = collection.address(parts.coin(ALIAS_CHANCE));
    snapshot.state = 'dropping';
    const outcome = await parts.client.dropSnapshot(address.name, snapshot.name);
    parts.count('drop snapshot', outcome);
    if (outcome.kind === 'done') snapshot.state = 'gone';
    else if (outcome.kind === 'refused') {
      snapshot.state = 'there';
      if (!held && snapshot.holds === 0 && !address.excused() && outcome.code !== PINNED)
        parts.problem(`drop of snapshot ${snapshot.name} was refused: ${outcome.reason}`);
    }
  }

  /** Pins, tries to drop while pinned, unpins. */
  async #pin(collection: ClientCollection): Promise<void> {
    const parts = this.#parts;
    const snapshot = parts.pick(collection.there());
    if (!snapshot) return;
    snapshot.holds++;
    const address = collection.address(parts.coin(ALIAS_CHANCE));
    const pinned = await parts.client.pin(address.name, snapshot.name, LONG_PIN_SECONDS);
    parts.count('pin', pinned);
    if (pinned.kind === 'refused' && snapshot.state === 'there' && !address.excused())
      parts.problem(`pin of snapshot ${snapshot.name} was refused: ${pinned.reason}`);
    if (pinned.kind === 'done' && !collection.dropped) {
      const dropped = await parts.client.dropSnapshot(collection.name, snapshot.name);
      parts.count('drop pinned', dropped);
      // One that was dropped already when the pin came would have refused the pin.
      if (dropped.kind === 'done' && !collection.dropped && collection.renamingTo === undefined) {
        parts.problem(`snapshot ${snapshot.name} of ${collection.name} was dropped while pinned by ${pinned.value.pinId}`);
        snapshot.state = 'gone';
      }
      parts.count('unpin', await parts.client.unpin(pinned.value.pinId));
    }
    snapshot.holds--;
  }

  /** Pins for a few seconds and forgets it: the pin ends by itself, and what it held can be dropped then. */
  async #pinBriefly(collection: ClientCollection): Promise<void> {
    const parts = this.#parts;
    const snapshot = parts.pick(collection.there());
    if (!snapshot) return;
    const address = collection.address(parts.coin(ALIAS_CHANCE));
    const pinned = await parts.client.pin(address.name, snapshot.name, 1 + parts.world.simulation.below(5));
    parts.count('pin briefly', pinned);
    if (pinned.kind === 'refused' && snapshot.state === 'there' && !address.excused())
      parts.problem(`pin of snapshot ${snapshot.name} was refused: ${pinned.reason}`);
  }

  async #list(collection: ClientCollection): Promise<void> {
    const parts = this.#parts;
    const there = collection.there();
    const gone = collection.snapshots.filter(({ state }) => state === 'gone');
    const address = collection.address(parts.coin(ALIAS_CHANCE));
    const outcome = await parts.client.listSnapshots(address.name);
    parts.count('list', outcome);
    if (outcome.kind !== 'done' || collection.dropped) return;
    const listed = new Set(outcome.value.snapshots);
    for (const snapshot of there)
      if (snapshot.state === 'there' && !listed.has(snapshot.name)) parts.problem(`snapshot ${snapshot.name} is there and not listed`);
    for (const snapshot of gone) if (listed.has(snapshot.name)) parts.problem(`snapshot ${snapshot.name} is dropped and listed`);
  }

  /** At the end: those that must be listed are, no other is. Answers those that can be restored. */
  async listedAtTheEnd(collection: ClientCollection): Promise<TakenSnapshot[]> {
    const parts = this.#parts;
    const outcome = await parts.client.listSnapshots(collection.name);
    if (outcome.kind !== 'done') {
      parts.problem(`snapshots of ${collection.name} cannot be listed: ${outcome.reason}`);
      return [];
    }
    const listed = new Set(outcome.value.snapshots);
    const restorable: TakenSnapshot[] = [];
    for (const snapshot of collection.snapshots) {
      const there = listed.delete(snapshot.name);
      if (snapshot.state === 'there' && !there) parts.problem(`snapshot ${snapshot.name} was acknowledged and is not there`);
      if (snapshot.state === 'gone' && there) parts.problem(`snapshot ${snapshot.name} was dropped and is there`);
      if (there) restorable.push(snapshot);
    }
    for (const name of listed) parts.problem(`snapshot ${name} of ${collection.name} is there and nobody made it`);
    return restorable;
  }
}
