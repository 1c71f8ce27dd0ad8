/**
 * The test command: types, lint, arrows, then every test by Vitest with the real servers. Prints each skip with its reason; the last line is
 * `N passed, N failed, N skipped`. A failed check counts as one failed test of that name.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const root = join(import.meta.dirname, '../..');
const bin = (name: string): string => join(root, 'node_modules/.bin', name);

function run(command: string, args: readonly string[]): Promise<number> {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd: root,
      stdio: ['ignore', 'inherit', 'inherit'],
      env: { ...process.env, CI: process.env['CI'] ?? 'true' },
    });
    child.on('error', (error) => {
      console.error(`${command}: ${error.message}`);
      resolve(127);
    });
    child.on('exit', (code, signal) => resolve(code ?? (signal ? 128 : 1)));
  });
}

interface Assertion {
  readonly fullName: string;
  readonly status: string;
}
interface Report {
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly message?: string;
    readonly assertionResults: readonly Assertion[];
  }[];
}

let passed = 0;
let failed = 0;
const skipped: string[] = [];
const failures: string[] = [];

function count(name: string, ok: boolean): void {
  if (ok) passed++;
  else {
    failed++;
    failures.push(name);
  }
}

console.log('servers: etcd, nats-server, MinIO (built once, kept in a cache outside the tree)');
const servers = await run(join(root, 'tools/servers/build.sh'), []);
if (servers !== 0) console.log('servers: not available (reason above); tests that need them are skipped');

for (const [name, command, args] of [
  ['types', bin('tsc'), ['-p', '.']],
  ['lint', bin('biome'), ['check', '--error-on-warnings', '.']],
  ['arrows', process.execPath, ['tests/scripts/check-arrows.ts']],
] as const) {
  console.log(`check: ${name}`);
  count(`check ${name}`, (await run(command, args)) === 0);
}

const directory = mkdtempSync(join(tmpdir(), 'cairn-tests-'));
const reportFile = join(directory, 'report.json');
const code = await run(process.execPath, [
  join(root, 'node_modules/vitest/vitest.mjs'),
  'run',
  '--reporter=default',
  '--reporter=json',
  `--outputFile.json=${reportFile}`,
  ...process.argv.slice(2),
]);
try {
  const report = JSON.parse(readFileSync(reportFile, 'utf8')) as Report;
  for (const file of report.testResults) {
    if (file.assertionResults.length === 0 && file.status === 'failed') count(`${file.name}: ${file.message ?? 'did not load'}`, false);
    for (const test of file.assertionResults) {
      if (test.status === 'passed' || test.status === 'failed') count(test.fullName, test.status === 'passed');
      else skipped.push(test.fullName);
    }
  }
  if (code !== 0 && failed === 0)
    count(`the test runner ended with code ${code} though no test failed (an error outside tests, see above)`, false);
} catch (error) {
  count(`the test runner left no report (exit code ${code}): ${error instanceof Error ? error.message : error}`, false);
}
rmSync(directory, { recursive: true, force: true });

for (const name of skipped) console.log(`skipped: ${name}`);
for (const name of failures) console.log(`failed: ${name}`);
console.log(`${passed} passed, ${failed} failed, ${skipped.length} skipped`);
process.exitCode = failed > 0 ? 1 : 0;
