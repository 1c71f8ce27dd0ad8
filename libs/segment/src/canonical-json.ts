/**
 * Canonical text of a JSON value, as RFC 8785 has it: no spaces, object members by their names in UTF-16 order, the shortest form of strings and
 * numbers. One addition: a whole number that a double cannot hold keeps its digits, so that two such numbers are not taken for one.
 */

/** Digits that may be more than a double holds. */
const LONG_NUMBER = /[0-9]{16}/;
const EMPTY_OBJECT = Buffer.from('{}', 'latin1');

/** Canonical bytes of the value in [start, end). Bytes that are no JSON stay as they are: nothing is refused here that was once stored. */
export function canonicalJson(data: Buffer, start: number, end: number): Uint8Array {
  if (end - start === 2 && data[start] === 0x7b && data[start + 1] === 0x7d) return EMPTY_OBJECT;
  const text = data.toString('utf8', start, end);
  let value: unknown;
  try {
    value = LONG_NUMBER.test(text) ? JSON.parse(text, keepDigits) : JSON.parse(text);
  } catch {
    return data.subarray(start, end);
  }
  return Buffer.from(write(value), 'utf8');
}

/** A whole number beyond the safe ones, by its digits. */
class LongNumber {
  readonly digits: string;

  constructor(digits: string) {
    this.digits = digits;
  }
}

function keepDigits(_key: string, value: unknown, context?: { readonly source?: string }): unknown {
  const source = context?.source;
  if (typeof value !== 'number' || Number.isSafeInteger(value) || source === undefined || !/^-?[0-9]+$/.test(source)) return value;
  return new LongNumber(source);
}

function write(value: unknown): string {
  if (value instanceof LongNumber) return value.digits;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  if (Array.isArray(value)) return `[${value.map(write).join(',')}]`;
  // The default order of sort is by UTF-16 units.
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${members.map(([name, member]) => `${JSON.stringify(name)}:${write(member)}`).join(',')}}`;
}
