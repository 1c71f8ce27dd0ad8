/** The README's example, unchanged, against a standalone server and against a cluster of real processes. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { startCluster, startStandalone } from '../support/cairn.ts';
import { findingsOf } from '../support/consistency.ts';
import { serversAvailable } from '../support/servers.ts';

const root = join(import.meta.dirname, '../..');

function runExample(address: string): Promise<{ code: number | null; output: string }> {
  return new Promise((resolve) => {
    const child = spawn(join(root, 'node_modules/.bin/node'), [join(root, 'examples/packages/main.ts')], {
      env: { ...process.env, CAIRN_ADDRESS: address },
    });
    let output = '';
    child.stdout.on('data', (chunk) => (output += chunk));
    child.stderr.on('data', (chunk) => (output += chunk));
    child.on('exit', (code) => resolve({ code, output }));
  });
}

test('the example runs against a standalone server and every row is as it must be', { timeout: 300_000 }, async () => {
  const server = await startStandalone();
  try {
    const { code, output } = await runExample(server.address);
    console.log(output);
    expect(code, `${output}\n${server.process.logTail()}`).toBe(0);
    expect(output).toContain('all is as it must be');
    expect(await findingsOf(server.address, true)).toBe('');
  } finally {
    await server.stop();
  }
});

const available = await serversAvailable();
test.skipIf(!available.ok)(
  `the example runs, unchanged, against a cluster${available.ok ? '' : ` (skipped: ${available.reason})`}`,
  { timeout: 300_000 },
  async () => {
    const cluster = await startCluster();
    try {
      const [address = ''] = cluster.addresses;
      const { code, output } = await runExample(address);
      console.log(output);
      expect(
        code,
        `${output}\n${cluster
          .all()
          .map((server) => `${server.name}: ${server.logTail(5)}`)
          .join('\n')}`,
      ).toBe(0);
      expect(await findingsOf(address, true)).toBe('');
    } finally {
      await cluster.stop();
    }
  },
);
