/**
 * What lies between simulated processes and everything they talk to: delay, loss, answers that do not arrive, and the seam of a crash. A call that
 * was sent by a process that crashed may or may not land, by the seed; its outcome never comes back.
 */
import { CairnError } from '@cairn/base';
import type { SimulatedRuntime, Simulation } from '@cairn/base/simulation';

export interface LinkFaults {
  /** Longest way there, and back, virtual ms. */
  maxDelayMs: number;
  /** Chance that a call does not arrive. */
  lost: number;
  /** Chance that its answer does not. */
  unanswered: number;
}

/** One direction of traffic keeps its order, as a connection does. */
export class Link {
  readonly #simulation: Simulation;
  readonly #runtime: SimulatedRuntime;
  readonly #faults: () => LinkFaults;
  readonly #what: string;
  #lastAt = 0;
  calls = 0;

  constructor(simulation: Simulation, runtime: SimulatedRuntime, what: string, faults: () => LinkFaults) {
    this.#simulation = simulation;
    this.#runtime = runtime;
    this.#what = what;
    this.#faults = faults;
  }

  /** Sends a call over and its outcome back. */
  call<T>(method: string, act: () => Promise<T>): Promise<T> {
    const simulation = this.#simulation;
    const faults = this.#faults();
    this.calls++;
    const unavailable = (): CairnError => new CairnError('StoreUnavailable', `${this.#what}: ${method} was not answered (simulated)`);
    return this.#runtime.seam(
      new Promise<T>((resolve, reject) => {
        const at = Math.max(this.#lastAt, simulation.nowMs + simulation.random() * faults.maxDelayMs);
        this.#lastAt = at;
        const back = (settle: () => void): void => {
          simulation.schedule(simulation.random() * faults.maxDelayMs, settle);
        };
        const fate = simulation.random();
        if (fate < faults.lost) return back(() => reject(unavailable()));
        simulation.schedule(at - simulation.nowMs, () => {
          if (!this.#runtime.alive && simulation.random() < 0.5) return;
          act().then(
            (value) => back(() => (fate < faults.lost + faults.unanswered ? reject(unavailable()) : resolve(value))),
            (error) => back(() => reject(error)),
          );
        });
      }),
    );
  }

  /** Passes a stream on; it ends for the process when the process does. */
  async *stream<T>(source: () => AsyncIterable<T>): AsyncGenerator<T> {
    for await (const item of source()) {
      await this.#runtime.seam(Promise.resolve());
      yield item;
    }
  }
}

/**
 * A store behind a link: every method that gives a promise travels, every one that gives an iterable streams, the others are as they are.
 * `streams` and `local` name those methods.
 */
export function behind<T extends object>(
  store: T,
  link: Link,
  methods: { readonly streams: readonly string[]; readonly local: readonly string[] },
): T {
  return new Proxy(store, {
    get(target, property) {
      const value: unknown = Reflect.get(target, property, target);
      if (typeof value !== 'function' || typeof property !== 'string') return value;
      const method = value.bind(target) as (...args: unknown[]) => unknown;
      if (methods.local.includes(property)) return method;
      if (methods.streams.includes(property)) return (...args: unknown[]) => link.stream(() => method(...args) as AsyncIterable<unknown>);
      return (...args: unknown[]) => link.call(property, () => method(...args) as Promise<unknown>);
    },
  });
}
