/** What clients know of one collection: its names, its rows by the model, its partitions and its snapshots. */
import { type Expectation, Model, type Version } from '../support/model.ts';

/** `maybe`: the answer to its create is not known. `dropping`: that to its drop is not. */
export type TakenState = 'maybe' | 'there' | 'dropping' | 'gone';

/** A lease, and what passes until its loss is noticed, virtual ms. */
const LINGER_MS = 8_000;

export const DEFAULT_PARTITION = '_default';

export class TakenSnapshot {
  readonly name: string;
  state: TakenState;
  /** Pins and restores of it that may hold. */
  holds = 0;
  /** Partitions that were there all the while it was made. */
  readonly partitions: readonly string[];
  #expected: Expectation | undefined;
  readonly #watched: () => Expectation;

  /** `watched` ends the model's watch that began before the create was sent. */
  constructor(name: string, state: 'maybe' | 'there', watched: () => Expectation, partitions: readonly string[]) {
    this.name = name;
    this.state = state;
    this.partitions = partitions;
    this.#watched = watched;
    if (state === 'there') this.#expected = watched();
  }

  /** What it may hold. While its create has no answer its time may still come: that ends with the first look. */
  expected(): Expectation {
    this.#expected ??= this.#watched();
    return this.#expected;
  }
}

/** A name under which a collection is called, and whether a refusal is no surprise by now. */
export interface Address {
  readonly name: string;
  /** The collection was dropped, or renamed away from this name, since the address was taken. */
  excused(): boolean;
}

export class ClientCollection {
  /** The last name that was acknowledged. */
  name: string;
  /** Stands for the collection whatever its name is. */
  readonly alias: string | undefined;
  readonly model: Model;
  readonly snapshots: TakenSnapshot[] = [];
  /** Those to which rows go. */
  readonly partitions = new Set([DEFAULT_PARTITION]);
  readonly #partitionOf: Map<Version, string>;
  /** When the drop of a partition was acknowledged, virtual ms. */
  readonly droppedMs = new Map<string, number>();
  /** From the moment a drop of it was sent. */
  dropped = false;
  /** A new name whose rename has no answer yet. */
  renamingTo: string | undefined;
  #renames = 0;

  constructor(name: string, alias?: string, model = new Model(), partitionOf = new Map<Version, string>()) {
    this.name = name;
    this.alias = alias;
    this.model = model;
    this.#partitionOf = partitionOf;
  }

  /** Its name, or its alias by the coin. */
  address(coin: boolean): Address {
    if (this.alias !== undefined && coin) return { name: this.alias, excused: () => this.dropped };
    const renames = this.#renames;
    const moving = this.renamingTo !== undefined;
    return { name: this.name, excused: () => this.dropped || moving || this.#renames !== renames };
  }

  /** Whether rows of this version may still be read: an owner that is cut off from the catalog reads on for as long as its lease lives. */
  lingers(version: Version, nowMs: number): boolean {
    const droppedMs = this.droppedMs.get(this.partitionOf(version));
    return droppedMs !== undefined && nowMs < droppedMs + LINGER_MS;
  }

  renaming(to: string): void {
    this.renamingTo = to;
    this.#renames++;
  }

  renamed(): void {
    this.name = this.renamingTo ?? this.name;
    this.renamingTo = undefined;
  }

  placed(version: Version, partition: string): void {
    if (partition !== DEFAULT_PARTITION) this.#partitionOf.set(version, partition);
  }

  partitionOf(version: Version): string {
    return this.#partitionOf.get(version) ?? DEFAULT_PARTITION;
  }

  /** Those that certainly exist. */
  there(): TakenSnapshot[] {
    return this.snapshots.filter((snapshot) => snapshot.state === 'there');
  }
}
