import { CairnError, makeTimestamp } from '@cairn/base';

/** Property of a collection: rows are gone so many seconds after they were written. */
export const TTL_PROPERTY = 'collection.ttl.seconds';
/** A hundred years, as in Milvus. */
const MAX_TTL_SECONDS = 100 * 365 * 24 * 3600;

type Properties = readonly { readonly key: string; readonly value: string }[];

/** Seconds that a row lives, 0 (absent, 0 or -1): for ever; NaN when the property is no such number. */
function ttlSeconds(properties: Properties): number {
  const text = properties.find(({ key }) => key === TTL_PROPERTY)?.value.trim();
  if (text === undefined || text === '') return 0;
  const seconds = /^-?\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  return seconds >= -1 && seconds <= MAX_TTL_SECONDS ? Math.max(0, seconds) : Number.NaN;
}

/** InvalidParameter when the property is there and is no whole number of seconds. Called before it is stored. */
export function checkTtl(properties: Properties): void {
  if (!Number.isNaN(ttlSeconds(properties))) return;
  const text = properties.find(({ key }) => key === TTL_PROPERTY)?.value;
  throw new CairnError('InvalidParameter', `${TTL_PROPERTY} must be a whole number in range [-1, ${MAX_TTL_SECONDS}], got ${text}`);
}

/**
 * Rows with a timestamp at or below it have outlived their time at `nowMs` (Unix ms); 0: none has. For reads, and for whoever purges. A property that
 * was stored before it was checked and is no number lets rows live.
 */
export function expiredUpTo(properties: Properties, nowMs: number): number {
  const seconds = ttlSeconds(properties);
  return seconds > 0 ? Math.max(0, makeTimestamp(nowMs - seconds * 1000, 0)) : 0;
}
