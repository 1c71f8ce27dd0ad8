import { DataType } from '@cairn/schema';
import type { ArithmeticOp, ColumnRef, CompareOp, ListItem, Literal, ValueExpr, ValueFamily } from './expression.ts';

const FAMILY_OF_TYPE: ReadonlyMap<DataType, ValueFamily> = new Map<DataType, ValueFamily>([
  [DataType.Bool, 'bool'],
  [DataType.Int8, 'int'],
  [DataType.Int16, 'int'],
  [DataType.Int32, 'int'],
  [DataType.Int64, 'int'],
  [DataType.Timestamptz, 'int'],
  [DataType.Float, 'float'],
  [DataType.Double, 'float'],
  [DataType.String, 'string'],
  [DataType.VarChar, 'string'],
  [DataType.Text, 'string'],
  [DataType.Json, 'json'],
  [DataType.Array, 'list'],
]);

/** Family of a field type; `none` for what no filter can compare (vectors, geometry). */
export const familyOfType = (type: DataType): ValueFamily => FAMILY_OF_TYPE.get(type) ?? 'none';

export function familyOfColumn(column: ColumnRef): ValueFamily {
  if (column.type === DataType.Array && column.path.length > 0) return familyOfType(column.elementType);
  return familyOfType(column.type);
}

export function familyOfLiteral(value: ListItem): ValueFamily {
  if (typeof value === 'boolean') return 'bool';
  if (typeof value === 'bigint') return 'int';
  if (typeof value === 'number') return 'float';
  return typeof value === 'string' ? 'string' : 'list';
}

export function familyOf(value: ValueExpr): ValueFamily {
  switch (value.kind) {
    case 'column':
      return familyOfColumn(value);
    case 'literal':
      return familyOfLiteral(value.value);
    case 'list':
      return 'list';
    case 'arrayLength':
    case 'shift':
      return 'int';
    case 'negate':
    case 'bitNot':
      return familyOf(value.value);
    case 'arithmetic': {
      const families = [familyOf(value.left), familyOf(value.right)];
      if (families.includes('json')) return 'json';
      return families.includes('float') ? 'float' : 'int';
    }
  }
}

/** Arithmetic is 64-bit and wraps; bit operations and shifts need integers. undefined: no value (division by zero, shift out of range, a bit operation on a fraction). */
export function calculate(op: ArithmeticOp, left: number | bigint, right: number | bigint): number | bigint | undefined {
  if (typeof left === 'bigint' && typeof right === 'bigint') return calculateInt(op, left, right);
  return calculateFloat(op, Number(left), Number(right));
}

function calculateInt(op: ArithmeticOp, left: bigint, right: bigint): number | bigint | undefined {
  switch (op) {
    case '+':
      return BigInt.asIntN(64, left + right);
    case '-':
      return BigInt.asIntN(64, left - right);
    case '*':
      return BigInt.asIntN(64, left * right);
    case '/':
      return right === 0n ? undefined : BigInt.asIntN(64, left / right);
    case '%':
      return right === 0n ? undefined : left % right;
    case '**': {
      // Whole powers stay whole while a double holds them exactly; beyond that the value is a double, as in every power function.
      const power = Number(left) ** Number(right);
      return Number.isSafeInteger(power) ? BigInt(power) : power;
    }
    case '&':
      return left & right;
    case '|':
      return left | right;
    case '^':
      return left ^ right;
    case '<<':
      return right < 0n || right > 63n ? undefined : BigInt.asIntN(64, left << right);
    case '>>':
      return right < 0n || right > 63n ? undefined : left >> right;
  }
}

function calculateFloat(op: ArithmeticOp, left: number, right: number): number | undefined {
  switch (op) {
    case '+':
      return left + right;
    case '-':
      return left - right;
    case '*':
      return left * right;
    case '/':
      return right === 0 ? undefined : left / right;
    case '%':
      return right === 0 ? undefined : left % right;
    case '**':
      return left ** right;
    default:
      return undefined;
  }
}

/** Order of two strings by their UTF-8 bytes, which is the order of columns and keys. */
export function compareText(a: string, b: string): number {
  const end = Math.min(a.length, b.length);
  for (let i = 0; i < end; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x === y) continue;
    // Surrogates stand above U+E000..U+FFFF in UTF-8, below them in UTF-16.
    return (x >= 0xd800 && x < 0xe000 ? x + 0x10000 : x) - (y >= 0xd800 && y < 0xe000 ? y + 0x10000 : y);
  }
  return a.length - b.length;
}

/** Whether `left op right` holds; values of different families are equal to nothing and ordered with nothing. */
export function holds(op: CompareOp, left: ListItem, right: ListItem): boolean {
  const order = orderOf(left, right);
  if (order === undefined) return op === '!=';
  return testOrder(op, order);
}

export function testOrder(op: CompareOp, order: number): boolean {
  switch (op) {
    case '<':
      return order < 0;
    case '<=':
      return order <= 0;
    case '>':
      return order > 0;
    case '>=':
      return order >= 0;
    case '==':
      return order === 0;
    case '!=':
      return order !== 0;
  }
}

function orderOf(left: ListItem, right: ListItem): number | undefined {
  if (typeof left === 'string') return typeof right === 'string' ? compareText(left, right) : undefined;
  if (typeof left === 'boolean') return typeof right === 'boolean' ? Number(left) - Number(right) : undefined;
  if (typeof left === 'object') return typeof right === 'object' ? listOrder(left, right) : undefined;
  if (typeof right === 'string' || typeof right === 'boolean' || typeof right === 'object') return undefined;
  if (left < right) return -1;
  if (left > right) return 1;
  // Neither: equal, or NaN, which has no order.
  return Number.isNaN(Number(left)) || Number.isNaN(Number(right)) ? undefined : 0;
}

function listOrder(left: readonly ListItem[], right: readonly ListItem[]): number | undefined {
  for (let i = 0; i < Math.min(left.length, right.length); i++) {
    const order = orderOf(left[i], right[i]);
    if (order !== 0) return order;
  }
  return left.length - right.length;
}

export const isLiteral = (value: ListItem): value is Literal => typeof value !== 'object';
