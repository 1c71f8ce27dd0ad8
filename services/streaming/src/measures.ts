import { counter, gauge, histogram } from '@cairn/telemetry';

/** What this service measures of itself. */
export const writeSeconds = histogram('cairn_streaming_write_seconds', {
  description: 'From the arrival of a write at the owner to its durable answer',
  unit: 's',
});
export const writtenRows = counter<{ kind: 'insert' | 'delete' }>('cairn_streaming_written_rows', {
  description: 'Rows inserted and keys deleted that are in the log',
  unit: '{row}',
});
export const writtenBytes = counter('cairn_streaming_written_bytes', { description: 'Bytes of columns that are in the log', unit: 'By' });
export const readSeconds = histogram<{ kind: 'search' | 'query' }>('cairn_streaming_read_seconds', {
  description: 'Search and Query of a shard, datanodes included',
  unit: 's',
});
export const flushSeconds = histogram('cairn_streaming_flush_seconds', {
  description: 'From the begin of writing a cut to its commit',
  unit: 's',
});
export const flushedRows = counter('cairn_streaming_flushed_rows', {
  description: 'Rows that became part of a sealed segment',
  unit: '{row}',
});
export const takeOverSeconds = histogram('cairn_streaming_take_over_seconds', { description: 'Fence and replay of a channel', unit: 's' });
export const growingBytes = gauge('cairn_streaming_growing_bytes', {
  description: 'Bytes of rows that are in no flushed segment',
  unit: 'By',
});
