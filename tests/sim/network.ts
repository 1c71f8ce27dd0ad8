/** The network between simulated processes: typed clients whose calls are delayed, lost, doubled, or left unanswered by a process that died. */
import { CairnError } from '@cairn/base';
import type { SimulatedRuntime, Simulation } from '@cairn/base/simulation';
import type { CallContext, CallOptions, Client, Handlers, ServiceDefinition, Transport } from '@cairn/rpc';
import { DEFAULT_TIMEOUT_MS } from '@cairn/rpc';

export interface NetworkFaults {
  maxDelayMs: number;
  lost: number;
  unanswered: number;
  /** Chance that a request arrives twice. */
  doubled: number;
}

type AnyHandler = (request: unknown, context: CallContext) => Promise<unknown> | AsyncIterable<unknown>;

interface Listener {
  readonly runtime: SimulatedRuntime;
  readonly handlers: Readonly<Record<string, AnyHandler | undefined>>;
}

export class SimulatedNetwork {
  readonly faults: NetworkFaults;
  readonly #simulation: Simulation;
  readonly #listeners = new Map<string, Listener>();
  /** Pairs of process names that cannot reach each other. */
  readonly #cuts = new Set<string>();

  constructor(simulation: Simulation, faults: NetworkFaults) {
    this.#simulation = simulation;
    this.faults = faults;
  }

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
    return {
      client: <D extends ServiceDefinition>(definition: D, address: string): Client<D> => {
        const methods = Object.entries(definition.methods).map(([name, method]) => [
          name,
          method.responseStream
            ? (request: unknown, options?: CallOptions) => this.#stream(from, definition, name, address, request, options)
            : (request: unknown, options?: CallOptions) => this.#call(from, definition, name, address, request, options),
        ]);
        return Object.fromEntries(methods) as unknown as Client<D>;
      },
      close: () => undefined,
    };
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
    const simulation = this.#simulation;
    const what = `${definition.fullName}/${name} at ${address}`;
    const delay = (): number => simulation.random() * this.faults.maxDelayMs;
    return from.seam(
      new Promise((resolve, reject) => {
        const gone = new AbortController();
        const end = (settle: () => void): void => {
          deadline?.cancel();
          options.signal?.removeEventListener('abort', cancelled);
          settle();
        };
        const fail = (codeName: 'Unavailable' | 'Timeout' | 'Cancelled', words: string): void =>
          end(() => {
            gone.abort();
            reject(new CairnError(codeName, `${what}: ${words}`));
          });
        const cancelled = (): void => fail('Cancelled', 'cancelled');
        const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
        const deadline = Number.isFinite(timeoutMs)
          ? from.after(timeoutMs, () => fail('Timeout', `no answer after ${timeoutMs} ms`))
          : undefined;
        if (options.signal?.aborted) return cancelled();
        options.signal?.addEventListener('abort', cancelled, { once: true });

        const fate = simulation.random();
        const deliver = (answers: boolean): void => {
          simulation.schedule(delay(), () => {
            const listener = this.#reachable(from, definition, address);
            if (!listener) {
              if (answers) simulation.schedule(delay(), () => fail('Unavailable', 'no process listens'));
              return;
            }
            const until = simulation.nowMs + timeoutMs;
            const context: CallContext = {
              signal: gone.signal,
              metadata: new Map(Object.entries(options.metadata ?? {})),
              remaining: () => Math.max(0, until - simulation.nowMs),
            };
            const answer = (settle: () => void): void => {
              if (answers && fate >= this.faults.lost + this.faults.unanswered)
                simulation.schedule(delay(), () => listener.runtime.alive && end(settle));
            };
            const outcome = Promise.resolve().then(() => listener.handlers[name]?.(request, context) as Promise<unknown>);
            listener.runtime.seam(outcome).then(
              (value) => answer(() => resolve(value)),
              (error) => answer(() => reject(error)),
            );
          });
        };
        if (fate < this.faults.lost) {
          simulation.schedule(delay(), () => fail('Unavailable', 'the connection broke'));
          return;
        }
        if (fate < this.faults.lost + this.faults.unanswered)
          simulation.schedule(delay() * 4, () => fail('Unavailable', 'the connection broke before the answer'));
        deliver(true);
        if (simulation.random() < this.faults.doubled) deliver(false);
      }),
    );
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
    const what = `${definition.fullName}/${name} at ${address}`;
    const pause = (): Promise<void> => from.sleep(simulation.random() * this.faults.maxDelayMs);
    await pause();
    const listener = this.#reachable(from, definition, address);
    if (!listener) throw new CairnError('Unavailable', `${what}: no process listens`);
    const gone = new AbortController();
    const abort = (): void => gone.abort();
    options.signal?.addEventListener('abort', abort, { once: true });
    try {
      const context: CallContext = {
        signal: gone.signal,
        metadata: new Map(Object.entries(options.metadata ?? {})),
        remaining: () => options.timeoutMs ?? Number.POSITIVE_INFINITY,
      };
      const source = (listener.handlers[name]?.(request, context) as AsyncIterable<unknown>)[Symbol.asyncIterator]();
      for (;;) {
        const next = await this.#next(from, listener.runtime, source, what);
        if (simulation.random() < this.faults.lost) throw new CairnError('Unavailable', `${what}: the connection broke`);
        await pause();
        if (next.done) return;
        yield next.value;
      }
    } finally {
      options.signal?.removeEventListener('abort', abort);
      gone.abort();
    }
  }

  /** The next item, or Unavailable when the process that makes it has died. */
  #next(from: SimulatedRuntime, to: SimulatedRuntime, source: AsyncIterator<unknown>, what: string): Promise<IteratorResult<unknown>> {
    return from.seam(
      new Promise((resolve, reject) => {
        let settled = false;
        const watch = (): void => {
          if (settled) return;
          if (!to.alive) {
            settled = true;
            reject(new CairnError('Unavailable', `${what}: the connection broke`));
          } else this.#simulation.schedule(50, watch);
        };
        watch();
        to.seam(source.next()).then(
          (item) => {
            settled = true;
            resolve(item);
          },
          (error) => {
            settled = true;
            reject(error);
          },
        );
      }),
    );
  }
}
