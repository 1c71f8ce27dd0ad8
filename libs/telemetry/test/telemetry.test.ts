import { createServer } from 'node:http';
import { CairnError, type Logger, SystemRuntime, silentLogger } from '@cairn/base';
import { context, propagation, trace } from '@opentelemetry/api';
import { InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace';
import { afterEach, describe, expect, test } from 'vitest';
import {
  counter,
  gauge,
  HealthServer,
  histogram,
  logTraceIds,
  startTelemetry,
  type Telemetry,
  type TelemetryOptions,
  withSpan,
} from '../src/index.ts';

const runtime = new SystemRuntime();
const base = { service: 'cairn-test', nodeId: 'n1', runtime, logger: silentLogger };
const open: { stop(): Promise<void> }[] = [];

async function start(options: Partial<TelemetryOptions> = {}): Promise<Telemetry> {
  const telemetry = await startTelemetry({ ...base, ...options });
  open.push(telemetry);
  return telemetry;
}

async function serve(telemetry: Telemetry, checks: Record<string, () => Promise<void>> = {}): Promise<string> {
  const server = new HealthServer({
    host: '127.0.0.1',
    port: 0,
    metrics: telemetry,
    checks,
    runtime,
    logger: silentLogger,
    checkTimeoutMs: 50,
  });
  await server.start();
  open.push(server);
  return `http://127.0.0.1:${server.port}`;
}

afterEach(async () => {
  for (let part = open.pop(); part; part = open.pop()) await part.stop();
});

describe('traces', () => {
  test('spans nest into one trace across awaits, with attributes and errors on them', async () => {
    const exporter = new InMemorySpanExporter();
    await start({ spanProcessors: [new SimpleSpanProcessor({ exporter })] });
    await expect(
      withSpan('outer', { 'cairn.collection': 'c' }, async () => {
        await runtime.sleep(1);
        await withSpan('inner', {}, async (span) => {
          await runtime.sleep(1);
          span.setAttribute('rows', 3);
        });
        throw new CairnError('StoreUnavailable', 'the store is away');
      }),
    ).rejects.toThrow('the store is away');
    const [inner, outer] = exporter.getFinishedSpans();
    expect([inner.name, outer.name]).toEqual(['inner', 'outer']);
    expect(inner.spanContext().traceId).toBe(outer.spanContext().traceId);
    expect(inner.parentSpanContext?.spanId).toBe(outer.spanContext().spanId);
    expect(inner.attributes).toEqual({ rows: 3 });
    expect(outer.status).toMatchObject({ message: 'the store is away' });
  });

  test('a caller’s W3C header continues its trace, and is passed on', async () => {
    const exporter = new InMemorySpanExporter();
    await start({ spanProcessors: [new SimpleSpanProcessor({ exporter })] });
    const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
    const sent: Record<string, string> = {};
    await context.with(propagation.extract(context.active(), { traceparent }), () =>
      withSpan('served', {}, async () => propagation.inject(context.active(), sent)),
    );
    const [served] = exporter.getFinishedSpans();
    expect(served.spanContext().traceId).toBe('0af7651916cd43dd8448eb211c80319c');
    expect(sent.traceparent).toBe(`00-0af7651916cd43dd8448eb211c80319c-${served.spanContext().spanId}-01`);
  });

  test('log lines inside a trace carry its ids, also when spans go nowhere; outside they carry none', async () => {
    await start();
    expect(logTraceIds()).toEqual({});
    await withSpan('work', {}, async (span) => {
      expect(logTraceIds()).toEqual({ trace_id: span.spanContext().traceId, span_id: span.spanContext().spanId });
      expect(span.spanContext().traceId).toMatch(/^[0-9a-f]{32}$/);
    });
  });

  test('traces that go nowhere keep one id through all that is nested, take up a caller’s, and pass it on', async () => {
    await start();
    const seen: string[] = [];
    const inner = (): Promise<void> =>
      withSpan('inner', {}, async (span) => {
        seen.push(`${span.spanContext().traceId}-${span.spanContext().spanId}-${span.isRecording()}`);
        const sent: Record<string, string> = {};
        propagation.inject(context.active(), sent);
        seen.push(sent.traceparent);
      });
    await withSpan('outer', {}, async (span) => {
      await inner();
      expect(seen).toEqual([
        expect.stringMatching(new RegExp(`^${span.spanContext().traceId}-[0-9a-f]{16}-false$`)),
        expect.stringMatching(new RegExp(`^00-${span.spanContext().traceId}-[0-9a-f]{16}-00$`)),
      ]);
      expect(seen[0]).not.toContain(span.spanContext().spanId);
    });
    const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
    await context.with(propagation.extract(context.active(), { traceparent }), inner);
    expect(seen[2]).toMatch(/^0af7651916cd43dd8448eb211c80319c-(?!b7ad6b7169203331)/);
    expect(seen[3]).toMatch(/^00-0af7651916cd43dd8448eb211c80319c-.*-00$/);
  });

  test('spans are sent to the collector, at the latest when telemetry stops', async () => {
    const received: { url: string | undefined; bytes: number }[] = [];
    const collector = createServer((request, response) => {
      let bytes = 0;
      request.on('data', (chunk: Buffer) => {
        bytes += chunk.length;
      });
      request.on('end', () => {
        received.push({ url: request.url, bytes });
        response.end();
      });
    });
    await new Promise<void>((resolve) => collector.listen(0, '127.0.0.1', resolve));
    const address = collector.address();
    const port = typeof address === 'object' && address ? address.port : 0;
    const telemetry = await startTelemetry({ ...base, otlpEndpoint: `http://127.0.0.1:${port}` });
    await withSpan('sent', {}, async () => undefined);
    await telemetry.stop();
    collector.close();
    expect(received).toEqual([{ url: '/v1/traces', bytes: expect.any(Number) }]);
    expect(received[0].bytes).toBeGreaterThan(50);
  });

  test('a collector that hangs holds up the stop for two seconds at most', async () => {
    const hanging = createServer(() => undefined);
    await new Promise<void>((resolve) => hanging.listen(0, '127.0.0.1', resolve));
    const address = hanging.address();
    const warnings: string[] = [];
    const logger: Logger = { ...silentLogger, warn: (_, message) => void warnings.push(message) };
    const telemetry = await startTelemetry({
      ...base,
      logger,
      otlpEndpoint: `http://127.0.0.1:${typeof address === 'object' && address ? address.port : 0}`,
    });
    await withSpan('stuck', {}, async () => undefined);
    const from = runtime.monotonic();
    await telemetry.stop();
    expect(runtime.monotonic() - from).toBeLessThan(4000);
    expect(warnings).toEqual(['spans that waited for the collector are dropped']);
    hanging.closeAllConnections();
    hanging.close();
  });

  test('starting twice is refused; after a stop it starts again', async () => {
    await start();
    await expect(startTelemetry(base)).rejects.toMatchObject({ codeName: 'Internal' });
    await open.pop()?.stop();
    await start();
    expect(trace.getTracer('x')).toBeDefined();
  });
});

describe('metrics and health', () => {
  const requests = counter<{ method: string }>('cairn_test_requests', { description: 'Requests that came' });
  const seconds = histogram('cairn_test_seconds', { description: 'How long they took', unit: 's', buckets: [0.1, 1] });
  const depth = gauge('cairn_test_depth', { description: 'How many wait' });

  test('instruments declared before the start are scraped with description, and measure nothing while telemetry is off', async () => {
    requests.add(100, { method: 'lost' });
    const url = await serve(await start());
    requests.add(2, { method: 'Insert' });
    requests.add(1, { method: 'Insert' });
    seconds.record(0.5);
    depth.record(7);
    depth.record(4);
    const text = await (await fetch(`${url}/metrics`)).text();
    expect(text).toContain('# HELP cairn_test_requests_total Requests that came');
    expect(text).toContain('cairn_test_requests_total{method="Insert"} 3');
    expect(text).not.toContain('lost');
    expect(text).toContain('cairn_test_seconds_bucket{le="0.1"} 0');
    expect(text).toContain('cairn_test_seconds_bucket{le="1"} 1');
    expect(text).toMatch(/^cairn_test_depth 4$/m);
  });

  test('a blocked event loop, memory and CPU of the process are exported', async () => {
    const url = await serve(await start());
    await runtime.sleep(60);
    const until = runtime.monotonic() + 150;
    while (runtime.monotonic() < until);
    await runtime.sleep(60);
    const text = await (await fetch(`${url}/metrics`)).text();
    expect(Number(/cairn_event_loop_delay_seconds\{quantile="1"\} (\S+)/.exec(text)?.[1])).toBeGreaterThan(0.1);
    expect(Number(/cairn_process_memory_bytes\{kind="rss"\} (\S+)/.exec(text)?.[1])).toBeGreaterThan(1e6);
    expect(Number(/cairn_process_cpu_seconds_total\{mode="user"\} (\S+)/.exec(text)?.[1])).toBeGreaterThan(0);
  });

  test('ready when every check passes; else 503 with the names and reasons of those that do not', async () => {
    let up = false;
    const checks = {
      meta: async () => undefined,
      wal: async () => {
        if (!up) throw new CairnError('StoreUnavailable', 'the log is away');
      },
      objects: () => (up ? Promise.resolve() : new Promise<void>(() => undefined)),
    };
    const url = await serve(await start(), checks);
    const refused = await fetch(`${url}/readyz`);
    expect(refused.status).toBe(503);
    expect(await refused.json()).toEqual({
      status: 'not ready',
      checks: { meta: 'ok', wal: 'the log is away', objects: 'no answer after 50 ms' },
    });
    expect((await fetch(`${url}/healthz`)).status).toBe(200);
    up = true;
    const ready = await fetch(`${url}/readyz`);
    expect(ready.status).toBe(200);
    expect(await ready.json()).toEqual({ status: 'ready', checks: { meta: 'ok', wal: 'ok', objects: 'ok' } });
  });

  test('other pages and methods are refused', async () => {
    const url = await serve(await start());
    expect((await fetch(`${url}/elsewhere`)).status).toBe(404);
    expect((await fetch(`${url}/metrics`, { method: 'POST' })).status).toBe(405);
  });

  test('a port that is taken is an error with host and port', async () => {
    const telemetry = await start();
    const taken = Number(new URL(await serve(telemetry)).port);
    const second = new HealthServer({ host: '127.0.0.1', port: taken, metrics: telemetry, checks: {}, runtime, logger: silentLogger });
    await expect(second.start()).rejects.toThrow(`127.0.0.1:${taken}`);
  });
});
