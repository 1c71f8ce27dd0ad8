import { type Timestamp, timestampMs, toWireTimestamp } from '@cairn/base';
import type { Property } from '@cairn/proto/cairn/meta';
import type { KeyValuePair } from '@cairn/proto/milvus/common';

/** A catalog timestamp on the wire; 0 stays 0. */
export function wireTimestamp(timestamp: Timestamp): bigint {
  return timestamp === 0 ? 0n : toWireTimestamp(timestamp);
}

/** Unix ms of a catalog timestamp, as `created_utc_timestamp` has it. */
export function utcMs(timestamp: Timestamp): bigint {
  return BigInt(timestamp === 0 ? 0 : timestampMs(timestamp));
}

export function toProperties(pairs: readonly KeyValuePair[]): Property[] {
  return pairs.map(({ key, value }) => ({ key, value }));
}

export function toPairs(properties: readonly Property[]): KeyValuePair[] {
  return properties.map(({ key, value }) => ({ key, value }));
}
