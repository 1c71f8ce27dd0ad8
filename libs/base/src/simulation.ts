import { CairnError } from './errors.ts';
import type { Runtime, TimerHandle } from './runtime.ts';

interface Event {
  readonly at: number;
  /** Breaks ties: the order of scheduling, or a seeded number when ties are shuffled. */
  readonly order: number;
  readonly run: () => void;
  cancelled: boolean;
}

/** Unix ms at which every simulation begins. */
const SIMULATION_EPOCH_MS = Date.UTC(2026, 0, 1);

/** Events between two looks at the real world: asking the system each time cost an eighth of a run. */
const EVENTS_IN_A_TURN = 64;

/**
 * The seeded twin of the system runtime: virtual time, one random stream, and instances that crash. A run is a function of its seed: events at one
 * instant run in an order drawn from the seed, and between events every promise that can settle does. Nothing in a simulated run may wait for the real
 * world, since virtual time then passes it by.
 */
export class Simulation {
  readonly seed: number;
  #state: number;
  #nowMs = 0;
  /** Binary heap by (at, order). */
  readonly #queue: Event[] = [];
  #events = 0;
  #digest = 0;

  constructor(seed: number) {
    this.seed = seed;
    this.#state = (seed ^ 0x9e3779b9) >>> 0;
  }

  /** Virtual ms since the start. */
  get nowMs(): number {
    return this.#nowMs;
  }

  /** Events that ran. */
  get events(): number {
    return this.#events;
  }

  /** A hash over everything that happened so far: two runs of one seed agree in it, or something in them does not depend on the seed alone. */
  get digest(): string {
    return (this.#digest >>> 0).toString(16).padStart(8, '0');
  }

  /** Uniform in [0, 1), of the seed's one stream (splitmix32). */
  random(): number {
    this.#state = (this.#state + 0x9e3779b9) >>> 0;
    let z = this.#state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return ((z ^ (z >>> 15)) >>> 0) / 2 ** 32;
  }

  /** Whole number in [0, below). */
  below(below: number): number {
    return Math.floor(this.random() * below);
  }

  /** Runs `run` at virtual now + delayMs. */
  schedule(delayMs: number, run: () => void): TimerHandle {
    const event: Event = { at: this.#nowMs + Math.max(0, delayMs), order: this.random(), run, cancelled: false };
    this.#push(event);
    return {
      cancel: () => {
        event.cancelled = true;
      },
    };
  }

  /** A process of the simulation, with its own clock skew. */
  instance(name: string, clockSkewMs = 0): SimulatedRuntime {
    return new SimulatedRuntime(this, name, clockSkewMs);
  }

  /**
   * Runs events until `done` settles and gives its value. Rejects when virtual time passes `limitMs` or no event is left while `done` still waits:
   * both mean that something hangs.
   */
  run<T>(done: Promise<T>, limitMs: number): Promise<T> {
    return new Promise((resolve, reject) => {
      let over = false;
      const end = (settle: () => void): void => {
        over = true;
        settle();
      };
      let outcome: (() => void) | undefined;
      done.then(
        (value) => {
          outcome = () => resolve(value);
        },
        (error: unknown) => {
          outcome = () => reject(error);
        },
      );
      const step = (): void => {
        if (outcome) {
          end(outcome);
          return;
        }
        const event = this.#next();
        if (!event) throw new Error(`seed ${this.seed}: nothing is left to happen at ${this.#nowMs} ms, and the run has not ended`);
        if (event.at > limitMs) throw new Error(`seed ${this.seed}: not ended after ${limitMs} virtual ms`);
        this.#nowMs = Math.max(this.#nowMs, event.at);
        this.#events++;
        this.#digest = Math.imul(this.#digest ^ (event.at * 1000), 0x01000193) ^ (event.order * 2 ** 32);
        event.run();
      };
      let planned = 0;
      const turn = (): void => {
        planned--;
        if (over) return;
        try {
          step();
        } catch (error) {
          end(() => reject(error));
        }
        if (!over && planned === 0) plan();
      };
      // Before each of them every promise that can settle without a further event has settled, and every rejection that nobody handles was told.
      const plan = (): void => {
        for (; planned < EVENTS_IN_A_TURN; planned++) setImmediate(turn);
      };
      plan();
    });
  }

  /** The next event that was not cancelled; it is taken off the queue. */
  #next(): Event | undefined {
    for (;;) {
      const event = this.#pop();
      if (!event?.cancelled) return event;
    }
  }

  #push(event: Event): void {
    const queue = this.#queue;
    queue.push(event);
    let at = queue.length - 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!before(event, queue[parent] as Event)) break;
      queue[at] = queue[parent] as Event;
      at = parent;
    }
    queue[at] = event;
  }

  #pop(): Event | undefined {
    const queue = this.#queue;
    const first = queue[0];
    const last = queue.pop();
    if (!first || !last || queue.length === 0) return first;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= queue.length) break;
      if (child + 1 < queue.length && before(queue[child + 1] as Event, queue[child] as Event)) child++;
      if (!before(queue[child] as Event, last)) break;
      queue[at] = queue[child] as Event;
      at = child;
    }
    queue[at] = last;
    return first;
  }
}

function before(a: Event, b: Event): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}

/** Runtime of one simulated process. After `crash` its seam is closed: no timer of it fires and nothing passed through `seam` settles. */
export class SimulatedRuntime implements Runtime {
  readonly name: string;
  readonly inline = true;
  readonly #simulation: Simulation;
  #skewMs: number;
  #alive = true;
  readonly #dead = new AbortController();
  readonly #leaving = new Set<{ readonly leave: () => void }>();
  /** Called as a timer of the process fires, before what waits for it goes on; may crash the process. */
  onTimer: (() => void) | undefined;

  constructor(simulation: Simulation, name: string, skewMs: number) {
    this.#simulation = simulation;
    this.name = name;
    this.#skewMs = skewMs;
  }

  get alive(): boolean {
    return this.#alive;
  }

  /** Aborts when the process crashes: for the world around it, which lets go of what it held for the process. Nothing of the process may listen. */
  get dead(): AbortSignal {
    return this.#dead.signal;
  }

  /** The same as a call of `leave`, for the many who listen for the time of one call; ends by the function that it gives. */
  onDeath(leave: () => void): () => void {
    // Each has its own place, whatever function it brings.
    const own = { leave };
    this.#leaving.add(own);
    return () => void this.#leaving.delete(own);
  }

  /** The process is gone, now, wherever it is. */
  crash(): void {
    if (!this.#alive) return;
    this.#alive = false;
    this.#dead.abort();
    const leaving = [...this.#leaving];
    this.#leaving.clear();
    for (const { leave } of leaving) leave();
  }

  /** The wall clock jumps; the monotonic one does not. */
  jump(byMs: number): void {
    this.#skewMs += byMs;
  }

  /** Lets an outcome through only while the process lives: what a crashed one awaited never settles. */
  seam<T>(outcome: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      outcome.then(
        (value) => {
          if (this.#alive) resolve(value);
        },
        (error: unknown) => {
          if (this.#alive) reject(error);
        },
      );
    });
  }

  now(): number {
    return SIMULATION_EPOCH_MS + Math.floor(this.#simulation.nowMs) + this.#skewMs;
  }

  monotonic(): number {
    return this.#simulation.nowMs;
  }

  after(delayMs: number, callback: () => void): TimerHandle {
    return this.#simulation.schedule(delayMs, () => {
      if (this.#alive) this.onTimer?.();
      if (this.#alive) callback();
    });
  }

  sleep(delayMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const stop = (): void => {
        timer.cancel();
        if (this.#alive) reject(new CairnError('Cancelled', 'sleep was cancelled'));
      };
      const timer = this.after(delayMs, () => {
        signal?.removeEventListener('abort', stop);
        resolve();
      });
      if (!this.#alive) return;
      if (signal?.aborted) stop();
      else signal?.addEventListener('abort', stop, { once: true });
    });
  }

  turn(): Promise<void> {
    return this.sleep(0);
  }

  random(): number {
    return this.#simulation.random();
  }

  randomBytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.#simulation.below(256));
  }
}
