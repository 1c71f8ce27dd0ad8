export { HealthServer, type HealthServerOptions } from './health-server.ts';
export { counter, DURATION_BUCKETS, gauge, type HistogramOptions, histogram, type InstrumentOptions } from './instruments.ts';
export { logTraceIds, withSpan } from './spans.ts';
export { type MetricsSource, startTelemetry, type Telemetry, type TelemetryOptions } from './telemetry.ts';
