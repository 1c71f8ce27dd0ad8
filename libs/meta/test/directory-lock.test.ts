import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { DirectoryLock } from '../src/index.ts';

let dir = '';
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'cairn-lock-'));
});
afterAll(() => rm(dir, { recursive: true }));

/** A process of its own that takes the directory and stays. */
async function holder(): Promise<{ pid: number; end(signal: NodeJS.Signals): Promise<void> }> {
  const code = `import { DirectoryLock } from '${join(import.meta.dirname, '../src/index.ts')}';
    DirectoryLock.take(${JSON.stringify(dir)}); console.log('taken'); setInterval(() => {}, 1e6);`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  return {
    pid: child.pid ?? 0,
    end: async (signal) => {
      child.kill(signal);
      await once(child, 'exit');
    },
  };
}

test('a second process is refused by name while the first lives, and let in after it was killed', async () => {
  const first = await holder();
  expect(() => DirectoryLock.take(dir)).toThrow(`belongs to process ${first.pid}`);
  await first.end('SIGKILL');
  const lock = DirectoryLock.take(dir);
  await lock.release();
  await DirectoryLock.take(dir).release();
});
