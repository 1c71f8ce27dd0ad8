import type { Bitmap } from '@cairn/base';
import type { BytesColumn, Column, FixedColumn } from '@cairn/schema';
import type { CompareOp, Literal } from './expression.ts';
import { doubleBounds, integerBounds, isFloating } from './number-bounds.ts';
import { scanRange, scanRange64, scanRows } from './scan.ts';
import { testOrder } from './values.ts';

/** `column op literal` and `column in list` over whole columns, on their raw buffers. Nulls are the caller's. */

/** Bitmap of the rows for which the comparison holds; undefined when column and literal are not of one family. */
export function compareColumn(column: Column, op: CompareOp, literal: Literal, within: Bitmap): Bitmap | undefined {
  if (column.kind === 'fixed') return typeof literal === 'string' ? undefined : compareFixed(column, op, literal, within);
  if (column.kind !== 'bytes' || typeof literal !== 'string') return undefined;
  const bytes = Buffer.from(literal);
  const { data, offsets } = column;
  if (op === '==' || op === '!=') {
    const wanted = op === '==';
    return scanRows(within, (row) => sameBytes(data, offsets[row], offsets[row + 1], bytes) === wanted);
  }
  return scanRows(within, (row) => testOrder(op, compareBytes(data, offsets[row], offsets[row + 1], bytes)));
}

function compareFixed(column: FixedColumn, op: CompareOp, literal: Literal, within: Bitmap): Bitmap {
  const { values } = column;
  if (isFloating(column)) {
    const { low, high, outside } = doubleBounds(op, literal, column.type);
    return scanRange(within, values as Float32Array | Float64Array, low, high, outside);
  }
  const { low, high, outside } = integerBounds(op, typeof literal === 'boolean' ? BigInt(literal) : literal, column.type);
  if (low > high) return outside ? within.slice() : new Uint8Array(within.length);
  if (values instanceof BigInt64Array) return scanRange64(within, values, low, high, outside);
  return scanRange(within, values as Int32Array, Number(low), Number(high), outside);
}

function sameBytes(data: Uint8Array, start: number, end: number, bytes: Uint8Array): boolean {
  if (end - start !== bytes.length) return false;
  for (let i = 0; i < bytes.length; i++) if (data[start + i] !== bytes[i]) return false;
  return true;
}

function compareBytes(data: Uint8Array, start: number, end: number, bytes: Uint8Array): number {
  const common = Math.min(end - start, bytes.length);
  for (let i = 0; i < common; i++) {
    const order = data[start + i] - bytes[i];
    if (order !== 0) return order;
  }
  return end - start - bytes.length;
}

/** Rows whose value is in the list; undefined when the column's family has another form (JSON, lists). */
export function columnIn(column: Column, list: readonly Literal[], within: Bitmap): Bitmap | undefined {
  if (list.length === 0) return new Uint8Array(within.length);
  if (list.length === 1) return compareColumn(column, '==', list[0], within);
  if (column.kind === 'bytes') return bytesIn(column, list, within);
  if (column.kind !== 'fixed') return undefined;
  const { values } = column;
  if (values instanceof BigInt64Array) return integers64In(values, integersOf(list), within);
  const round = values instanceof Float32Array ? Math.fround : (value: number) => value;
  const wanted = new Set(list.map((item) => round(Number(item))));
  return scanRows(within, (row) => wanted.has(values[row] as number));
}

/** The whole numbers of a list; others are equal to no integer. */
function integersOf(list: readonly Literal[]): bigint[] {
  return list.flatMap((item) =>
    typeof item === 'bigint' ? [item] : typeof item === 'number' && Number.isInteger(item) ? [BigInt(item)] : [],
  );
}

const mix = (low: number, high: number): number => {
  let hash = Math.imul(low ^ (low >>> 16), 0x45d9f3b) ^ Math.imul(high, 0x27d4eb2d);
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
  return (hash ^ (hash >>> 13)) >>> 0;
};

/** Open addressing over the two halves of each number; a slot is used when its mark is set. */
function integers64In(values: BigInt64Array, list: readonly bigint[], within: Bitmap): Bitmap {
  let slots = 16;
  while (slots < list.length * 2) slots *= 2;
  const mask = slots - 1;
  const lows = new Int32Array(slots);
  const highs = new Int32Array(slots);
  const used = new Uint8Array(slots);
  for (const item of list) {
    const low = Number(BigInt.asIntN(32, item));
    const high = Number(BigInt.asIntN(32, item >> 32n));
    let slot = mix(low, high) & mask;
    while (used[slot] !== 0 && !(lows[slot] === low && highs[slot] === high)) slot = (slot + 1) & mask;
    used[slot] = 1;
    lows[slot] = low;
    highs[slot] = high;
  }
  const halves = new Int32Array(values.buffer, values.byteOffset, values.length * 2);
  return scanRows(within, (row) => {
    const low = halves[2 * row];
    const high = halves[2 * row + 1];
    for (let slot = mix(low, high) & mask; used[slot] !== 0; slot = (slot + 1) & mask) {
      if (lows[slot] === low && highs[slot] === high) return true;
    }
    return false;
  });
}

function bytesIn(column: BytesColumn, list: readonly Literal[], within: Bitmap): Bitmap {
  const { data, offsets } = column;
  const byHash = new Map<number, Uint8Array[]>();
  for (const item of list) {
    if (typeof item !== 'string') continue;
    const bytes = Buffer.from(item);
    const hash = hashBytes(bytes, 0, bytes.length);
    const bucket = byHash.get(hash);
    if (bucket) bucket.push(bytes);
    else byHash.set(hash, [bytes]);
  }
  return scanRows(within, (row) => {
    const bucket = byHash.get(hashBytes(data, offsets[row], offsets[row + 1]));
    if (bucket === undefined) return false;
    for (const bytes of bucket) if (sameBytes(data, offsets[row], offsets[row + 1], bytes)) return true;
    return false;
  });
}

/** FNV-1a over at most 32 bytes and the length: enough to tell keys apart, cheap on long texts. */
function hashBytes(data: Uint8Array, start: number, end: number): number {
  let hash = 0x811c9dc5 ^ (end - start);
  const from = Math.max(start, end - 32);
  for (let i = from; i < end; i++) hash = Math.imul(hash ^ data[i], 0x01000193);
  return hash | 0;
}
