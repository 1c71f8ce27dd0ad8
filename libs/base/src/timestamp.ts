/**
 * Timestamps. Inside the house a timestamp is a safe integer, ms since 2020-01-01T00:00Z times 4096 plus a counter, so it fits Float64Array
 * columns and plain numbers. On the wire it is Milvus's hybrid form, unix ms << 18 | counter.
 */
export type Timestamp = number;

/** Unix ms of the epoch of inside timestamps: 2020-01-01T00:00:00Z. */
export const EPOCH_MS = 1577836800000;
const COUNTER = 4096;
export const MAX_TIMESTAMP: Timestamp = Number.MAX_SAFE_INTEGER;

export function makeTimestamp(unixMs: number, counter: number): Timestamp {
  return (unixMs - EPOCH_MS) * COUNTER + counter;
}

/** Unix ms of a timestamp, its counter dropped. */
export function timestampMs(timestamp: Timestamp): number {
  return Math.floor(timestamp / COUNTER) + EPOCH_MS;
}

/** Inside → wire: `unix_ms << 18 | counter`. */
export function toWireTimestamp(timestamp: Timestamp): bigint {
  return (BigInt(timestampMs(timestamp)) << 18n) | BigInt(timestamp % COUNTER);
}

/**
 * Wire → inside, rounded up: a wire counter above 4095 becomes the next ms, so a guarantee timestamp is never weakened.
 * Values before the epoch (0, 1 and 2 are Milvus's markers for strong, eventual and bounded) give 0.
 */
export function fromWireTimestamp(wire: bigint): Timestamp {
  const ms = Number(wire >> 18n);
  const counter = Number(wire & 0x3ffffn);
  if (ms < EPOCH_MS) return 0;
  return counter >= COUNTER ? makeTimestamp(ms + 1, 0) : makeTimestamp(ms, counter);
}
