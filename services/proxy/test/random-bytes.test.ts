import { MilvusServiceDefinition } from '@cairn/proto/milvus/milvus';
import { credentials, Client as RawClient } from '@grpc/grpc-js';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { FakeCluster } from './fake-cluster.ts';

test('random bytes on any RPC never end the proxy: each is answered', async () => {
  const cluster = new FakeCluster();
  await cluster.start();
  const raw = new RawClient(`127.0.0.1:${cluster.port}`, credentials.createInsecure());
  const send = (path: string, bytes: Uint8Array): Promise<string> =>
    new Promise((resolve) => {
      raw.makeUnaryRequest(
        path,
        (value: Uint8Array) => Buffer.from(value),
        (value: Buffer) => value,
        bytes,
        { deadline: Date.now() + 8_000 },
        (error) => resolve(error ? `error ${error.code}` : 'ok'),
      );
    });
  const methods = Object.values(MilvusServiceDefinition.methods).filter((method) => !method.requestStream && !method.responseStream);
  const payloads = fc.sample(fc.uint8Array({ maxLength: 200 }), { numRuns: 4 * methods.length, seed: 7 });
  const outcomes = new Map<string, number>();
  for (let at = 0; at < payloads.length; at += 40) {
    const batch = payloads
      .slice(at, at + 40)
      .map((bytes, i) => send(`/milvus.proto.milvus.MilvusService/${methods[(at + i) % methods.length].name}`, bytes));
    for (const outcome of await Promise.all(batch)) outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  }
  // UNIMPLEMENTED is the one answer that is no Status: AlterCollectionSchema, on purpose.
  expect([...outcomes.keys()].filter((outcome) => outcome !== 'ok' && outcome !== 'error 12')).toEqual([]);
  expect(await send('/milvus.proto.milvus.MilvusService/GetVersion', new Uint8Array())).toBe('ok');
  raw.close();
  await cluster.stop();
});
