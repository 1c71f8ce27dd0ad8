import { DataType, type FixedColumn } from '@cairn/schema';
import type { CompareOp, Literal } from './expression.ts';

/** A comparison with a constant as a closed interval, or the outside of one. undefined bounds: no value lies in it. */
export interface Bounds<T> {
  readonly low: T;
  readonly high: T;
  readonly outside: boolean;
}

const INT_BITS: ReadonlyMap<DataType, bigint> = new Map<DataType, bigint>([
  [DataType.Bool, 8n],
  [DataType.Int8, 8n],
  [DataType.Int16, 16n],
  [DataType.Int32, 32n],
  [DataType.Int64, 64n],
  [DataType.Timestamptz, 64n],
]);

const buffer = new DataView(new ArrayBuffer(8));

/** The next double up (or down). */
function nextDouble(value: number, up: boolean): number {
  if (!Number.isFinite(value)) return value;
  if (value === 0) return up ? Number.MIN_VALUE : -Number.MIN_VALUE;
  buffer.setFloat64(0, value);
  const away = value > 0 === up;
  buffer.setBigInt64(0, buffer.getBigInt64(0) + (away ? 1n : -1n));
  return buffer.getFloat64(0);
}

/** Interval of doubles for `column op literal`; the constant of a Float column is rounded to float first, so that 0.1 equals 0.1. */
export function doubleBounds(op: CompareOp, literal: Literal, type: DataType): Bounds<number> {
  const exact = Number(literal);
  const value = type === DataType.Float ? Math.fround(exact) : exact;
  switch (op) {
    case '<':
      return { low: Number.NEGATIVE_INFINITY, high: nextDouble(value, false), outside: false };
    case '<=':
      return { low: Number.NEGATIVE_INFINITY, high: value, outside: false };
    case '>':
      return { low: nextDouble(value, true), high: Number.POSITIVE_INFINITY, outside: false };
    case '>=':
      return { low: value, high: Number.POSITIVE_INFINITY, outside: false };
    default:
      return { low: value, high: value, outside: op === '!=' };
  }
}

/** Interval of integers for `column op literal`; empty (low above high) when no integer of the type can satisfy it. */
export function integerBounds(op: CompareOp, literal: Literal, type: DataType): Bounds<bigint> {
  const bits = INT_BITS.get(type) ?? 64n;
  const least = -(1n << (bits - 1n));
  const most = (1n << (bits - 1n)) - 1n;
  const outside = op === '!=';
  const clamp = (value: bigint): bigint => (value < least ? least - 1n : value > most ? most + 1n : value);
  const { floor, ceiling } = wholeAround(literal, least - 1n, most + 1n);
  switch (op) {
    case '<':
      return inside(least, clamp(ceiling) - 1n, most);
    case '<=':
      return inside(least, clamp(floor), most);
    case '>':
      return inside(least > clamp(floor) + 1n ? least : clamp(floor) + 1n, most, most);
    case '>=':
      return inside(least > clamp(ceiling) ? least : clamp(ceiling), most, most);
    default:
      if (floor !== ceiling || floor < least || floor > most) return { low: most, high: least, outside };
      return { low: floor, high: floor, outside };
  }
}

function inside(low: bigint, high: bigint, most: bigint): Bounds<bigint> {
  const top = high > most ? most : high;
  return { low, high: top, outside: false };
}

function wholeAround(literal: Literal, tooSmall: bigint, tooLarge: bigint): { floor: bigint; ceiling: bigint } {
  if (typeof literal === 'bigint') return { floor: literal, ceiling: literal };
  const value = Number(literal);
  if (value === Number.NEGATIVE_INFINITY || value < Number(tooSmall)) return { floor: tooSmall, ceiling: tooSmall };
  if (value === Number.POSITIVE_INFINITY || value > Number(tooLarge)) return { floor: tooLarge, ceiling: tooLarge };
  return { floor: BigInt(Math.floor(value)), ceiling: BigInt(Math.ceil(value)) };
}

export const isInteger64 = (column: FixedColumn): boolean => column.values instanceof BigInt64Array;
export const isFloating = (column: FixedColumn): boolean => column.values instanceof Float32Array || column.values instanceof Float64Array;
