/** pymilvus, unmodified, against a server of its own. The SDK lies in a venv that the first run makes in the cache of the tools. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Standalone, startStandalone } from '../support/cairn.ts';
import { stopChecked } from '../support/consistency.ts';
import { PYMILVUS, preparePython } from '../support/python.ts';

const run = promisify(execFile);
const CHECKS = [
  'create',
  'insert',
  'quick',
  'search',
  'query',
  'iterators',
  'hybrid',
  'upsert_delete',
  'times',
  'snapshot',
  'databases',
  'errors',
] as const;
const CHECKS_MS = 110_000;

interface Check {
  readonly check: string;
  readonly ok: boolean;
  readonly detail: string;
}

const prepared = await preparePython([PYMILVUS]);
if ('missing' in prepared) process.stderr.write(`pymilvus is not tested: ${prepared.missing}\n`);

describe.skipIf('missing' in prepared)('pymilvus', () => {
  let server: Standalone | undefined;
  const checks = new Map<string, Check>();
  let stderr = '';

  beforeAll(async () => {
    if ('missing' in prepared) return;
    server = await startStandalone();
    const script = fileURLToPath(new URL('pymilvus_checks.py', import.meta.url));
    // It exits with 1 when a check failed; the checks tell which.
    const output = await run(prepared.python, [script, server.address], { timeout: CHECKS_MS }).catch(
      (error: { stdout?: string; stderr?: string }) => ({ stdout: error.stdout ?? '', stderr: error.stderr ?? String(error) }),
    );
    stderr = output.stderr;
    for (const line of output.stdout.split('\n').filter((text) => text.startsWith('{'))) {
      const check = JSON.parse(line) as Check;
      checks.set(check.check, check);
    }
  });
  afterAll(async () => {
    await stopChecked(server);
  });

  test.each(CHECKS)('%s', (name) => {
    const check = checks.get(name);
    expect(check, `no word of ${name}: ${stderr.slice(-1000)}`).toBeDefined();
    expect(check?.ok, check?.detail).toBe(true);
  });

  test('the example in Python runs to its end', async () => {
    if ('missing' in prepared) return;
    const script = fileURLToPath(new URL('../../examples/python/packages.py', import.meta.url));
    const env = { ...process.env, CAIRN_ADDRESS: server?.address ?? '' };
    const { stdout } = await run(prepared.python, [script], { env, timeout: CHECKS_MS });
    expect(stdout.trim().split('\n').at(-1)).toBe('all is as it must be');
  });
});
