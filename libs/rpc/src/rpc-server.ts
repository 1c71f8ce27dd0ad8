import {
  CairnError,
  type Logger,
  PROTOCOL,
  PROTOCOL_HEADER,
  type ProtocolRange,
  protocolOf,
  protocolText,
  type Runtime,
  requireProtocol,
} from '@cairn/base';
import {
  type ServiceDefinition as GrpcServiceDefinition,
  type handleServerStreamingCall,
  type handleUnaryCall,
  type Metadata,
  Server,
  ServerCredentials,
  type ServerOptions,
} from '@grpc/grpc-js';
import { type Context, context, propagation, ROOT_CONTEXT } from '@opentelemetry/api';
import { CallSessions, type UnaryWork } from './call-sessions.ts';
import { EXCHANGE_PATH } from './call-stream.ts';
import {
  type CallContext,
  type Codecs,
  type Handlers,
  isInner,
  type MethodDefinition,
  methodPath,
  type ServiceDefinition,
} from './definition.ts';
import { toServiceError } from './error-trailer.ts';
import { inServerSpan } from './server-span.ts';
import { type AnyHandler, asBuffer, handlerOf, plainBytes } from './untyped.ts';

export interface RpcServerOptions {
  /** Largest request taken, bytes; a larger one is refused with RESOURCE_EXHAUSTED. -1: no limit. */
  readonly maxReceiveBytes?: number;
  /** Versions spoken with other services (tests of upgrades); default: this program's. */
  readonly protocol?: ProtocolRange;
  /** A reply when bytes of a request do not decode, instead of an error (the public service answers Status). */
  readonly onMalformed?: (method: MethodDefinition, error: CairnError) => unknown;
  /** Takes streams of calls too (CallTransport): between our own nodes, not at the front. */
  readonly calls?: boolean;
  /** Calls of one such stream under way at once; further ones get TooManyRequests (retriable) and have done nothing. */
  readonly maxOpenCalls?: number;
}

interface ServerCall {
  readonly metadata: Metadata;
  readonly cancelled: boolean;
  getDeadline(): Date | number;
  on(event: 'cancelled', listener: () => void): unknown;
}

type Codec = { readonly decodeRequest?: (bytes: Buffer) => unknown; readonly encodeResponse?: (response: never) => Uint8Array };

const identity = (bytes: Buffer): Buffer => bytes;
const BYTES = { requestSerialize: identity, requestDeserialize: identity, responseSerialize: identity, responseDeserialize: identity };

/**
 * A gRPC server over generated definitions. Bytes are decoded and encoded here, not in the gRPC library, so that a request that does not decode is
 * an answer like any other.
 */
export class RpcServer {
  readonly #runtime: Runtime;
  readonly #logger: Logger;
  readonly #options: RpcServerOptions;
  readonly #server: Server;
  readonly #protocol: ProtocolRange;
  /** What a stream of calls may call, by path. */
  readonly #unaryWork = new Map<string, UnaryWork>();
  #sessions: CallSessions | undefined;
  #stopped = false;

  constructor(runtime: Runtime, logger: Logger, options: RpcServerOptions = {}) {
    this.#runtime = runtime;
    this.#logger = logger;
    this.#options = options;
    this.#protocol = options.protocol ?? PROTOCOL;
    const serverOptions: ServerOptions = {
      'grpc.max_receive_message_length': options.maxReceiveBytes ?? -1,
      'grpc.max_send_message_length': -1,
      'grpc.max_concurrent_streams': 10_000,
      'grpc.enable_channelz': 0,
    };
    this.#server = new Server(serverOptions);
    if (options.calls) this.#takeCalls();
  }

  /** Adds a service, before or after `listen`. Methods without a handler, and those that stream requests, answer UNIMPLEMENTED. */
  add<D extends ServiceDefinition, C extends Codecs<D> = Record<never, never>>(definition: D, handlers: Handlers<D, C>, codecs?: C): void {
    const methods: Record<string, GrpcServiceDefinition[string]> = {};
    const implementation: Record<string, handleUnaryCall<Buffer, Buffer> | handleServerStreamingCall<Buffer, Buffer>> = {};
    for (const [name, method] of Object.entries(definition.methods)) {
      const handler = handlerOf(handlers, name);
      if (!handler || method.requestStream) continue;
      const codec = (codecs as Record<string, Codec> | undefined)?.[name] ?? {};
      methods[name] = {
        path: methodPath(definition, method),
        requestStream: false,
        responseStream: method.responseStream,
        ...BYTES,
      };
      if (!method.responseStream) this.#unaryWork.set(methodPath(definition, method), this.#onStream(definition, method, handler, codec));
      implementation[name] = method.responseStream
        ? this.#streaming(definition, method, handler, codec)
        : this.#unary(definition, method, handler, codec);
    }
    this.#server.addService(methods, implementation);
  }

  /** Binds and serves; port 0 takes a free one. Returns the port. */
  async listen(host: string, port: number): Promise<number> {
    const address = host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;
    return new Promise((resolve, reject) => {
      this.#server.bindAsync(address, ServerCredentials.createInsecure(), (error, bound) => {
        if (error) reject(new CairnError('Unavailable', `cannot listen on ${address}: ${error.message}`, { cause: error }));
        else resolve(bound);
      });
    });
  }

  /** Takes no new calls, lets those under way end for `graceMs`, then cuts them. */
  async stop(graceMs = 3_000): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    await new Promise<void>((resolve) => {
      const timer = this.#runtime.after(graceMs, () => {
        this.#logger.warn({ graceMs }, 'calls under way were cut');
        this.#server.forceShutdown();
        resolve();
      });
      this.#sessions?.stop();
      this.#server.tryShutdown(() => {
        timer.cancel();
        resolve();
      });
    });
  }

  #unary(definition: ServiceDefinition, method: MethodDefinition, handler: AnyHandler, codec: Codec): handleUnaryCall<Buffer, Buffer> {
    return (call, callback) => {
      const scope = { answered: false };
      const answer = async (): Promise<Buffer> => {
        const request = this.#decode(method, codec, call.request);
        const response =
          'malformed' in request ? request.malformed : await (handler(request.value, this.#callContext(call, scope)) as Promise<unknown>);
        scope.answered = true;
        return this.#encode(method, codec, response);
      };
      this.#traced(definition, method, call.metadata, answer).then(
        (bytes) => callback(null, bytes),
        (error) => callback(toServiceError(error)),
      );
    };
  }

  #takeCalls(): void {
    const { maxOpenCalls } = this.#options;
    this.#sessions = new CallSessions({
      runtime: this.#runtime,
      logger: this.#logger,
      find: (path) => this.#unaryWork.get(path),
      ...(maxOpenCalls === undefined ? {} : { maxOpenCalls }),
    });
    const exchange = { path: EXCHANGE_PATH, requestStream: true, responseStream: true, ...BYTES };
    this.#server.addService({ exchange }, { exchange: this.#sessions.serve });
  }

  /** The same for a call that came on a stream of calls. */
  #onStream(definition: ServiceDefinition, method: MethodDefinition, handler: AnyHandler, codec: Codec): UnaryWork {
    return (bytes, callContext, headers) => {
      const answer = async (): Promise<Buffer> => {
        if (isInner(definition)) this.#requireVersion(headers[PROTOCOL_HEADER]);
        const request = this.#decode(method, codec, bytes);
        const response = 'malformed' in request ? request.malformed : await (handler(request.value, callContext) as Promise<unknown>);
        return this.#encode(method, codec, response);
      };
      const parent = propagation.extract(ROOT_CONTEXT, headers);
      return context.with(parent, () => inServerSpan(definition, method, answer));
    };
  }

  #streaming(
    definition: ServiceDefinition,
    method: MethodDefinition,
    handler: AnyHandler,
    codec: Codec,
  ): handleServerStreamingCall<Buffer, Buffer> {
    return (call) => {
      const send = async (): Promise<void> => {
        const request = this.#decode(method, codec, call.request);
        const callContext = this.#callContext(call, { answered: false });
        const responses = 'malformed' in request ? [request.malformed] : (handler(request.value, callContext) as AsyncIterable<unknown>);
        for await (const response of responses) {
          if (callContext.signal.aborted) return;
          if (!call.write(this.#encode(method, codec, response))) await drained(call, callContext.signal);
        }
      };
      this.#traced(definition, method, call.metadata, send).then(
        () => call.end(),
        (error) => call.emit('error', toServiceError(error)),
      );
    };
  }

  #decode(method: MethodDefinition, codec: Codec, bytes: Buffer): { value: unknown } | { malformed: unknown } {
    try {
      return { value: codec.decodeRequest ? codec.decodeRequest(bytes) : method.requestType.decode(plainBytes(bytes)) };
    } catch (error) {
      const told =
        error instanceof CairnError
          ? error
          : new CairnError('InvalidParameter', `malformed ${method.name} request: ${error instanceof Error ? error.message : error}`, {
              cause: error,
            });
      if (this.#options.onMalformed) return { malformed: this.#options.onMalformed(method, told) };
      throw told;
    }
  }

  #encode(method: MethodDefinition, codec: Codec, response: unknown): Buffer {
    const bytes = codec.encodeResponse ? codec.encodeResponse(response as never) : method.responseType.encode(response as never).finish();
    return asBuffer(bytes);
  }

  #callContext(call: ServerCall, scope: { readonly answered: boolean }): CallContext {
    let controller: AbortController | undefined;
    let over: CairnError | undefined;
    const gone = (): void => {
      over ??= new CairnError('Cancelled', 'the caller has gone');
      controller?.abort(over);
    };
    if (call.cancelled) gone();
    // The library tells of a cancellation at the end of every call, also of one that was answered: nobody listens then.
    else call.on('cancelled', () => !scope.answered && gone());
    const deadline = call.getDeadline();
    const remainingMs =
      typeof deadline === 'number'
        ? Number.isFinite(deadline)
          ? deadline - this.#runtime.now()
          : Number.POSITIVE_INFINITY
        : deadline.getTime() - this.#runtime.now();
    const until = this.#runtime.monotonic() + remainingMs;
    const metadata = new Map<string, string>();
    const sent = call.metadata.getMap();
    for (const key in sent) metadata.set(key, String(sent[key]));
    return {
      // Made when the handler first asks for it: most never do.
      get signal() {
        controller ??= new AbortController();
        if (over) controller.abort(over);
        return controller.signal;
      },
      metadata,
      remaining: () => Math.max(0, until - this.#runtime.monotonic()),
    };
  }

  /** Runs the call as a span under the caller's trace (W3C headers). Without a tracer installed this costs next to nothing. */
  #traced<T>(definition: ServiceDefinition, method: MethodDefinition, metadata: Metadata, work: () => Promise<T>): Promise<T> {
    const parent: Context = propagation.extract(ROOT_CONTEXT, metadata, {
      get: (carrier, key) => carrier.get(key)[0]?.toString(),
      keys: (carrier) => Object.keys(carrier.getMap()),
    });
    return context.with(parent, () =>
      inServerSpan(definition, method, async () => {
        if (isInner(definition)) this.#requireVersion(metadata.get(PROTOCOL_HEADER)[0]?.toString());
        return work();
      }),
    );
  }

  /** A caller of another version is refused before its request is looked at, unless both speak one. */
  #requireVersion(said: string | undefined): void {
    if (said !== protocolText(this.#protocol)) requireProtocol(this.#protocol, protocolOf(said), 'the calling service');
  }
}

/** Resolves when the call takes more, or is over. */
function drained(call: { once(event: 'drain' | 'close', listener: () => void): unknown }, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    call.once('drain', resolve);
    call.once('close', resolve);
    signal.addEventListener('abort', () => resolve(), { once: true });
  });
}
