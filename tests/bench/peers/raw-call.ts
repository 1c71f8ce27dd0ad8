import { Client, credentials } from '@grpc/grpc-js';

/** One call of encoded bytes. */
export function callRaw(address: string, path: string, request: Uint8Array): Promise<Buffer> {
  const client = new Client(address, credentials.createInsecure(), { 'grpc.max_receive_message_length': -1 });
  return new Promise<Buffer>((resolve, reject) =>
    client.makeUnaryRequest(
      path,
      (value: Buffer) => value,
      (value: Buffer) => value,
      Buffer.from(request),
      (error, reply) => (error || !reply ? reject(error) : resolve(reply)),
    ),
  ).finally(() => client.close());
}
