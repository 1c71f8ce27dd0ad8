import { CairnError, type Runtime } from '@cairn/base';
import { context, propagation } from '@opentelemetry/api';
import { type CallOptions, type Client, type MethodDefinition, methodPath, type ServiceDefinition } from './definition.ts';
import { GrpcTransport, type GrpcTransportOptions } from './grpc-transport.ts';
import { encodeCallHead } from './packet.ts';
import { PacketConnection } from './packet-connection.ts';
import { DEFAULT_TIMEOUT_MS, type Transport } from './transport.ts';
import { type AnyMethod, buildClient, plainBytes } from './untyped.ts';

const NO_HEADERS = Buffer.alloc(0);
/** Longest deadline that a packet can carry, ms; a longer one is none to the other side. */
const MAX_TIMEOUT_MS = 0xffff_ffff;

/**
 * Clients of our own nodes: calls with one answer travel as packets, one connection an address, those that stream over gRPC. A call over
 * gRPC costs about 0.25 ms of CPU on either side, more than most of what a node does for a search.
 */
export class PacketTransport implements Transport {
  readonly #runtime: Runtime;
  readonly #timeoutMs: number;
  readonly #streams: GrpcTransport;
  readonly #connections = new Map<string, PacketConnection>();
  readonly #clients = new Map<string, unknown>();
  #closed = false;

  constructor(runtime: Runtime, options: GrpcTransportOptions = {}) {
    this.#runtime = runtime;
    this.#timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    this.#streams = new GrpcTransport(runtime, options);
  }

  client<D extends ServiceDefinition>(definition: D, address: string): Client<D> {
    const key = `${definition.fullName}@${address}`;
    const known = this.#clients.get(key);
    if (known) return known as Client<D>;
    const streams = this.#streams.client(definition, address) as unknown as Record<string, AnyMethod | undefined>;
    const client = buildClient(definition, (name) => {
      const method = definition.methods[name];
      const stream = streams[name];
      return method.responseStream && stream ? stream : this.#unary(definition, method, address);
    });
    this.#clients.set(key, client);
    return client;
  }

  close(): void {
    this.#closed = true;
    for (const connection of [...this.#connections.values()]) connection.close();
    this.#clients.clear();
    this.#streams.close();
  }

  #connection(address: string): PacketConnection {
    if (this.#closed) throw new CairnError('Unavailable', `${address}: the transport is closed`);
    const known = this.#connections.get(address);
    if (known) return known;
    if (!/:\d+$/.test(address)) throw new CairnError('Unavailable', `${address} is no host:port`);
    const connection = new PacketConnection(address, this.#runtime, () => {
      if (this.#connections.get(address) === connection) this.#connections.delete(address);
    });
    this.#connections.set(address, connection);
    return connection;
  }

  #unary(definition: ServiceDefinition, method: MethodDefinition, address: string): AnyMethod {
    const path = methodPath(definition, method);
    const pathBytes = Buffer.from(path, 'latin1');
    const what = `${path} at ${address}`;
    return (request, options = {}) =>
      new Promise((resolve, reject) => {
        const { signal, timeoutMs = this.#timeoutMs } = options;
        if (signal?.aborted) return reject(new CairnError('Cancelled', `${what}: cancelled before it was sent`));
        const bytes = method.requestType.encode(request as never).finish();
        const connection = this.#connection(address);
        const give = (error: CairnError): void => {
          connection.cancel(id);
          settle();
          reject(error);
        };
        const onAbort = (): void => give(new CairnError('Cancelled', `${what}: cancelled by the caller`));
        const settle = (): void => {
          timer?.cancel();
          signal?.removeEventListener('abort', onAbort);
        };
        const timed = Number.isFinite(timeoutMs);
        const timer = timed
          ? this.#runtime.after(Math.max(0, timeoutMs), () =>
              give(new CairnError('Timeout', `${what}: deadline of ${Math.round(timeoutMs)} ms exceeded`)),
            )
          : undefined;
        signal?.addEventListener('abort', onAbort, { once: true });
        const head = encodeCallHead(pathBytes, timed ? Math.min(MAX_TIMEOUT_MS, Math.max(1, Math.ceil(timeoutMs))) : 0, headersOf(options));
        let id = 0;
        try {
          id = connection.call(head, bytes, {
            reply: (response) => {
              settle();
              try {
                resolve(method.responseType.decode(plainBytes(response)));
              } catch (error) {
                reject(new CairnError('Unexpected', `${what}: a response that does not decode`, { cause: error }));
              }
            },
            fail: (error) => {
              settle();
              reject(
                error.codeName === 'Unavailable' ? new CairnError('Unavailable', `${what}: ${error.message}`, { cause: error }) : error,
              );
            },
          });
        } catch (error) {
          settle();
          reject(error);
        }
      });
  }
}

/** Metadata and the trace that the call belongs to. */
function headersOf(options: CallOptions): Buffer {
  const headers: Record<string, string> = { ...options.metadata };
  propagation.inject(context.active(), headers);
  for (const _ in headers) return Buffer.from(JSON.stringify(headers), 'utf8');
  return NO_HEADERS;
}
