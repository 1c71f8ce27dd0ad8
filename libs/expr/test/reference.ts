import { DataType } from '@cairn/schema';
import type { ColumnRef, Expr, ListItem, ValueExpr } from '../src/index.ts';
import { calculate, holds } from '../src/values.ts';
import type { Cell } from './fixtures.ts';

/** The plainest reading of the rules, one row at a time over decoded values: what evaluate must agree with. */
type Row = ReadonlyMap<number, Cell>;
/** undefined: unknown. */
type Truth = boolean | undefined;
const MISSING = Symbol('missing');
const NULL = Symbol('null');
type Value = ListItem | typeof MISSING | typeof NULL;

export function matches(expr: Expr, row: Row): boolean {
  return truth(expr, row) === true;
}

function truth(expr: Expr, row: Row): Truth {
  switch (expr.kind) {
    case 'true':
      return true;
    case 'false':
      return false;
    case 'not': {
      const inner = truth(expr.part, row);
      return inner === undefined ? undefined : !inner;
    }
    case 'and': {
      const all = expr.parts.map((part) => truth(part, row));
      return all.includes(false) ? false : all.includes(undefined) ? undefined : true;
    }
    case 'or': {
      const all = expr.parts.map((part) => truth(part, row));
      return all.includes(true) ? true : all.includes(undefined) ? undefined : false;
    }
    case 'isNull': {
      const { column } = expr;
      const value = column.path.length > 0 && column.type === DataType.Json ? (rawJson(column, row) ?? null) : read(column, row);
      return (value === NULL || value === MISSING || value === null) !== expr.negated;
    }
    case 'exists':
      return rawJson(expr.column, row) != null;
    case 'compare': {
      const [left, right] = [cellOf(expr.left, row), cellOf(expr.right, row)];
      if (left === NULL || right === NULL) return undefined;
      const element = [expr.left, expr.right].some(
        (side) => side.kind === 'column' && side.type === DataType.Array && side.path.length > 0,
      );
      if (left === MISSING || right === MISSING) return expr.op === '!=' && !element;
      const float = expr.left.kind === 'column' && expr.left.type === DataType.Float && typeof right === 'number';
      return holds(expr.op, left as ListItem, (float ? Math.fround(right as number) : right) as ListItem);
    }
    case 'in': {
      const value = cellOf(expr.value, row);
      if (value === NULL) return undefined;
      const float = expr.value.kind === 'column' && expr.value.type === DataType.Float;
      const found =
        value !== MISSING &&
        expr.list.some((item) => holds('==', value as ListItem, float && typeof item === 'number' ? Math.fround(item) : item));
      return found !== expr.negated;
    }
    case 'bool': {
      const value = read(expr.value, row);
      return value === NULL ? undefined : value === true;
    }
    case 'like': {
      const value = read(expr.column, row);
      if (value === NULL) return undefined;
      return typeof value === 'string' && likeRegex(expr.pattern).test(value);
    }
    case 'contains': {
      const value = read(expr.column, row);
      if (value === NULL) return undefined;
      const list = expr.json ? elementsOf(rawJson(expr.column, row)) : value;
      if (!Array.isArray(list)) return false;
      const has = (item: ListItem): boolean => list.some((element) => holds('==', element as ListItem, item));
      return expr.mode === 'all' ? expr.values.every(has) : expr.values.some(has);
    }
    default:
      throw new Error(`the reference does not know ${expr.kind}`);
  }
}

export function likeRegex(pattern: string): RegExp {
  let out = '';
  for (let i = 0; i < pattern.length; i++) {
    const char = pattern[i];
    if (char === '%') out += '.*';
    else if (char === '_') out += '.';
    else {
      const literal = char === '\\' && i + 1 < pattern.length ? pattern[++i] : char;
      out += literal.replace(/[\\^$.*+?()[\]{}|/-]/u, '\\$&');
    }
  }
  return new RegExp(`^${out}$`, 'su');
}

function rawJson(ref: ColumnRef, row: Row): unknown {
  const text = row.get(ref.fieldId);
  if (text == null) return undefined;
  let value: unknown = JSON.parse(text as string);
  for (const step of ref.path) {
    if (typeof value !== 'object' || value === null) return undefined;
    if (Array.isArray(value)) value = typeof step === 'number' ? value[step] : undefined;
    else value = Object.hasOwn(value, String(step)) ? (value as Record<string, unknown>)[String(step)] : undefined;
  }
  return value;
}

function item(value: unknown): ListItem | typeof MISSING {
  if (typeof value === 'number') return Number.isSafeInteger(value) ? BigInt(value) : value;
  if (typeof value === 'string' || typeof value === 'boolean') return value;
  if (!Array.isArray(value)) return MISSING;
  const items = value.map(item);
  return items.includes(MISSING) ? MISSING : (items as ListItem[]);
}

function elementsOf(value: unknown): ListItem[] | undefined {
  return Array.isArray(value) ? (value.map(item).filter((element) => element !== MISSING) as ListItem[]) : undefined;
}

function read(ref: ColumnRef, row: Row): Value {
  const cell = row.get(ref.fieldId) ?? null;
  if (cell === null) return NULL;
  if (ref.type === DataType.Json) return item(rawJson(ref, row));
  if (ref.type === DataType.Array && ref.path.length > 0) return ((cell as Cell[])[ref.path[0] as number] as Value) ?? MISSING;
  return cell as Value;
}

function cellOf(value: ValueExpr, row: Row): Value {
  switch (value.kind) {
    case 'column':
      return read(value, row);
    case 'literal':
      return value.value;
    case 'list':
      return value.values;
    case 'arrayLength': {
      const list =
        value.column.type === DataType.Json && row.get(value.column.fieldId) !== null
          ? rawJson(value.column, row)
          : read(value.column, row);
      if (list === NULL) return NULL;
      return Array.isArray(list) ? BigInt(list.length) : MISSING;
    }
    case 'negate':
    case 'bitNot': {
      const inner = cellOf(value.value, row);
      if (inner === NULL) return NULL;
      if (typeof inner === 'bigint') return value.kind === 'negate' ? BigInt.asIntN(64, -inner) : ~inner;
      return typeof inner === 'number' && value.kind === 'negate' ? -inner : MISSING;
    }
    case 'shift': {
      const time = cellOf(value.time, row);
      if (typeof time !== 'bigint') return time;
      const at = new Date(Number(time / 1000n));
      const moved = Date.UTC(
        at.getUTCFullYear(),
        at.getUTCMonth() + value.months,
        at.getUTCDate(),
        at.getUTCHours(),
        at.getUTCMinutes(),
        at.getUTCSeconds(),
        at.getUTCMilliseconds(),
      );
      return BigInt(moved) * 1000n + (time % 1000n) + value.micros;
    }
    case 'arithmetic': {
      const [left, right] = [cellOf(value.left, row), cellOf(value.right, row)];
      if (left === NULL || right === NULL) return NULL;
      const numbers = [left, right].every((side) => typeof side === 'bigint' || typeof side === 'number');
      return (numbers ? calculate(value.op, left as bigint, right as bigint) : undefined) ?? MISSING;
    }
  }
}
