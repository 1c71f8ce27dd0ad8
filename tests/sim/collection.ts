/** What clients know of one collection: its rows by the model, and its snapshots. */
import { type Expectation, Model } from '../support/model.ts';

/** `maybe`: the answer to its create is not known. `dropping`: that to its drop is not. */
export type TakenState = 'maybe' | 'there' | 'dropping' | 'gone';

export class TakenSnapshot {
  readonly name: string;
  state: TakenState;
  /** Pins and restores of it that may hold. */
  holds = 0;
  #expected: Expectation | undefined;
  readonly #watched: () => Expectation;

  /** `watched` ends the model's watch that began before the create was sent. */
  constructor(name: string, state: 'maybe' | 'there', watched: () => Expectation) {
    this.name = name;
    this.state = state;
    this.#watched = watched;
    if (state === 'there') this.#expected = watched();
  }

  /** What it may hold. While its create has no answer its time may still come: that ends with the first look. */
  expected(): Expectation {
    this.#expected ??= this.#watched();
    return this.#expected;
  }
}

export class ClientCollection {
  readonly name: string;
  readonly model = new Model();
  readonly snapshots: TakenSnapshot[] = [];
  /** From the moment a drop of it was sent. */
  dropped = false;

  constructor(name: string) {
    this.name = name;
  }

  /** Those that certainly exist. */
  there(): TakenSnapshot[] {
    return this.snapshots.filter((snapshot) => snapshot.state === 'there');
  }
}
