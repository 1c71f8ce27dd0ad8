import { andBits, andNotBits, anyBit, type Bitmap, fullBitmap, orBits } from '@cairn/base';
import { DataType } from '@cairn/schema';
import { columnsOfValue } from './analysis.ts';
import { columnIn, compareColumn } from './column-compare.ts';
import { costOf } from './cost.ts';
import type { ColumnRef, Expr, ListItem, Literal, ValueExpr } from './expression.ts';
import { jsonElements } from './json-scan.ts';
import { LikePattern } from './like-pattern.ts';
import { bytesOf, type ColumnSource, columnReader, jsonFinder, listOf, rowReader } from './row-reader.ts';
import { type RowTest, scanRows } from './scan.ts';
import { holds, isLiteral } from './values.ts';

/** Rows for which an expression is true, and those for which it is unknown; null: none is. Both lie within the rows that were asked about. */
interface Truth {
  readonly yes: Bitmap;
  readonly unknown: Bitmap | null;
}

/**
 * Rows 0..rows-1 (of `within`, when given) for which the expression is true, column by column. `and` and `or` look only at rows that are still
 * open, cheap parts first. Columns may be longer than `rows`. `seed` chooses the rows of random_sample.
 */
export function evaluate(
  expr: Expr,
  columns: ColumnSource,
  rows: number,
  within?: Bitmap,
  seed = 0,
  answers: LeafAnswers = NO_ANSWERS,
): Bitmap {
  const full = fullBitmap(rows);
  const asked = within ? andBits(full, within) : full;
  return new Evaluation(columns, seed, answers).truth(expr, asked).yes;
}

/** What an index knows of one condition: the rows where it holds (`exact`), or rows among which all of these are. Null rows may be among them. */
export interface LeafAnswer {
  readonly bits: Bitmap;
  readonly exact: boolean;
}

/** Answers by the very objects of the expression's conditions, for the rows that are evaluated. */
export type LeafAnswers = (leaf: Expr) => LeafAnswer | undefined;

const NO_ANSWERS: LeafAnswers = () => undefined;

class Evaluation {
  readonly #columns: ColumnSource;
  readonly #seed: number;
  readonly #answers: LeafAnswers;

  constructor(columns: ColumnSource, seed: number, answers: LeafAnswers) {
    this.#answers = answers;
    this.#columns = columns;
    this.#seed = seed;
  }

  truth(expr: Expr, within: Bitmap): Truth {
    switch (expr.kind) {
      case 'true':
        return { yes: within, unknown: null };
      case 'false':
        return { yes: new Uint8Array(within.length), unknown: null };
      case 'and':
        return this.#and(expr.parts, within);
      case 'or':
        return this.#or(expr.parts, within);
      case 'not': {
        const { yes, unknown } = this.truth(expr.part, within);
        const no = andNotBits(within, yes);
        return { yes: unknown ? andNotBits(no, unknown) : no, unknown };
      }
      case 'isNull':
        return { yes: this.#isNull(expr.column, expr.negated, within), unknown: null };
      case 'exists':
        return { yes: this.#exists(expr.column, within), unknown: null };
      case 'randomSample':
        return { yes: this.#sample(expr.fraction, within), unknown: null };
      default:
        return this.#leaf(expr, within);
    }
  }

  /** False wins over unknown. */
  #and(parts: readonly Expr[], within: Bitmap): Truth {
    let yes = within;
    let open = within;
    let sawUnknown = false;
    for (const part of this.#byCost(parts)) {
      if (!anyBit(open)) break;
      const truth = this.truth(part, open);
      yes = andBits(yes, truth.yes);
      open = truth.unknown ? orBits(truth.yes, truth.unknown) : truth.yes;
      sawUnknown ||= truth.unknown !== null;
    }
    return { yes: andBits(yes, open), unknown: sawUnknown ? andNotBits(open, yes) : null };
  }

  /** True wins over unknown. */
  #or(parts: readonly Expr[], within: Bitmap): Truth {
    let yes: Bitmap = new Uint8Array(within.length);
    let open = within;
    let unknown: Bitmap | null = null;
    for (const part of this.#byCost(parts)) {
      if (!anyBit(open)) break;
      const truth = this.truth(part, open);
      yes = orBits(yes, truth.yes);
      open = andNotBits(open, truth.yes);
      if (truth.unknown) unknown = unknown ? orBits(unknown, truth.unknown) : truth.unknown;
    }
    return { yes, unknown: unknown && andNotBits(unknown, yes) };
  }

  /** What an index has answered comes first, then the cheap. */
  #byCost(parts: readonly Expr[]): readonly Expr[] {
    const cost = (part: Expr): number => (this.#answers(part) ? 0 : costOf(part));
    return [...parts].sort((a, b) => cost(a) - cost(b));
  }

  /** Conditions on values: unknown where a field they read is null. */
  #leaf(expr: LeafExpr, within: Bitmap): Truth {
    let known = within;
    for (const ref of columnsOfLeaf(expr)) {
      const { validity } = this.#columns(ref.fieldId);
      if (validity) known = andBits(known, validity);
    }
    const unknown = known === within ? null : andNotBits(within, known);
    const answer = this.#answers(expr);
    if (answer?.exact) return { yes: andBits(known, answer.bits), unknown };
    return { yes: this.#matches(expr, answer ? andBits(known, answer.bits) : known), unknown };
  }

  #matches(expr: LeafExpr, within: Bitmap): Bitmap {
    switch (expr.kind) {
      case 'compare': {
        const { left, right, op } = expr;
        const plain = right.kind === 'literal' ? this.#plain(left) : undefined;
        const fast = plain && right.kind === 'literal' ? compareColumn(plain, op, right.value, within) : undefined;
        if (fast) return fast;
        const a = rowReader(left, this.#columns);
        const b = rowReader(right, this.#columns);
        // A JSON path that is not there differs from every value; an array's element that is not there compares with nothing, as in Milvus.
        const whenMissing = op === '!=' && !isElement(left) && !isElement(right);
        return scanRows(within, (row) => {
          const x = a(row);
          const y = b(row);
          return x === undefined || y === undefined ? whenMissing : holds(op, x, y);
        });
      }
      case 'in':
        return this.#in(expr.value, expr.list, expr.negated, within);
      case 'bool': {
        const read = columnReader(expr.value, this.#columns);
        return scanRows(within, (row) => read(row) === true);
      }
      case 'like':
        return this.#like(expr.column, new LikePattern(expr.pattern), within);
      case 'regex': {
        const pattern = new RegExp(expr.pattern, 'u');
        const read = columnReader(expr.column, this.#columns);
        return scanRows(within, (row) => {
          const value = read(row);
          return (typeof value === 'string' && pattern.test(value)) !== expr.negated;
        });
      }
      case 'contains':
        return scanRows(within, containsTest(this.#elements(expr.column, expr.json), expr.mode, expr.values));
    }
  }

  /** The column itself when the value is a scalar field and no path. */
  #plain(value: ValueExpr) {
    const isPlain = value.kind === 'column' && value.path.length === 0 && value.type !== DataType.Json && value.type !== DataType.Array;
    return isPlain ? this.#columns(value.fieldId) : undefined;
  }

  #in(value: ValueExpr, list: readonly ListItem[], negated: boolean, within: Bitmap): Bitmap {
    const plain = this.#plain(value);
    let found = plain && columnIn(plain, list.filter(isLiteral), within);
    if (!found) {
      const read = rowReader(value, this.#columns);
      const isIn = membership(list);
      found = scanRows(within, (row) => {
        const item = read(row);
        return item !== undefined && isIn(item);
      });
    }
    return negated ? andNotBits(within, found) : found;
  }

  #like(ref: ColumnRef, pattern: LikePattern, within: Bitmap): Bitmap {
    const column = this.#columns(ref.fieldId);
    if (column.kind === 'bytes' && ref.type !== DataType.Json) return pattern.scan(column, within);
    const read = columnReader(ref, this.#columns);
    return scanRows(within, (row) => {
      const value = read(row);
      if (typeof value !== 'string') return false;
      const bytes = Buffer.from(value);
      return pattern.matches(bytes, 0, bytes.length);
    });
  }

  /** Elements of each row's list; undefined where JSON holds no list. */
  #elements(ref: ColumnRef, json: boolean): (row: number) => readonly ListItem[] | undefined {
    const column = this.#columns(ref.fieldId);
    if (json) {
      const { data } = bytesOf(column, ref);
      const find = jsonFinder(column, ref);
      return (row) => {
        const span = find(row);
        return span && jsonElements(data, span[0], span[1]);
      };
    }
    listOf(column, ref);
    const read = columnReader(ref, this.#columns);
    return (row) => read(row) as readonly ListItem[] | undefined;
  }

  /** Never unknown. A JSON path is null when it is not there or holds null. */
  #isNull(ref: ColumnRef, negated: boolean, within: Bitmap): Bitmap {
    const { validity } = this.#columns(ref.fieldId);
    const present = ref.path.length === 0 ? (validity ? andBits(within, validity) : within) : this.#exists(ref, within);
    return negated ? present : andNotBits(within, present);
  }

  /** Rows whose path is there and holds no null. */
  #exists(ref: ColumnRef, within: Bitmap): Bitmap {
    const column = this.#columns(ref.fieldId);
    const known = column.validity ? andBits(within, column.validity) : within;
    if (ref.type !== DataType.Json) {
      const read = columnReader(ref, this.#columns);
      return scanRows(known, (row) => read(row) !== undefined);
    }
    const { data } = bytesOf(column, ref);
    const find = jsonFinder(column, ref);
    return scanRows(known, (row) => {
      const span = find(row);
      // `null` is the only JSON value that starts with n.
      return span !== undefined && data[span[0]] !== 0x6e;
    });
  }

  #sample(fraction: number, within: Bitmap): Bitmap {
    const limit = Math.floor(fraction * 2 ** 32);
    return scanRows(within, (row) => {
      let hash = Math.imul(row ^ this.#seed, 0x9e3779b1);
      hash = Math.imul(hash ^ (hash >>> 15), 0x85ebca77);
      hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae3d);
      return (hash ^ (hash >>> 16)) >>> 0 < limit;
    });
  }
}

type LeafExpr = Extract<Expr, { kind: 'compare' | 'in' | 'like' | 'regex' | 'contains' | 'bool' }>;

function columnsOfLeaf(expr: LeafExpr): readonly ColumnRef[] {
  switch (expr.kind) {
    case 'compare':
      return [...columnsOfValue(expr.left), ...columnsOfValue(expr.right)];
    case 'in':
    case 'bool':
      return columnsOfValue(expr.value);
    default:
      return [expr.column];
  }
}

/** Key under which equal literals meet: 1, 1.0 and 1n are one value, "1" is another. */
function keyOf(item: Literal): Literal {
  if (typeof item !== 'bigint') return item;
  return item >= -9007199254740991n && item <= 9007199254740991n ? Number(item) : item;
}

function membership(list: readonly ListItem[]): (item: ListItem) => boolean {
  const literals = new Set(list.filter(isLiteral).map(keyOf));
  const lists = list.filter((item) => !isLiteral(item));
  return (item) => (isLiteral(item) ? literals.has(keyOf(item)) : lists.some((other) => holds('==', item, other)));
}

function containsTest(
  elements: (row: number) => readonly ListItem[] | undefined,
  mode: 'one' | 'all' | 'any',
  values: readonly ListItem[],
): RowTest {
  if (mode === 'all') {
    return (row) => {
      const list = elements(row);
      return list !== undefined && values.every((value) => list.some((element) => holds('==', element, value)));
    };
  }
  const wanted = membership(values);
  return (row) => elements(row)?.some(wanted) ?? false;
}

/** Whether it is one element of an array field. */
function isElement(value: ValueExpr): boolean {
  return value.kind === 'column' && value.type === DataType.Array && value.path.length > 0;
}
