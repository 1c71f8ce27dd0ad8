/** The Milvus Go client, unmodified, against a server of its own. Go builds the checks; what it downloads and compiles stays in its caches. */
import { execFile } from 'node:child_process';
import { mkdir, rm } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Standalone, startStandalone } from '../support/cairn.ts';
import { stopChecked } from '../support/consistency.ts';

const run = promisify(execFile);
const CHECKS = [
  ...['connect', 'version', 'create', 'insert', 'index', 'load', 'search', 'filtered_search', 'hybrid', 'query', 'get'],
  ...['query_iterator', 'search_iterator', 'upsert', 'delete', 'partitions', 'aliases', 'databases', 'auto_id_rows', 'errors', 'drop'],
];
/** The first build downloads some 100 modules and takes two minutes of one core. */
const BUILD_MS = 900_000;
const CHECKS_MS = 110_000;

/** No other toolchain is fetched, and none but Go's own compiler is needed. */
const GO_ENV = { ...process.env, GOTOOLCHAIN: 'local', GOFLAGS: '-mod=readonly', CGO_ENABLED: '0' };

interface Check {
  readonly check: string;
  readonly ok: boolean;
  readonly detail: string;
}

/** The program with the checks, or why there is none. */
async function buildChecks(): Promise<{ readonly program: string } | { readonly missing: string }> {
  const cwd = join(import.meta.dirname, 'go');
  try {
    await run('go', ['version'], { env: GO_ENV });
  } catch {
    return { missing: 'there is no Go toolchain' };
  }
  const cache = join(process.env['CAIRN_TOOLS_CACHE'] ?? join(homedir(), '.cache/cairn-tools'), 'bin');
  const program = join(cache, `sdk-go-${process.pid}`);
  try {
    await mkdir(cache, { recursive: true });
    await run('go', ['build', '-o', program, '.'], { cwd, env: GO_ENV, timeout: BUILD_MS });
    return { program };
  } catch (error) {
    // A Go older than go.mod asks for ends here too, and says so.
    const said = (error as { stderr?: string }).stderr || String(error);
    if (/go\.mod requires go|no such host|dial tcp|connection refused|i\/o timeout/.test(said))
      return { missing: said.trim().slice(0, 300) };
    throw error;
  }
}

const built = await buildChecks();
if ('missing' in built) process.stderr.write(`the Go client is not tested: ${built.missing}\n`);

describe.skipIf('missing' in built)('the Go client', () => {
  let server: Standalone | undefined;
  const checks = new Map<string, Check>();
  let stderr = '';

  beforeAll(async () => {
    if ('missing' in built) return;
    server = await startStandalone();
    // It exits with 1 when a check failed; the checks tell which.
    const output = await run(built.program, [server.address], { timeout: CHECKS_MS }).catch(
      (error: { stdout?: string; stderr?: string }) => ({
        stdout: error.stdout ?? '',
        stderr: error.stderr ?? String(error),
      }),
    );
    stderr = output.stderr;
    for (const line of output.stdout.split('\n').filter((text) => text.startsWith('{'))) {
      const check = JSON.parse(line) as Check;
      checks.set(check.check, check);
    }
  });
  afterAll(async () => {
    await stopChecked(server);
    if ('program' in built) await rm(built.program, { force: true });
  });

  test.each(CHECKS)('%s', (name) => {
    const check = checks.get(name);
    expect(check, `no word of ${name}: ${stderr.slice(-1000)}`).toBeDefined();
    expect(check?.ok, check?.detail).toBe(true);
  });

  test(
    'the example in Go runs to its end',
    async () => {
      const cwd = join(import.meta.dirname, '../../examples/go');
      const env = { ...GO_ENV, CAIRN_ADDRESS: server?.address ?? '' };
      const { stdout } = await run('go', ['run', '.'], { cwd, env, timeout: CHECKS_MS });
      expect(stdout.trim().split('\n').at(-1)).toBe('all is as it must be');
    },
    CHECKS_MS,
  );
});
