/**
 * Last step of making an image, run inside of it: a server in one process answers the SDK's round trip. So what is in the image is known to run, and
 * NODE_COMPILE_CACHE holds what that compiled: functions get there only once they have been called. usage: node warm.js DIRECTORY UID
 *
 * DIRECTORY is made for the server's data and removed. UID: who will run the image; Node keeps one cache for each user and takes no other's.
 * Exit code 0: it runs and is warm.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readdir, rename, rm } from 'node:fs/promises';
import { flushCompileCache } from 'node:module';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';

/** A server that has not answered by then will not. */
const UP_MS = 60_000;
const TRY_MS = 50;
const [directory, uid] = process.argv.slice(2);
const cache = process.env['NODE_COMPILE_CACHE'];
if (!directory || !uid || !cache) {
  console.error('usage: NODE_COMPILE_CACHE=DIR node warm.js DIRECTORY UID');
  process.exit(2);
}
// Compiled code is good only under the flags it was compiled under: those of tools/cli/src/main.ts.
setFlagsFromString('--external-memory-accounted-in-global-limit');

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  return port;
}

// There may be no /dev/null here, so the output of both is ours.
function node(program: string, args: readonly string[], env: NodeJS.ProcessEnv = process.env) {
  return spawn(process.execPath, [join(import.meta.dirname, program), ...args], { stdio: ['pipe', 'inherit', 'inherit'], env });
}

await mkdir(directory, { recursive: true });
try {
  const [port, httpPort] = [await freePort(), await freePort()];
  const sets = [`dataDir=${directory}`, `proxy.port=${port}`, `http.port=${httpPort}`, 'log.level=warn'].flatMap((set) => ['--set', set]);
  const server = node('main.js', ['server', 'standalone', ...sets]);
  const ended = once(server, 'exit');
  try {
    const until = performance.now() + UP_MS;
    while (!(await fetch(`http://127.0.0.1:${httpPort}/readyz`).catch(() => undefined))?.ok) {
      if (server.exitCode !== null) throw new Error(`the server ended with ${server.exitCode}`);
      if (performance.now() > until) throw new Error(`the server was not ready within ${UP_MS} ms`);
      await new Promise((resolve) => setTimeout(resolve, TRY_MS));
    }
    const [code] = await once(node('round-trip.js', [], { ...process.env, CAIRN_ADDRESS: `127.0.0.1:${port}` }), 'exit');
    if (code !== 0) throw new Error(`the round trip ended with ${code}`);
  } finally {
    server.kill('SIGTERM');
    await ended;
  }
} finally {
  await rm(directory, { recursive: true, force: true });
}
// Clients of servers, which a server in one process does without. What is compiled here is kept when this process ends.
await Promise.all([import('@cairn/meta/etcd'), import('@cairn/objects/s3'), import('@cairn/wal/jetstream')]);
flushCompileCache();
for (const name of await readdir(cache)) await rename(join(cache, name), join(cache, name.replace(/-\d+$/, `-${uid}`)));
