/**
 * Bad luck, by the seed: crashes, stops in good order, cuts, stores that are away, clocks that jump, and calls that fail in every way. Half of the
 * seeds have one calamity on top.
 */
import type { LinkFaults } from './links.ts';
import type { SimulatedProcess, StoreName } from './process.ts';
import type { World } from './world.ts';

const STORES: readonly StoreName[] = ['meta', 'wal', 'objects'];
/** Virtual ms. */
const AWAY_MS = 30_000;
const FULL_MS = 6_000;
const SLOW_MS = 1_000;

/** What befalls a run beside its mood; most of them strike one store. */
const CALAMITIES = ['none', 'none', 'none', 'none', 'away', 'slow', 'refusing', 'full', 'torn copies', 'no datanode'] as const;
type Calamity = (typeof CALAMITIES)[number];
const MAX_DOWN_MS = 4_000;
const MAX_CUT_MS = 6_000;
const STOP_GRACE_MS = 5_000;
const MAX_JUMP_MS = 20_000;

/** How bad a run is; drawn once. */
interface Mood {
  readonly periodMs: number;
  readonly calls: number;
  readonly crashChance: number;
  readonly maxDelayMs: number;
}

const MOODS: readonly Mood[] = [
  { periodMs: 4_000, calls: 0, crashChance: 0, maxDelayMs: 4 },
  { periodMs: 2_500, calls: 0.002, crashChance: 0.0002, maxDelayMs: 10 },
  { periodMs: 1_500, calls: 0.01, crashChance: 0.0005, maxDelayMs: 30 },
  { periodMs: 3_000, calls: 0.03, crashChance: 0.002, maxDelayMs: 15 },
];

export class Chaos {
  readonly #world: World;
  readonly calamity: Calamity;
  #stopped = false;

  constructor(world: World) {
    this.#world = world;
    this.calamity = CALAMITIES[world.simulation.below(CALAMITIES.length)];
  }

  /** How long it lasts, virtual ms; `usualMs` unless the calamity takes longer. */
  lastsMs(usualMs: number): number {
    return this.calamity === 'away' ? AWAY_MS + usualMs / 2 : usualMs;
  }

  async run(forMs: number): Promise<void> {
    const { simulation, outside, linkFaults, networkFaults } = this.#world;
    const mood = MOODS[simulation.below(MOODS.length)];
    const { calls, maxDelayMs } = mood;
    this.#world.note(`chaos: ${JSON.stringify(mood)}, ${this.calamity}`);
    for (const faults of Object.values(linkFaults))
      Object.assign(faults, { maxDelayMs, lost: calls, unanswered: calls, late: calls / 2, maxLateMs: 3_000 });
    Object.assign(networkFaults, { maxDelayMs, lost: calls, unanswered: calls, silent: calls / 4, doubled: calls / 2 });
    this.#world.crashChance = mood.crashChance;
    this.#befall();
    simulation.schedule(forMs, () => {
      this.#stopped = true;
    });
    while (!this.#stopped) {
      await outside.sleep(2 * mood.periodMs * simulation.random());
      if (!this.#stopped) this.#strike();
    }
  }

  #befall(): void {
    const { simulation, linkFaults, processes } = this.#world;
    const store = STORES[simulation.below(STORES.length)];
    const startMs = simulation.random() * 5_000;
    const later = (delayMs: number, run: () => void): void => void simulation.schedule(delayMs, run);
    const change = (name: StoreName, change: Partial<LinkFaults>): void => {
      this.#world.note(`chaos: ${name} ${JSON.stringify(change)}`);
      Object.assign(linkFaults[name], change);
    };
    switch (this.calamity) {
      case 'away':
        later(startMs, () => {
          for (const each of processes) this.#cutOff(each, store, AWAY_MS);
        });
        break;
      case 'slow':
        // Every call to the objects takes a second; the others become slow for a while.
        if (store === 'objects') change(store, { minDelayMs: SLOW_MS / 2, maxDelayMs: SLOW_MS / 2 });
        else later(startMs, () => change(store, { minDelayMs: SLOW_MS / 5, maxDelayMs: SLOW_MS / 2 }));
        later(startMs + FULL_MS, () => store !== 'objects' && change(store, { minDelayMs: 0, maxDelayMs: 10 }));
        break;
      case 'refusing':
        change('objects', { refuseEvery: 3 });
        break;
      case 'full':
        later(startMs, () => change(store, { full: true }));
        later(startMs + FULL_MS, () => change(store, { full: false }));
        break;
      case 'torn copies':
        change('objects', { cutCopies: 0.3 });
        break;
      case 'no datanode':
        later(startMs, () => this.#loseDatanodes());
        break;
      default:
    }
  }

  /** All of them are killed, one comes back soon, the others much later. */
  #loseDatanodes(): void {
    const { simulation, processes } = this.#world;
    const datanodes = processes.filter(({ role }) => role === 'datanode');
    datanodes.forEach((process, i) => {
      this.#world.note(`chaos: ${process.name} crashes, as all datanodes do`);
      process.crash();
      simulation.schedule(i === 0 ? simulation.random() * MAX_DOWN_MS : AWAY_MS / 2, () => process.start());
    });
  }

  #strike(): void {
    const { simulation, processes, network } = this.#world;
    const process = processes[simulation.below(processes.length)];
    const draw = simulation.random();
    const cutMs = simulation.random() * MAX_CUT_MS;
    if (draw < 0.35) this.#crash(process);
    else if (draw < 0.5) this.#stop(process);
    else if (draw < 0.7) this.#cutOff(process, STORES[simulation.below(STORES.length)], cutMs);
    else if (draw < 0.8) {
      const other = processes[simulation.below(processes.length)];
      this.#world.note(`chaos: ${process.name} and ${other.name} cannot reach each other for ${Math.round(cutMs)} ms`);
      network.cut(process.name, other.name);
      simulation.schedule(cutMs, () => network.heal());
    } else if (draw < 0.88) {
      const store = STORES[simulation.below(STORES.length)];
      for (const each of processes) this.#cutOff(each, store, cutMs / 2);
    } else {
      const byMs = Math.round((simulation.random() - 0.5) * 2 * MAX_JUMP_MS);
      this.#world.note(`chaos: the clock of ${process.name} jumps by ${byMs} ms`);
      process.jump(byMs);
    }
  }

  #crash(process: SimulatedProcess): void {
    const { simulation } = this.#world;
    this.#world.note(`chaos: ${process.name} crashes`);
    process.crash();
    simulation.schedule(simulation.random() * MAX_DOWN_MS, () => process.start());
  }

  #stop(process: SimulatedProcess): void {
    const { simulation } = this.#world;
    this.#world.note(`chaos: ${process.name} is stopped`);
    const again = (): void => void simulation.schedule(simulation.random() * MAX_DOWN_MS, () => process.start());
    process.runtime?.dead.addEventListener('abort', again, { once: true });
    process.stop(STOP_GRACE_MS).catch((error: unknown) => this.#world.problem(`${process.name} does not stop: ${String(error)}`));
  }

  #cutOff(process: SimulatedProcess, store: StoreName, forMs: number): void {
    this.#world.note(`chaos: ${process.name} cannot reach ${store} for ${Math.round(forMs)} ms`);
    process.cut(store, forMs);
  }
}
