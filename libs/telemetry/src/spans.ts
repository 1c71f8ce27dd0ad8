import { hasCode } from '@cairn/base';
import { type Attributes, context, isSpanContextValid, type Span, SpanStatusCode, trace } from '@opentelemetry/api';

/**
 * Runs `work` inside a span, a child of the current one. The span ends with the work; an error is recorded on it and thrown on (a cancelled call
 * is no error of ours). The span is given to add attributes that are known later.
 */
export function withSpan<T>(name: string, attributes: Attributes, work: (span: Span) => Promise<T>): Promise<T> {
  // Asked for each time: a tracer that is kept stays with the telemetry that was running at its first span.
  return trace.getTracer('cairn').startActiveSpan(name, { attributes }, async (span) => {
    try {
      return await work(span);
    } catch (error) {
      if (!hasCode(error, 'Cancelled')) {
        const message = error instanceof Error ? error.message : String(error);
        span.recordException(error instanceof Error ? error : message);
        span.setStatus({ code: SpanStatusCode.ERROR, message });
      }
      throw error;
    } finally {
      span.end();
    }
  });
}

/** Mixin of the logger: the ids of the current trace, on each line written inside one. A fresh object each time: the logger writes into it. */
export function logTraceIds(): Record<string, unknown> {
  const span = trace.getSpanContext(context.active());
  return span && isSpanContextValid(span) ? { trace_id: span.traceId, span_id: span.spanId } : {};
}
