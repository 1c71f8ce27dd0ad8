import { CairnError, PROTOCOL, PROTOCOL_HEADER, protocolText, type Runtime } from '@cairn/base';
import { context, propagation } from '@opentelemetry/api';
import { callHead } from './call-messages.ts';
import { CallStream } from './call-stream.ts';
import { type CallOptions, type Client, isInner, type MethodDefinition, methodPath, type ServiceDefinition } from './definition.ts';
import { GrpcTransport, type GrpcTransportOptions } from './grpc-transport.ts';
import { DEFAULT_TIMEOUT_MS, type Transport } from './transport.ts';
import { type AnyMethod, buildClient } from './untyped.ts';

/** For so long a node that serves no stream of calls is called one by one, ms: it may be of a release from before it. */
const ONE_BY_ONE_FOR_MS = 30_000;
/** Longest deadline that a call can carry, ms; a longer one is none to the other side. */
const MAX_TIMEOUT_MS = 0xffff_ffff;

/**
 * Clients of our own nodes, over gRPC: calls with one answer share one stream a connection (docs/decisions/005), those that stream answers go by
 * themselves. A gRPC call of its own costs 0.1 to 0.3 ms of CPU on either side, more than most of what a node does for a search.
 */
export class CallTransport implements Transport {
  readonly #runtime: Runtime;
  readonly #timeoutMs: number;
  readonly #protocol: string;
  readonly #grpc: GrpcTransport;
  /** Addresses that serve no stream of calls, and until when that is believed (monotonic ms). */
  readonly #oneByOne = new Map<string, number>();
  readonly #streams = new Map<string, CallStream>();
  /** By address. */
  readonly #clients = new Map<ServiceDefinition, Map<string, unknown>>();
  #closed = false;

  constructor(runtime: Runtime, options: GrpcTransportOptions = {}) {
    this.#runtime = runtime;
    this.#timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    this.#protocol = protocolText(options.protocol ?? PROTOCOL);
    this.#grpc = new GrpcTransport(runtime, options);
  }

  client<D extends ServiceDefinition>(definition: D, address: string): Client<D> {
    const clients = this.#clients.get(definition) ?? new Map<string, unknown>();
    const known = clients.get(address);
    if (known) return known as Client<D>;
    const byItself = this.#grpc.client(definition, address) as unknown as Record<string, AnyMethod>;
    const client = buildClient(definition, (name) => {
      const method = definition.methods[name];
      return method.responseStream ? byItself[name] : this.#unary(definition, method, address, byItself[name]);
    });
    this.#clients.set(definition, clients.set(address, client));
    return client;
  }

  close(): void {
    this.#closed = true;
    for (const stream of [...this.#streams.values()]) stream.close();
    this.#clients.clear();
    this.#grpc.close();
  }

  #stream(address: string): CallStream {
    if (this.#closed) throw new CairnError('Unavailable', `${address}: the transport is closed`);
    const known = this.#streams.get(address);
    if (known) return known;
    const stream = new CallStream(this.#grpc.connection(address), address, (refused) => {
      if (this.#streams.get(address) === stream) this.#streams.delete(address);
      if (refused) this.#oneByOne.set(address, this.#runtime.monotonic() + ONE_BY_ONE_FOR_MS);
    });
    this.#streams.set(address, stream);
    return stream;
  }

  #takesStream(address: string): boolean {
    if (this.#oneByOne.size === 0) return true;
    if ((this.#oneByOne.get(address) ?? 0) > this.#runtime.monotonic()) return false;
    this.#oneByOne.delete(address);
    return true;
  }

  #unary(definition: ServiceDefinition, method: MethodDefinition, address: string, byItself: AnyMethod): AnyMethod {
    const path = methodPath(definition, method);
    const what = `${path} at ${address}`;
    const protocol: Readonly<Record<string, string>> = isInner(definition) ? { [PROTOCOL_HEADER]: this.#protocol } : {};
    const plainHead = callHead(path, protocol);
    const headOf = ({ metadata }: CallOptions): Buffer => {
      const headers: Record<string, string> = { ...metadata };
      propagation.inject(context.active(), headers);
      for (const _ in headers) return callHead(path, { ...protocol, ...headers });
      return plainHead;
    };
    const onStream = (request: unknown, options: CallOptions): Promise<unknown> =>
      new Promise((resolve, reject) => {
        const { signal, timeoutMs = this.#timeoutMs } = options;
        if (signal?.aborted) return reject(new CairnError('Cancelled', `${what}: cancelled before it was sent`));
        const bytes = method.requestType.encode(request as never).finish();
        const stream = this.#stream(address);
        const give = (error: CairnError): void => {
          stream.cancel(id);
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
        const limitMs = timed ? Math.min(MAX_TIMEOUT_MS, Math.max(1, Math.ceil(timeoutMs))) : 0;
        let id = 0;
        try {
          id = stream.call(headOf(options), limitMs, bytes, {
            reply: (response) => {
              settle();
              try {
                resolve(method.responseType.decode(response));
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
            refused: () => {
              settle();
              resolve(byItself(request, options));
            },
          });
        } catch (error) {
          settle();
          reject(error);
        }
      });
    return (request, options = {}) => (this.#takesStream(address) ? onStream(request, options) : byItself(request, options));
  }
}
