/** pymilvus, unmodified, against a server of its own. The SDK lies in a venv that the first run makes in the cache of the tools. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Standalone, startStandalone } from '../support/cairn.ts';

const run = promisify(execFile);
const PINNED = 'pymilvus==3.0.2';
const CHECKS = ['create', 'insert', 'quick', 'search', 'query', 'iterators', 'hybrid', 'upsert_delete', 'snapshot', 'errors'] as const;
const INSTALL_MS = 300_000;
const CHECKS_MS = 110_000;

interface Check {
  readonly check: string;
  readonly ok: boolean;
  readonly detail: string;
}

/** Python of a venv that has the pinned SDK, or why there is none. */
async function preparePython(): Promise<{ readonly python: string } | { readonly missing: string }> {
  try {
    await run('python3', ['-c', 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else 1)']);
  } catch {
    return { missing: 'no Python 3.10 or newer' };
  }
  const cache = process.env['CAIRN_TOOLS_CACHE'] ?? join(homedir(), '.cache/cairn-tools');
  const venv = join(cache, PINNED.replace('==', '-'));
  const python = join(venv, 'bin/python');
  try {
    if (!existsSync(python)) {
      await mkdir(cache, { recursive: true });
      await run('python3', ['-m', 'venv', venv]);
    }
    const installed = await run(python, ['-c', 'import pymilvus; print(pymilvus.__version__)']).catch(() => undefined);
    if (installed?.stdout.trim() !== PINNED.split('==')[1])
      await run(python, ['-m', 'pip', 'install', '-q', '--disable-pip-version-check', PINNED], { timeout: INSTALL_MS });
    return { python };
  } catch (error) {
    return { missing: `${PINNED} cannot be installed: ${error instanceof Error ? error.message.slice(0, 300) : error}` };
  }
}

const prepared = await preparePython();
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
    await server?.stop();
  });

  test.each(CHECKS)('%s', (name) => {
    const check = checks.get(name);
    expect(check, `no word of ${name}: ${stderr.slice(-1000)}`).toBeDefined();
    expect(check?.ok, check?.detail).toBe(true);
  });
});
