import { CairnError } from '@cairn/base';

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const SPACE = 0x20;
/** `{ [` and `} ]`. */
const OPENING: ReadonlySet<number> = new Set([0x7b, 0x5b]);
const CLOSING: ReadonlySet<number> = new Set([0x7d, 0x5d]);

/** A member of a JSON object: its key, and `"key":value` as it was written. */
export interface JsonMember {
  readonly key: string;
  readonly text: Uint8Array;
}

/**
 * The members of a JSON object, in order, each as its own bytes: a number beyond 2^53 or an escaped text stays as its sender wrote it, which a
 * parse and a stringify would not keep. The text must be valid JSON (columns are checked when they come in); no bytes are an empty object.
 */
export function jsonMembers(json: Uint8Array): JsonMember[] {
  const members: JsonMember[] = [];
  const end = json.length;
  let at = skipSpace(json, 0);
  if (at === end) return members;
  if (json[at] !== 0x7b) throw new CairnError('InvalidParameter', 'the dynamic field of a row is not a JSON object');
  at = skipSpace(json, at + 1);
  while (at < end && json[at] === QUOTE) {
    const keyEnd = skipString(json, at);
    const stop = valueEnd(json, keyEnd);
    const key: unknown = JSON.parse(Buffer.from(json.subarray(at, keyEnd)).toString('utf8'));
    members.push({ key: String(key), text: json.subarray(at, stop) });
    at = skipSpace(json, stop);
    if (json[at] !== COMMA) break;
    at = skipSpace(json, at + 1);
  }
  return members;
}

/** Members back to an object. */
export function jsonObject(members: Iterable<JsonMember>): Uint8Array {
  const parts: Uint8Array[] = [];
  for (const { text } of members) parts.push(parts.length === 0 ? Buffer.from('{') : Buffer.from(','), text);
  return parts.length === 0 ? Buffer.from('{}') : Buffer.concat([...parts, Buffer.from('}')]);
}

function skipSpace(json: Uint8Array, from: number): number {
  let at = from;
  while (at < json.length && (json[at] ?? 0) <= SPACE) at++;
  return at;
}

/** `at` is on the opening quote; position behind the closing one. */
function skipString(json: Uint8Array, at: number): number {
  for (let i = at + 1; i < json.length; i++) {
    if (json[i] === QUOTE) return i + 1;
    if (json[i] === BACKSLASH) i++;
  }
  return json.length;
}

/** End of the member whose key ends at `at`, without the spaces behind it: the next comma or bracket that belongs to the object. */
function valueEnd(json: Uint8Array, at: number): number {
  let depth = 0;
  let last = at;
  for (let i = at; i < json.length; ) {
    const byte = json[i] ?? 0;
    if (depth === 0 && (byte === COMMA || CLOSING.has(byte))) break;
    if (OPENING.has(byte)) depth++;
    else if (CLOSING.has(byte)) depth--;
    i = byte === QUOTE ? skipString(json, i) : i + 1;
    if (byte > SPACE) last = i;
  }
  return last;
}
