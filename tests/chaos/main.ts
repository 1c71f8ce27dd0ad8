/** `make chaos CYCLES=50 SEED=1`: bad luck on a real cluster; last line `N passed, N failed`. */
import { parseArgs } from 'node:util';
import { serversAvailable } from '../support/servers.ts';
import { runCycles } from './cycles.ts';

const { values } = parseArgs({
  options: {
    cycles: { type: 'string', default: '50' },
    seed: { type: 'string', default: '1' },
    hang: { type: 'string', default: '30000' },
  },
});
const available = await serversAvailable();
if (!available.ok) throw new Error(`chaos needs real servers: ${available.reason}`);
const { passed, failed, problems, cells, restores } = await runCycles({
  cycles: Number(values.cycles),
  seed: Number(values.seed),
  hangMs: Number(values.hang),
  onCycle: (line) => console.log(line),
});
console.table(cells);
for (const problem of problems) console.log(`PROBLEM ${problem}`);
console.log(`restores under faults: ${restores.completed} completed and exact, ${restores.failed} failed and clean`);
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 ? 1 : 0;
