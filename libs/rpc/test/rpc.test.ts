import { connect } from 'node:net';
import { CairnError, type CodeName, SystemRuntime, silentLogger } from '@cairn/base';
import { DataNodeDefinition, SegmentQueryRequest, SegmentSearchRequest } from '@cairn/proto/cairn/services';
import { credentials, Client as RawClient } from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CallTransport, type Client, GrpcTransport, InProcessNetwork, RpcServer, type Transport } from '../src/index.ts';
import { EchoNode } from './echo.ts';

const runtime = new SystemRuntime();
const emptyQuery = SegmentQueryRequest.create();
const task = (taskId: number) => ({ taskId, epoch: 1, task: undefined });
const release = (vchannel: string) => ({ vchannel, segmentIds: [] });

async function failure(work: Promise<unknown>): Promise<CairnError> {
  const error = await work.then(
    () => undefined,
    (reason) => reason,
  );
  expect(error).toBeInstanceOf(CairnError);
  return error as CairnError;
}

const kinds = ['gRPC', 'gRPC beside a stream of calls', 'a stream of calls', 'in-process'] as const;
describe.each(kinds)('a call over %s', (kind) => {
  const node = new EchoNode();
  const server = new RpcServer(runtime, silentLogger, { calls: kind !== 'gRPC' });
  const wire: Transport = kind === 'a stream of calls' ? new CallTransport(runtime) : new GrpcTransport(runtime);
  const network = new InProcessNetwork(runtime);
  let client: Client<typeof DataNodeDefinition>;
  let nobody: Client<typeof DataNodeDefinition>;

  beforeAll(async () => {
    if (kind !== 'in-process') {
      server.add(DataNodeDefinition, node.handlers);
      client = wire.client(DataNodeDefinition, `127.0.0.1:${await server.listen('127.0.0.1', 0)}`);
      nobody = wire.client(DataNodeDefinition, '127.0.0.1:1');
    } else {
      network.serve('inproc:echo', DataNodeDefinition, node.handlers);
      client = network.client(DataNodeDefinition, 'inproc:echo');
      nobody = network.client(DataNodeDefinition, 'inproc:nobody');
    }
  });
  afterAll(async () => {
    wire.close();
    await server.stop(100);
  });

  test('carries bytes and numbers both ways', async () => {
    const queries = Uint8Array.from({ length: 1_000_000 }, (_, i) => i % 251);
    const reply = await client.search({ scope: undefined, plan: { ...planOf(), nq: 7, queries } });
    expect(reply.counts).toEqual([7]);
    expect(Buffer.compare(reply.columns, queries)).toBe(0);
    expect(SegmentSearchRequest).toBeDefined();
  });

  test('gives the handler metadata and the time that remains', async () => {
    const reply = await client.query(emptyQuery, { metadata: { count: '42' }, timeoutMs: 5_000 });
    expect(reply.count).toBe(42);
    expect(reply.ts).toBeGreaterThan(3_000);
    expect(reply.ts).toBeLessThanOrEqual(5_001);
  });

  test("rejects with the server's own error: code, legacy number, message, extra info", async () => {
    const error = await failure(client.releaseSegments(release('Ω')));
    expect([error.codeName, error.legacy, error.message, error.extraInfo]).toEqual([
      'ObjectDamaged',
      7,
      'object is damaged: Ω',
      { key: 'värde' },
    ]);
  });

  test("leaves a server's own Unavailable as it is", async () => {
    const error = await failure(client.releaseSegments(release('away')));
    expect([error.codeName, error.message, error.extraInfo]).toEqual(['Unavailable', 'a store is away', { store: 'x' }]);
  });

  test('turns what is not a CairnError into Unexpected', async () => {
    const error = await failure(client.releaseSegments(release('stranger')));
    expect([error.codeName, error.message]).toEqual(['Unexpected', 'not one of ours: Ä\n']);
  });

  test('ends at its deadline with Timeout, which is retriable', async () => {
    const error = await failure(client.releaseSegments(release('slow'), { timeoutMs: 50 }));
    expect([error.codeName, error.retriable]).toEqual(['Timeout', true]);
    await expect.poll(() => node.contexts.at(-1)?.signal.aborted).toBe(true);
  });

  test('ends when its signal aborts, and the handler learns it', async () => {
    const controller = new AbortController();
    const call = client.releaseSegments(release('slow'), { signal: controller.signal });
    await runtime.sleep(50);
    controller.abort();
    expect((await failure(call)).codeName).toBe('Cancelled');
    await expect.poll(() => node.contexts.at(-1)?.signal.aborted).toBe(true);
    expect((await failure(client.releaseSegments(release('slow'), { signal: controller.signal }))).codeName).toBe('Cancelled');
  });

  test('to an address where nobody serves is Unavailable', async () => {
    const error = await failure(nobody.query(emptyQuery));
    expect([error.codeName, error.retriable]).toEqual(['Unavailable' satisfies CodeName, true]);
  });

  test('streams in order, and passes the error that breaks the stream', async () => {
    const seen: number[] = [];
    const error = await failure(
      (async () => {
        for await (const update of client.runTask(task(100))) seen.push(update.doneBytes);
      })(),
    );
    expect(error.codeName).toBe('NodeNotAvailable');
    expect(seen).toEqual(Array.from({ length: 50 }, (_, i) => i));
  });

  test('a reader that leaves a stream ends the work behind it', async () => {
    const before = node.streamEnded;
    for await (const update of client.runTask(task(49))) if (update.doneBytes === 2) break;
    await expect.poll(() => node.streamEnded).toBe(before + 1);
  });
});

function planOf() {
  return {
    fieldId: 1,
    metric: 'L2',
    nq: 1,
    topK: 1,
    queries: new Uint8Array(),
    filter: new Uint8Array(),
    outputFieldIds: [],
    dynamicKeys: [],
    params: '',
    groupByFieldId: 0,
    groupSize: 0,
    strictGroupSize: false,
  };
}

describe('a gRPC server', () => {
  test('answers bytes that do not decode, and lives on', async () => {
    const server = new RpcServer(runtime, silentLogger);
    server.add(DataNodeDefinition, new EchoNode().handlers);
    const port = await server.listen('127.0.0.1', 0);
    const raw = new RawClient(`127.0.0.1:${port}`, credentials.createInsecure());
    const send = (path: string, bytes: Buffer): Promise<string> =>
      new Promise((resolve) => {
        raw.makeUnaryRequest(
          path,
          (b: Buffer) => b,
          (b: Buffer) => b,
          bytes,
          (error) => resolve(error?.details ?? 'ok'),
        );
      });
    for (let i = 0; i < 200; i++) {
      const bytes = Buffer.from(runtime.randomBytes(1 + Math.floor(runtime.random() * 200)));
      await send('/cairn.internal.v1.DataNode/Search', bytes);
      await send('/cairn.internal.v1.DataNode/RunTask', Buffer.concat([Buffer.from([7]), bytes]));
    }
    expect(await send('/cairn.internal.v1.DataNode/Search', Buffer.from([0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f]))).toMatch(
      /malformed Search request/,
    );
    // Not even HTTP/2.
    await new Promise<void>((resolve) => {
      const socket = connect(port, '127.0.0.1', () => socket.end('GET / HTTP/1.1\r\n\r\n'));
      socket.on('close', () => resolve());
      socket.on('error', () => undefined);
      socket.resume();
    });
    expect(await send('/cairn.internal.v1.DataNode/LoadSegments', Buffer.alloc(0))).toBe('ok');
    raw.close();
    await server.stop(100);
  });

  test('refuses a request over its limit with an error that names both sizes', async () => {
    const server = new RpcServer(runtime, silentLogger, { maxReceiveBytes: 1_000 });
    server.add(DataNodeDefinition, new EchoNode().handlers);
    const transport = new GrpcTransport(runtime);
    const client = transport.client(DataNodeDefinition, `127.0.0.1:${await server.listen('127.0.0.1', 0)}`);
    const error = await failure(client.search({ scope: undefined, plan: { ...planOf(), queries: new Uint8Array(2_000) } }));
    expect(error.codeName).toBe('ParameterTooLarge');
    expect(error.message).toMatch(/1000/);
    transport.close();
    await server.stop(100);
  });

  test('lets calls under way end at stop, and cuts those that outlast the grace', async () => {
    const node = new EchoNode();
    const server = new RpcServer(runtime, silentLogger);
    server.add(DataNodeDefinition, node.handlers);
    const transport = new GrpcTransport(runtime);
    const client = transport.client(DataNodeDefinition, `127.0.0.1:${await server.listen('127.0.0.1', 0)}`);
    const slow = failure(client.releaseSegments(release('slow')));
    await expect.poll(() => node.contexts.length).toBe(1);
    const before = runtime.monotonic();
    await server.stop(100);
    expect(runtime.monotonic() - before).toBeLessThan(2_000);
    expect((await slow).retriable || (await slow).codeName === 'Cancelled').toBe(true);
    transport.close();
  });
});

describe('protocol versions', () => {
  const call = async (server: { min: number; max: number }, caller: { min: number; max: number } | undefined): Promise<unknown> => {
    const node = new EchoNode();
    const served = new RpcServer(runtime, silentLogger, { protocol: server });
    served.add(DataNodeDefinition, node.handlers);
    const address = `127.0.0.1:${await served.listen('127.0.0.1', 0)}`;
    const transport = new GrpcTransport(runtime, caller ? { protocol: caller } : {});
    try {
      return await transport.client(DataNodeDefinition, address).query(emptyQuery);
    } finally {
      transport.close();
      await served.stop();
    }
  };

  test('neighbours work side by side', async () => {
    await expect(call({ min: 1, max: 2 }, { min: 2, max: 3 })).resolves.toBeDefined();
    await expect(call({ min: 1, max: 1 }, undefined)).resolves.toBeDefined();
  });

  test('a caller that shares no version is refused in words before its request is looked at', async () => {
    expect(await failure(call({ min: 1, max: 2 }, { min: 3, max: 4 }))).toMatchObject({
      codeName: 'NodeNotMatch',
      message: expect.stringContaining('speaks the inner protocol 3-4, this program 1-2: this one is too old to work side by side'),
    });
  });

  test('a caller from before there were versions counts as version 1', async () => {
    const served = new RpcServer(runtime, silentLogger, { protocol: { min: 2, max: 2 } });
    served.add(DataNodeDefinition, new EchoNode().handlers);
    const raw = new RawClient(`127.0.0.1:${await served.listen('127.0.0.1', 0)}`, credentials.createInsecure());
    const { promise, resolve } = Promise.withResolvers<string>();
    const path = `/${DataNodeDefinition.fullName}/Query`;
    raw.makeUnaryRequest(
      path,
      (bytes: Buffer) => bytes,
      (bytes: Buffer) => bytes,
      Buffer.alloc(0),
      (error) => resolve(error?.details ?? ''),
    );
    expect(await promise).toContain('speaks the inner protocol 1-1, this program 2-2: the other is too old');
    raw.close();
    await served.stop();
  });
});
