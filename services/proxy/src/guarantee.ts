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
  /** The answer's time is one that further pages are read at: a Strong read gets a stamp of its own, not its shards' last writes. */
  readonly paged: boolean;
}

/**
 * What a Strong read asks of an owner. Nothing but what each owner does for every read: show all that was acknowledged when the read reached it. No
 * stamp is needed for that (docs/decisions/014).
 */
const ALL_ACKNOWLEDGED = 0;

/** The timestamp whose writes a read must see beyond what was acknowledged: rows and deletes at or before it. 0: none. */
export async function guaranteeOf(parts: ProxyParts, entry: CollectionEntry, request: ConsistencyRequest): Promise<number> {
  const sent = request.guaranteeTimestamp;
  const strong = (): number | Promise<number> => (request.paged ? parts.readTimestamps.now() : ALL_ACKNOWLEDGED);
  if (request.useDefault) return byLevel(parts, entry.record.consistencyLevel, sent, strong);
  // Older clients send no level (0, which reads as Strong) and put what they want into the timestamp.
  if (request.level === ConsistencyLevel.Strong && sent !== STRONG_MARK) return bySent(parts, sent, strong);
  return byLevel(parts, request.level, sent, strong);
}

type Strong = () => number | Promise<number>;

function byLevel(parts: ProxyParts, level: number, sent: bigint, strong: Strong): number | Promise<number> {
  switch (level) {
    case ConsistencyLevel.Strong:
      return strong();
    case ConsistencyLevel.Bounded:
      return bounded(parts);
    case ConsistencyLevel.Eventually:
      return 0;
    default:
      // Session, Customized: the client's own last write. One that does not say when that was may have written by another proxy: all of it is read.
      return bySent(parts, sent, strong);
  }
}

function bySent(parts: ProxyParts, sent: bigint, strong: Strong): number | Promise<number> {
  if (sent === STRONG_MARK) return strong();
  if (sent === EVENTUALLY_MARK) return 0;
  if (sent === BOUNDED_MARK) return bounded(parts);
  return fromWireTimestamp(sent);
}

function bounded({ runtime }: ProxyParts): number {
  const ms = runtime.now() - BOUNDED_STALENESS_MS;
  return ms <= EPOCH_MS ? 0 : makeTimestamp(ms, 0);
}
