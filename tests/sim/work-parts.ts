/** What everybody at work in the simulation shares: the world, the client, and how an outcome is counted, noted and compared. */
import { differences, type Expectation } from '../support/model.ts';
import type { Outcome, Row } from '../support/outcome.ts';
import type { SimulatedClient } from './client.ts';
import type { World } from './world.ts';

export class WorkParts {
  readonly world: World;
  readonly client: SimulatedClient;
  /** What was done, and how it ended: `insert done` → times. */
  readonly counts = new Map<string, number>();
  #names = 0;
  #version = 0;

  constructor(world: World, client: SimulatedClient) {
    this.world = world;
    this.client = client;
  }

  count(what: string, outcome: Outcome<unknown>): void {
    this.tally(`${what} ${outcome.kind}`, outcome.kind === 'done' ? '' : `: ${outcome.reason}`);
  }

  tally(key: string, note = ''): void {
    this.counts.set(key, (this.counts.get(key) ?? 0) + 1);
    this.world.note(`client: ${key}${note}`);
  }

  /** Something that must not be. */
  problem(text: string): void {
    this.world.problem(text);
  }

  compare(what: string, rows: readonly Row[], expected: Expectation): void {
    const found = differences(rows, expected);
    if (found.length > 0) this.problem(`${what}: ${found.slice(0, 4).join('; ')}${found.length > 4 ? ` (+${found.length - 4})` : ''}`);
  }

  readonly random = (): number => this.world.simulation.random();

  pick<T>(all: readonly T[]): T | undefined {
    return all[this.world.simulation.below(all.length)];
  }

  coin(chance: number): boolean {
    return this.random() < chance;
  }

  /** A name that nobody had. */
  name(prefix: string): string {
    return `${prefix}${++this.#names}`;
  }

  /** A version of a row that nobody wrote. */
  version(): number {
    return ++this.#version;
  }
}
