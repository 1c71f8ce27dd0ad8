import { connect, createServer, type Server, type Socket } from 'node:net';
import { CairnError, SystemRuntime, silentLogger } from '@cairn/base';
import { DataNodeDefinition, SegmentQueryRequest } from '@cairn/proto/cairn/services';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PacketTransport, RpcServer } from '../src/index.ts';
import { decodeCall, encodeCallHead, MAGIC, type Packet, PacketReader, type PacketSink, writePacket } from '../src/packet.ts';
import { EchoNode } from './echo.ts';

const runtime = new SystemRuntime();

class Sink implements PacketSink {
  readonly parts: Uint8Array[] = [];
  write(bytes: Uint8Array): void {
    this.parts.push(bytes);
  }
  cork(): void {}
  uncork(): void {}
}

describe('packets', () => {
  test('come out as they went in, wherever the stream is cut', () => {
    const packet = fc.record({
      kind: fc.constantFrom(1, 2, 3, 4, 5, 6) as fc.Arbitrary<Packet['kind'] & (1 | 2 | 3 | 4 | 5 | 6)>,
      call: fc.nat(0xffff_ffff),
      body: fc.oneof(fc.uint8Array({ maxLength: 40 }), fc.constant(new Uint8Array(70_000).fill(7))),
      prefix: fc.uint8Array({ maxLength: 10 }),
    });
    fc.assert(
      fc.property(fc.array(packet, { maxLength: 6 }), fc.array(fc.nat(200), { maxLength: 40 }), (packets, cuts) => {
        const sink = new Sink();
        for (const { kind, call, body, prefix } of packets) writePacket(sink, kind, call, body, prefix);
        const stream = Buffer.concat(sink.parts);
        const seen: Packet[] = [];
        const reader = new PacketReader((one) => seen.push({ ...one, body: Buffer.from(one.body) }));
        let at = 0;
        for (const cut of cuts) {
          reader.push(stream.subarray(at, at + cut));
          at += cut;
        }
        reader.push(stream.subarray(at));
        // By hand: comparing 70,000 bytes through `toEqual` takes seconds.
        expect(seen.map(({ kind, call, body }) => [kind, call, body.length])).toEqual(
          packets.map(({ kind, call, body, prefix }) => [kind, call, prefix.length + body.length]),
        );
        packets.forEach(({ body, prefix }, i) => {
          expect(Buffer.concat([prefix, body]).equals(seen[i].body)).toBe(true);
        });
      }),
      { numRuns: 200 },
    );
  });

  test('a call carries its path, time and headers before the request', () => {
    const head = encodeCallHead(Buffer.from('/a.B/C'), 1234, Buffer.from('{"traceparent":"00-ä"}'));
    const { head: read, request } = decodeCall(Buffer.concat([head, Buffer.from([1, 2, 3])]));
    expect(read).toEqual({ path: '/a.B/C', timeoutMs: 1234, headers: { traceparent: '00-ä' } });
    expect([...request]).toEqual([1, 2, 3]);
  });

  test('a length that no packet has is an error, not memory', () => {
    expect(() => new PacketReader(() => undefined).push(Buffer.from([0xff, 0xff, 0xff, 0xff]))).toThrow(CairnError);
    expect(() => new PacketReader(() => undefined).push(Buffer.from([1, 0, 0, 0, 9]))).toThrow(CairnError);
  });
});

describe('a port of packets', () => {
  const serving = async (work: (port: number, node: EchoNode, server: RpcServer) => Promise<void>): Promise<void> => {
    const node = new EchoNode();
    const server = new RpcServer(runtime, silentLogger, { packets: true });
    server.add(DataNodeDefinition, node.handlers);
    try {
      await work(await server.listen('127.0.0.1', 0), node, server);
    } finally {
      await server.stop(100);
    }
  };
  const query = { metadata: { count: '5' } };

  test('lives on after random bytes, magic or not', () =>
    serving(async (port) => {
      for (let i = 0; i < 60; i++) {
        const bytes = Buffer.from(runtime.randomBytes(1 + Math.floor(runtime.random() * 100)));
        await new Promise<void>((resolve) => {
          const socket = connect(port, '127.0.0.1', () => socket.end(i % 2 ? Buffer.concat([MAGIC, bytes]) : bytes));
          socket.on('close', () => resolve());
          socket.on('error', () => undefined);
          socket.resume();
        });
      }
      const transport = new PacketTransport(runtime);
      const reply = await transport.client(DataNodeDefinition, `127.0.0.1:${port}`).query(SegmentQueryRequest.create(), query);
      expect(reply.count).toBe(5);
      transport.close();
    }));

  test('a caller that is gone ends the work it asked for', () =>
    serving(async (port, node) => {
      const transport = new PacketTransport(runtime);
      const slow = transport.client(DataNodeDefinition, `127.0.0.1:${port}`).releaseSegments({ vchannel: 'slow', segmentIds: [] });
      slow.catch(() => undefined);
      await expect.poll(() => node.contexts.length).toBe(1);
      transport.close();
      await expect(slow).rejects.toMatchObject({ codeName: 'Unavailable' });
      await expect.poll(() => node.contexts[0]?.signal.aborted).toBe(true);
    }));

  test('a stop lets calls under way end', async () => {
    const release = Promise.withResolvers<void>();
    const server = new RpcServer(runtime, silentLogger, { packets: true });
    server.add(DataNodeDefinition, {
      ...new EchoNode().handlers,
      releaseSegments: async () => {
        await release.promise;
        return {};
      },
    });
    const transport = new PacketTransport(runtime);
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

describe('a transport of packets', () => {
  const listening = (server: Server): Promise<number> =>
    new Promise((resolve) =>
      server.listen(0, '127.0.0.1', () => {
        const bound = server.address();
        resolve(bound !== null && typeof bound === 'object' ? bound.port : 0);
      }),
    );

  test('connects anew after its server came back', async () => {
    const node = new EchoNode();
    const first = new RpcServer(runtime, silentLogger, { packets: true });
    first.add(DataNodeDefinition, node.handlers);
    const port = await first.listen('127.0.0.1', 0);
    const transport = new PacketTransport(runtime);
    const client = transport.client(DataNodeDefinition, `127.0.0.1:${port}`);
    const ask = () => client.query(SegmentQueryRequest.create(), { metadata: { count: '1' } });
    expect((await ask()).count).toBe(1);
    await first.stop(100);
    await expect(ask()).rejects.toMatchObject({ codeName: 'Unavailable', retriable: true });
    const second = new RpcServer(runtime, silentLogger, { packets: true });
    second.add(DataNodeDefinition, node.handlers);
    await second.listen('127.0.0.1', port);
    expect((await ask()).count).toBe(1);
    transport.close();
    await second.stop(100);
  });

  test('calls a node of a release from before packets over gRPC', async () => {
    const server = new RpcServer(runtime, silentLogger);
    server.add(DataNodeDefinition, new EchoNode().handlers);
    const transport = new PacketTransport(runtime);
    const client = transport.client(DataNodeDefinition, `127.0.0.1:${await server.listen('127.0.0.1', 0)}`);
    await expect(client.query(SegmentQueryRequest.create())).rejects.toMatchObject({ codeName: 'Unavailable', retriable: true });
    expect((await client.query(SegmentQueryRequest.create(), { metadata: { count: '3' } })).count).toBe(3);
    transport.close();
    await server.stop(100);
  });

  test('a caller that shares no version is refused in words', async () => {
    const server = new RpcServer(runtime, silentLogger, { packets: true, protocol: { min: 1, max: 2 } });
    server.add(DataNodeDefinition, new EchoNode().handlers);
    const transport = new PacketTransport(runtime, { protocol: { min: 3, max: 4 } });
    const client = transport.client(DataNodeDefinition, `127.0.0.1:${await server.listen('127.0.0.1', 0)}`);
    await expect(client.query(SegmentQueryRequest.create())).rejects.toMatchObject({
      codeName: 'NodeNotMatch',
      message: expect.stringContaining('speaks the inner protocol 3-4, this program 1-2'),
    });
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
    const transport = new PacketTransport(runtime);
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
