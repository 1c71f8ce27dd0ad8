import { CairnError, PROTOCOL, PROTOCOL_HEADER, protocolText, type Runtime } from '@cairn/base';
import { context, propagation } from '@opentelemetry/api';
import { type CallOptions, type Client, isInner, type MethodDefinition, methodPath, type ServiceDefinition } from './definition.ts';
import { GrpcTransport, type GrpcTransportOptions } from './grpc-transport.ts';
import { encodeCallHead } from './packet.ts';
import { PacketConnection } from './packet-connection.ts';
import { DEFAULT_TIMEOUT_MS, type Transport } from './transport.ts';
import { type AnyMethod, buildClient, plainBytes } from './untyped.ts';

const NO_HEADERS = Buffer.alloc(0);
/** For so long a node that did not answer in packets is called over gRPC, ms: it may be of a release from before them. */
const GRPC_FOR_MS = 30_000;
/** Longest deadline that a packet can carry, ms; a longer one is none to the other side. */
const MAX_TIMEOUT_MS = 0xffff_ffff;

/**
 * Clients of our own nodes: calls with one answer travel as packets, one connection an address, those that stream over gRPC. A call over
 * gRPC costs about 0.25 ms of CPU on either side, more than most of what a node does for a search.
 */
export class PacketTransport implements Transport {
  readonly #runtime: Runtime;
  readonly #timeoutMs: number;
  readonly #protocol: string;
  readonly #grpc: GrpcTransport;
  /** Addresses that do not speak packets, and until when that is believed (monotonic ms). */
  readonly #grpcOnly = new Map<string, number>();
  readonly #connections = new Map<string, PacketConnection>();
  readonly #clients = new Map<string, unknown>();
  #closed = false;

  constructor(runtime: Runtime, options: GrpcTransportOptions = {}) {
    this.#runtime = runtime;
    this.#timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    this.#protocol = protocolText(options.protocol ?? PROTOCOL);
    this.#grpc = new GrpcTransport(runtime, options);
  }

  client<D extends ServiceDefinition>(definition: D, address: string): Client<D> {
    const key = `${definition.fullName}@${address}`;
    const known = this.#clients.get(key);
    if (known) return known as Client<D>;
    const overGrpc = this.#grpc.client(definition, address) as unknown as Record<string, AnyMethod>;
    const client = buildClient(definition, (name) => {
      const method = definition.methods[name];
      return method.responseStream ? overGrpc[name] : this.#unary(definition, method, address, overGrpc[name]);
    });
    this.#clients.set(key, client);
    return client;
  }

  close(): void {
    this.#closed = true;
    for (const connection of [...this.#connections.values()]) connection.close();
    this.#clients.clear();
    this.#grpc.close();
  }

  #connection(address: string): PacketConnection {
    if (this.#closed) throw new CairnError('Unavailable', `${address}: the transport is closed`);
    const known = this.#connections.get(address);
    if (known) return known;
    if (!/:\d+$/.test(address)) throw new CairnError('Unavailable', `${address} is no host:port`);
    const connection = new PacketConnection(address, this.#runtime, (understood) => {
      if (this.#connections.get(address) === connection) this.#connections.delete(address);
      if (!understood) this.#grpcOnly.set(address, this.#runtime.monotonic() + GRPC_FOR_MS);
    });
    this.#connections.set(address, connection);
    return connection;
  }

  #speaksPackets(address: string): boolean {
    if (this.#grpcOnly.size === 0) return true;
    if ((this.#grpcOnly.get(address) ?? 0) > this.#runtime.monotonic()) return false;
    this.#grpcOnly.delete(address);
    return true;
  }

  #unary(definition: ServiceDefinition, method: MethodDefinition, address: string, overGrpc: AnyMethod): AnyMethod {
    const path = methodPath(definition, method);
    const pathBytes = Buffer.from(path, 'latin1');
    const what = `${path} at ${address}`;
    const protocol: Readonly<Record<string, string>> = isInner(definition) ? { [PROTOCOL_HEADER]: this.#protocol } : {};
    const byPacket = (request: unknown, options: CallOptions): Promise<unknown> =>
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
        const head = encodeCallHead(
          pathBytes,
          timed ? Math.min(MAX_TIMEOUT_MS, Math.max(1, Math.ceil(timeoutMs))) : 0,
          headersOf(protocol, options),
        );
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
              reject(error);
            },
            lost: (why) => {
              settle();
              reject(new CairnError('Unavailable', `${what}: ${why}`));
            },
          });
        } catch (error) {
          settle();
          reject(error);
        }
      });
    return (request, options = {}) => (this.#speaksPackets(address) ? byPacket(request, options) : overGrpc(request, options));
  }
}

/** The caller's versions, metadata, and the trace that the call belongs to. */
function headersOf(protocol: Readonly<Record<string, string>>, options: CallOptions): Buffer {
  const headers: Record<string, string> = { ...protocol, ...options.metadata };
  propagation.inject(context.active(), headers);
  for (const _ in headers) return Buffer.from(JSON.stringify(headers), 'utf8');
  return NO_HEADERS;
}
