import { ParseProblem } from './parse-problem.ts';

export type TokenKind = 'int' | 'float' | 'string' | 'bool' | 'name' | 'keyword' | 'symbol' | 'template' | 'end';

export interface Token {
  readonly kind: TokenKind;
  /** Keyword or symbol in canonical spelling (lower case, `&&` for and, `||` for or); a name as written. */
  readonly text: string;
  readonly value: boolean | bigint | number | string | undefined;
  /** First character in the text. */
  readonly position: number;
}

const KEYWORDS = new Set([
  'in',
  'not',
  'and',
  'or',
  'like',
  'is',
  'null',
  'exists',
  'json_contains',
  'json_contains_all',
  'json_contains_any',
  'array_contains',
  'array_contains_all',
  'array_contains_any',
  'array_length',
  'text_match',
  'phrase_match',
  'random_sample',
  'element_filter',
  'match_all',
  'match_any',
  'match_least',
  'match_most',
  'match_exact',
  'interval',
  'iso',
  'st_equals',
  'st_touches',
  'st_overlaps',
  'st_crosses',
  'st_contains',
  'st_intersects',
  'st_within',
  'st_dwithin',
  'st_isvalid',
]);
const CANONICAL: Readonly<Record<string, string>> = { and: '&&', or: '||' };
const BOOLS: Readonly<Record<string, boolean>> = { true: true, True: true, TRUE: true, false: false, False: false, FALSE: false };
const SYMBOLS = ['**', '<<', '>>', '<=', '>=', '==', '!=', '=~', '!~', '&&', '||', ...'()[],<>+-*/%&|^~!='];
const ESCAPES: Readonly<Record<string, string>> = {
  n: '\n',
  t: '\t',
  r: '\r',
  a: '\x07',
  b: '\b',
  f: '\f',
  v: '\v',
  '\\': '\\',
  "'": "'",
  '"': '"',
  '?': '?',
};

const NUMBER = /0[xX][0-9a-fA-F]*\.?[0-9a-fA-F]*[pP][+-]?\d+|0[xX][0-9a-fA-F]+|0[bB][01]+|(?:\d+\.\d*|\.\d+|\d+)(?:[eE][+-]?\d+)?/y;
const NAME = /[\p{L}_$][\p{L}\p{N}_$]*/uy;
const SPACE = /[ \t\r\n]+/y;
const TEMPLATE = /\{\s*([\p{L}_][\p{L}\p{N}_]*)\s*\}/uy;
const STRING_START = /(?:u8|u|U|L|r)?["']/y;

function matchAt(pattern: RegExp, text: string, position: number): RegExpExecArray | null {
  pattern.lastIndex = position;
  return pattern.exec(text);
}

/** Splits filter text into tokens, the last of kind `end`. Throws ParseProblem. */
export function tokenize(text: string): Token[] {
  const tokens: Token[] = [];
  let at = 0;
  for (;;) {
    at += matchAt(SPACE, text, at)?.[0].length ?? 0;
    if (at >= text.length) {
      tokens.push({ kind: 'end', text: 'end of expression', value: undefined, position: text.length });
      return tokens;
    }
    const [token, next] = tokenAt(text, at);
    tokens.push(token);
    at = next;
  }
}

function tokenAt(text: string, at: number): [Token, number] {
  const quoted = matchAt(STRING_START, text, at);
  if (quoted) return readString(text, at, quoted[0]);
  const number = matchAt(NUMBER, text, at);
  if (number) return [{ ...numberOf(number[0], at), position: at }, at + number[0].length];
  const name = matchAt(NAME, text, at);
  if (name) return [{ ...wordOf(name[0]), position: at }, at + name[0].length];
  const template = matchAt(TEMPLATE, text, at);
  if (template) return [{ kind: 'template', text: template[1], value: undefined, position: at }, at + template[0].length];
  const symbol = SYMBOLS.find((s) => text.startsWith(s, at));
  if (symbol) return [{ kind: 'symbol', text: symbol, value: undefined, position: at }, at + symbol.length];
  throw new ParseProblem(`unexpected character ${JSON.stringify(String.fromCodePoint(text.codePointAt(at) ?? 0))}`, at);
}

function wordOf(word: string): Omit<Token, 'position'> {
  if (Object.hasOwn(BOOLS, word)) return { kind: 'bool', text: word, value: BOOLS[word] };
  const lower = word.toLowerCase();
  // The grammar knows its words in lower case and in capitals only; `Like` is a name. Function names of geometry and matching come in any case.
  const spelled = word === lower || word === word.toUpperCase() || lower.startsWith('st_');
  if (spelled && KEYWORDS.has(lower)) {
    const canonical = CANONICAL[lower];
    return canonical === undefined
      ? { kind: 'keyword', text: lower, value: undefined }
      : { kind: 'symbol', text: canonical, value: undefined };
  }
  return { kind: 'name', text: word, value: undefined };
}

function numberOf(text: string, position: number): Omit<Token, 'position'> {
  if (/^0[xX].*[pP]/.test(text)) return { kind: 'float', text, value: hexFloat(text) };
  const isInt = /^(0[xX][0-9a-fA-F]+|0[bB][01]+|\d+)$/.test(text);
  if (!isInt) {
    const value = Number(text);
    if (!Number.isFinite(value)) throw new ParseProblem(`number ${text} is out of range`, position);
    return { kind: 'float', text, value };
  }
  const octal = /^0\d+$/.test(text);
  if (octal && /[89]/.test(text)) throw new ParseProblem(`${text} is not an octal number`, position);
  const value = BigInt(octal ? `0o${text.slice(1)}` : text);
  // One above the largest int64 is let through so that `-9223372036854775808` can be written; the checker refuses it elsewhere.
  if (value > 2n ** 63n) throw new ParseProblem(`integer ${text} is out of range`, position);
  return { kind: 'int', text, value };
}

function hexFloat(text: string): number {
  const [mantissa, exponent] = text.slice(2).split(/[pP]/);
  const [whole, fraction = ''] = mantissa.split('.');
  const digits = Number.parseInt(`${whole}${fraction}` || '0', 16);
  return digits * 2 ** (Number(exponent) - 4 * fraction.length);
}

function readString(text: string, start: number, opening: string): [Token, number] {
  const quote = opening.at(-1) as string;
  const raw = opening.startsWith('r');
  const bodyStart = start + opening.length;
  let at = bodyStart;
  let out = '';
  let plainFrom = at;
  for (;;) {
    if (at >= text.length) throw new ParseProblem('string is not closed', start);
    const char = text[at];
    if (char === quote) {
      out += text.slice(plainFrom, at);
      return [{ kind: 'string', text: text.slice(start, at + 1), value: out, position: start }, at + 1];
    }
    if (char === '\\' && !raw) {
      out += text.slice(plainFrom, at);
      const [piece, next] = readEscape(text, at);
      out += piece;
      at = plainFrom = next;
    } else at += char === '\\' && text[at + 1] === quote ? 2 : 1;
  }
}

/** The escape sequence at `at`. `\%` and `\_` stay as they are: `like` reads them. */
function readEscape(text: string, at: number): [string, number] {
  const char = text[at + 1] ?? '';
  if (Object.hasOwn(ESCAPES, char)) return [ESCAPES[char], at + 2];
  if (char === '%' || char === '_') return [`\\${char}`, at + 2];
  const coded = /\\(?:x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{1,3}))/y;
  const match = matchAt(coded, text, at);
  if (!match) throw new ParseProblem(`unknown escape sequence \\${char}`, at);
  const code = match[4] === undefined ? Number.parseInt(match[1] ?? match[2] ?? match[3], 16) : Number.parseInt(match[4], 8);
  if (code > 0x10ffff) throw new ParseProblem(`\\U${match[3]} is no character`, at);
  return [String.fromCodePoint(code), at + match[0].length];
}
