/** Restores and clones, of whole snapshots and of chosen partitions, and of what was restored: each is followed to its end and compared. */
import { type Expectation, narrowed, type Version } from '../support/model.ts';
import type { Outcome } from '../support/outcome.ts';
import { type ClientCollection, DEFAULT_PARTITION, type TakenSnapshot } from './collection.ts';
import type { WorkParts } from './work-parts.ts';

/** Longest time in which a restore job must end once nothing fails any more, virtual ms. */
const RESTORE_LIMIT_MS = 90_000;
/** How long it is followed while things fail; then it is left for the end. */
const PATIENCE_MS = 20_000;
/** Clones of clones of clones. */
const MAX_DEPTH = 3;
const ALIAS_CHANCE = 0.5;

interface Restore {
  readonly snapshot: string;
  readonly target: string;
  readonly jobId: bigint | undefined;
  readonly depth: number;
  /** What it may hold; of one whose snapshot has no answer yet, from the first look on. */
  readonly expected: () => Expectation;
  /** Where each row of a version lies, and partitions that are there for certain. */
  readonly partitionOf: (version: Version) => string;
  readonly partitions: readonly string[];
}

export class RestoreWork {
  readonly #parts: WorkParts;
  /** Those whose end is not known. */
  readonly #open: Restore[] = [];

  constructor(parts: WorkParts) {
    this.#parts = parts;
  }

  async restore(collection: ClientCollection): Promise<void> {
    const parts = this.#parts;
    const snapshot = parts.pick(collection.there());
    if (!snapshot) return;
    const target = parts.name('r');
    const address = collection.address(parts.coin(ALIAS_CHANCE));
    snapshot.holds++;
    // Sometimes two at once into one target: one wins at most.
    const attempts = parts.coin(0.15) ? 2 : 1;
    const chosen = parts.coin(0.3) ? snapshot.partitions.filter(() => parts.coin(0.6)) : [];
    // By the target's name, so that seeds from before draw the same numbers.
    const anew = Number(target.replaceAll(/\D/g, '')) % 3 === 0;
    const shape = anew ? { shards: 1 + (Number(target.replaceAll(/\D/g, '')) % 4), rewriteData: true } : {};
    const begin = (): Promise<Outcome<{ jobId: bigint }>> =>
      chosen.length > 0 || anew
        ? parts.client.restoreChosen(address.name, snapshot.name, target, { partitions: chosen, ...shape })
        : parts.client.restore(address.name, snapshot.name, target);
    const outcomes = await Promise.all(Array.from({ length: attempts }, begin));
    for (const outcome of outcomes) parts.count(anew ? 'restore anew' : chosen.length > 0 ? 'restore partitions' : 'restore', outcome);
    const won = outcomes.flatMap((outcome) => (outcome.kind === 'done' ? [outcome.value.jobId] : []));
    if (won.length > 1) parts.problem(`${won.length} restores into ${target} were accepted`);
    if (attempts === 1 && outcomes[0].kind === 'refused' && snapshot.state === 'there' && !address.excused())
      parts.problem(`restore of ${snapshot.name} was refused: ${outcomes[0].reason}`);
    const restore = this.#of(collection, snapshot, target, won[0], chosen);
    if (restore.jobId === undefined) this.#open.push(restore);
    else await this.#follow(restore, PATIENCE_MS, false);
    snapshot.holds--;
  }

  #of(
    collection: ClientCollection,
    snapshot: TakenSnapshot,
    target: string,
    jobId: bigint | undefined,
    chosen: readonly string[],
  ): Restore {
    const partitionOf = (version: Version): string => collection.partitionOf(version);
    const all = (): Expectation => snapshot.expected();
    return {
      ...{ snapshot: snapshot.name, target, jobId, depth: 1, partitionOf },
      partitions: chosen.length > 0 ? chosen : snapshot.partitions,
      expected: chosen.length > 0 ? () => narrowed(all(), (_, version) => chosen.includes(partitionOf(version))) : all,
    };
  }

  /** Waits for the job, compares what it made, drops it. Without an end in time it is left for later, or, at the end, a problem. */
  async #follow(restore: Restore, limitMs: number, last: boolean): Promise<void> {
    const parts = this.#parts;
    const { target, snapshot, jobId } = restore;
    if (jobId === undefined) return this.#settleUnknown(restore);
    const { state, reason } = await parts.client.restored(jobId, limitMs);
    parts.tally(`restore ${state}`, `: job ${jobId} into ${target}: ${reason}`);
    if (state === 'unknown') {
      if (last) parts.problem(`restore of ${snapshot} into ${target}: ${reason}`);
      else this.#open.push(restore);
      return;
    }
    if (state === 'completed') return this.#compareTarget(restore, last);
    const there = await parts.client.hasCollection(target);
    if (there.kind === 'done' && there.value.value) parts.problem(`restore job ${jobId} failed (${reason}) and ${target} is there`);
  }

  async #compareTarget(restore: Restore, last: boolean): Promise<void> {
    const parts = this.#parts;
    const { target, snapshot, jobId } = restore;
    const what = `${target}, restored from ${snapshot} by job ${jobId}`;
    const loaded = await parts.client.load(target);
    const rows = loaded.kind === 'done' ? await parts.client.rows(target) : loaded;
    if (rows.kind !== 'done') {
      if (last || rows.kind === 'refused') parts.problem(`${what} cannot be read: ${rows.reason}`);
      else this.#open.push(restore);
      return;
    }
    parts.compare(what, rows.value, restore.expected());
    await this.#comparePartition(restore, what);
    const droppedEarly = restore.depth < MAX_DEPTH && parts.coin(0.3) && (await this.#cloneOfClone(restore));
    const dropped = droppedEarly || (await parts.client.dropCollection(target));
    if (dropped === true) return;
    parts.count('drop target', dropped);
    if (last && dropped.kind !== 'done') parts.problem(`${target} cannot be dropped: ${dropped.reason}`);
  }

  async #comparePartition({ target, partitions, partitionOf, expected }: Restore, what: string): Promise<void> {
    const partition = this.#parts.pick(partitions);
    if (partition === undefined || !this.#parts.coin(0.5)) return;
    const rows = await this.#parts.client.rows(target, 3, { partitions: [partition] });
    const within = narrowed(expected(), (_, version) => partitionOf(version) === partition);
    if (rows.kind === 'done') this.#parts.compare(`partition ${partition} of ${what}`, rows.value, within);
    if (rows.kind === 'refused') this.#parts.problem(`partition ${partition} of ${what} cannot be read: ${rows.reason}`);
  }

  /** Writes into what was restored, takes a snapshot of it, restores that; drops the source before or after. True: it was dropped. */
  async #cloneOfClone(restore: Restore): Promise<boolean> {
    const parts = this.#parts;
    const { target, partitionOf } = restore;
    const expected = new Map(restore.expected());
    const keys = [...expected.keys()].filter(() => parts.coin(0.1));
    if (keys.length > 0) {
      const rows = keys.map((key) => ({ key, version: parts.version() }));
      const written = await parts.client.upsert(target, rows);
      parts.count('upsert into target', written);
      if (written.kind === 'refused') parts.problem(`upsert into ${target} was refused: ${written.reason}`);
      if (written.kind !== 'done') return false;
      for (const { key, version } of rows) expected.set(key, new Set([version]));
    }
    const snapshot = parts.name('c');
    const taken = await parts.client.createSnapshot(target, snapshot);
    parts.count('snapshot of target', taken);
    if (taken.kind === 'refused') parts.problem(`snapshot ${snapshot} of ${target} was refused: ${taken.reason}`);
    if (taken.kind !== 'done') return false;
    const next = parts.name('r');
    const mode = parts.coin(0.5) ? 'copy' : 'reference';
    const begun = await parts.client.restoreChosen(target, snapshot, next, { mode });
    parts.count(`${mode} of target`, begun);
    if (begun.kind === 'refused') parts.problem(`${mode} of ${snapshot} of ${target} was refused: ${begun.reason}`);
    if (begun.kind === 'refused') return false;
    const droppedEarly = parts.coin(0.5) && (await parts.client.dropCollection(target)).kind === 'done';
    const jobId = begun.kind === 'done' ? begun.value.jobId : undefined;
    const clone: Restore = {
      ...{ snapshot, target: next, jobId, depth: restore.depth + 1, expected: () => expected, partitions: [DEFAULT_PARTITION] },
      partitionOf,
    };
    if (jobId === undefined) this.#open.push(clone);
    else await this.#follow(clone, PATIENCE_MS, false);
    return droppedEarly;
  }

  /** A restore that nobody answered: its target is whole or not there. */
  async #settleUnknown(restore: Restore): Promise<void> {
    const there = await this.#parts.client.hasCollection(restore.target);
    if (there.kind !== 'done') return this.#parts.problem(`whether ${restore.target} is there cannot be learned: ${there.reason}`);
    if (!there.value.value) return;
    await this.#parts.client.published(restore.target, RESTORE_LIMIT_MS);
    const after = await this.#parts.client.hasCollection(restore.target);
    if (after.kind !== 'done') return this.#parts.problem(`whether ${restore.target} is there cannot be learned: ${after.reason}`);
    if (after.value.value) await this.#compareTarget(restore, true);
  }

  /** When nothing fails any more: every job ends. */
  async settle(): Promise<void> {
    while (this.#open.length > 0) for (const restore of this.#open.splice(0)) await this.#follow(restore, RESTORE_LIMIT_MS, true);
  }

  /** At the end: a snapshot can be restored, and what is restored is what it was. */
  async verify(collection: ClientCollection, snapshot: TakenSnapshot): Promise<void> {
    const parts = this.#parts;
    const target = parts.name('r');
    const outcome = await parts.client.restore(collection.name, snapshot.name, target);
    if (outcome.kind !== 'done') return parts.problem(`snapshot ${snapshot.name} cannot be restored: ${outcome.reason}`);
    const restore = this.#of(collection, snapshot, target, outcome.value.jobId, []);
    const { state, reason } = await parts.client.restored(outcome.value.jobId, RESTORE_LIMIT_MS);
    if (state === 'completed') await this.#compareTarget(restore, true);
    else parts.problem(`restore of ${snapshot.name} at the end: ${state}: ${reason}`);
  }
}
