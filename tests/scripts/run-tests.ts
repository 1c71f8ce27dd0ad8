/**
 * The test command: types, lint, arrows, then every test by Vitest with the real servers. Prints each skip with its reason; the last line is
 * `N passed, N failed, N skipped`. A failed check counts as one failed test of that name. Up to five files with failures run a second time, alone: what
 * passes then counts as passed and is named as unsteady, so that a machine at its limit does not hide what is broken, nor call broken what is not.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';

/** Files whose failures are looked at a second time, alone: more of them is no chance but a fault. */
const MOST_FILES_AGAIN = 5;

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
interface TestFile {
  readonly name: string;
  readonly status: string;
  readonly message?: string;
  readonly assertionResults: readonly Assertion[];
}
interface Report {
  readonly testResults: readonly TestFile[];
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

interface Suite {
  readonly code: number;
  readonly report?: Report;
  readonly problem?: string;
}

const directory = mkdtempSync(join(tmpdir(), 'cairn-tests-'));

async function vitest(name: string, args: readonly string[]): Promise<Suite> {
  const file = join(directory, `${name}.json`);
  const runner = join(root, 'node_modules/vitest/vitest.mjs');
  const code = await run(process.execPath, [runner, 'run', '--reporter=default', '--reporter=json', `--outputFile.json=${file}`, ...args]);
  try {
    return { code, report: JSON.parse(readFileSync(file, 'utf8')) as Report };
  } catch (error) {
    return { code, problem: `the test runner left no report (exit code ${code}): ${error instanceof Error ? error.message : error}` };
  }
}

const failedIn = (file: TestFile): string[] =>
  file.status === 'failed' && !file.assertionResults.some((test) => test.status === 'failed')
    ? [`${file.name}: ${file.message ?? 'did not load'}`]
    : file.assertionResults.filter((test) => test.status === 'failed').map((test) => test.fullName);

const first = await vitest('first', process.argv.slice(2));
let files = first.report?.testResults ?? [];
/** Failures of the first turn that did not come again when their file ran alone: said by name, so that nobody takes them for sound. */
const unsteady: string[] = [];
const again = files.filter((file) => failedIn(file).length > 0);
if (again.length > 0 && again.length <= MOST_FILES_AGAIN && first.code !== 127) {
  console.log(`again, one by one: ${again.map((file) => relative(root, file.name)).join(', ')}`);
  const second = await vitest('second', ['--no-file-parallelism', ...again.map((file) => relative(root, file.name))]);
  for (const file of again) {
    const repeated = second.report?.testResults.find((each) => each.name === file.name);
    if (!repeated) continue;
    const still = new Set(failedIn(repeated));
    unsteady.push(...failedIn(file).filter((name) => !still.has(name)));
    files = files.map((each) => (each === file ? repeated : each));
  }
}
for (const file of files) {
  for (const name of failedIn(file)) count(name, false);
  for (const test of file.assertionResults) {
    if (test.status === 'passed') count(test.fullName, true);
    else if (test.status !== 'failed') skipped.push(test.fullName);
  }
}
if (first.problem) count(first.problem, false);
else if (first.code !== 0 && failed === 0 && again.length === 0)
  count(`the test runner ended with code ${first.code} though no test failed (an error outside tests, see above)`, false);
rmSync(directory, { recursive: true, force: true });

for (const name of unsteady) console.log(`unsteady (failed beside others, passed alone): ${name}`);
for (const name of skipped) console.log(`skipped: ${name}`);
for (const name of failures) console.log(`failed: ${name}`);
console.log(`${passed} passed, ${failed} failed, ${skipped.length} skipped`);
process.exitCode = failed > 0 ? 1 : 0;
