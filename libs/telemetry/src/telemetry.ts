import type { IncomingMessage, ServerResponse } from 'node:http';
import { CairnError, type Logger, type Runtime, type Service } from '@cairn/base';
import { context, metrics, propagation, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { W3CTraceContextPropagator } from '@opentelemetry/core';
import { PrometheusExporter } from '@opentelemetry/exporter-prometheus';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { MeterProvider } from '@opentelemetry/sdk-metrics';
import {
  BatchSpanProcessor,
  type IdGenerator,
  ParentBasedSampler,
  type SpanProcessor,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from '@opentelemetry/sdk-trace';
import { IdsOnly } from './ids-only.ts';
import { useMeter } from './instruments.ts';
import { observeProcess } from './process-metrics.ts';

export interface TelemetryOptions {
  /** Name of the process's role, e.g. `cairn-proxy`. */
  readonly service: string;
  readonly nodeId: string;
  /** telemetry.otlpEndpoint: collector that takes OTLP over HTTP; `/v1/traces` is added to a URL without a path. Empty: traces go nowhere. */
  readonly otlpEndpoint?: string;
  /** telemetry.samplePercent: traces that begin here and are kept, in percent. Those that callers began follow the callers. */
  readonly samplePercent?: number;
  readonly runtime: Runtime;
  readonly logger: Logger;
  /** Further receivers of finished spans; tests read them here. */
  readonly spanProcessors?: readonly SpanProcessor[];
}

/** What answers a scrape. */
export interface MetricsSource {
  handleMetrics(request: IncomingMessage, response: ServerResponse): void;
}

export interface Telemetry extends Service, MetricsSource {}

const OTLP_TRACES_PATH = '/v1/traces';
const SHUTDOWN_MS = 2000;

/**
 * Installs tracing, W3C context propagation and metrics for this process; `stop` sends what waits and takes all of it away again. Without a place for spans to
 * go, traces still have ids (for logs, and for the services called) but record nothing. One telemetry at a time in a process.
 */
export async function startTelemetry(options: TelemetryOptions): Promise<Telemetry> {
  const resource = resourceFromAttributes({ 'service.name': options.service, 'service.instance.id': options.nodeId });
  const spanProcessors = [...(options.spanProcessors ?? [])];
  if (options.otlpEndpoint) spanProcessors.push(await otlpProcessor(options.otlpEndpoint));
  const ratio = (options.samplePercent ?? 100) / 100;
  const ids = new RuntimeIds(options.runtime);
  const sampler = new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(ratio) });
  const recording = spanProcessors.length === 0 ? undefined : new TracerProvider({ resource, spanProcessors, idGenerator: ids, sampler });
  const exporter = new PrometheusExporter({ preventServerStart: true, withoutScopeInfo: true });
  const measuring = new MeterProvider({ resource, readers: [exporter] });
  const contexts = new AsyncLocalStorageContextManager().enable();
  const installed =
    trace.setGlobalTracerProvider(recording ?? new IdsOnly(ids)) &&
    context.setGlobalContextManager(contexts) &&
    propagation.setGlobalPropagator(new W3CTraceContextPropagator()) &&
    metrics.setGlobalMeterProvider(measuring);
  if (!installed) throw new CairnError('Internal', 'telemetry was started twice in this process');
  const forgetMeter = useMeter(measuring.getMeter('cairn'));
  const stopObserving = observeProcess(measuring.getMeter('cairn-process'));

  return {
    name: 'telemetry',
    start: async () => undefined,
    handleMetrics: (request, response) => exporter.getMetricsRequestHandler(request, response),
    stop: async () => {
      stopObserving();
      forgetMeter();
      // A collector that is gone must not hold up the end of the process.
      const late = Promise.withResolvers<void>();
      const timer = options.runtime.after(SHUTDOWN_MS, () => {
        options.logger.warn({ limitMs: SHUTDOWN_MS }, 'spans that waited for the collector are dropped');
        late.resolve();
      });
      const done = Promise.all([recording?.shutdown(), measuring.shutdown()]).then(
        () => undefined,
        (error: unknown) => options.logger.warn({ error }, 'telemetry did not end cleanly'),
      );
      await Promise.race([done, late.promise]);
      timer.cancel();
      trace.disable();
      context.disable();
      propagation.disable();
      metrics.disable();
    },
  };
}

/** The exporter is heavy (a fifth of a second to import), so only a process that sends traces loads it. */
async function otlpProcessor(endpoint: string): Promise<SpanProcessor> {
  const url = new URL(endpoint);
  if (url.pathname === '/') url.pathname = OTLP_TRACES_PATH;
  const { OTLPTraceExporter } = await import('@opentelemetry/exporter-trace-otlp-proto');
  return new BatchSpanProcessor({ exporter: new OTLPTraceExporter({ url: url.href }) });
}

/** Random bytes drawn at once: one draw costs more than all else of a span that is not recorded. */
const DRAWN_BYTES = 4096;

/** Trace and span ids from the runtime seam. */
class RuntimeIds implements IdGenerator {
  readonly #runtime: Runtime;
  #drawn = Buffer.alloc(0);
  #at = 0;

  constructor(runtime: Runtime) {
    this.#runtime = runtime;
  }

  readonly generateTraceId = (): string => this.#hex(16);

  readonly generateSpanId = (): string => this.#hex(8);

  #hex(bytes: number): string {
    if (this.#at + bytes > this.#drawn.length) {
      this.#drawn = Buffer.from(this.#runtime.randomBytes(DRAWN_BYTES));
      this.#at = 0;
    }
    this.#at += bytes;
    return this.#drawn.toString('hex', this.#at - bytes, this.#at);
  }
}
