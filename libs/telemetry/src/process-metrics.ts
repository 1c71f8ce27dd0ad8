import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { Meter } from '@opentelemetry/api';

const RESOLUTION_MS = 20;
const NANOSECONDS = 1e9;
const MICROSECONDS = 1e6;

/**
 * What every process exports of itself: the event loop's delay (no synchronous stretch above 10 ms is a rule of the house; this shows who breaks
 * it), memory and CPU. Delays are those since the last scrape. The answer ends it.
 */
export function observeProcess(meter: Meter): () => void {
  const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS });
  delay.enable();
  const delays = meter.createObservableGauge('cairn_event_loop_delay_seconds', {
    description: 'Delay of the event loop beyond its timer, since the last scrape',
    unit: 's',
  });
  const memory = meter.createObservableGauge('cairn_process_memory_bytes', { description: 'Memory of the process', unit: 'By' });
  const cpu = meter.createObservableCounter('cairn_process_cpu_seconds', { description: 'CPU time used by the process', unit: 's' });
  const uptime = meter.createObservableGauge('cairn_process_uptime_seconds', { description: 'Time since the process started', unit: 's' });
  // The histogram counts the timer's own period with the delay.
  const beyond = (nanoseconds: number): number => Math.max(0, nanoseconds / NANOSECONDS - RESOLUTION_MS / 1000);
  meter.addBatchObservableCallback(
    (result) => {
      if (delay.count > 0) {
        result.observe(delays, beyond(delay.percentile(50)), { quantile: '0.5' });
        result.observe(delays, beyond(delay.percentile(99)), { quantile: '0.99' });
        result.observe(delays, beyond(delay.max), { quantile: '1' });
        delay.reset();
      }
      const { rss, heapUsed, external, arrayBuffers } = process.memoryUsage();
      result.observe(memory, rss, { kind: 'rss' });
      result.observe(memory, heapUsed, { kind: 'heap_used' });
      result.observe(memory, external, { kind: 'external' });
      result.observe(memory, arrayBuffers, { kind: 'array_buffers' });
      const { user, system } = process.cpuUsage();
      result.observe(cpu, user / MICROSECONDS, { mode: 'user' });
      result.observe(cpu, system / MICROSECONDS, { mode: 'system' });
      result.observe(uptime, process.uptime());
    },
    [delays, memory, cpu, uptime],
  );
  return () => delay.disable();
}
