/** One seed from start to end: make the world, let it suffer, heal it, and see whether all that was promised holds. */
import { Chaos } from './chaos.ts';
import { checkEverything } from './check-everything.ts';
import { Workload } from './workload.ts';
import { World } from './world.ts';

export interface SeedResult {
  readonly seed: number;
  /** Empty: passed. */
  readonly problems: readonly string[];
  readonly digest: string;
  readonly events: number;
  readonly virtualMs: number;
  readonly counts: ReadonlyMap<string, number>;
  readonly crashes: ReadonlyMap<string, number>;
}

/** Virtual ms. */
const SUFFERING_MS = 12_000;
/** Pins, tombstones, graces and time-outs run out within it. */
const QUIET_MS = 80_000;
const LIMIT_MS = 1_500_000;

export async function runSeed(seed: number, options: { readonly log?: boolean } = {}): Promise<SeedResult> {
  // Errors are plenty here; their stacks are for replays with a log.
  if (options.log !== true) Error.stackTraceLimit = 0;
  const world = new World({ seed, ...options });
  const workload = new Workload(world);
  const { simulation, outside } = world;
  const story = async (): Promise<void> => {
    world.start();
    await workload.prepare();
    const chaos = new Chaos(world);
    const sufferingMs = chaos.lastsMs(SUFFERING_MS);
    await Promise.all([workload.run(sufferingMs), chaos.run(sufferingMs)]);
    world.note('healed');
    world.heal();
    await outside.sleep(5_000);
    await workload.verify();
    await outside.sleep(QUIET_MS);
    await checkEverything(world);
  };
  try {
    await simulation.run(story(), LIMIT_MS);
  } catch (error) {
    world.problem(`the run did not end: ${error instanceof Error ? error.stack : String(error)}`);
  }
  world.end();
  return {
    seed,
    problems: world.problems,
    digest: simulation.digest,
    events: simulation.events,
    virtualMs: simulation.nowMs,
    counts: workload.counts,
    crashes: world.crashes,
  };
}
