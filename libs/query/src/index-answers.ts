import { andBits, type Bitmap, emptyBitmap, fullBitmap, rowsOfBits, xorBits } from '@cairn/base';
import {
  type ColumnRef,
  columnsOfValue,
  doubleBounds,
  type Expr,
  evaluate,
  integerBounds,
  isFloating,
  isInteger64,
  isLiteral,
  type LeafAnswer,
  type ListItem,
  type Literal,
  literalPrefix,
  needlesOf,
  type ValueExpr,
} from '@cairn/expr';
import { type EntryRange, gramKey, ScalarIndex } from '@cairn/index';
import { DataType, type FixedColumn, sliceColumn } from '@cairn/schema';
import type { ReadableSegment } from '@cairn/segment';

/** Different values that a condition is tried on in one stretch; with more, the column is scanned in slices instead. */
const TRIED_VALUES = 100_000;
/** Groups of bytes that are looked up for one pattern: the rarest decide. */
const GROUPS_USED = 4;
/** Candidates above this share of the rows are no help. */
const CANDIDATE_SHARE = 0.25;
/** Bits of the rows where a condition holds, before it is turned round by a negation. */
type Found = { readonly bits: Bitmap; readonly exact: boolean };

/**
 * What the segment's scalar indexes say of the conditions of a filter, by condition. Conditions that no index serves are absent. Null rows need no
 * care here: the evaluation leaves them out of every answer.
 */
export function indexAnswers(segment: ReadableSegment, expr: Expr): Map<Expr, LeafAnswer> {
  const answers = new Map<Expr, LeafAnswer>();
  visit(segment, expr, answers);
  return answers;
}

function visit(segment: ReadableSegment, expr: Expr, answers: Map<Expr, LeafAnswer>): void {
  if (expr.kind === 'and' || expr.kind === 'or') for (const part of expr.parts) visit(segment, part, answers);
  else if (expr.kind === 'not') visit(segment, expr.part, answers);
  else {
    const ref = columnOf(expr);
    if (!ref) return;
    for (const index of segment.scalarIndexes(ref.fieldId)) {
      const answer = index instanceof ScalarIndex ? answerOf(index, expr, ref) : undefined;
      if (!answer) continue;
      answers.set(expr, answer);
      return;
    }
  }
}

/** The one column that a condition reads; undefined when it is no condition on values, or reads several. */
function columnOf(expr: Expr): ColumnRef | undefined {
  const refs = columnsOf(expr);
  const [first] = refs;
  const same = refs.every((ref) => ref.fieldId === first.fieldId && samePath(ref.path, first.path));
  return same ? first : undefined;
}

function columnsOf(expr: Expr): readonly ColumnRef[] {
  switch (expr.kind) {
    case 'compare':
      return [...columnsOfValue(expr.left), ...columnsOfValue(expr.right)];
    case 'in':
    case 'bool':
      return columnsOfValue(expr.value);
    case 'like':
    case 'regex':
    case 'contains':
      return [expr.column];
    default:
      return [];
  }
}

const samePath = (a: readonly (string | number)[], b: readonly (string | number)[]): boolean => JSON.stringify(a) === JSON.stringify(b);

function answerOf(index: ScalarIndex, expr: Expr, ref: ColumnRef): LeafAnswer | undefined {
  const { content, path } = index.header;
  const isJson = ref.type === DataType.Json;
  if (isJson !== (path !== undefined) || (path && !samePath(path, ref.path))) return undefined;
  if (content === 'grams') return expr.kind === 'like' ? candidates(index, expr.pattern) : undefined;
  if (content === 'elements')
    return expr.kind === 'contains' && expr.json === isJson ? containing(index, expr.mode, expr.values) : undefined;
  if (ref.type === DataType.Array || (isJson && !isPlainCondition(expr, index))) return undefined;
  const { positive, negated } = positiveOf(expr);
  const found = holding(index, positive, ref);
  if (!found || !negated) return found;
  return { bits: xorBits(found.bits, fullBitmap(index.rows)), exact: found.exact };
}

/** Of JSON: a comparison of the very value, with constants of the kind that the index holds. Rows of other kinds are not in it and match nothing. */
function isPlainCondition(expr: Expr, index: ScalarIndex): boolean {
  const isColumn = (value: ValueExpr): boolean => value.kind === 'column';
  switch (expr.kind) {
    case 'compare':
      return isColumn(expr.left) && expr.right.kind === 'literal' && fits(index, expr.right.value);
    case 'in':
      return isColumn(expr.value) && expr.list.every((item) => fits(index, item));
    case 'like':
    case 'regex':
      return index.dictionary.kind === 'bytes' && index.header.exact;
    case 'bool':
      return index.dictionary.type === DataType.Bool;
    default:
      return false;
  }
}

/** Whether the index can tell exactly which of its values equal this one. */
function fits(index: ScalarIndex, item: ListItem): boolean {
  if (!ofKind(index, item) || !index.header.exact) return false;
  return index.dictionary.type !== DataType.Double || typeof item !== 'bigint' || BigInt(Number(item)) === item;
}

/** Whether it is of the family of the index's values. */
function ofKind({ dictionary }: ScalarIndex, item: ListItem): item is Literal {
  if (dictionary.kind === 'bytes') return typeof item === 'string';
  return dictionary.type === DataType.Bool ? typeof item === 'boolean' : typeof item === 'bigint' || typeof item === 'number';
}

/** A condition without its negation. A value that is not there makes the one false and so the other true, as the rules have it. */
function positiveOf(expr: Expr): { readonly positive: Expr; readonly negated: boolean } {
  if (expr.kind === 'compare' && expr.op === '!=') return { positive: { ...expr, op: '==' }, negated: true };
  if ((expr.kind === 'in' || expr.kind === 'regex') && expr.negated) return { positive: { ...expr, negated: false }, negated: true };
  return { positive: expr, negated: false };
}

/** By order where the condition is an interval of values, else by trying it on every different value. */
function holding(index: ScalarIndex, expr: Expr, ref: ColumnRef): Found | undefined {
  const whole: EntryRange = { from: 0, to: index.entries };
  if (expr.kind === 'compare' && expr.left.kind === 'column' && expr.right.kind === 'literal') {
    const range = compared(index, expr.op, expr.right.value, index.dictionary.type);
    return range && { bits: index.rowsOf([range]), exact: true };
  }
  if (expr.kind === 'in' && expr.value.kind === 'column') {
    const ranges = expr.list.filter(isLiteral).map((item) => compared(index, '==', item, index.dictionary.type));
    return ranges.includes(undefined) ? undefined : { bits: index.rowsOf(ranges.filter((range) => range !== undefined)), exact: true };
  }
  if (expr.kind === 'like' && index.dictionary.kind === 'bytes') {
    const { bytes, whole: all } = literalPrefix(expr.pattern);
    const range = { from: index.firstText(bytes, false), to: index.firstText(bytes, true) };
    return all ? { bits: index.rowsOf([range]), exact: true } : tried(index, expr, ref, range);
  }
  return tried(index, expr, ref, whole);
}

/** The condition on each different value of a range. */
function tried(index: ScalarIndex, expr: Expr, ref: ColumnRef, { from, to }: EntryRange): Found | undefined {
  const count = to - from;
  if (count > TRIED_VALUES || count > index.rows / 2) return undefined;
  const values = sliceColumn(index.dictionary, from, to);
  const plain = withColumn(expr, { ...ref, type: index.dictionary.type, elementType: DataType.None, path: [] });
  const entries = rowsOfBits(evaluate(plain, () => values, count));
  const bits = emptyBitmap(index.rows);
  for (const entry of entries) index.addRows({ from: from + entry, to: from + entry + 1 }, bits);
  return { bits, exact: true };
}

/** The condition with its column read as a plain one: of JSON it is the only operand, of other fields it is plain already. */
function withColumn(expr: Expr, column: ColumnRef): Expr {
  if (expr.kind === 'like' || expr.kind === 'regex') return { ...expr, column };
  if (expr.kind === 'bool') return { ...expr, value: column };
  return expr;
}

/** Entries for which `entry op literal` holds; undefined when they are not of one family. */
function compared(index: ScalarIndex, op: '<' | '<=' | '>' | '>=' | '==' | '!=', literal: Literal, type: DataType): EntryRange | undefined {
  if (index.dictionary.kind === 'bytes') return typeof literal === 'string' ? textRange(index, op, Buffer.from(literal)) : undefined;
  return typeof literal === 'string' ? undefined : numberRange(index, index.dictionary, op, literal, type);
}

function numberRange(
  index: ScalarIndex,
  dictionary: FixedColumn,
  op: '<' | '<=' | '>' | '>=' | '==' | '!=',
  literal: boolean | bigint | number,
  type: DataType,
): EntryRange {
  if (isFloating(dictionary)) {
    const { low, high } = doubleBounds(op, literal, type);
    return index.numbers(low, high);
  }
  const { low, high } = integerBounds(op, typeof literal === 'boolean' ? BigInt(literal) : literal, type);
  if (low > high) return { from: 0, to: 0 };
  return isInteger64(dictionary) ? index.numbers(low, high) : index.numbers(Number(low), Number(high));
}

function textRange(index: ScalarIndex, op: '<' | '<=' | '>' | '>=' | '==' | '!=', bytes: Uint8Array): EntryRange {
  const { from, to } = index.text(bytes);
  if (op === '<') return { from: 0, to: from };
  if (op === '<=') return { from: 0, to };
  if (op === '>') return { from: to, to: index.entries };
  return op === '>=' ? { from, to: index.entries } : { from, to };
}

/** Rows whose lists hold one, any or all of the values. Elements compare as they are: a float element equals only a constant that is a float too. */
function containing(index: ScalarIndex, mode: 'one' | 'all' | 'any', values: readonly ListItem[]): Found | undefined {
  if (!values.every(isLiteral) || values.length === 0 || !index.header.exact) return undefined;
  const ranges: EntryRange[] = [];
  for (const value of values) {
    // Lists of JSON hold other kinds too, and those are not in the index.
    if (index.header.path && !ofKind(index, value)) return undefined;
    const type = index.dictionary.type === DataType.Float ? DataType.Double : index.dictionary.type;
    if (ofKind(index, value) && type === DataType.Double && typeof value === 'bigint' && BigInt(Number(value)) !== value) return undefined;
    ranges.push((ofKind(index, value) && compared(index, '==', value, type)) || { from: 0, to: 0 });
  }
  if (mode !== 'all') return { bits: index.rowsOf(ranges), exact: true };
  return { bits: ranges.map((range) => index.rowsOf([range])).reduce(andBits), exact: true };
}

/** Rows that hold the rarest groups of bytes of the pattern; the pattern itself is still to be tried on them. */
function candidates(index: ScalarIndex, pattern: string): Found | undefined {
  const { gram, exact } = index.header;
  if (!exact) return undefined;
  const keys = new Set<number>();
  for (const needle of needlesOf(pattern)) for (let at = 0; at + gram <= needle.length; at++) keys.add(gramKey(needle, at, gram));
  if (keys.size === 0) return undefined;
  const ranges = [...keys].map((key) => index.numbers(key, key)).sort((a, b) => index.count(a) - index.count(b));
  if (index.count(ranges[0]) > index.rows * CANDIDATE_SHARE) return undefined;
  const bits = ranges
    .slice(0, GROUPS_USED)
    .map((range) => index.rowsOf([range]))
    .reduce(andBits);
  return { bits, exact: false };
}
