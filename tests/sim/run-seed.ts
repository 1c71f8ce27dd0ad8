/** One seed from start to end: make the world, let it suffer, heal it, and see whether all that was promised holds. */
import { UpkeepDefinition } from '@cairn/proto/cairn/upkeep';
import { Chaos } from './chaos.ts';
import { ConsistencyChecker } from './checker.ts';
import { Workload } from './workload.ts';
import { World } from './world.ts';

/** What the leading coordinator itself finds: its memory, the records and the objects compared. */
async function checkByCoordinator(world: World): Promise<void> {
  const transport = world.network.transport(world.outside);
  const answers = [];
  for (const { name, role } of world.processes) {
    if (role !== 'datacoord') continue;
    try {
      const { findings } = await transport.client(UpkeepDefinition, name).check({ deep: true }, { timeoutMs: CHECK_TIMEOUT_MS });
      for (const { kind, subject, detail } of findings) world.problem(`check: ${kind} ${subject}: ${detail}`);
      return;
    } catch (error) {
      answers.push(`${name}: ${String(error)}`);
    }
  }
  world.problem(`no coordinator checks: ${answers.join('; ')}`);
}

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
const SUFFERING_MS = 20_000;
/** Pins, tombstones, graces and time-outs run out within it. */
const QUIET_MS = 80_000;
const CHECK_TIMEOUT_MS = 60_000;
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
    const findings = await new ConsistencyChecker(world, outside.now()).run();
    for (const finding of findings) world.problem(finding);
    await checkByCoordinator(world);
  };
  try {
    await simulation.run(story(), LIMIT_MS);
  } catch (error) {
    world.problem(`the run did not end: ${error instanceof Error ? error.stack : String(error)}`);
  }
  for (const process of world.processes) process.crash();
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
