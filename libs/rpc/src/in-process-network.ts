import { asCairnError, CairnError, type Runtime } from '@cairn/base';
import type { CallContext, CallOptions, Client, Handlers, MethodDefinition, ServiceDefinition } from './definition.ts';
import { inServerSpan } from './server-span.ts';
import { DEFAULT_TIMEOUT_MS, type Transport } from './transport.ts';
import { type AnyHandler, type AnyMethod, buildClient, handlerOf } from './untyped.ts';

export interface InProcessOptions {
  /** Deadline of a call whose caller names none, ms. */
  readonly timeoutMs?: number;
}

/** Clients of one definition that are kept; they look up who serves at each call. */
const MAX_CLIENTS = 256;

/**
 * Services of one process calling each other: the same clients and handlers as over gRPC, without sockets and without serialisation. Message
 * objects pass as they are, so neither side may change one it has sent or received.
 */
export class InProcessNetwork implements Transport {
  readonly #runtime: Runtime;
  readonly #timeoutMs: number;
  readonly #services = new Map<string, (method: string) => AnyHandler | undefined>();
  /** By address: a key of both would be a string put together, and hashed anew, at every call. */
  readonly #clients = new Map<ServiceDefinition, Map<string, unknown>>();

  constructor(runtime: Runtime, options: InProcessOptions = {}) {
    this.#runtime = runtime;
    this.#timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  }

  /** Serves a definition at `inproc:name` until `close` of what it returns; an address may serve several definitions. */
  serve<D extends ServiceDefinition>(address: string, definition: D, handlers: Handlers<D>): { close(): void } {
    const key = `${definition.fullName}@${address}`;
    if (this.#services.has(key)) throw new CairnError('Internal', `${definition.fullName} is served at ${address} already`);
    const lookup = (method: string) => handlerOf(handlers, method);
    this.#services.set(key, lookup);
    return {
      close: () => {
        if (this.#services.get(key) === lookup) this.#services.delete(key);
      },
    };
  }

  client<D extends ServiceDefinition>(definition: D, address: string): Client<D> {
    const clients = this.#clients.get(definition) ?? new Map<string, unknown>();
    const known = clients.get(address) as Client<D> | undefined;
    if (known) return known;
    const client = buildClient(definition, (name) => this.#method(definition, name, definition.methods[name], address));
    if (clients.size >= MAX_CLIENTS) clients.clear();
    this.#clients.set(definition, clients.set(address, client));
    return client;
  }

  close(): void {
    this.#services.clear();
  }

  #method(definition: ServiceDefinition, name: string, method: MethodDefinition, address: string): AnyMethod {
    const what = `${definition.fullName}/${method.name} at ${address}`;
    const key = `${definition.fullName}@${address}`;
    const find = (): AnyHandler => {
      const service = this.#services.get(key);
      if (!service) throw new CairnError('Unavailable', `${what}: nobody serves there`);
      const handler = service(name);
      if (!handler) throw new CairnError('NotSupported', `${what}: no handler`);
      return handler;
    };
    const unary = (request: unknown, options: CallOptions = {}): Promise<unknown> =>
      new Promise((resolve, reject) => {
        const call = new InProcessCall(this.#runtime, what, options, this.#timeoutMs, reject);
        const work = async (): Promise<unknown> => {
          // Never in the caller's own turn: over gRPC it is not either.
          await undefined;
          return find()(request, call) as Promise<unknown>;
        };
        inServerSpan(definition, method, work).then(
          (response) => {
            // Answered: nothing is under way that its signal would have to end.
            call.release();
            resolve(response);
          },
          (error: unknown) => {
            call.end();
            reject(asCairnError(error));
          },
        );
      });
    const stream = async function* (this: InProcessNetwork, request: unknown, options: CallOptions = {}): AsyncGenerator<unknown> {
      const stopped = Promise.withResolvers<never>();
      stopped.promise.catch(() => undefined);
      const call = new InProcessCall(this.#runtime, what, options, this.#timeoutMs, stopped.reject);
      let updates: AsyncIterator<unknown> | undefined;
      try {
        updates = (find()(request, call) as AsyncIterable<unknown>)[Symbol.asyncIterator]();
        for (;;) {
          const next = await outcome(updates.next(), stopped.promise);
          if (next.done) return;
          yield next.value;
        }
      } finally {
        call.end();
        // Lets the handler's own finally run. Not awaited: a handler that is still busy ends when it sees the signal.
        updates?.return?.().catch(() => undefined);
      }
    }.bind(this);
    return method.responseStream ? stream : unary;
  }
}

/** The work's outcome, or the reason the call was stopped; a late failure of the work is the caller's no more. */
async function outcome<T>(work: Promise<T>, stopped: Promise<never>): Promise<T> {
  work.catch(() => undefined);
  try {
    return await Promise.race([work, stopped]);
  } catch (error) {
    throw asCairnError(error);
  }
}

const NO_METADATA: ReadonlyMap<string, string> = new Map();
const ENDED = new CairnError('Cancelled', 'the call has ended');

/** One call: its deadline, its cancellation, and what the handler sees of it. */
class InProcessCall implements CallContext {
  readonly metadata: ReadonlyMap<string, string>;
  /** Made when the handler first asks for the signal: most never do, and an abort costs an exception with its stack. */
  #controller: AbortController | undefined;
  #over: CairnError | undefined;
  readonly #runtime: Runtime;
  readonly #deadline: number;
  /** The call is over: its deadline and its caller's signal end it no more. */
  readonly release: () => void;

  /** `stopped`: called when the call is given up before its handler has answered. */
  constructor(runtime: Runtime, what: string, options: CallOptions, defaultTimeoutMs: number, stopped: (error: CairnError) => void) {
    this.#runtime = runtime;
    this.metadata = options.metadata ? new Map(Object.entries(options.metadata)) : NO_METADATA;
    const timeoutMs = options.timeoutMs ?? defaultTimeoutMs;
    this.#deadline = runtime.monotonic() + timeoutMs;
    const { signal } = options;
    const stop = (error: CairnError): void => {
      this.release();
      stopped(error);
      this.#abort(error);
    };
    const onAbort = (): void => stop(new CairnError('Cancelled', `${what}: cancelled by the caller`));
    const timer = Number.isFinite(timeoutMs)
      ? runtime.after(Math.max(0, timeoutMs), () =>
          stop(new CairnError('Timeout', `${what}: deadline of ${Math.round(timeoutMs)} ms exceeded`)),
        )
      : undefined;
    this.release = () => {
      timer?.cancel();
      signal?.removeEventListener('abort', onAbort);
    };
    if (signal?.aborted) onAbort();
    else signal?.addEventListener('abort', onAbort, { once: true });
  }

  get signal(): AbortSignal {
    this.#controller ??= new AbortController();
    if (this.#over) this.#controller.abort(this.#over);
    return this.#controller.signal;
  }

  remaining(): number {
    return Math.max(0, this.#deadline - this.#runtime.monotonic());
  }

  /** The call is over: a handler that still streams learns it by the signal. */
  end(): void {
    this.release();
    this.#abort(ENDED);
  }

  #abort(reason: CairnError): void {
    this.#over ??= reason;
    this.#controller?.abort(this.#over);
  }
}
