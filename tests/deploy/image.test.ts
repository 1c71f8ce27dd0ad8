/** What the image promises, without a builder of images: what is laid out for it runs where nothing else is, and starts without compiling. */
import { spawnSync } from 'node:child_process';
import { existsSync, globSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';

const root = join(import.meta.dirname, '../..');
const IMAGE_MS = 120_000;
const work = mkdtempSync(join(tmpdir(), 'cairn-image-'));
const app = join(work, 'app');
const cache = join(work, 'cache');
const env = { PATH: process.env['PATH'] ?? '', NODE_ENV: 'production', NODE_COMPILE_CACHE: cache };

beforeAll(() => {
  const laidOut = spawnSync(join(root, 'deploy/docker/assemble.sh'), [app], { encoding: 'utf8' });
  if (laidOut.status !== 0) throw new Error(laidOut.stderr);
}, IMAGE_MS);
afterAll(() => rmSync(work, { recursive: true, force: true }));

test('a server of what is in the image, workers included, answers the SDK exactly; what it compiled is kept for the user of the image', {
  timeout: IMAGE_MS,
}, () => {
  const warm = spawnSync(join(app, 'bin/node'), [join(app, 'bundle/warm.js'), join(work, 'data'), '65532'], { env, encoding: 'utf8' });
  expect(warm.stderr + warm.stdout).toContain('every answer is exact');
  expect(warm.status).toBe(0);
  expect(readdirSync(cache).map((name) => name.replace(/.*-/, ''))).toEqual(['65532']);

  // As that user would: nothing is compiled anew.
  const [directory = ''] = readdirSync(cache);
  renameSync(join(cache, directory), join(cache, directory.replace(/65532$/, String(process.getuid?.()))));
  const main = spawnSync(join(app, 'bin/node'), [join(app, 'bundle/main.js'), 'config', 'show'], {
    env: { ...env, NODE_DEBUG_NATIVE: 'COMPILE_CACHE' },
    encoding: 'utf8',
  });
  expect(main.stdout).toContain('CAIRN_DATA_DIR');
  const words = main.stderr + main.stdout;
  expect(words).toContain('was accepted');
  expect(words).not.toMatch(/was rejected|no such file/);
});

test('neither sources nor declarations nor other platforms are in it', () => {
  expect(globSync('**/*.{ts,map,md}', { cwd: app })).toEqual([]);
  expect(globSync('node_modules/**/prebuilds/*', { cwd: app }).map((path) => path.replace(/.*\//, ''))).toEqual([
    `linux-${process.arch === 'arm64' ? 'arm64' : 'x64'}`,
  ]);
  expect(existsSync(join(app, 'bin/cairn'))).toBe(true);
});
