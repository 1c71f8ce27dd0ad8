/**
 * Load generator in processes of its own: sends pre-encoded requests over gRPC, as many at once as asked, each connection with its own channel.
 * Used as a library (`runLoad`, which forks) and as the forked program.
 */
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { Client, credentials, Metadata } from '@grpc/grpc-js';

export interface LoadSpec {
  readonly address: string;
  /** Full path: `/milvus.proto.milvus.MilvusService/Insert`. */
  readonly path: string;
  /** Encoded requests, base64; sent in order, round and round unless `once`. */
  readonly requests: readonly string[];
  readonly connections: number;
  /** Requests under way on each connection. */
  readonly depth: number;
  /** Stop after each request was sent once; else after durationMs. */
  readonly once: boolean;
  readonly durationMs: number;
}

export interface LoadResult {
  readonly calls: number;
  readonly errors: number;
  readonly firstError: string;
  readonly seconds: number;
  readonly latenciesMs: number[];
  /** When each of these calls ended, Unix ms of the machine's monotonic clock. */
  readonly endedMs: number[];
  /** Bytes of requests sent. */
  readonly bytes: number;
}

/** Status is field 1 of most replies; its `code` is field 3 and legacy `error_code` field 1: a reply whose status has either is an error. */
function statusOf(reply: Buffer): string {
  if (reply[0] !== 0x0a) return '';
  let at = 1;
  let length = 0;
  for (let shift = 0; ; shift += 7) {
    const byte = reply[at++] ?? 0;
    length |= (byte & 0x7f) << shift;
    if (byte < 0x80) break;
  }
  const status = reply.subarray(at, at + length);
  return status.length > 0 && status[0] === 0x08 ? status.toString('latin1') : '';
}

async function generate(spec: LoadSpec): Promise<LoadResult> {
  const requests = spec.requests.map((text) => Buffer.from(text, 'base64'));
  const clients = Array.from(
    { length: spec.connections },
    () =>
      new Client(spec.address, credentials.createInsecure(), {
        'grpc.use_local_subchannel_pool': 1,
        'grpc.max_receive_message_length': -1,
        'grpc.max_send_message_length': -1,
      }),
  );
  const latenciesMs: number[] = [];
  const endedMs: number[] = [];
  let [next, errors, firstError, bytes] = [0, 0, '', 0];
  const call = (client: Client, request: Buffer): Promise<Buffer> =>
    new Promise((resolve, reject) =>
      client.makeUnaryRequest(
        spec.path,
        (value: Buffer) => value,
        (value: Buffer) => value,
        request,
        new Metadata(),
        { deadline: Number.POSITIVE_INFINITY },
        (error, reply) => (error || !reply ? reject(error) : resolve(reply)),
      ),
    );
  const start = performance.now();
  const lane = async (client: Client): Promise<void> => {
    for (;;) {
      if (spec.once ? next >= requests.length : performance.now() - start > spec.durationMs) return;
      const request = requests[next++ % requests.length];
      if (!request) return;
      const sent = performance.now();
      try {
        const problem = statusOf(await call(client, request));
        if (problem) throw new Error(problem);
      } catch (error) {
        errors++;
        firstError ||= String(error);
      }
      bytes += request.length;
      latenciesMs.push(performance.now() - sent);
      endedMs.push(performance.timeOrigin + performance.now());
    }
  };
  await Promise.all(clients.flatMap((client) => Array.from({ length: spec.depth }, () => lane(client))));
  const seconds = (performance.now() - start) / 1000;
  for (const client of clients) client.close();
  return { calls: latenciesMs.length, errors, firstError, seconds, latenciesMs, endedMs, bytes };
}

/** Runs the load in a child process and gives its result. Throws when every call failed. */
export function runLoad(spec: LoadSpec): Promise<LoadResult> {
  return new Promise((resolve, reject) => {
    const child = fork(fileURLToPath(import.meta.url), ['generate'], { serialization: 'advanced' });
    child.once('message', (result: LoadResult) => {
      child.kill();
      if (result.errors > 0) reject(new Error(`${spec.path}: ${result.errors} of ${result.calls} calls failed: ${result.firstError}`));
      else resolve(result);
    });
    child.once('error', reject);
    child.send(spec);
  });
}

if (process.argv[2] === 'generate' && process.send) {
  process.once('message', (spec: LoadSpec) => {
    generate(spec).then((result) => process.send?.(result));
  });
}
