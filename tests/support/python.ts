/** Python with pinned packages of PyPI, in a venv that the first run makes in the cache of the tools. */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);
const INSTALL_MS = 300_000;

export const PYMILVUS = 'pymilvus==3.0.2';
/** A peer to compare with, in one process, written in Python. */
export const MILVUS_LITE = 'milvus-lite==3.2.2';

/** The Python of a venv that has exactly these packages (`name==version`), or why there is none. The venv is named after the first. */
export async function preparePython(packages: readonly string[]): Promise<{ readonly python: string } | { readonly missing: string }> {
  try {
    await run('python3', ['-c', 'import sys; sys.exit(0 if sys.version_info >= (3, 10) else 1)']);
  } catch {
    return { missing: 'no Python 3.10 or newer' };
  }
  const cache = process.env['CAIRN_TOOLS_CACHE'] ?? join(homedir(), '.cache/cairn-tools');
  const venv = join(cache, (packages[0] ?? 'python').replace('==', '-'));
  const python = join(venv, 'bin/python');
  const stamp = join(venv, '.installed');
  const wanted = packages.join(' ');
  try {
    if (!existsSync(python)) {
      await mkdir(cache, { recursive: true });
      await run('python3', ['-m', 'venv', venv]);
    }
    const installed = await readFile(stamp, 'utf8').catch(() => '');
    if (installed !== wanted) {
      await run(python, ['-m', 'pip', 'install', '-q', '--disable-pip-version-check', ...packages], { timeout: INSTALL_MS });
      await writeFile(stamp, wanted);
    }
    return { python };
  } catch (error) {
    return { missing: `${wanted} cannot be installed: ${error instanceof Error ? error.message.slice(0, 300) : error}` };
  }
}
