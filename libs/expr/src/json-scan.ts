import type { ListItem } from './expression.ts';

/**
 * Reads one value out of JSON text without parsing the rest: walks the bytes to the path and stops. Texts were validated when they were
 * written; a damaged one gives "no such path", never an endless loop or a read outside. Where a key stands twice the first counts.
 */
export type JsonPath = readonly JsonStep[];
export interface JsonStep {
  /** Key as UTF-8; undefined: an array position. */
  readonly key: Uint8Array | undefined;
  readonly position: number;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;
const COMMA = 0x2c;
const OPEN_OBJECT = 0x7b;
const CLOSE_OBJECT = 0x7d;
const OPEN_ARRAY = 0x5b;
const CLOSE_ARRAY = 0x5d;
const SPACE = 0x20;

export function jsonPath(path: readonly (string | number)[]): JsonPath {
  return path.map((step) => ({ key: Buffer.from(String(step)), position: typeof step === 'number' ? step : -1 }));
}

/** Start and end of the value at `path`, or undefined. */
export function findJson(data: Uint8Array, start: number, end: number, path: JsonPath): readonly [number, number] | undefined {
  let at = skipSpace(data, start, end);
  for (const step of path) {
    if (at >= end) return undefined;
    if (data[at] === OPEN_OBJECT && step.key) at = findKey(data, at + 1, end, step.key);
    else if (data[at] === OPEN_ARRAY && step.position >= 0) at = findPosition(data, at + 1, end, step.position);
    else return undefined;
    if (at < 0) return undefined;
  }
  const stop = skipValue(data, at, end);
  return stop > at ? [at, stop] : undefined;
}

function skipSpace(data: Uint8Array, at: number, end: number): number {
  while (at < end && data[at] <= SPACE) at++;
  return at;
}

/** `at` is on the opening quote; position behind the closing one. */
function skipString(data: Uint8Array, at: number, end: number): number {
  for (at++; at < end; at++) {
    const byte = data[at];
    if (byte === QUOTE) return at + 1;
    if (byte === BACKSLASH) at++;
  }
  return end;
}

function skipValue(data: Uint8Array, at: number, end: number): number {
  let depth = 0;
  while (at < end) {
    const byte = data[at];
    if (byte === QUOTE) at = skipString(data, at, end);
    else if (byte === OPEN_OBJECT || byte === OPEN_ARRAY) {
      depth++;
      at++;
      continue;
    } else if (byte === CLOSE_OBJECT || byte === CLOSE_ARRAY) {
      if (--depth < 0) return at;
      at++;
    } else if (byte === COMMA || byte === COLON || byte <= SPACE) {
      if (depth === 0) return at;
      at++;
      continue;
    } else {
      while (at < end && !isDelimiter(data[at])) at++;
    }
    if (depth === 0) return at;
  }
  return at;
}

const isDelimiter = (byte: number): boolean =>
  byte <= SPACE || byte === COMMA || byte === COLON || byte === CLOSE_OBJECT || byte === CLOSE_ARRAY || byte === QUOTE;

/** Position of the value of `key` in the object that `at` is inside of, or -1. */
function findKey(data: Uint8Array, at: number, end: number, key: Uint8Array): number {
  for (;;) {
    at = skipSpace(data, at, end);
    if (at >= end || data[at] !== QUOTE) return -1;
    const close = skipString(data, at, end);
    const found = sameKey(data, at + 1, close - 1, key);
    at = skipSpace(data, close, end);
    if (at >= end || data[at] !== COLON) return -1;
    at = skipSpace(data, at + 1, end);
    if (found) return at < end ? at : -1;
    at = skipSpace(data, skipValue(data, at, end), end);
    if (at >= end || data[at] !== COMMA) return -1;
    at++;
  }
}

function sameKey(data: Uint8Array, start: number, end: number, key: Uint8Array): boolean {
  if (end - start === key.length) {
    let i = 0;
    while (i < key.length && data[start + i] === key[i]) i++;
    if (i === key.length) return !hasBackslash(data, start, end);
  }
  if (end - start <= key.length || !hasBackslash(data, start, end)) return false;
  const decoded = decodeString(data, start - 1, end + 1);
  return decoded !== undefined && Buffer.from(decoded).equals(key);
}

function hasBackslash(data: Uint8Array, start: number, end: number): boolean {
  for (let i = start; i < end; i++) if (data[i] === BACKSLASH) return true;
  return false;
}

function findPosition(data: Uint8Array, at: number, end: number, position: number): number {
  for (let i = 0; ; i++) {
    at = skipSpace(data, at, end);
    if (at >= end || data[at] === CLOSE_ARRAY) return -1;
    if (i === position) return at;
    at = skipSpace(data, skipValue(data, at, end), end);
    if (at >= end || data[at] !== COMMA) return -1;
    at++;
  }
}

const textOf = (data: Uint8Array, start: number, end: number): string =>
  Buffer.from(data.buffer, data.byteOffset + start, end - start).toString();

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // Damaged text has no value here; what is stored was checked at the door.
    return undefined;
  }
}

function decodeString(data: Uint8Array, start: number, end: number): string | undefined {
  if (!hasBackslash(data, start, end)) return textOf(data, start + 1, end - 1);
  const value = parse(textOf(data, start, end));
  return typeof value === 'string' ? value : undefined;
}

/** The value of start..end: a literal, a list of literals, or undefined for null, objects and lists that hold them. */
export function jsonValue(data: Uint8Array, start: number, end: number): ListItem | undefined {
  const first = data[start];
  if (first === QUOTE) return decodeString(data, start, end);
  if (first === OPEN_ARRAY) return toItem(parse(textOf(data, start, end)));
  if (first === OPEN_OBJECT) return undefined;
  return shortInteger(data, start, end) ?? scalarOf(textOf(data, start, end));
}

/** An integer of at most 15 digits, without making text of it first. */
function shortInteger(data: Uint8Array, start: number, end: number): bigint | undefined {
  const negative = data[start] === 0x2d;
  const from = negative ? start + 1 : start;
  if (end <= from || end - from > 15) return undefined;
  let value = 0;
  for (let i = from; i < end; i++) {
    const digit = data[i] - 0x30;
    if (digit < 0 || digit > 9) return undefined;
    value = value * 10 + digit;
  }
  return BigInt(negative ? -value : value);
}

/** Elements of the array at start..end, those without a value left out; undefined when it is no array. */
export function jsonElements(data: Uint8Array, start: number, end: number): ListItem[] | undefined {
  if (data[start] !== OPEN_ARRAY) return undefined;
  const elements: ListItem[] = [];
  let at = skipSpace(data, start + 1, end);
  while (at < end && data[at] !== CLOSE_ARRAY) {
    const stop = skipValue(data, at, end);
    if (stop <= at) return undefined;
    const value = jsonValue(data, at, stop);
    if (value !== undefined) elements.push(value);
    at = skipSpace(data, stop, end);
    if (data[at] === COMMA) at = skipSpace(data, at + 1, end);
  }
  return elements;
}

/** Number of elements of the array at start..end; undefined when it is no array. */
export function jsonLength(data: Uint8Array, start: number, end: number): number | undefined {
  if (data[start] !== OPEN_ARRAY) return undefined;
  const value = parse(textOf(data, start, end));
  return Array.isArray(value) ? value.length : undefined;
}

function scalarOf(text: string): ListItem | undefined {
  if (text === 'true') return true;
  if (text === 'false') return false;
  if (text === 'null') return undefined;
  if (/^-?\d+$/.test(text)) return BigInt(text);
  const value = Number(text);
  return Number.isNaN(value) ? undefined : value;
}

function toItem(value: unknown): ListItem | undefined {
  if (typeof value === 'string' || typeof value === 'boolean') return value;
  if (typeof value === 'number') return Number.isSafeInteger(value) ? BigInt(value) : value;
  if (!Array.isArray(value)) return undefined;
  const items = value.map(toItem);
  return items.some((item) => item === undefined) ? undefined : (items as ListItem[]);
}
