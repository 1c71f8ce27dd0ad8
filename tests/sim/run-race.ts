/** A race of tests/support/races.ts in a simulated house without other faults: only the moments at which things happen differ, by the seed. */
import { type RaceHouse, runRace } from '../support/races.ts';
import { checkEverything } from './check-everything.ts';
import { SimulatedClient } from './client.ts';
import { World } from './world.ts';

/** Longer than a lease, virtual ms. */
const FROZEN_MS = 4_000;
const DOWN_MS = 500;
const QUIET_MS = 45_000;
const LIMIT_MS = 900_000;

export async function raceUnderSeed(name: string, seed: number, saw: Set<string>, log = false): Promise<readonly string[]> {
  if (!log) Error.stackTraceLimit = 0;
  const world = new World({ seed, log });
  const { simulation, outside } = world;
  const process = (role: string, which: number) => world.processes.filter((one) => one.role === role)[which];
  const house: RaceHouse = {
    client: new SimulatedClient(world),
    sleep: (ms) => outside.sleep(ms),
    random: () => simulation.random(),
    freeze: async (role, which) => {
      process(role, which).cut('meta', FROZEN_MS);
      await outside.sleep(FROZEN_MS);
    },
    kill: async (role, which) => {
      process(role, which).crash();
      await outside.sleep(DOWN_MS);
      process(role, which).start();
    },
  };
  const story = async (): Promise<void> => {
    world.start();
    const told = await runRace(name, 'race', house);
    for (const problem of told.problems) world.problem(problem);
    for (const outcome of told.saw) saw.add(outcome);
    await outside.sleep(QUIET_MS);
    await checkEverything(world);
  };
  try {
    await simulation.run(story(), LIMIT_MS);
  } catch (error) {
    world.problem(`the run did not end: ${error instanceof Error ? error.stack : String(error)}`);
  }
  world.end();
  return world.problems;
}
