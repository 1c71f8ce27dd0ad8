/**
 * Last step of `make install`: starts a standalone server on a data directory that is thrown away, asks it for its status, and stops it. Node keeps what it
 * compiled (and how it stripped the types) in node_modules/.cache/cairn, so the first `make run` starts as fast as any later one. A server is run, and not
 * only imported, because the cache holds functions only once they have been called. Failing here costs speed, nothing else: it says so and exits with 0.
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';

const root = join(import.meta.dirname, '../..');
const cache = join(root, 'node_modules/.cache/cairn');
const cli = join(root, 'tools/cli/src/main.ts');
/** A server that is not up by then will not be. */
const UP_MS = 60_000;

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  return port;
}

const directory = await mkdtemp(join(tmpdir(), 'cairn-warm-'));
try {
  const [port, httpPort] = [await freePort(), await freePort()];
  // Variables of the user's shell configure their server, not this one.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('CAIRN_')));
  const sets = [`dataDir=${directory}`, `proxy.port=${port}`, `http.port=${httpPort}`].flatMap((set) => ['--set', set]);
  const server = spawn(process.execPath, [cli, 'server', 'standalone', ...sets], {
    env,
    stdio: ['ignore', 'ignore', 'pipe'],
    timeout: UP_MS,
  });
  const exited = once(server, 'exit');
  const lines = createInterface({ input: server.stderr });
  let up = false;
  for await (const line of lines) {
    if (up || !line.includes('cairn standalone is up')) continue;
    up = true;
    await promisify(execFile)(process.execPath, [cli, '--address', `127.0.0.1:${port}`, 'status'], { env });
    server.kill('SIGTERM');
  }
  await exited;
  if (!up) throw new Error('the server did not come up');
  await mkdir(cache, { recursive: true });
  await writeFile(join(cache, '.warm'), '');
} catch (error) {
  console.error(`the first start will be slower than later ones: ${error instanceof Error ? error.message : error}`);
} finally {
  await rm(directory, { recursive: true, force: true });
}
