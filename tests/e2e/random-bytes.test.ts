/** Random bytes on any RPC never end the process: each is answered, and the server works afterwards. */
import { AdminDefinition } from '@cairn/proto/cairn/admin';
import { MilvusServiceDefinition } from '@cairn/proto/milvus/milvus';
import { Client, credentials, type ServiceError } from '@grpc/grpc-js';
import { DataType, MilvusClient } from '@zilliz/milvus2-sdk-node';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Standalone, startStandalone } from '../support/cairn.ts';
import { stopChecked } from '../support/consistency.ts';
import { seeded } from '../support/workload.ts';

const ROUNDS = 6;
let server: Standalone;
beforeAll(async () => {
  server = await startStandalone();
});
afterAll(() => stopChecked(server));

function call(client: Client, path: string, bytes: Buffer): Promise<ServiceError | null> {
  return new Promise((resolve) => {
    client.makeUnaryRequest(
      path,
      (value: Buffer) => value,
      (value: Buffer) => value,
      bytes,
      { deadline: Date.now() + 10_000 },
      (error) => resolve(error),
    );
  });
}

test('every method answers random bytes, and the server goes on', async () => {
  const random = seeded(11);
  const client = new Client(server.address, credentials.createInsecure());
  const pid = server.process.pid;
  let calls = 0;
  for (const definition of [MilvusServiceDefinition, AdminDefinition]) {
    for (const method of Object.values(definition.methods)) {
      if (method.requestStream || method.responseStream) continue;
      for (let round = 0; round < ROUNDS; round++) {
        const bytes = Buffer.from({ length: Math.floor(random() * 2 ** (round + 2)) } as ArrayLike<number>).map(() =>
          Math.floor(random() * 256),
        );
        const error = await call(client, `/${definition.fullName}/${method.name}`, Buffer.from(bytes));
        expect(error?.code, `${method.name}: ${error?.message}`).not.toBe(14);
        expect(error?.code, `${method.name}: ${error?.message}`).not.toBe(4);
        calls++;
      }
    }
  }
  client.close();
  expect(calls).toBeGreaterThan(500);
  expect(server.process.pid).toBe(pid);
  const sdk = new MilvusClient({ address: server.address });
  const created = await sdk.createCollection({
    collection_name: 'after_the_storm',
    fields: [
      { name: 'id', data_type: DataType.Int64, is_primary_key: true },
      { name: 'vector', data_type: DataType.FloatVector, dim: 4 },
    ],
  });
  expect(created.error_code).toBe('Success');
  await sdk.closeConnection();
});
