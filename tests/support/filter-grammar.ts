/**
 * Filters with their meaning: each is made as text and, beside it, as what it must say of a row, from the grammar and the rules of Milvus's language. Nothing of
 * the parser or the evaluation under test is used: what looks like libs/expr/src/values.ts here is said a second time on purpose. Text is made with as few parentheses as precedence allows, so a wrong precedence is a wrong answer.
 */

/** Three-valued: null is unknown, and an unknown row does not match. */
export type Truth = boolean | null;

export interface FilterRow {
  readonly id: number;
  readonly small: number | null;
  readonly count: number;
  readonly big: number | null;
  readonly price: number | null;
  readonly ratio: number;
  readonly flag: boolean;
  readonly name: string | null;
  readonly tags: readonly string[];
  readonly sizes: readonly number[] | null;
  readonly doc: Readonly<Record<string, unknown>> | null;
  /** A key of the dynamic field; undefined: the row has none. */
  readonly extra?: number | string | undefined;
}

export interface Filter {
  readonly kind: string;
  readonly text: string;
  readonly matches: (row: FilterRow) => Truth;
}

type Random = () => number;

const pick = <T>(random: Random, from: readonly T[]): T => from[Math.floor(random() * from.length)] as T;
const int = (random: Random, low: number, high: number): number => low + Math.floor(random() * (high - low + 1));
const NAMES = ['', 'a', 'ab', 'abc', 'a%c', 'a_c', 'b"q', 'é', 'Zed', 'zed'] as const;
const TAGS = ['x', 'y', 'z', 'long tag'] as const;

export function filterRows(count: number, random: Random): FilterRow[] {
  const maybe = <T>(make: () => T): T | null => (random() < 0.25 ? null : make());
  const leaf = (): unknown => pick(random, [int(random, -3, 3), random() * 4 - 2, pick(random, NAMES), random() < 0.5]);
  return Array.from({ length: count }, (_, id): FilterRow => {
    const doc: Record<string, unknown> = {};
    if (random() < 0.7) doc['a'] = leaf();
    if (random() < 0.5) doc['o'] = { c: leaf() };
    if (random() < 0.6) doc['list'] = Array.from({ length: int(random, 0, 3) }, leaf);
    return {
      id,
      small: maybe(() => int(random, -128, 127)),
      count: int(random, -20, 20),
      big: maybe(() => int(random, -1e12, 1e12)),
      price: maybe(() => Math.fround(int(random, -40, 40) / 10)),
      ratio: int(random, -40, 40) / 8,
      flag: random() < 0.5,
      name: maybe(() => pick(random, NAMES)),
      tags: Array.from({ length: int(random, 0, 3) }, () => pick(random, TAGS)),
      sizes: maybe(() => Array.from({ length: int(random, 0, 3) }, () => int(random, -3, 3))),
      doc: maybe(() => doc),
      ...(random() < 0.6 ? { extra: random() < 0.7 ? int(random, -5, 5) : pick(random, NAMES) } : {}),
    };
  });
}

const OPS = ['<', '<=', '>', '>=', '==', '!='] as const;
type Op = (typeof OPS)[number];
/** Missing: a JSON path or an array element that is not there. */
const MISSING = Symbol('missing');

function byOrder(op: Op, order: number): boolean {
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

/** An array's element that is not there compares with nothing, not even by `!=`. */
const compareElement = (op: Op, left: unknown, right: unknown): Truth => (left === MISSING ? false : compare(op, left, right));

/** null is unknown; what is missing or of another family is equal to nothing and in no order with anything. */
function compare(op: Op, left: unknown, right: unknown): Truth {
  if (left === null || right === null) return null;
  const number = (value: unknown): boolean => typeof value === 'number' || typeof value === 'bigint';
  if (number(left) && number(right))
    return byOrder(op, (left as number) < (right as number) ? -1 : (left as number) > (right as number) ? 1 : 0);
  if (typeof left === 'string' && typeof right === 'string') return byOrder(op, Buffer.compare(Buffer.from(left), Buffer.from(right)));
  if (typeof left === 'boolean' && typeof right === 'boolean') return byOrder(op, Number(left) - Number(right));
  return op === '!=';
}

const quote = (text: string): string => `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`;
const literal = (value: unknown): string => (typeof value === 'string' ? quote(value) : String(value));

/** Arithmetic with the level it binds at: 1 shifts, 2 sums, 3 products, 4 signs, 5 powers and leaves. */
interface Sum {
  readonly text: string;
  readonly level: number;
  readonly value: (row: FilterRow) => bigint | null;
}

function arithmetic(random: Random, depth: number): Sum {
  if (depth === 0 || random() < 0.3) {
    if (random() < 0.45) {
      const constant = int(random, 1, 9);
      return { text: String(constant), level: 5, value: () => BigInt(constant) };
    }
    const field = pick(random, ['count', 'id', 'small'] as const);
    return { text: field, level: 5, value: (row) => (row[field] === null ? null : BigInt(row[field])) };
  }
  const op = pick(random, ['+', '-', '*', '/', '%', '**', '<<', 'sign'] as const);
  const wrap = (part: Sum, least: number): string => (part.level < least || random() < 0.1 ? `(${part.text})` : part.text);
  const left = arithmetic(random, depth - 1);
  if (op === 'sign') return { text: `-${wrap(left, 5)}`, level: 4, value: (row) => negated(left.value(row)) };
  const small = int(random, op === '<<' ? 0 : 1, op === '**' ? 2 : op === '<<' ? 3 : 9);
  // Divisors, exponents and shifts are constants that always give a value.
  const right: Sum = ['/', '%', '**', '<<'].includes(op)
    ? { text: String(small), level: 5, value: () => BigInt(small) }
    : arithmetic(random, depth - 1);
  const level = op === '<<' ? 1 : op === '+' || op === '-' ? 2 : op === '**' ? 5 : 3;
  // All but powers associate to the left: the right part needs a higher level. The base of a power is a leaf.
  const text =
    op === '**'
      ? `${left.level === 5 && !left.text.includes('**') ? left.text : `(${left.text})`} ** ${right.text}`
      : `${wrap(left, level)} ${op} ${wrap(right, level + 1)}`;
  return {
    text,
    level: op === '**' ? 4.5 : level,
    value: (row) => {
      const [a, b] = [left.value(row), right.value(row)];
      if (a === null || b === null) return null;
      switch (op) {
        case '+':
          return a + b;
        case '-':
          return a - b;
        case '*':
          return a * b;
        case '/':
          return a / b;
        case '%':
          return a % b;
        case '**':
          return a ** b;
        case '<<':
          return a << b;
      }
    },
  };
}

const negated = (value: bigint | null): bigint | null => (value === null ? null : -value);

function likeMatches(pattern: readonly string[], text: string): boolean {
  const [head, ...rest] = pattern;
  if (head === undefined) return text === '';
  const letters = [...text];
  if (head === '%')
    return Array.from({ length: letters.length + 1 }, (_, at) => letters.slice(at).join('')).some((tail) => likeMatches(rest, tail));
  if (letters.length === 0) return false;
  return (head === '_' || head.at(-1) === letters[0]) && likeMatches(rest, letters.slice(1).join(''));
}

const JSON_PATHS: readonly (readonly [string, readonly (string | number)[]])[] = [
  ['doc["a"]', ['a']],
  ['doc["o"]["c"]', ['o', 'c']],
  ['doc["list"][0]', ['list', 0]],
  ['doc["none"]', ['none']],
];

function at(row: FilterRow, path: readonly (string | number)[]): unknown {
  if (row.doc === null) return null;
  let value: unknown = row.doc;
  for (const step of path) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, step)) return MISSING;
    value = (value as Record<string | number, unknown>)[step];
  }
  return value;
}

const inList = (value: unknown, list: readonly unknown[]): Truth =>
  value === null ? null : list.some((item) => compare('==', value, item) === true);
const not = (truth: Truth): Truth => (truth === null ? null : !truth);

const LEAVES: readonly ((random: Random) => Filter)[] = [
  (random) => {
    const [field, op, value] = [pick(random, ['id', 'small', 'count', 'big'] as const), pick(random, OPS), int(random, -30, 200)];
    const turned = random() < 0.3;
    return {
      kind: 'integer comparison',
      text: turned ? `${value} ${op} ${field}` : `${field} ${op} ${value}`,
      matches: (row) => (turned ? compare(op, value, row[field]) : compare(op, row[field], value)),
    };
  },
  (random) => {
    const field = pick(random, ['small', 'count', 'id'] as const);
    const [low, high] = [int(random, -20, 10), int(random, 0, 60)];
    const [first, second] = [pick(random, ['<', '<='] as const), pick(random, ['<', '<='] as const)];
    return {
      kind: 'range in one',
      text: `${low} ${first} ${field} ${second} ${high}`,
      matches: (row) =>
        row[field] === null ? null : compare(first, low, row[field]) === true && compare(second, row[field], high) === true,
    };
  },
  (random) => {
    const [sum, op, value] = [arithmetic(random, 2), pick(random, OPS), int(random, -20, 60)];
    // Two constants are no comparison; the field that makes it one changes nothing.
    const text = /[a-z]/.test(sum.text) ? sum.text : `id - id + ${sum.level < 3 ? `(${sum.text})` : sum.text}`;
    return { kind: 'integer arithmetic', text: `${text} ${op} ${value}`, matches: (row) => compare(op, sum.value(row), value) };
  },
  (random) => {
    const bit = pick(random, ['&', '|', '^'] as const);
    const [mask, value] = [int(random, 0, 15), int(random, 0, 15)];
    const apply = (count: number): number => (bit === '&' ? count & mask : bit === '|' ? count | mask : count ^ mask);
    return { kind: 'bit operators', text: `(count ${bit} ${mask}) == ${value}`, matches: (row) => apply(row.count) === value };
  },
  (random) => {
    const [field, op, value] = [pick(random, ['price', 'ratio'] as const), pick(random, OPS), int(random, -40, 40) / 10];
    const text = Number.isInteger(value) && random() < 0.5 ? value.toFixed(1) : String(value);
    return {
      kind: 'float comparison',
      text: `${field} ${op} ${text}`,
      matches: (row) => compare(op, row[field], field === 'price' ? Math.fround(value) : value),
    };
  },
  (random) => {
    const [op, value] = [pick(random, OPS), pick(random, NAMES)];
    return { kind: 'text comparison', text: `name ${op} ${quote(value)}`, matches: (row) => compare(op, row.name, value) };
  },
  (random) => {
    const list = Array.from({ length: int(random, 0, 4) }, () => pick(random, NAMES));
    const negate = random() < 0.4;
    return {
      kind: 'in, texts',
      text: `name ${negate ? 'not in' : 'in'} [${list.map(quote).join(', ')}]`,
      matches: (row) => (negate ? not(inList(row.name, list)) : inList(row.name, list)),
    };
  },
  (random) => {
    const field = pick(random, ['id', 'small', 'count'] as const);
    const list = Array.from({ length: int(random, 1, 6) }, () => int(random, -20, 40));
    const negate = random() < 0.4;
    return {
      kind: 'in, integers',
      text: `${field} ${negate ? 'not in' : 'in'} [${list.join(', ')}]`,
      matches: (row) => (negate ? not(inList(row[field], list)) : inList(row[field], list)),
    };
  },
  (random) => {
    const pattern = Array.from({ length: int(random, 1, 4) }, () => pick(random, ['%', '_', 'a', 'b', 'c', 'é', '\\%', '\\_']));
    return {
      kind: 'like',
      text: `name like ${quote(pattern.join(''))}`,
      matches: (row) => (row.name === null ? null : likeMatches(pattern, row.name)),
    };
  },
  (random) => {
    const form = pick(random, ['flag', 'flag == true', 'flag == false', 'flag != true'] as const);
    return { kind: 'booleans', text: form, matches: (row) => (form === 'flag' || form === 'flag == true' ? row.flag : !row.flag) };
  },
  (random) => {
    const field = pick(random, ['small', 'big', 'price', 'name', 'sizes', 'doc'] as const);
    const negate = random() < 0.5;
    return { kind: 'is null', text: `${field} is ${negate ? 'not ' : ''}null`, matches: (row) => (row[field] === null) !== negate };
  },
  (random) => {
    const [place, op, value] = [int(random, 0, 2), pick(random, OPS), pick(random, TAGS)];
    return {
      kind: 'array element',
      text: `tags[${place}] ${op} ${quote(value)}`,
      matches: (row) => compareElement(op, place < row.tags.length ? row.tags[place] : MISSING, value),
    };
  },
  (random) => {
    const [place, op, value] = [int(random, 0, 2), pick(random, OPS), int(random, -3, 3)];
    const element = (row: FilterRow): unknown => (row.sizes === null ? null : place < row.sizes.length ? row.sizes[place] : MISSING);
    return { kind: 'array element', text: `sizes[${place}] ${op} ${value}`, matches: (row) => compareElement(op, element(row), value) };
  },
  (random) => {
    const mode = pick(random, ['array_contains', 'array_contains_all', 'array_contains_any'] as const);
    const values = Array.from({ length: mode === 'array_contains' ? 1 : int(random, 1, 3) }, () => int(random, -3, 3));
    const shown = mode === 'array_contains' ? String(values[0]) : `[${values.join(', ')}]`;
    return {
      kind: 'array contains',
      text: `${mode}(sizes, ${shown})`,
      matches: ({ sizes }) =>
        sizes === null
          ? null
          : mode === 'array_contains_all'
            ? values.every((value) => sizes.includes(value))
            : values.some((value) => sizes.includes(value)),
    };
  },
  (random) => {
    const [field, op, value] = [pick(random, ['tags', 'sizes'] as const), pick(random, OPS), int(random, 0, 3)];
    return {
      kind: 'array length',
      text: `array_length(${field}) ${op} ${value}`,
      matches: (row) => compare(op, row[field] === null ? null : (row[field]?.length ?? 0), value),
    };
  },
  (random) => {
    const [[text, path], op] = [pick(random, JSON_PATHS), pick(random, OPS)];
    const value = pick(random, [int(random, -3, 3), 0.5, pick(random, NAMES), pick(random, NAMES)] as const);
    return { kind: 'JSON comparison', text: `${text} ${op} ${literal(value)}`, matches: (row) => compare(op, at(row, path), value) };
  },
  (random) => {
    const [text, path] = pick(random, JSON_PATHS);
    const [op, value] = [pick(random, ['==', '!='] as const), random() < 0.5];
    return { kind: 'JSON boolean', text: `${text} ${op} ${value}`, matches: (row) => compare(op, at(row, path), value) };
  },
  (random) => {
    const [text, path] = pick(random, JSON_PATHS);
    const list = Array.from({ length: int(random, 1, 3) }, () => pick(random, [int(random, -3, 3), pick(random, NAMES)] as const));
    return { kind: 'in, JSON', text: `${text} in [${list.map(literal).join(', ')}]`, matches: (row) => inList(at(row, path), list) };
  },
  (random) => {
    const [text, path] = pick(random, JSON_PATHS);
    return { kind: 'exists', text: `exists ${text}`, matches: (row) => at(row, path) !== MISSING && row.doc !== null };
  },
  (random) => {
    const mode = pick(random, ['json_contains', 'json_contains_all', 'json_contains_any'] as const);
    const values = Array.from({ length: mode === 'json_contains' ? 1 : int(random, 1, 3) }, () =>
      pick(random, [int(random, -3, 3), pick(random, NAMES)] as const),
    );
    const shown = mode === 'json_contains' ? literal(values[0]) : `[${values.map(literal).join(', ')}]`;
    return {
      kind: 'JSON contains',
      text: `${mode}(doc["list"], ${shown})`,
      matches: (row) => {
        const list = at(row, ['list']);
        if (list === null) return null;
        if (!Array.isArray(list)) return false;
        const has = (value: unknown): boolean => list.some((item) => compare('==', item, value) === true);
        return mode === 'json_contains_all' ? values.every(has) : values.some(has);
      },
    };
  },
  (random) => {
    const [op, value] = [pick(random, OPS), pick(random, [int(random, -5, 5), pick(random, NAMES)] as const)];
    return {
      kind: 'dynamic field',
      text: `extra ${op} ${literal(value)}`,
      matches: (row) => compare(op, row.extra === undefined ? MISSING : row.extra, value),
    };
  },
];

interface Node extends Filter {
  /** 1 or, 2 and, 3 everything else. */
  readonly level: number;
}

function tree(random: Random, depth: number): Node {
  if (depth === 0 || random() < 0.25) return { ...pick(random, LEAVES)(random), level: 3 };
  const op = pick(random, ['and', 'or', 'and', 'or', 'not'] as const);
  const left = tree(random, depth - 1);
  if (op === 'not')
    return { kind: left.kind, text: `${pick(random, ['not ', '!'])}(${left.text})`, level: 3, matches: (row) => not(left.matches(row)) };
  const right = tree(random, depth - 1);
  const level = op === 'and' ? 2 : 1;
  const wrap = (part: Node): string => (part.level < level || random() < 0.1 ? `(${part.text})` : part.text);
  const sign = op === 'and' ? pick(random, ['and', '&&', 'AND']) : pick(random, ['or', '||', 'OR']);
  return {
    kind: 'logic',
    text: `${wrap(left)} ${sign} ${wrap(right)}`,
    level,
    matches: (row) => {
      const [a, b] = [left.matches(row), right.matches(row)];
      const decides = op === 'or';
      if (a === decides || b === decides) return decides;
      return a === null || b === null ? null : !decides;
    },
  };
}

/** `perKind` filters of one leaf for every kind, then `combined` trees of them. */
export function filters(perKind: number, combined: number, random: Random): Filter[] {
  const simple = LEAVES.flatMap((make) => Array.from({ length: perKind }, () => make(random)));
  return [...simple, ...Array.from({ length: combined }, () => tree(random, 3))];
}

/** Keys of the rows that match, ascending. */
export function expectedIds(filter: Filter, rows: readonly FilterRow[]): number[] {
  return rows.filter((row) => filter.matches(row) === true).map((row) => row.id);
}
