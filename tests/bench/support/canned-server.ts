/**
 * The limit to compare with: a server that speaks the protocol and does nothing. Inserts are acknowledged unread, a search answers a canned result,
 * describe answers what the collection's real server said. Run as a process: canned-server.ts PORT FILE (JSON: path -> base64 reply).
 */
import { readFileSync } from 'node:fs';
import { Server, ServerCredentials, type ServiceDefinition, type UntypedServiceImplementation } from '@grpc/grpc-js';

const [port = '0', file = ''] = process.argv.slice(2);
const replies = JSON.parse(readFileSync(file, 'utf8')) as Record<string, string>;
const server = new Server({ 'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1 });
const definition: Record<string, ServiceDefinition[string]> = {};
const handlers: UntypedServiceImplementation = {};
for (const [path, text] of Object.entries(replies)) {
  const reply = Buffer.from(text, 'base64');
  const same = (value: Buffer): Buffer => value;
  definition[path] = {
    path,
    requestStream: false,
    responseStream: false,
    requestSerialize: same,
    requestDeserialize: same,
    responseSerialize: same,
    responseDeserialize: same,
  };
  handlers[path] = (_call: unknown, callback: (error: null, value: Buffer) => void) => callback(null, reply);
}
server.addService(definition, handlers);
server.bindAsync(`127.0.0.1:${port}`, ServerCredentials.createInsecure(), () => process.send?.('ready'));
