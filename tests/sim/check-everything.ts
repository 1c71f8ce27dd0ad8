/** Both checkers over a world at rest; each finding is a problem. */
import { UpkeepDefinition } from '@cairn/proto/cairn/upkeep';
import { ConsistencyChecker } from './checker.ts';
import type { World } from './world.ts';

const CHECK_TIMEOUT_MS = 60_000;

export async function checkEverything(world: World): Promise<void> {
  const findings = await new ConsistencyChecker(world, world.outside.now()).run();
  for (const finding of findings) world.problem(finding);
  await checkByCoordinator(world);
}

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
