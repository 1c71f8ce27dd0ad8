import { DataType } from '@cairn/schema';
import type { ArithmeticOp, ColumnRef, CompareOp, Expr, ListItem, ValueExpr, ValueFamily } from './expression.ts';
import { ParseProblem } from './parse-problem.ts';
import { calculate, familyOf, familyOfColumn, familyOfLiteral, holds } from './values.ts';

/** Types of operands, constant folding, and the canonical form (column left, constant right) that evaluation counts on. */

const FLIPPED: Readonly<Record<CompareOp, CompareOp>> = { '<': '>', '<=': '>=', '>': '<', '>=': '<=', '==': '==', '!=': '!=' };
const FAMILY_NAMES: Readonly<Record<ValueFamily, string>> = {
  bool: 'a bool',
  int: 'an integer',
  float: 'a float',
  string: 'a string',
  list: 'a list',
  json: 'JSON',
  none: 'a value that filters cannot read',
};
const BIT_OPS: ReadonlySet<ArithmeticOp> = new Set<ArithmeticOp>(['&', '|', '^', '<<', '>>']);

const isNumeric = (family: ValueFamily): boolean => family === 'int' || family === 'float' || family === 'json';
const isConstant = (value: ValueExpr): boolean => value.kind === 'literal' || value.kind === 'list';

export const TRUE: Expr = { kind: 'true' };
export const FALSE: Expr = { kind: 'false' };
const constant = (value: boolean): Expr => (value ? TRUE : FALSE);

/** Text of an operand for messages. */
export function describe(value: ValueExpr): string {
  if (value.kind === 'column') return `field ${value.name} (${FAMILY_NAMES[familyOf(value)]})`;
  if (value.kind === 'literal') return `${typeof value.value === 'string' ? JSON.stringify(value.value) : value.value}`;
  return FAMILY_NAMES[familyOf(value)];
}

export function makeCompare(op: CompareOp, left: ValueExpr, right: ValueExpr, position: number): Expr {
  if (isConstant(left) && !isConstant(right)) return makeCompare(FLIPPED[op], right, left, position);
  if (!comparable(familyOf(left), familyOf(right)))
    throw new ParseProblem(`cannot compare ${describe(left)} with ${describe(right)}`, position);
  checkRange(left, position);
  checkRange(right, position);
  if (left.kind === 'literal' && right.kind === 'literal') return constant(holds(op, left.value, right.value));
  if (left.kind === 'list' && right.kind === 'list') return constant(holds(op, left.values, right.values));
  const list = familyOf(left) === 'list' || familyOf(right) === 'list';
  if (list && op !== '==' && op !== '!=') throw new ParseProblem(`${op} does not apply to lists`, position);
  return { kind: 'compare', op, left, right };
}

function comparable(left: ValueFamily, right: ValueFamily): boolean {
  if (left === 'none' || right === 'none') return false;
  return left === right || left === 'json' || right === 'json' || (isNumeric(left) && isNumeric(right));
}

/** The lexer lets 2^63 through for the sake of its negative; anywhere else it is too large. */
export function checkRange(value: ValueExpr, position: number): void {
  if (value.kind === 'literal' && typeof value.value === 'bigint' && value.value >= 2n ** 63n)
    throw new ParseProblem(`integer ${value.value} is out of range`, position);
}

export function makeArithmetic(op: ArithmeticOp, left: ValueExpr, right: ValueExpr, position: number): ValueExpr {
  for (const side of [left, right]) {
    const family = familyOf(side);
    if (!isNumeric(family)) throw new ParseProblem(`${op} needs numbers, ${describe(side)} is none`, position);
    if (BIT_OPS.has(op) && family === 'float') throw new ParseProblem(`${op} needs integers, ${describe(side)} is none`, position);
    checkRange(side, position);
  }
  if ((op === '/' || op === '%') && right.kind === 'literal' && Number(right.value) === 0)
    throw new ParseProblem('division by zero', position);
  if (left.kind !== 'literal' || right.kind !== 'literal') return { kind: 'arithmetic', op, left, right };
  const value = calculate(op, left.value as number | bigint, right.value as number | bigint);
  if (value === undefined) throw new ParseProblem(`${left.value} ${op} ${right.value} has no value`, position);
  return { kind: 'literal', value };
}

export function makeUnary(op: '+' | '-' | '~', value: ValueExpr, position: number): ValueExpr {
  const family = familyOf(value);
  if (!isNumeric(family)) throw new ParseProblem(`${op} needs a number, ${describe(value)} is none`, position);
  if (op === '+') return value;
  if (op === '-') {
    if (value.kind === 'literal') return { kind: 'literal', value: -(value.value as number) as number | bigint };
    return { kind: 'negate', value };
  }
  if (family === 'float') throw new ParseProblem(`~ needs an integer, ${describe(value)} is none`, position);
  checkRange(value, position);
  return value.kind === 'literal' ? { kind: 'literal', value: ~(value.value as bigint) } : { kind: 'bitNot', value };
}

export function makeIn(value: ValueExpr, list: readonly ListItem[], negated: boolean, position: number): Expr {
  const family = familyOf(value);
  const items = list.map((item) => listItemFor(family, item, value, position));
  if (value.kind === 'literal') return constant(items.some((item) => holds('==', value.value, item)) !== negated);
  if (value.kind === 'list') throw new ParseProblem('a list is in no list', position);
  return { kind: 'in', value, list: items, negated };
}

function listItemFor(family: ValueFamily, item: ListItem, value: ValueExpr, position: number): ListItem {
  const own = familyOfLiteral(item);
  const fits = family === 'json' || own === family || (family === 'float' && own === 'int');
  if (!fits)
    throw new ParseProblem(
      `${describe(value)} cannot be in a list with ${describe({ kind: 'list', values: [item] })} ${textOf(item)}`,
      position,
    );
  return item;
}

const textOf = (item: ListItem): string => (typeof item === 'string' ? JSON.stringify(item) : `${item}`);

/** `like`, `=~`, `!~`: strings, string elements of arrays and JSON. */
export function checkText(column: ColumnRef, op: string, position: number): void {
  const family = familyOfColumn(column);
  if (family !== 'string' && family !== 'json') throw new ParseProblem(`${op} needs a string, ${describe(column)} is none`, position);
}

export function makeContains(column: ColumnRef, mode: 'one' | 'all' | 'any', values: readonly ListItem[], position: number): Expr {
  const family = familyOfColumn(column);
  if (family === 'json') return { kind: 'contains', column, mode, values, json: true };
  if (column.type !== DataType.Array || column.path.length > 0)
    throw new ParseProblem(`contains needs an array or JSON, ${describe(column)} is none`, position);
  const element: ColumnRef = { ...column, path: [0] };
  for (const value of values) {
    if (!comparable(familyOfColumn(element), familyOfLiteral(value)))
      throw new ParseProblem(`elements of ${describe(element)} are never ${textOf(value)}`, position);
  }
  return { kind: 'contains', column, mode, values, json: false };
}

/** A value where a condition is wanted: a bool field, a JSON path, a bool constant. */
export function predicateOf(value: ValueExpr, position: number): Expr {
  if (value.kind === 'literal' && typeof value.value === 'boolean') return constant(value.value);
  if (value.kind === 'column') {
    const family = familyOfColumn(value);
    if (family === 'bool' || (family === 'json' && value.path.length > 0)) return { kind: 'bool', value };
  }
  throw new ParseProblem(`${describe(value)} is no condition`, position);
}

export function makeNot(part: Expr): Expr {
  if (part.kind === 'true') return FALSE;
  if (part.kind === 'false') return TRUE;
  return part.kind === 'not' ? part.part : { kind: 'not', part };
}

/** Flattens, and drops what is decided. `false and unknown` is false, `true or unknown` true. */
export function makeJunction(kind: 'and' | 'or', parts: readonly Expr[]): Expr {
  const neutral = kind === 'and' ? 'true' : 'false';
  const absorbing = kind === 'and' ? 'false' : 'true';
  const flat: Expr[] = [];
  for (const part of parts) {
    if (part.kind === absorbing) return part;
    if (part.kind === kind) flat.push(...part.parts);
    else if (part.kind !== neutral) flat.push(part);
  }
  if (flat.length === 0) return constant(kind === 'and');
  return flat.length === 1 ? flat[0] : { kind, parts: flat };
}
