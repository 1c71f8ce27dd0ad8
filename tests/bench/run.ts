/** Runs the benchmarks one after another: all, or those named. `node tests/bench/run.ts [NAME ...]`; NAME is the file's without .bench.ts. */
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';

const known = readdirSync(import.meta.dirname)
  .filter((file) => file.endsWith('.bench.ts'))
  .map((file) => file.slice(0, -'.bench.ts'.length))
  .sort();
const wanted = process.argv.length > 2 ? process.argv.slice(2) : known;
let failed = 0;
for (const name of wanted) {
  if (!known.includes(name)) {
    console.error(`there is no benchmark '${name}'; there are: ${known.join(', ')}`);
    process.exit(2);
  }
  const modes = ['serve', 'write', 'snapshot', 'ingest', 'pymilvus', 'delay'].includes(name) ? ['standalone', 'cluster'] : [undefined];
  for (const mode of modes) {
    const result = spawnSync(process.execPath, [join(import.meta.dirname, `${name}.bench.ts`), ...(mode ? [mode] : [])], {
      stdio: 'inherit',
    });
    if (result.status !== 0) failed++;
  }
}
process.exitCode = failed > 0 ? 1 : 0;
