/**
 * kill -9 of a random process of a cluster at seeded moments of the main job, and a sample of what else befalls stores (`make chaos CYCLES=50` does
 * more of it, and longer): no acknowledged row is lost or doubled, snapshots are exact. CAIRN_KILL_CYCLES (default 10), CAIRN_KILL_SEED.
 */
import { expect, test } from 'vitest';
import { serversAvailable } from '../support/servers.ts';
import { type Fault, runCycles } from './cycles.ts';

const cycles = Number(process.env['CAIRN_KILL_CYCLES'] ?? 10);
const seed = Number(process.env['CAIRN_KILL_SEED'] ?? 1);
/** Longer than a lease. */
const HANG_MS = 4_000;
const OTHERS: readonly Fault[] = ['no datanode', 'hang etcd', 'slow', 'refuse', 'full', 'cut'];

const available = await serversAvailable();
const why = available.ok ? '' : ` (skipped: ${available.reason})`;
for (const [what, count, faults] of [
  [`${cycles} kills`, cycles, ['kill', 'kill', 'kill store'] as const],
  [`${OTHERS.length} cycles of other faults`, OTHERS.length, OTHERS],
] as const) {
  test.skipIf(!available.ok)(
    `nothing acknowledged is lost or doubled over ${what} in a cluster (seed ${seed})${why}`,
    {
      timeout: 1_200_000,
    },
    async () => {
      const lines: string[] = [];
      const { problems, cells } = await runCycles({ cycles: count, seed, hangMs: HANG_MS, faults, onCycle: (line) => lines.push(line) });
      console.table(cells);
      expect(problems, lines.join('\n')).toEqual([]);
    },
  );
}
