/** Those who change the shape of collections: partitions that come and go, names that change. */
import { type ClientCollection, DEFAULT_PARTITION } from './collection.ts';
import type { WorkParts } from './work-parts.ts';

const MAX_PARTITIONS = 4;

export class ShapeWork {
  readonly #parts: WorkParts;

  constructor(parts: WorkParts) {
    this.#parts = parts;
  }

  /** Adds a partition and loads it, or drops one with all that is in it. */
  async partition(collection: ClientCollection): Promise<void> {
    const parts = this.#parts;
    const added = [...collection.partitions].filter((name) => name !== DEFAULT_PARTITION);
    const doomed = added.length >= MAX_PARTITIONS || parts.coin(0.4) ? parts.pick(added) : undefined;
    if (doomed === undefined) return this.#add(collection);
    const within = (version: number): boolean => version !== 0 && collection.partitionOf(version) === doomed;
    collection.partitions.delete(doomed);
    collection.model.losing(within);
    const outcome = await parts.client.dropPartition(collection.name, doomed);
    parts.count('drop partition', outcome);
    if (outcome.kind === 'done') {
      collection.model.lost(within);
      collection.droppedMs.set(doomed, parts.world.simulation.nowMs);
    }
    if (outcome.kind === 'refused') parts.problem(`drop of partition ${doomed} was refused: ${outcome.reason}`);
  }

  async #add(collection: ClientCollection): Promise<void> {
    const parts = this.#parts;
    const name = parts.name('p');
    const created = await parts.client.createPartition(collection.name, name);
    parts.count('create partition', created);
    const loaded = created.kind === 'done' ? await parts.client.loadPartition(collection.name, name) : created;
    if (loaded.kind === 'done') collection.partitions.add(name);
    if (loaded.kind === 'refused') parts.problem(`partition ${name} was refused: ${loaded.reason}`);
  }

  /** Gives it another name. One whose answer is not known is tried again, to the same name, until it certainly has it. */
  async rename(collection: ClientCollection): Promise<void> {
    const parts = this.#parts;
    const to = collection.renamingTo ?? parts.name('w');
    collection.renaming(to);
    const outcome = await parts.client.rename(collection.name, to);
    parts.count('rename', outcome);
    if (outcome.kind === 'done') collection.renamed();
    else await this.settle(collection);
  }

  /** Finds out which name it has, as far as that can be known. */
  async settle(collection: ClientCollection): Promise<boolean> {
    if (collection.renamingTo === undefined) return true;
    const there = await this.#parts.client.hasCollection(collection.renamingTo);
    if (there.kind !== 'done') return false;
    if (there.value.value) collection.renamed();
    return true;
  }
}
