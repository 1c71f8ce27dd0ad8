import {
  type Context,
  context,
  isSpanContextValid,
  type Span,
  type SpanContext,
  type SpanOptions,
  TraceFlags,
  type Tracer,
  type TracerProvider,
  trace,
} from '@opentelemetry/api';
import type { IdGenerator } from '@opentelemetry/sdk-trace';

/** Where a span of a trace that goes nowhere stands; its ids are drawn when somebody asks: a log line, or a call to another process. */
class LateIds implements SpanContext {
  readonly traceFlags = TraceFlags.NONE;
  readonly #ids: IdGenerator;
  readonly #parent: SpanContext | undefined;
  #traceId: string | undefined;
  #spanId: string | undefined;

  constructor(ids: IdGenerator, parent: SpanContext | undefined) {
    this.#ids = ids;
    this.#parent = parent;
  }

  get traceId(): string {
    this.#traceId ??= this.#parent?.traceId ?? this.#ids.generateTraceId();
    return this.#traceId;
  }

  get spanId(): string {
    this.#spanId ??= this.#ids.generateSpanId();
    return this.#spanId;
  }

  get traceState(): SpanContext['traceState'] {
    return this.#parent?.traceState;
  }
}

/** Tracing without a place for spans to go: traces have ids, and nothing is recorded. */
export class IdsOnly implements TracerProvider, Tracer {
  readonly #ids: IdGenerator;

  constructor(ids: IdGenerator) {
    this.#ids = ids;
  }

  getTracer(): Tracer {
    return this;
  }

  startSpan(_name: string, options?: SpanOptions, within: Context = context.active()): Span {
    const parent = options?.root ? undefined : trace.getSpanContext(within);
    const known = parent instanceof LateIds || (parent !== undefined && isSpanContextValid(parent)) ? parent : undefined;
    return trace.wrapSpanContext(new LateIds(this.#ids, known));
  }

  startActiveSpan<F extends (span: Span) => unknown>(...given: [string, ...unknown[]]): ReturnType<F> {
    const work = given.at(-1) as F;
    const options = given.length > 2 ? (given[1] as SpanOptions) : undefined;
    const within = given.length > 3 ? (given[2] as Context) : context.active();
    const span = this.startSpan(given[0], options, within);
    return context.with(trace.setSpan(within, span), () => work(span)) as ReturnType<F>;
  }
}
