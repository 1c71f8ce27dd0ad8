import { asCairnError, CairnError } from '@cairn/base';
import { type CollectionSchema, type PlainValue, parseTimestamptz, TimeZone } from '@cairn/schema';
import {
  checkRange,
  checkText,
  makeArithmetic,
  makeCompare,
  makeContains,
  makeIn,
  makeJunction,
  makeNot,
  makeUnary,
  predicateOf,
  TRUE,
} from './checker.ts';
import type { ArithmeticOp, ColumnRef, CompareOp, Expr, ListItem, ValueExpr } from './expression.ts';
import { FieldNames } from './field-names.ts';
import { type Interval, readInterval, shifted } from './interval.ts';
import { type Token, tokenize } from './lexer.ts';
import { ParseProblem, UnsupportedPart } from './parse-problem.ts';
import { checkRegex } from './regex-safety.ts';
import { TokenCursor } from './token-cursor.ts';
import { isLiteral } from './values.ts';

export interface FilterLimits {
  /** Nesting of parentheses, operators and functions. */
  readonly depth: number;
  /** Elements of one list, parts of one `and` or `or`. */
  readonly listLength: number;
}
export const DEFAULT_FILTER_LIMITS: FilterLimits = { depth: 200, listLength: 65_536 };

export interface FilterOptions {
  readonly limits?: FilterLimits;
  /** Of times without an offset. */
  readonly zone?: TimeZone;
}

export type FilterTemplates = Readonly<Record<string, PlainValue>>;

/**
 * Filter text to a typed tree; empty text is `true`. The language is Milvus's (design/milvus-wire.md §5), its precedence too: bit operators
 * bind looser than `==`, `**` tighter than a sign. One leniency: `not` takes the whole comparison after it, not only its first operand.
 * Throws InvalidParameter with the position, NotSupported for geometry, text match and struct fields.
 */
export function parseFilter(
  text: string,
  schema: CollectionSchema,
  templates: FilterTemplates = {},
  { limits = DEFAULT_FILTER_LIMITS, zone = TimeZone.UTC }: FilterOptions = {},
): Expr {
  if (text.trim() === '') return TRUE;
  try {
    return new FilterParser(tokenize(text), new FieldNames(schema), templates, limits, zone).parse();
  } catch (problem) {
    const shown = text.length > 500 ? `${text.slice(0, 500)}…` : text;
    if (problem instanceof ParseProblem)
      throw new CairnError(
        'InvalidParameter',
        `cannot parse expression: ${shown}, error: ${problem.message} at position ${problem.position}`,
      );
    if (problem instanceof UnsupportedPart)
      throw new CairnError('NotSupported', `not supported: ${problem.message} in expression: ${shown}`);
    throw problem;
  }
}

/** A field, `field["key"]`, an element of an array, or a key of the dynamic field, alone. InvalidParameter for anything else. */
export function parseColumn(text: string, schema: CollectionSchema): ColumnRef {
  const wrong = (why: string): CairnError => new CairnError('InvalidParameter', `${text.slice(0, 500)}: ${why}`);
  try {
    return new FilterParser(tokenize(text), new FieldNames(schema), {}, DEFAULT_FILTER_LIMITS, TimeZone.UTC).parseColumn();
  } catch (problem) {
    if (problem instanceof ParseProblem) throw wrong(`${problem.message} at position ${problem.position}`);
    if (problem instanceof UnsupportedPart)
      throw new CairnError('NotSupported', `not supported: ${problem.message} in ${text.slice(0, 500)}`);
    throw problem;
  }
}

/** A condition or a value; which of them parentheses hold shows only inside. */
type Operand = { readonly position: number; readonly depth: number } & (
  | { readonly expr: Expr; readonly value?: undefined }
  | { readonly value: ValueExpr; readonly expr?: undefined }
);

/** Binary operators of values by level, loosest first; comparison stands between the bit operators and the rest. */
const BIT_LEVELS: readonly (readonly ArithmeticOp[])[] = [['|'], ['^'], ['&']];
const ARITHMETIC_LEVELS: readonly (readonly ArithmeticOp[])[] = [
  ['<<', '>>'],
  ['+', '-'],
  ['*', '/', '%'],
];
const CONTAINS_MODES: Readonly<Record<string, 'one' | 'all' | 'any'>> = {
  json_contains: 'one',
  json_contains_all: 'all',
  json_contains_any: 'any',
  array_contains: 'one',
  array_contains_all: 'all',
  array_contains_any: 'any',
};
const UNSUPPORTED = /^(st_.*|text_match|phrase_match|element_filter|match_.*)$/;

class FilterParser {
  readonly #tokens: TokenCursor;
  readonly #names: FieldNames;
  readonly #templates: FilterTemplates;
  readonly #limits: FilterLimits;
  readonly #zone: TimeZone;
  #depth = 0;

  constructor(tokens: readonly Token[], names: FieldNames, templates: FilterTemplates, limits: FilterLimits, zone: TimeZone) {
    this.#tokens = new TokenCursor(tokens);
    this.#names = names;
    this.#templates = templates;
    this.#limits = limits;
    this.#zone = zone;
  }

  parse(): Expr {
    const result = this.#predicate(this.#or());
    if (!this.#tokens.ended) throw this.#tokens.unexpected();
    return result;
  }

  parseColumn(): ColumnRef {
    const { value } = this.#primary();
    if (value?.kind !== 'column' || !this.#tokens.ended) throw this.#tokens.unexpected();
    return value;
  }

  #predicate(operand: Operand): Expr {
    return operand.expr ?? predicateOf(operand.value, operand.position);
  }

  #value(operand: Operand): ValueExpr {
    if (operand.value === undefined) throw new ParseProblem('a condition stands where a value is needed', operand.position);
    return operand.value;
  }

  /** Depth of the tree, not of the recursion: `a+1+1+…` is read by a loop and is as deep as it is long. */
  #deeper(position: number, ...parts: readonly Operand[]): number {
    const depth = 1 + parts.reduce((most, part) => Math.max(most, part.depth), 0);
    if (depth > this.#limits.depth) throw new ParseProblem(`nested deeper than ${this.#limits.depth}`, position);
    return depth;
  }

  #nested<T>(read: () => T): T {
    if (++this.#depth > this.#limits.depth)
      throw new ParseProblem(`nested deeper than ${this.#limits.depth}`, this.#tokens.current.position);
    const result = read();
    this.#depth--;
    return result;
  }

  #or(): Operand {
    return this.#junction('or', '||', () => this.#junction('and', '&&', () => this.#bits(0)));
  }

  #junction(kind: 'and' | 'or', symbol: string, next: () => Operand): Operand {
    const first = next();
    if (!this.#tokens.is(symbol)) return first;
    const operands = [first];
    while (this.#tokens.take(symbol)) {
      operands.push(next());
      if (operands.length > this.#limits.listLength)
        throw new ParseProblem(`more than ${this.#limits.listLength} parts of one "${kind}"`, first.position);
    }
    const expr = makeJunction(
      kind,
      operands.map((operand) => this.#predicate(operand)),
    );
    return { expr, position: first.position, depth: this.#deeper(first.position, ...operands) };
  }

  #bits(level: number): Operand {
    if (level === BIT_LEVELS.length) return this.#equality();
    return this.#binary(BIT_LEVELS[level], () => this.#bits(level + 1));
  }

  #binary(ops: readonly ArithmeticOp[], next: () => Operand): Operand {
    let left = next();
    for (let token = this.#tokens.take(...ops); token; token = this.#tokens.take(...ops)) {
      if ((token.text === '+' || token.text === '-') && this.#tokens.take('interval')) {
        const value = shifted(this.#value(left), this.#interval(), token.text, token.position);
        left = { value, position: left.position, depth: this.#deeper(token.position, left) };
        continue;
      }
      const right = next();
      const value = makeArithmetic(token.text as ArithmeticOp, this.#value(left), this.#value(right), token.position);
      left = { value, position: left.position, depth: this.#deeper(token.position, left, right) };
    }
    return left;
  }

  #equality(): Operand {
    let left = this.#relation();
    for (let token = this.#tokens.take('==', '!='); token; token = this.#tokens.take('==', '!=')) {
      const right = this.#relation();
      left = this.#compare(token, left, right);
    }
    return left;
  }

  #compare(token: Token, left: Operand, right: Operand): Operand {
    const depth = this.#deeper(token.position, left, right);
    const op = token.text as CompareOp;
    // (a > 1) == true
    if (
      left.expr !== undefined &&
      right.value?.kind === 'literal' &&
      typeof right.value.value === 'boolean' &&
      (op === '==' || op === '!=')
    )
      return { expr: right.value.value === (op === '==') ? left.expr : makeNot(left.expr), position: left.position, depth };
    return { expr: makeCompare(op, this.#value(left), this.#value(right), token.position), position: left.position, depth };
  }

  /** One comparison, or a range `a < x <= b` whose signs point one way. */
  #relation(): Operand {
    const left = this.#membership();
    const first = this.#tokens.take('<', '<=', '>', '>=');
    if (!first) return left;
    const middle = this.#membership();
    const second = this.#tokens.take('<', '<=', '>', '>=');
    if (!second) return this.#compare(first, left, middle);
    if (first.text[0] !== second.text[0]) throw new ParseProblem('the signs of a range point the same way', second.position);
    const right = this.#membership();
    const parts = [this.#compare(first, left, middle), this.#compare(second, middle, right)];
    const expr = makeJunction(
      'and',
      parts.map((part) => this.#predicate(part)),
    );
    return { expr, position: left.position, depth: this.#deeper(second.position, ...parts) };
  }

  #membership(): Operand {
    const left = this.#arithmetic(0);
    const mark = this.#tokens.mark();
    const negated = this.#tokens.take('not') !== undefined;
    const token = this.#tokens.take('in');
    if (!token) {
      this.#tokens.reset(mark);
      return left;
    }
    const right = this.#value(this.#arithmetic(0));
    if (right.kind !== 'list') throw new ParseProblem('"in" needs a list of constants', token.position);
    return {
      expr: makeIn(this.#value(left), right.values, negated, token.position),
      position: left.position,
      depth: this.#deeper(token.position, left),
    };
  }

  #arithmetic(level: number): Operand {
    if (level === ARITHMETIC_LEVELS.length) return this.#unary();
    return this.#binary(ARITHMETIC_LEVELS[level], () => this.#arithmetic(level + 1));
  }

  #unary(): Operand {
    const token = this.#tokens.take('+', '-', '~', '!', 'not');
    if (!token) return this.#power();
    return this.#nested(() => {
      if (token.text === '!' || token.text === 'not') {
        const operand = this.#equality();
        return { expr: makeNot(this.#predicate(operand)), position: token.position, depth: this.#deeper(token.position, operand) };
      }
      const operand = this.#unary();
      const value = makeUnary(token.text as '+' | '-' | '~', this.#value(operand), token.position);
      return { value, position: token.position, depth: this.#deeper(token.position, operand) };
    });
  }

  #power(): Operand {
    const left = this.#postfix();
    const token = this.#tokens.take('**');
    if (!token) return left;
    const right = this.#nested(() => this.#unary());
    const value = makeArithmetic('**', this.#value(left), this.#value(right), token.position);
    return { value, position: left.position, depth: this.#deeper(token.position, left, right) };
  }

  /** `like`, `=~`, `!~`, `is null` after a field. */
  #postfix(): Operand {
    const operand = this.#primary();
    const token = this.#tokens.take('like', '=~', '!~', 'is');
    if (!token) return operand;
    const column = operand.value;
    if (column?.kind !== 'column') throw new ParseProblem(`${JSON.stringify(token.text)} needs a field`, operand.position);
    const base = { position: operand.position, depth: this.#deeper(token.position, operand) };
    if (token.text === 'is') {
      const negated = this.#tokens.take('not') !== undefined;
      this.#tokens.expect('null');
      return { expr: { kind: 'isNull', column, negated }, ...base };
    }
    const pattern = this.#value(this.#primary());
    if (pattern.kind !== 'literal' || typeof pattern.value !== 'string')
      throw new ParseProblem(`${token.text} needs a string pattern`, token.position);
    checkText(column, token.text, token.position);
    if (token.text === 'like') return { expr: { kind: 'like', column, pattern: pattern.value }, ...base };
    checkRegex(pattern.value, token.position);
    return { expr: { kind: 'regex', column, pattern: pattern.value, negated: token.text === '!~' }, ...base };
  }

  #primary(): Operand {
    const token = this.#tokens.current;
    const { position } = token;
    switch (token.kind) {
      case 'int':
      case 'float':
      case 'string':
      case 'bool':
        this.#tokens.next();
        return { value: { kind: 'literal', value: token.value as bigint | number | string | boolean }, position, depth: 1 };
      case 'template':
        this.#tokens.next();
        return { value: this.#template(token), position, depth: 1 };
      case 'name':
        return { value: this.#column(), position, depth: 1 };
      case 'keyword':
        return this.#function(token);
      default:
    }
    if (this.#tokens.take('(')) {
      const inner = this.#nested(() => this.#or());
      this.#tokens.expect(')');
      return inner;
    }
    if (this.#tokens.is('[')) return { value: { kind: 'list', values: this.#list() }, position, depth: 1 };
    throw this.#tokens.unexpected();
  }

  #list(): readonly ListItem[] {
    const opening = this.#tokens.expect('[');
    const values: ListItem[] = [];
    while (!this.#tokens.is(']')) {
      values.push(this.#constant());
      if (values.length > this.#limits.listLength)
        throw new ParseProblem(`a list longer than ${this.#limits.listLength}`, opening.position);
      if (!this.#tokens.take(',')) break;
    }
    this.#tokens.expect(']');
    return values;
  }

  #constant(): ListItem {
    const { position, kind, value: plain } = this.#tokens.current;
    const next = this.#tokens.following;
    // Long key lists are the common case: a lone literal needs no descent.
    if (plain !== undefined && kind !== 'end' && next.kind === 'symbol' && (next.text === ',' || next.text === ']')) {
      this.#tokens.next();
      checkRange({ kind: 'literal', value: plain }, position);
      return plain;
    }
    const value = this.#value(this.#nested(() => this.#arithmetic(0)));
    if (value.kind === 'list') return value.values;
    if (value.kind !== 'literal') throw new ParseProblem('a list holds constants only', position);
    checkRange(value, position);
    return value.value;
  }

  #template(token: Token): ValueExpr {
    if (!Object.hasOwn(this.#templates, token.text)) throw new ParseProblem(`template {${token.text}} has no value`, token.position);
    const item = (value: PlainValue): ListItem => {
      if (value === null || value instanceof Uint8Array)
        throw new ParseProblem(`template {${token.text}} holds no plain value`, token.position);
      return typeof value === 'object' ? value.map(item) : value;
    };
    const value = item(this.#templates[token.text]);
    if (isLiteral(value)) return { kind: 'literal', value };
    if (value.length > this.#limits.listLength) throw new ParseProblem(`a list longer than ${this.#limits.listLength}`, token.position);
    return { kind: 'list', values: value };
  }

  #column(): ColumnRef {
    const name = this.#tokens.next();
    const path: (string | number)[] = [];
    let text = name.text;
    while (this.#tokens.take('[')) {
      const step = this.#tokens.current;
      if (step.kind !== 'string' && step.kind !== 'int') throw new ParseProblem('a path step is a string or a number', step.position);
      this.#tokens.next();
      path.push(step.kind === 'int' ? Number(step.value) : (step.value as string));
      if (path.length > this.#limits.depth) throw new ParseProblem(`nested deeper than ${this.#limits.depth}`, step.position);
      text += `[${step.text}]`;
      this.#tokens.expect(']');
    }
    return this.#names.column(name.text, path, text, name.position);
  }

  #columnArgument(name: string): ColumnRef {
    const operand = this.#nested(() => this.#or());
    if (operand.value?.kind !== 'column') throw new ParseProblem(`${name} needs a field`, operand.position);
    return operand.value;
  }

  #function(token: Token): Operand {
    const { position } = token;
    if (UNSUPPORTED.test(token.text)) throw new UnsupportedPart(token.text);
    this.#tokens.next();
    if (token.text === 'exists') {
      const operand = this.#nested(() => this.#unary());
      const column = operand.value;
      if (column?.kind !== 'column' || column.path.length === 0 || this.#names.isArray(column))
        throw new ParseProblem('exists needs a path into JSON', operand.position);
      return { expr: { kind: 'exists', column }, position, depth: 1 };
    }
    if (token.text === 'interval') throw new ParseProblem('INTERVAL goes after + or - and a Timestamptz field', position);
    if (token.text === 'iso') return { value: this.#isoTime(position), position, depth: 1 };
    if (token.text === 'array_length') {
      this.#tokens.expect('(');
      const column = this.#columnArgument(token.text);
      this.#names.checkList(column, token.text, position);
      this.#tokens.expect(')');
      return { value: { kind: 'arrayLength', column }, position, depth: 1 };
    }
    if (token.text === 'random_sample') return { expr: this.#randomSample(position), position, depth: 1 };
    const mode = CONTAINS_MODES[token.text];
    if (mode === undefined) throw new ParseProblem(`unexpected ${JSON.stringify(token.text)}`, position);
    this.#tokens.expect('(');
    const column = this.#columnArgument(token.text);
    this.#tokens.expect(',');
    const item = this.#constant();
    this.#tokens.expect(')');
    if (mode === 'one') return { expr: makeContains(column, mode, [item], position), position, depth: 1 };
    if (isLiteral(item)) throw new ParseProblem(`${token.text} needs a list`, position);
    return { expr: makeContains(column, mode, item, position), position, depth: 1 };
  }

  #randomSample(position: number): Expr {
    this.#tokens.expect('(');
    const fraction = this.#constant();
    this.#tokens.expect(')');
    if (typeof fraction !== 'number' || !(fraction > 0 && fraction < 1))
      throw new ParseProblem('random_sample needs a fraction between 0 and 1', position);
    return { kind: 'randomSample', fraction, part: undefined };
  }

  /** ISO '2025-01-01T00:00:00Z': microseconds since 1970, as Timestamptz columns hold them. */
  #isoTime(position: number): ValueExpr {
    const token = this.#tokens.current;
    if (token.kind !== 'string') throw new ParseProblem('ISO needs a time such as "2025-01-01T00:00:00Z"', position);
    try {
      const value = parseTimestamptz(token.value as string, this.#zone);
      this.#tokens.next();
      return { kind: 'literal', value };
    } catch (error) {
      throw new ParseProblem(asCairnError(error).message, position);
    }
  }

  /** 'P1Y2M3DT4H5M6S' after the word INTERVAL. */
  #interval(): Interval {
    const token = this.#tokens.current;
    const found = token.kind === 'string' ? readInterval(token.value as string) : undefined;
    if (!found) throw new ParseProblem('INTERVAL needs a duration such as "P1DT12H"', token.position);
    this.#tokens.next();
    return found;
  }
}
