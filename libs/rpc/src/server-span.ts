import { context, SpanKind, SpanStatusCode, TraceFlags, trace } from '@opentelemetry/api';
import type { MethodDefinition, ServiceDefinition } from './definition.ts';

/**
 * Runs a call as a span below the current one. Without a tracer installed this costs next to nothing; below a span that is not sampled there is nothing to
 * record (samplers follow the parent), so none is made: the work goes on under the parent, whose trace id it has in any case.
 */
export function inServerSpan<T>(definition: ServiceDefinition, method: MethodDefinition, work: () => Promise<T>): Promise<T> {
  const parent = trace.getSpanContext(context.active());
  if (parent && (parent.traceFlags & TraceFlags.SAMPLED) === 0) return work();
  // Asked for each time: a tracer that is kept stays with the telemetry that was running at its first span.
  const tracer = trace.getTracer('cairn-rpc');
  return tracer.startActiveSpan(`${definition.fullName}/${method.name}`, { kind: SpanKind.SERVER }, async (span) => {
    try {
      return await work();
    } catch (error) {
      span.setStatus({ code: SpanStatusCode.ERROR, message: error instanceof Error ? error.message : String(error) });
      throw error;
    } finally {
      span.end();
    }
  });
}
