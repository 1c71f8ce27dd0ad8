import type { Config } from '@cairn/base';

/** The limits of this service, out of the configuration. */
export interface StreamingSettings {
  readonly maxGrowingBytes: number;
  readonly maxWaitingBytes: number;
  readonly maxWaitingWrites: number;
  /** Bytes the log's writer holds: above what is admitted, so that it never refuses. */
  readonly maxQueuedBytes: number;
  readonly repeatWindowMs: number;
  readonly maxRepeats: number;
  readonly repeatLogBytes: number;
  readonly maxReplayBytes: number;
  readonly segmentMaxBytes: number;
  readonly segmentMaxRows: number;
  readonly segmentMaxAgeMs: number;
  readonly checkIntervalMs: number;
  readonly flushTimeoutMs: number;
  readonly flushConcurrency: number;
  readonly loadTimeoutMs: number;
  readonly leaseTtlMs: number;
}

/** What records of a batch have beside their columns, at most, and a request that arrives when nothing waits may be this large. */
const WRITER_HEADROOM = 2;

export function streamingSettings(config: Config): StreamingSettings {
  const { streaming, segment, flush, wal, limits } = config;
  return {
    ...streaming,
    maxQueuedBytes: WRITER_HEADROOM * (streaming.maxWaitingBytes + limits.maxInsertBytes),
    maxReplayBytes: wal.maxReplayBytes,
    segmentMaxBytes: segment.maxBytes,
    segmentMaxRows: segment.maxRows,
    segmentMaxAgeMs: segment.maxAgeMs,
    checkIntervalMs: flush.checkIntervalMs,
    flushTimeoutMs: flush.timeoutMs,
    flushConcurrency: flush.concurrency,
    leaseTtlMs: config.node.leaseTtlMs,
  };
}
