import type { Bitmap } from '@cairn/base';
import { deserializeExpr, type Expr } from '@cairn/expr';
import type { ReadableSegment } from '@cairn/segment';

/** Encoded filters kept decoded, and the longest that is: 1 MB. */
const DECODED = 256;
const DECODED_BYTES = 4_096;
/** Filters whose rows are kept for one segment, newest use last: a byte a row. */
const FILTERS_OF_SEGMENT = 8;

/** Applications ask with the same few filters again and again; what they mean and where they hold is worked out once. */
const decoded = new Map<string, Expr>();
const segments = new WeakMap<ReadableSegment, SegmentFilters>();

/** A filter as it was encoded; the same object for the same bytes, as long as they are remembered. It is not to be changed. */
export function decodeFilter(bytes: Uint8Array): Expr {
  if (bytes.length === 0 || bytes.length > DECODED_BYTES) return deserializeExpr(bytes);
  const key = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('latin1');
  const expr = decoded.get(key) ?? deserializeExpr(bytes);
  return keepLast(decoded, key, expr, DECODED);
}

/** What is remembered of the filters of a segment; undefined where rows still change, or the filter leaves it to chance. */
export function knownFilters(segment: ReadableSegment, expr: Expr): SegmentFilters | undefined {
  if (!segment.final || isChance(expr)) return undefined;
  let filters = segments.get(segment);
  if (!filters) {
    filters = new SegmentFilters();
    segments.set(segment, filters);
  }
  return filters;
}

interface Known {
  /** Rows that were looked at; undefined: all. */
  readonly within: Bitmap | undefined;
  /** Those of them where the filter is true. */
  readonly bits: Bitmap;
}

/** Rows of one sealed segment, whose columns never change, by filter. */
class SegmentFilters {
  /** `undefined`: asked once; only what is asked again is kept. */
  readonly #known = new Map<Expr, Known | undefined>();

  /** Rows among `visible` where the filter is true, when they are known; not to be changed. */
  get(expr: Expr, visible: Bitmap | undefined): Bitmap | undefined {
    const known = this.#known.get(expr);
    if (!known) return undefined;
    keepLast(this.#known, expr, known, FILTERS_OF_SEGMENT);
    if (!visible) return known.within ? undefined : known.bits;
    return common(known, visible);
  }

  /** `bits` are the rows among `visible` where the filter is true. */
  see(expr: Expr, visible: Bitmap | undefined, bits: Bitmap): void {
    keepLast(this.#known, expr, this.#known.has(expr) ? { within: visible, bits } : undefined, FILTERS_OF_SEGMENT);
  }
}

/** Known rows that are visible; undefined when some visible row was not looked at. */
function common({ within, bits }: Known, visible: Bitmap): Bitmap | undefined {
  const out = new Uint8Array(visible.length);
  for (let i = 0; i < out.length; i++) {
    if (within && (visible[i] & ~within[i]) !== 0) return undefined;
    out[i] = visible[i] & bits[i];
  }
  return out;
}

function isChance(expr: Expr): boolean {
  if (expr.kind === 'and' || expr.kind === 'or') return expr.parts.some(isChance);
  return expr.kind === 'randomSample' || (expr.kind === 'not' && isChance(expr.part));
}

/** Puts a value last, and lets the first go when there are too many. */
function keepLast<K, V>(map: Map<K, V>, key: K, value: V, most: number): V {
  map.delete(key);
  map.set(key, value);
  for (const first of map.keys()) {
    if (map.size <= most) break;
    map.delete(first);
  }
  return value;
}
