import { EPOCH_MS, fromWireTimestamp, makeTimestamp } from '@cairn/base';
import { ConsistencyLevel } from '@cairn/proto/milvus/common';
import type { ProxyParts } from './parts.ts';
import type { CollectionEntry } from './proxy-catalog.ts';

/** How far a bounded read may lag, ms (Milvus's default). */
const BOUNDED_STALENESS_MS = 5_000;
/** Markers that older SDKs send as a guarantee timestamp. */
const STRONG_MARK = 0n;
const EVENTUALLY_MARK = 1n;
const BOUNDED_MARK = 2n;

export interface ConsistencyRequest {
  readonly level: ConsistencyLevel;
  /** Wire timestamp or marker, as sent. */
  readonly guaranteeTimestamp: bigint;
  /** Use the collection's level. */
  readonly useDefault: boolean;
}

/** The timestamp whose writes a read must see: rows and deletes at or before it. 0: nothing asked. */
export async function guaranteeOf(parts: ProxyParts, entry: CollectionEntry, request: ConsistencyRequest): Promise<number> {
  const sent = request.guaranteeTimestamp;
  if (request.useDefault) return byLevel(parts, entry.record.consistencyLevel, sent);
  // Older clients send no level (0, which reads as Strong) and put what they want into the timestamp.
  if (request.level === ConsistencyLevel.Strong && sent !== STRONG_MARK) return bySent(parts, sent);
  return byLevel(parts, request.level, sent);
}

async function byLevel(parts: ProxyParts, level: number, sent: bigint): Promise<number> {
  switch (level) {
    case ConsistencyLevel.Strong:
      return parts.readTimestamps.now();
    case ConsistencyLevel.Bounded:
      return bounded(parts);
    case ConsistencyLevel.Eventually:
      return 0;
    default:
      // Session, Customized: the client's own last write. One that does not say when that was may have written by another proxy: all of it is read.
      return bySent(parts, sent);
  }
}

async function bySent(parts: ProxyParts, sent: bigint): Promise<number> {
  if (sent === STRONG_MARK) return parts.readTimestamps.now();
  if (sent === EVENTUALLY_MARK) return 0;
  if (sent === BOUNDED_MARK) return bounded(parts);
  return fromWireTimestamp(sent);
}

function bounded({ runtime }: ProxyParts): number {
  const ms = runtime.now() - BOUNDED_STALENESS_MS;
  return ms <= EPOCH_MS ? 0 : makeTimestamp(ms, 0);
}
