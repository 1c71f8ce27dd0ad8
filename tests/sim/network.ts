/** The network between simulated processes: typed clients whose calls are delayed, lost, doubled, cut, or left unanswered by a process that died. */
import { CairnError } from '@cairn/base';
import type { SimulatedRuntime, Simulation } from '@cairn/base/simulation';
import type { CallContext, CallOptions, Client, Handlers, ServiceDefinition, Transport } from '@cairn/rpc';

export interface NetworkFaults {
  maxDelayMs: number;
  /** Chance that a request does not arrive; its sender soon hears that the connection broke. */
  lost: number;
  /** Chance that it arrives and its sender hears that the connection broke. */
  unanswered: number;
  /** Chance that neither is heard: the sender waits for its deadline. */
  silent: number;
  /** Chance that a request arrives twice. */
  doubled: number;
}

export interface NetworkOptions {
  readonly simulation: Simulation;
  readonly faults: NetworkFaults;
  /** Deadline of a call that brings none, virtual ms. */
  readonly timeoutMs: number;
  /** Each call, before it is sent; may crash the process that sends it. False: then it does not arrive. */
  readonly sending: (from: SimulatedRuntime, what: string) => boolean;
}

type AnyHandler = (request: unknown, context: CallContext) => Promise<unknown> | AsyncIterable<unknown>;

interface Listener {
  readonly runtime: SimulatedRuntime;
  readonly handlers: Readonly<Record<string, AnyHandler | undefined>>;
}

export class SimulatedNetwork {
  readonly options: NetworkOptions;
  readonly #simulation: Simulation;
  readonly #listeners = new Map<string, Listener>();
  /** Pairs of process names that cannot reach each other. */
  readonly #cuts = new Set<string>();

  constructor(options: NetworkOptions) {
    this.options = options;
    this.#simulation = options.simulation;
  }

  /** Serves a definition for a process, in place of whatever served it there before. */
  serve<D extends ServiceDefinition>(address: string, runtime: SimulatedRuntime, definition: D, handlers: Handlers<D>): void {
    this.#listeners.set(`${definition.fullName}@${address}`, { runtime, handlers: handlers as unknown as Listener['handlers'] });
  }

  cut(a: string, b: string): void {
    this.#cuts.add(`${a} ${b}`).add(`${b} ${a}`);
  }

  heal(): void {
    this.#cuts.clear();
  }

  /** The network as one process sees it. */
  transport(from: SimulatedRuntime): Transport {
    const clients = new Map<string, unknown>();
    return {
      client: <D extends ServiceDefinition>(definition: D, address: string): Client<D> => {
        const id = `${definition.fullName}@${address}`;
        let client = clients.get(id);
        if (!client) {
          client = this.#client(from, definition, address);
          clients.set(id, client);
        }
        return client as Client<D>;
      },
      close: () => undefined,
    };
  }

  #client(from: SimulatedRuntime, definition: ServiceDefinition, address: string): unknown {
    const methods = Object.entries(definition.methods).map(([name, method]) => [
      name,
      method.responseStream
        ? (request: unknown, options?: CallOptions) => this.#stream(from, definition, name, address, request, options)
        : (request: unknown, options?: CallOptions) => this.#call(from, definition, name, address, request, options),
    ]);
    return Object.fromEntries(methods);
  }

  #reachable(from: SimulatedRuntime, definition: ServiceDefinition, address: string): Listener | undefined {
    const listener = this.#listeners.get(`${definition.fullName}@${address}`);
    return listener?.runtime.alive && !this.#cuts.has(`${from.name} ${listener.runtime.name}`) ? listener : undefined;
  }

  #call(
    from: SimulatedRuntime,
    definition: ServiceDefinition,
    name: string,
    address: string,
    request: unknown,
    options: CallOptions = {},
  ): Promise<unknown> {
    if (!from.alive) return new Promise(() => undefined);
    const what = `${definition.fullName}/${name} at ${address}`;
    if (!this.options.sending(from, name)) return new Promise(() => undefined);
    return from.seam(
      new Promise((resolve, reject) => this.#send({ from, definition, name, address, request, options, what, resolve, reject })),
    );
  }

  #send(call: {
    from: SimulatedRuntime;
    definition: ServiceDefinition;
    name: string;
    address: string;
    request: unknown;
    options: CallOptions;
    what: string;
    resolve: (value: unknown) => void;
    reject: (error: unknown) => void;
  }): void {
    const { from, definition, name, address, request, options, what } = call;
    const simulation = this.#simulation;
    const { faults } = this.options;
    const delay = (): number => simulation.random() * faults.maxDelayMs;
    const gone = new AbortController();
    const end = (settle: () => void): void => {
      deadline?.cancel();
      options.signal?.removeEventListener('abort', cancelled);
      for (const stop of watched.splice(0)) stop();
      settle();
    };
    /** Each ends watching a process. */
    const watched: (() => void)[] = [];
    const fail = (codeName: 'Unavailable' | 'Timeout' | 'Cancelled', words: string): void =>
      end(() => {
        gone.abort();
        call.reject(new CairnError(codeName, `${what}: ${words}`));
      });
    const cancelled = (): void => fail('Cancelled', 'cancelled');
    const timeoutMs = options.timeoutMs ?? this.options.timeoutMs;
    const deadline = Number.isFinite(timeoutMs)
      ? from.after(timeoutMs, () => fail('Timeout', `no answer after ${timeoutMs} ms`))
      : undefined;
    if (options.signal?.aborted) {
      cancelled();
      return;
    }
    options.signal?.addEventListener('abort', cancelled, { once: true });
    watched.push(from.onDeath(() => gone.abort()));

    const until = simulation.nowMs + timeoutMs;
    const fate = simulation.random();
    const breaks = fate < faults.lost + faults.unanswered;
    const silent = !breaks && fate < faults.lost + faults.unanswered + faults.silent;
    const deliver = (answers: boolean): void => {
      simulation.schedule(delay(), () => {
        const listener = this.#reachable(from, definition, address);
        if (!listener) {
          if (answers && !silent) simulation.schedule(delay(), () => fail('Unavailable', 'no process listens'));
          return;
        }
        const context: CallContext = {
          signal: gone.signal,
          metadata: new Map(Object.entries(options.metadata ?? {})),
          remaining: () => Math.max(0, until - simulation.nowMs),
        };
        const answer = (settle: () => void): void => {
          if (!answers || breaks || silent) return;
          simulation.schedule(delay(), () => {
            if (this.#reachable(from, definition, address) === listener) end(settle);
            else fail('Unavailable', 'the connection broke before the answer');
          });
        };
        const died = (): void => void simulation.schedule(delay(), () => fail('Unavailable', 'the process died'));
        watched.push(listener.runtime.onDeath(died));
        const outcome = Promise.resolve().then(() => listener.handlers[name]?.(request, context) as Promise<unknown>);
        listener.runtime.seam(outcome).then(
          (value) => answer(() => call.resolve(value)),
          (error: unknown) => answer(() => call.reject(error)),
        );
      });
    };
    if (fate < faults.lost) {
      simulation.schedule(delay(), () => fail('Unavailable', 'the connection broke'));
      return;
    }
    if (breaks) simulation.schedule(delay() * 4, () => fail('Unavailable', 'the connection broke before the answer'));
    deliver(true);
    // Between services only: a client's connection sends a request once.
    if (from.name !== 'outside' && simulation.random() < faults.doubled) deliver(false);
  }

  async *#stream(
    from: SimulatedRuntime,
    definition: ServiceDefinition,
    name: string,
    address: string,
    request: unknown,
    options: CallOptions = {},
  ): AsyncGenerator<unknown> {
    const simulation = this.#simulation;
    const { faults } = this.options;
    const what = `${definition.fullName}/${name} at ${address}`;
    if (!from.alive) await new Promise(() => undefined);
    if (!this.options.sending(from, name)) await new Promise(() => undefined);
    const pause = (): Promise<void> => from.sleep(simulation.random() * faults.maxDelayMs);
    await pause();
    const listener = this.#reachable(from, definition, address);
    if (!listener || simulation.random() < faults.lost) throw new CairnError('Unavailable', `${what}: no process listens`);
    const gone = new AbortController();
    const abort = (): void => gone.abort();
    options.signal?.addEventListener('abort', abort, { once: true });
    const watching = from.onDeath(abort);
    const timer = options.timeoutMs !== undefined && Number.isFinite(options.timeoutMs) ? from.after(options.timeoutMs, abort) : undefined;
    try {
      const context: CallContext = {
        signal: gone.signal,
        metadata: new Map(Object.entries(options.metadata ?? {})),
        remaining: () => options.timeoutMs ?? Number.POSITIVE_INFINITY,
      };
      const handler = listener.handlers[name];
      if (!handler) throw new CairnError('NotSupported', `${what}: no handler`);
      const source = (handler(request, context) as AsyncIterable<unknown>)[Symbol.asyncIterator]();
      for (;;) {
        const next = await this.#next(from, listener.runtime, source, gone.signal, what);
        if (simulation.random() < faults.lost || this.#reachable(from, definition, address) !== listener)
          throw new CairnError('Unavailable', `${what}: the connection broke`);
        await pause();
        if (next.done) return;
        yield next.value;
      }
    } finally {
      timer?.cancel();
      options.signal?.removeEventListener('abort', abort);
      watching();
      gone.abort();
    }
  }

  /** The next item, or Unavailable when the process that makes it has died, or Cancelled. */
  #next(
    from: SimulatedRuntime,
    to: SimulatedRuntime,
    source: AsyncIterator<unknown>,
    gone: AbortSignal,
    what: string,
  ): Promise<IteratorResult<unknown>> {
    if (gone.aborted) return from.seam(Promise.reject(new CairnError('Cancelled', `${what}: cancelled`)));
    let over = (): void => undefined;
    const item = new Promise<IteratorResult<unknown>>((resolve, reject) => {
      const cancelled = (): void => reject(new CairnError('Cancelled', `${what}: cancelled`));
      const watching = to.onDeath(() => reject(new CairnError('Unavailable', `${what}: the process died`)));
      gone.addEventListener('abort', cancelled, { once: true });
      over = () => {
        watching();
        gone.removeEventListener('abort', cancelled);
      };
      to.seam(source.next()).then(resolve, reject);
    });
    return from.seam(item.finally(over));
  }
}
