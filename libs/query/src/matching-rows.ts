import { andBits, anyBit, type Bitmap, bitAt, countBits, emptyBitmap, fullBitmap, type Runtime } from '@cairn/base';
import { type Expr, evaluate, fieldsOf, keyLookup, type Literal } from '@cairn/expr';
import { type Column, type Field, keyColumn, sliceColumn } from '@cairn/schema';
import { pause, type ReadableSegment } from '@cairn/segment';

/** Rows evaluated in one stretch, a few ms for a usual filter; a multiple of 8. */
const SLICE_ROWS = 65_536;
/** Candidates of a key look-up above this share of the rows are no look-up any more. */
const LOOKUP_SHARE = 0.125;

export interface MatchRequest {
  readonly expr: Expr;
  readonly primaryKey: Field;
  readonly readTs: number;
  /** Rows with a timestamp at or below it have outlived their time; absent or 0: none has. */
  readonly expiredTs?: number | undefined;
  /** Gives way to the event loop between slices, when given. */
  readonly runtime?: Runtime | undefined;
  /** Chooses the rows of random_sample. */
  readonly seed?: number | undefined;
}

/** Rows of a segment that a read may return. `bits` undefined: all of the `rows`. */
export interface MatchingRows {
  readonly rows: number;
  readonly bits: Bitmap | undefined;
}

/** Rows that are visible at readTs and for which the filter is true. Rows that arrive while it works are not seen. */
export async function matchingRows(segment: ReadableSegment, request: MatchRequest): Promise<MatchingRows> {
  const { rows } = segment;
  // Taken before the first await: together with `rows` it is the segment's state of one moment.
  const visible = withoutExpired(segment, rows, segment.visible(request.readTs), request.expiredTs ?? 0);
  const { expr } = request;
  if (expr.kind === 'true' || rows === 0) return { rows, bits: visible };
  if (expr.kind === 'false' || (visible && !anyBit(visible))) return { rows, bits: emptyBitmap(rows) };
  const candidates = candidatesOf(segment, request, rows, visible);
  return {
    rows,
    bits: candidates ? await checkCandidates(segment, request, rows, candidates) : await scan(segment, request, rows, visible),
  };
}

/** Clears the rows that have outlived their time. */
function withoutExpired(segment: ReadableSegment, rows: number, visible: Bitmap | undefined, expiredTs: number): Bitmap | undefined {
  if (expiredTs === 0) return visible;
  const { timestamps } = segment;
  let bits = visible;
  for (let row = 0; row < rows; row++) {
    if (timestamps[row] > expiredTs) continue;
    bits ??= fullBitmap(rows);
    bits[row >> 3] &= ~(1 << (row & 7));
  }
  return bits;
}

/** How many rows match. */
export const countMatches = (matches: MatchingRows): number => (matches.bits ? countBits(matches.bits) : matches.rows);

/** Visible rows of the keys that the filter names; undefined when it names none, or too many. */
function candidatesOf(segment: ReadableSegment, request: MatchRequest, rows: number, visible: Bitmap | undefined): Int32Array | undefined {
  const literals = keyLookup(request.expr, request.primaryKey.id);
  if (!literals || literals.length > Math.max(16, rows * LOOKUP_SHARE)) return undefined;
  const keys = keysOf(literals);
  if (!keys) return new Int32Array(0);
  const found = segment.rowsOfKeys(keys).filter((row) => row < rows && (!visible || bitAt(visible, row)));
  return found.length > Math.max(16, rows * LOOKUP_SHARE) ? undefined : found;
}

/** Literals as a key column; undefined when none can be a key. */
function keysOf(literals: readonly Literal[]): Column | undefined {
  const texts = literals.filter((literal) => typeof literal === 'string');
  if (texts.length > 0) return keyColumn(texts);
  const numbers = literals.filter((literal) => typeof literal === 'bigint').filter((key) => BigInt.asIntN(64, key) === key);
  return numbers.length > 0 ? keyColumn(numbers) : undefined;
}

/** The whole filter on a few rows: their columns are gathered, the rest is not touched. */
async function checkCandidates(segment: ReadableSegment, request: MatchRequest, rows: number, candidates: Int32Array): Promise<Bitmap> {
  const bits = emptyBitmap(rows);
  if (candidates.length === 0) return bits;
  const columns = await columnsFor(request.expr, (id) => segment.gather(id, candidates));
  const kept = evaluate(request.expr, columns, candidates.length, undefined, request.seed);
  candidates.forEach((row, i) => {
    if (bitAt(kept, i)) bits[row >> 3] |= 1 << (row & 7);
  });
  return bits;
}

async function scan(segment: ReadableSegment, request: MatchRequest, rows: number, visible: Bitmap | undefined): Promise<Bitmap> {
  const { expr, runtime, seed } = request;
  const columns = await columnsFor(expr, (id) => segment.column(id));
  if (rows <= SLICE_ROWS || !runtime) return evaluate(expr, columns, rows, visible, seed);
  const bits = emptyBitmap(rows);
  for (let start = 0; start < rows; start += SLICE_ROWS) {
    const end = Math.min(rows, start + SLICE_ROWS);
    const within = visible?.subarray(start >> 3, (end + 7) >> 3);
    if (within && !anyBit(within)) continue;
    bits.set(
      evaluate(expr, (id) => sliceColumn(columns(id), start, end), end - start, within, (seed ?? 0) + start),
      start >> 3,
    );
    if (end < rows) await pause(runtime);
  }
  return visible ? andBits(bits, visible) : bits;
}

async function columnsFor(expr: Expr, load: (fieldId: number) => Promise<Column>): Promise<(fieldId: number) => Column> {
  const ids = [...fieldsOf(expr)];
  const columns = new Map(await Promise.all(ids.map(async (id) => [id, await load(id)] as const)));
  return (id) => columns.get(id) as Column;
}
