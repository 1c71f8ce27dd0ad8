/** Bad luck, by the seed: crashes, stops in good order, cuts, stores that are away, clocks that jump, and calls that fail in every way. */
import type { SimulatedProcess } from './process.ts';
import type { World } from './world.ts';

const STORES = ['meta', 'wal', 'objects'] as const;
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
  #stopped = false;

  constructor(world: World) {
    this.#world = world;
  }

  async run(forMs: number): Promise<void> {
    const { simulation, outside, linkFaults, networkFaults } = this.#world;
    const mood = MOODS[simulation.below(MOODS.length)];
    const { calls, maxDelayMs } = mood;
    this.#world.note(`chaos: ${JSON.stringify(mood)}`);
    Object.assign(linkFaults, { maxDelayMs, lost: calls, unanswered: calls, late: calls / 2, maxLateMs: 3_000 });
    Object.assign(networkFaults, { maxDelayMs, lost: calls, unanswered: calls, silent: calls / 4, doubled: calls / 2 });
    this.#world.crashChance = mood.crashChance;
    simulation.schedule(forMs, () => {
      this.#stopped = true;
    });
    while (!this.#stopped) {
      await outside.sleep(2 * mood.periodMs * simulation.random());
      if (!this.#stopped) this.#strike();
    }
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

  #cutOff(process: SimulatedProcess, store: string, forMs: number): void {
    this.#world.note(`chaos: ${process.name} cannot reach ${store} for ${Math.round(forMs)} ms`);
    process.cutOff.add(store);
    this.#world.simulation.schedule(forMs, () => process.cutOff.delete(store));
  }
}
