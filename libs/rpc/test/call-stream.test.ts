import { connect, createServer, type Server, type Socket } from 'node:net';
import { SystemRuntime, silentLogger } from '@cairn/base';
import { AnswerBatch, CallBatch, DataNodeDefinition, SearchPlan, SegmentQueryRequest, TaskRequest } from '@cairn/proto/cairn/services';
import { credentials, Client as RawClient } from '@grpc/grpc-js';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { BatchSender } from '../src/batch-sender.ts';
import { callHead, encodeAnswers, encodeCalls } from '../src/call-messages.ts';
import { EXCHANGE_PATH } from '../src/call-stream.ts';
import { CallTransport, RpcServer } from '../src/index.ts';
import { EchoNode } from './echo.ts';

const runtime = new SystemRuntime();

describe('a sender of batches', () => {
  const recorded = () => {
    const batches: string[] = [];
    const taken: (() => void)[] = [];
    const sender = new BatchSender<string>(
      (bytes, done) => {
        batches.push(bytes.toString());
        taken.push(done);
      },
      (items) => Buffer.from(items.join()),
    );
    return { batches, taken, sender };
  };
  const turn = () => runtime.sleep(0);

  test('sends together what comes in one turn, and what comes while a batch is being taken', async () => {
    const { batches, taken, sender } = recorded();
    sender.push('a', 1);
    sender.push('b', 1);
    await turn();
    sender.push('c', 1);
    sender.push('d', 1);
    await turn();
    expect(batches).toEqual(['a,b']);
    expect(sender.pendingBytes).toBe(2);
    taken[0]();
    expect(batches).toEqual(['a,b', 'c,d']);
    expect(sender.idle).toBe(false);
    taken[1]();
    expect(sender.idle).toBe(true);
    sender.push('e', 1);
    await turn();
    expect(batches).toEqual(['a,b', 'c,d', 'e']);
  });

  test('cuts at a mebibyte, and sends a larger item by itself, in order', async () => {
    const { batches, taken, sender } = recorded();
    const mebibyte = 1 << 20;
    for (const [item, bytes] of [
      ['a', 10],
      ['b', mebibyte],
      ['c', 5 * mebibyte],
      ['d', 1],
      ['e', 2],
    ] as const)
      sender.push(item, bytes);
    await turn();
    for (let i = 0; i < 4; i++) taken[i]?.();
    expect(batches).toEqual(['a', 'b', 'c', 'd,e']);
    expect(sender.pendingBytes).toBe(0);
  });
});

describe('messages of a stream of calls', () => {
  test('are what the generated decoders read', () => {
    const u32 = fc.oneof(fc.nat(300), fc.integer({ min: 0, max: 0xffff_ffff }));
    const body = fc.oneof(fc.uint8Array({ maxLength: 40 }), fc.constant(new Uint8Array(20_000).fill(7)));
    // A plain object cannot hold that one.
    const name = fc.string({ minLength: 1 }).filter((text) => text !== '__proto__');
    const headers = fc.dictionary(name, fc.string(), { maxKeys: 3, noNullPrototype: true });
    const call = fc.record({ id: u32, path: fc.string({ minLength: 1 }), timeoutMs: u32, headers, request: body });
    const cancelled = fc.array(fc.integer({ min: 1, max: 0xffff_ffff }), { maxLength: 4 });
    fc.assert(
      fc.property(fc.array(call, { maxLength: 4 }), cancelled, (calls, ids) => {
        const sent = calls.map(({ path, headers, ...rest }) => ({ ...rest, head: callHead(path, headers) }));
        expect(CallBatch.decode(new Uint8Array(encodeCalls(sent, ids)))).toEqual({ calls, cancelled: ids });
      }),
    );
    const answer = fc.record({ id: u32, response: body, failure: fc.string() });
    fc.assert(
      fc.property(fc.array(answer, { maxLength: 4 }), (answers) => {
        expect(AnswerBatch.decode(new Uint8Array(encodeAnswers(answers)))).toEqual({ answers });
      }),
    );
  });
});

describe('a server of calls', () => {
  const serving = async (work: (port: number, node: EchoNode, server: RpcServer) => Promise<void>): Promise<void> => {
    const node = new EchoNode();
    const server = new RpcServer(runtime, silentLogger, { calls: true });
    server.add(DataNodeDefinition, node.handlers);
    try {
      await work(await server.listen('127.0.0.1', 0), node, server);
    } finally {
      await server.stop(100);
    }
  };
  const query = { metadata: { count: '5' } };

  test('lives on after random bytes, beside the stream and on it', () =>
    serving(async (port) => {
      const bytes = () => Buffer.from(runtime.randomBytes(1 + Math.floor(runtime.random() * 100)));
      const asItIs = (buffer: Buffer) => buffer;
      const raw = new RawClient(`127.0.0.1:${port}`, credentials.createInsecure());
      for (let i = 0; i < 40; i++) {
        await new Promise<void>((resolve) => {
          if (i % 2) {
            const stream = raw.makeBidiStreamRequest(EXCHANGE_PATH, asItIs, asItIs);
            stream.on('error', () => resolve());
            stream.on('end', () => resolve());
            stream.resume();
            stream.write(bytes());
            stream.end();
          } else {
            const socket = connect(port, '127.0.0.1', () => socket.end(bytes()));
            socket.on('close', () => resolve());
            socket.on('error', () => undefined);
            socket.resume();
          }
        });
      }
      raw.close();
      const transport = new CallTransport(runtime);
      const reply = await transport.client(DataNodeDefinition, `127.0.0.1:${port}`).query(SegmentQueryRequest.create(), query);
      expect(reply.count).toBe(5);
      transport.close();
    }));

  test('many calls at once, large and small, get each its own answer', () =>
    serving(async (port) => {
      const transport = new CallTransport(runtime);
      const client = transport.client(DataNodeDefinition, `127.0.0.1:${port}`);
      const answers = Array.from({ length: 60 }, async (_, i) => {
        const queries = new Uint8Array(i % 10 ? i : 3_000_000 + i).fill(i);
        const reply = await client.search({ scope: undefined, plan: SearchPlan.fromPartial({ queries, nq: i }) });
        expect(reply.counts).toEqual([i]);
        expect(Buffer.compare(reply.columns, queries)).toBe(0);
      });
      await Promise.all(answers);
      transport.close();
    }));

  test('a caller that is gone ends the work it asked for', () =>
    serving(async (port, node) => {
      const transport = new CallTransport(runtime);
      const slow = transport.client(DataNodeDefinition, `127.0.0.1:${port}`).releaseSegments({ vchannel: 'slow', segmentIds: [] });
      slow.catch(() => undefined);
      await expect.poll(() => node.contexts.length).toBe(1);
      transport.close();
      await expect(slow).rejects.toMatchObject({ codeName: 'Unavailable' });
      await expect.poll(() => node.contexts[0]?.signal.aborted).toBe(true);
    }));

  test('a caller with too many calls under way is told so, and goes on when some have ended', async () => {
    const release = Promise.withResolvers<void>();
    const server = new RpcServer(runtime, silentLogger, { calls: true, maxOpenCalls: 2 });
    let reached = 0;
    server.add(DataNodeDefinition, {
      ...new EchoNode().handlers,
      releaseSegments: async () => {
        reached++;
        await release.promise;
        return {};
      },
    });
    const address = `127.0.0.1:${await server.listen('127.0.0.1', 0)}`;
    const transport = new CallTransport(runtime);
    const client = transport.client(DataNodeDefinition, address);
    const leaving = new AbortController();
    const ask = (signal?: AbortSignal) => client.releaseSegments({ vchannel: 'x', segmentIds: [] }, signal ? { signal } : {});
    const first = ask();
    const second = ask(leaving.signal);
    await expect(ask()).rejects.toMatchObject({ codeName: 'TooManyRequests', retriable: true });
    // A cancelled call still counts while its work goes on.
    leaving.abort();
    await expect(second).rejects.toMatchObject({ codeName: 'Cancelled' });
    await expect(ask()).rejects.toMatchObject({ codeName: 'TooManyRequests' });
    expect(reached).toBe(2);
    // Another node's stream has a count of its own.
    const other = new CallTransport(runtime);
    expect((await other.client(DataNodeDefinition, address).query(SegmentQueryRequest.create(), query)).count).toBe(5);
    release.resolve();
    await expect(first).resolves.toEqual({});
    await expect(ask()).resolves.toEqual({});
    other.close();
    transport.close();
    await server.stop(100);
  });

  test('a stop lets calls under way end', async () => {
    const release = Promise.withResolvers<void>();
    const server = new RpcServer(runtime, silentLogger, { calls: true });
    server.add(DataNodeDefinition, {
      ...new EchoNode().handlers,
      releaseSegments: async () => {
        await release.promise;
        return {};
      },
    });
    const transport = new CallTransport(runtime);
    const client = transport.client(DataNodeDefinition, `127.0.0.1:${await server.listen('127.0.0.1', 0)}`);
    const under = client.releaseSegments({ vchannel: 'x', segmentIds: [] });
    await runtime.sleep(50);
    const stopped = server.stop(5_000);
    const late = client.query(SegmentQueryRequest.create(), query);
    await expect(late).rejects.toMatchObject({ codeName: 'Unavailable', retriable: true });
    release.resolve();
    await expect(under).resolves.toEqual({});
    await stopped;
    transport.close();
  });
});

describe('a transport of calls', () => {
  const listening = (server: Server): Promise<number> =>
    new Promise((resolve) =>
      server.listen(0, '127.0.0.1', () => {
        const bound = server.address();
        resolve(bound !== null && typeof bound === 'object' ? bound.port : 0);
      }),
    );

  test('connects anew after its server came back', async () => {
    const node = new EchoNode();
    const first = new RpcServer(runtime, silentLogger, { calls: true });
    first.add(DataNodeDefinition, node.handlers);
    const port = await first.listen('127.0.0.1', 0);
    const transport = new CallTransport(runtime);
    const client = transport.client(DataNodeDefinition, `127.0.0.1:${port}`);
    const ask = () => client.query(SegmentQueryRequest.create(), { metadata: { count: '1' } });
    expect((await ask()).count).toBe(1);
    await first.stop(100);
    await expect(ask()).rejects.toMatchObject({ codeName: 'Unavailable', retriable: true });
    const second = new RpcServer(runtime, silentLogger, { calls: true });
    second.add(DataNodeDefinition, node.handlers);
    await second.listen('127.0.0.1', port);
    // After a wait that the library keeps between two tries to connect.
    await expect
      .poll(() =>
        ask().then(
          ({ count }) => count,
          () => 0,
        ),
      )
      .toBe(1);
    transport.close();
    await second.stop(100);
  });

  test('a node of a release from before streams of calls is called one by one', async () => {
    const server = new RpcServer(runtime, silentLogger);
    server.add(DataNodeDefinition, new EchoNode().handlers);
    const transport = new CallTransport(runtime);
    const client = transport.client(DataNodeDefinition, `127.0.0.1:${await server.listen('127.0.0.1', 0)}`);
    for (let i = 0; i < 2; i++) expect((await client.query(SegmentQueryRequest.create(), { metadata: { count: '3' } })).count).toBe(3);
    transport.close();
    await server.stop(100);
  });

  test('a caller that shares no version is refused in words', async () => {
    const server = new RpcServer(runtime, silentLogger, { calls: true, protocol: { min: 1, max: 2 } });
    server.add(DataNodeDefinition, new EchoNode().handlers);
    const transport = new CallTransport(runtime, { protocol: { min: 3, max: 4 } });
    const client = transport.client(DataNodeDefinition, `127.0.0.1:${await server.listen('127.0.0.1', 0)}`);
    await expect(client.query(SegmentQueryRequest.create())).rejects.toMatchObject({
      codeName: 'NodeNotMatch',
      message: expect.stringContaining('speaks the inner protocol 3-4, this program 1-2'),
    });
    transport.close();
    await server.stop(100);
  });

  test('a connection that does not come to stand is given up: calls are Unavailable long before their deadline, and go on when it answers', async () => {
    // Takes connections and never speaks; the library alone would wait for ever.
    const taken: Socket[] = [];
    const silent = createServer((socket) => taken.push(socket.on('error', () => undefined)));
    const port = await listening(silent);
    const transport = new CallTransport(runtime, { connectTimeoutMs: 200 });
    const client = transport.client(DataNodeDefinition, `127.0.0.1:${port}`);
    const ask = () => client.query(SegmentQueryRequest.create(), { metadata: { count: '5' }, timeoutMs: 60_000 });
    const updates = client.runTask(TaskRequest.create(), { timeoutMs: 60_000 })[Symbol.asyncIterator]();
    for (const one of await Promise.allSettled([ask(), updates.next()]))
      expect(one).toMatchObject({ status: 'rejected', reason: { codeName: 'Unavailable', retriable: true } });
    await expect(ask()).rejects.toMatchObject({ codeName: 'Unavailable' });
    expect(taken.length).toBeGreaterThanOrEqual(2);
    for (const socket of taken) socket.destroy();
    await new Promise((resolve) => silent.close(resolve));
    // Refused now: the library has failed once and tries again by itself; that try has the same limit.
    await expect(ask()).rejects.toMatchObject({ codeName: 'Unavailable' });
    const server = new RpcServer(runtime, silentLogger, { calls: true });
    server.add(DataNodeDefinition, new EchoNode().handlers);
    await server.listen('127.0.0.1', port);
    await expect.poll(() => ask().catch(() => ({ count: 0 }))).toMatchObject({ count: 5 });
    transport.close();
    await server.stop(100);
  });

  test('a server that says nonsense is Unavailable, and so is one that hangs up', async () => {
    const sockets: Socket[] = [];
    const server = createServer((socket) => {
      sockets.push(socket);
      socket.on('error', () => undefined);
      socket.once('data', () => (sockets.length % 2 ? socket.end('HTTP/1.1 400 Bad Request\r\n\r\n') : socket.destroy()));
    });
    const address = `127.0.0.1:${await listening(server)}`;
    const transport = new CallTransport(runtime);
    const client = transport.client(DataNodeDefinition, address);
    for (let i = 0; i < 4; i++)
      await expect(client.query(SegmentQueryRequest.create())).rejects.toMatchObject({ codeName: 'Unavailable', retriable: true });
    await expect(transport.client(DataNodeDefinition, 'nowhere').query(SegmentQueryRequest.create())).rejects.toMatchObject({
      codeName: 'Unavailable',
    });
    transport.close();
    server.close();
  });
});
