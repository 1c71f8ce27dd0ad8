import { CairnError, PROTOCOL, PROTOCOL_HEADER, type ProtocolRange, protocolText, type Runtime } from '@cairn/base';
import { type Client as GrpcClient, Metadata, type ServiceError } from '@grpc/grpc-js';
import { context, propagation } from '@opentelemetry/api';
import { Connections } from './connections.ts';
import { type CallOptions, type Client, isInner, type MethodDefinition, methodPath, type ServiceDefinition } from './definition.ts';
import { fromServiceError } from './error-trailer.ts';
import { DEFAULT_TIMEOUT_MS, type Transport } from './transport.ts';
import { type AnyMethod, buildClient, plainBytes } from './untyped.ts';

export interface GrpcTransportOptions {
  /** Deadline of a call whose caller names none, ms. */
  readonly timeoutMs?: number;
  /** Largest message taken, bytes; -1: no limit (between our own services, whose batches are limited at the front). */
  readonly maxReceiveBytes?: number;
  /** A connection that does not stand by then is given up, ms: its calls are Unavailable. */
  readonly connectTimeoutMs?: number;
  /** Pings that notice a dead peer: one each so often, ms. */
  readonly keepAliveMs?: number;
  /** A ping that is not answered by then ends the connection, ms. */
  readonly keepAliveTimeoutMs?: number;
  /** Versions told to other services (tests of upgrades); default: this program's. */
  readonly protocol?: ProtocolRange;
}

const encode =
  (method: MethodDefinition) =>
  (message: unknown): Buffer => {
    const bytes = method.requestType.encode(message as never).finish();
    return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  };

const CONNECT_TIMEOUT_MS = 3_000;
const KEEP_ALIVE_MS = 5_000;
const KEEP_ALIVE_TIMEOUT_MS = 5_000;

/** Clients over gRPC, one kept-alive connection per address. */
export class GrpcTransport implements Transport {
  readonly #runtime: Runtime;
  readonly #timeoutMs: number;
  readonly #connections: Connections;
  readonly #protocol: string;
  readonly #clients = new Map<string, unknown>();

  constructor(runtime: Runtime, options: GrpcTransportOptions = {}) {
    this.#runtime = runtime;
    this.#timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    this.#protocol = protocolText(options.protocol ?? PROTOCOL);
    const channelOptions = {
      'grpc.max_receive_message_length': options.maxReceiveBytes ?? -1,
      'grpc.max_send_message_length': -1,
      'grpc.keepalive_time_ms': options.keepAliveMs ?? KEEP_ALIVE_MS,
      'grpc.keepalive_timeout_ms': options.keepAliveTimeoutMs ?? KEEP_ALIVE_TIMEOUT_MS,
      'grpc.keepalive_permit_without_calls': 1,
      'grpc.initial_reconnect_backoff_ms': 50,
      // A process that comes back on its address serves again this soon after.
      'grpc.max_reconnect_backoff_ms': 300,
      'grpc.service_config_disable_resolution': 1,
      // Callers decide what is tried again; the library would keep what a stream has sent.
      'grpc.enable_retries': 0,
      'grpc.enable_channelz': 0,
    };
    this.#connections = new Connections(runtime, channelOptions, options.connectTimeoutMs ?? CONNECT_TIMEOUT_MS);
  }

  client<D extends ServiceDefinition>(definition: D, address: string): Client<D> {
    const key = `${definition.fullName}@${address}`;
    const known = this.#clients.get(key);
    if (known) return known as Client<D>;
    const client = buildClient(definition, (name) => this.#method(definition, definition.methods[name], address));
    this.#clients.set(key, client);
    return client;
  }

  close(): void {
    this.#connections.close();
    this.#clients.clear();
  }

  /** The connection to an address, made at its first use. */
  connection(address: string): GrpcClient {
    return this.#connections.to(address);
  }

  #metadata(options: CallOptions, inner: boolean): Metadata {
    const metadata = new Metadata();
    if (inner) metadata.set(PROTOCOL_HEADER, this.#protocol);
    for (const [key, value] of Object.entries(options.metadata ?? {})) metadata.set(key, value);
    propagation.inject(context.active(), metadata, { set: (carrier, key, value) => carrier.set(key, value) });
    return metadata;
  }

  #deadline(options: CallOptions): { deadline?: Date } {
    const timeoutMs = options.timeoutMs ?? this.#timeoutMs;
    return timeoutMs === Number.POSITIVE_INFINITY ? {} : { deadline: new Date(this.#runtime.now() + Math.max(0, timeoutMs)) };
  }

  #method(definition: ServiceDefinition, method: MethodDefinition, address: string): AnyMethod {
    const path = methodPath(definition, method);
    const what = `${path} at ${address}`;
    const serialize = encode(method);
    const inner = isInner(definition);
    const deserialize = (bytes: Buffer): unknown => method.responseType.decode(plainBytes(bytes));
    const unary = (request: unknown, options: CallOptions = {}): Promise<unknown> =>
      new Promise((resolve, reject) => {
        const { signal } = options;
        if (signal?.aborted) return reject(new CairnError('Cancelled', `${what}: cancelled before it was sent`));
        const cancel = (): void => call.cancel();
        const settle = (error: ServiceError | null, response?: unknown): void => {
          signal?.removeEventListener('abort', cancel);
          if (error) reject(fromServiceError(error, what));
          else resolve(response);
        };
        const call = this.connection(address).makeUnaryRequest(
          path,
          serialize,
          deserialize,
          request,
          this.#metadata(options, inner),
          this.#deadline(options),
          settle,
        );
        signal?.addEventListener('abort', cancel, { once: true });
      });
    const stream = async function* (this: GrpcTransport, request: unknown, options: CallOptions = {}): AsyncGenerator<unknown> {
      const { signal } = options;
      if (signal?.aborted) throw new CairnError('Cancelled', `${what}: cancelled before it was sent`);
      const call = this.connection(address).makeServerStreamRequest(
        path,
        serialize,
        deserialize,
        request,
        this.#metadata(options, inner),
        this.#deadline(options),
      );
      const cancel = (): void => call.cancel();
      signal?.addEventListener('abort', cancel, { once: true });
      try {
        yield* call;
      } catch (error) {
        throw fromServiceError(error as ServiceError, what);
      } finally {
        signal?.removeEventListener('abort', cancel);
        // A cancelled call reports its end as an error event, which nobody reads any more.
        call.on('error', () => undefined);
        call.cancel();
      }
    }.bind(this);
    return method.responseStream ? stream : unary;
  }
}
