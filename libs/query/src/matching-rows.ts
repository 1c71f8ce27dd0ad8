import { andBits, anyBit, type Bitmap, bitAt, countBits, emptyBitmap, fullBitmap, type Runtime, rowsOfBits } from '@cairn/base';
import { type Expr, evaluate, fieldsOf, keyLookup, type LeafAnswer, type Literal } from '@cairn/expr';
import { type Column, type Field, keyColumn, sliceColumn } from '@cairn/schema';
import { pause, type ReadableSegment } from '@cairn/segment';
import { indexAnswers } from './index-answers.ts';
import { knownFilters } from './known-filters.ts';

/** Rows evaluated in one stretch, a few ms for a usual filter; a multiple of 8. */
const SLICE_ROWS = 65_536;
/** Candidates of a key look-up above this share of the rows are no look-up any more. */
const LOOKUP_SHARE = 0.125;
/** Candidates below this share of the rows are gathered; above, the columns are walked and the rest skipped. */
const GATHER_SHARE = 1 / 64;

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

/** Rows of a segment that a read may return. `bits` undefined: all of the `rows`. They may be remembered: nobody changes them. */
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
    bits: candidates ? await checkCandidates(segment, request, rows, candidates) : await remembered(segment, request, rows, visible),
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

/** What the filter was found to be true for before, else a scan. */
async function remembered(segment: ReadableSegment, request: MatchRequest, rows: number, visible: Bitmap | undefined): Promise<Bitmap> {
  const filters = knownFilters(segment, request.expr);
  const known = filters?.get(request.expr, visible);
  if (known) return known;
  const bits = await scan(segment, request, rows, visible);
  filters?.see(request.expr, visible, bits);
  return bits;
}

async function scan(segment: ReadableSegment, request: MatchRequest, rows: number, visible: Bitmap | undefined): Promise<Bitmap> {
  const { expr, runtime, seed } = request;
  const answers = indexAnswers(segment, expr);
  if (answers.size > 0) return answered(segment, request, rows, visible, answers);
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

/** With what indexes know: conditions that must hold leave few rows, and what is answered exactly is not looked at again. */
async function answered(
  segment: ReadableSegment,
  request: MatchRequest,
  rows: number,
  visible: Bitmap | undefined,
  answers: ReadonlyMap<Expr, LeafAnswer>,
): Promise<Bitmap> {
  const { expr, runtime, seed } = request;
  const needed = neededBits(expr, answers);
  const within = needed && visible ? andBits(needed, visible) : (needed ?? visible);
  const open = within ? countBits(within) : rows;
  if (open === 0) return emptyBitmap(rows);
  const done = isAnswered(expr, answers);
  if (within && !done && open < rows * GATHER_SHARE) return checkCandidates(segment, request, rows, rowsOfBits(within));
  const columns = await columnsFor(expr, (id) => segment.column(id));
  const bits = emptyBitmap(rows);
  // What is answered in full is bit operations only.
  const step = done || !runtime ? Math.max(8, rows + 7) & ~7 : SLICE_ROWS;
  for (let start = 0; start < rows; start += step) {
    const end = Math.min(rows, start + step);
    const [from, to] = [start >> 3, (end + 7) >> 3];
    const part = within?.subarray(from, to);
    if (part && !anyBit(part)) continue;
    const slices = (leaf: Expr): LeafAnswer | undefined => {
      const answer = answers.get(leaf);
      return answer && { bits: answer.bits.subarray(from, to), exact: answer.exact };
    };
    const sliced = (id: number): Column => (step < rows ? sliceColumn(columns(id), start, end) : columns(id));
    bits.set(evaluate(expr, sliced, end - start, part, (seed ?? 0) + start, slices), from);
    if (runtime && end < rows) await pause(runtime);
  }
  return bits;
}

/** Rows outside which the filter cannot be true; undefined: no index says. */
function neededBits(expr: Expr, answers: ReadonlyMap<Expr, LeafAnswer>): Bitmap | undefined {
  if (expr.kind !== 'and') return answers.get(expr)?.bits;
  const parts = expr.parts.map((part) => neededBits(part, answers)).filter((bits) => bits !== undefined);
  return parts.length === 0 ? undefined : parts.reduce(andBits);
}

function isAnswered(expr: Expr, answers: ReadonlyMap<Expr, LeafAnswer>): boolean {
  if (expr.kind === 'and' || expr.kind === 'or') return expr.parts.every((part) => isAnswered(part, answers));
  if (expr.kind === 'not') return isAnswered(expr.part, answers);
  return (
    answers.get(expr)?.exact ?? (expr.kind === 'true' || expr.kind === 'false' || (expr.kind === 'isNull' && expr.column.path.length === 0))
  );
}

async function columnsFor(expr: Expr, load: (fieldId: number) => Promise<Column>): Promise<(fieldId: number) => Column> {
  const ids = [...fieldsOf(expr)];
  const columns = new Map(await Promise.all(ids.map(async (id) => [id, await load(id)] as const)));
  return (id) => columns.get(id) as Column;
}
