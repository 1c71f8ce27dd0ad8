/** What the image promises without being built: every file of ours that its programs import is in it. */
import { execFileSync } from 'node:child_process';
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';

const root = join(import.meta.dirname, '../..');
const IMPORT = /(?:from|import)\s*\(?\s*['"](\.[^'"]+)['"]|new URL\(['"](\.[^'"]+)['"], import\.meta\.url\)/g;

test('every file that a source in the image imports is in the image', () => {
  const app = mkdtempSync(join(tmpdir(), 'cairn-image-'));
  try {
    execFileSync(join(root, 'deploy/docker/assemble.sh'), ['--sources', app]);
    const files = globSync('**/*.ts', { cwd: app });
    expect(files).toContain('tools/cli/src/main.ts');
    const missing = files.flatMap((file) =>
      [...readFileSync(join(app, file), 'utf8').matchAll(IMPORT)]
        .map(([, imported = '', loaded = '']) => join(dirname(file), imported || loaded))
        .filter((target) => !existsSync(join(app, target)))
        .map((target) => `${file} needs ${target}`),
    );
    expect(missing).toEqual([]);
  } finally {
    rmSync(app, { recursive: true, force: true });
  }
});
