import type { Attributes, Counter, Gauge, Histogram, Meter } from '@opentelemetry/api';

/**
 * Named instruments, declared where they are used, at the top of a file. They measure nothing until telemetry starts and again when it has
 * stopped, so that libs may declare them at import. Names are Prometheus's: `cairn_<noun>_<unit>`; a counter's `_total` is added at export.
 */
export interface InstrumentOptions {
  /** What is measured, in one sentence: the HELP line. */
  readonly description: string;
  /** `s`, `By`, or `{thing}`. */
  readonly unit?: string;
}

export interface HistogramOptions extends InstrumentOptions {
  /** Upper bounds of the buckets, ascending. Default: for durations in seconds. */
  readonly buckets?: readonly number[];
}

/** Durations in seconds from half a millisecond to a minute. */
export const DURATION_BUCKETS: readonly number[] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];

let meter: Meter | undefined;
let generation = 0;

/** Makes all instruments measure with this meter; the answer undoes it. */
export function useMeter(next: Meter): () => void {
  meter = next;
  generation++;
  return () => {
    if (meter !== next) return;
    meter = undefined;
    generation++;
  };
}

/** An instrument of the current meter, made at its first use. */
class Current<T> {
  readonly #make: (meter: Meter) => T;
  #instrument: T | undefined;
  #generation = -1;

  constructor(make: (meter: Meter) => T) {
    this.#make = make;
  }

  get(): T | undefined {
    if (this.#generation !== generation) {
      this.#generation = generation;
      this.#instrument = meter && this.#make(meter);
    }
    return this.#instrument;
  }
}

/** A count that only grows. `A` names its attributes; each combination of their values is one series, so keep them few. */
export function counter<A extends Attributes = Attributes>(
  name: string,
  options: InstrumentOptions,
): { add(value: number, attributes?: A): void } {
  const current = new Current<Counter<A>>((from) => from.createCounter<A>(name, options));
  return { add: (value, attributes) => current.get()?.add(value, attributes) };
}

/** Counts of values in buckets; durations in seconds unless `buckets` says otherwise. */
export function histogram<A extends Attributes = Attributes>(
  name: string,
  options: HistogramOptions,
): { record(value: number, attributes?: A): void } {
  const { buckets = DURATION_BUCKETS, ...rest } = options;
  const current = new Current<Histogram<A>>((from) =>
    from.createHistogram<A>(name, { ...rest, advice: { explicitBucketBoundaries: [...buckets] } }),
  );
  return { record: (value, attributes) => current.get()?.record(value, attributes) };
}

/** A value that goes up and down; the last one recorded counts. */
export function gauge<A extends Attributes = Attributes>(
  name: string,
  options: InstrumentOptions,
): { record(value: number, attributes?: A): void } {
  const current = new Current<Gauge<A>>((from) => from.createGauge<A>(name, options));
  return { record: (value, attributes) => current.get()?.record(value, attributes) };
}
