/**
 * The messages of Calls.Exchange written straight into the bytes that are sent: each body is copied once. The generated encoders grow a buffer as they
 * go and copy for every level, which costs a fifth of a small call. Reading is the generated decoders' work: they hand out views.
 */

/** A call as it is sent; the fields that stay the same from call to call are written once. */
export interface SentCall {
  readonly id: number;
  /** `callHead` of its method. */
  readonly head: Buffer;
  /** 0: none. */
  readonly timeoutMs: number;
  readonly request: Uint8Array;
}

export interface SentAnswer {
  readonly id: number;
  readonly response: Uint8Array;
  /** ''; or the error, and no response. */
  readonly failure: string;
}

const VARINT = 0;
const BYTES = 2;
const tag = (field: number, type: number): number => (field << 3) | type;

function varintSize(value: number): number {
  return value < 0x80 ? 1 : value < 0x4000 ? 2 : value < 0x20_0000 ? 3 : value < 0x1000_0000 ? 4 : 5;
}

/** Writes a u32. */
function putVarint(out: Buffer, at: number, value: number): number {
  let rest = value;
  while (rest > 0x7f) {
    out[at++] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
  }
  out[at] = rest;
  return at + 1;
}

/** A field below number 16 of type u32; 0 is not written. */
const numberSize = (value: number): number => (value === 0 ? 0 : 1 + varintSize(value));
function putNumber(out: Buffer, at: number, field: number, value: number): number {
  if (value === 0) return at;
  out[at] = tag(field, VARINT);
  return putVarint(out, at + 1, value);
}

/** A field below number 16 that has a length. */
const bytesSize = (length: number): number => 1 + varintSize(length) + length;
function putHead(out: Buffer, at: number, field: number, length: number): number {
  out[at] = tag(field, BYTES);
  return putVarint(out, at + 1, length);
}
function putBytes(out: Buffer, at: number, field: number, bytes: Uint8Array): number {
  const start = putHead(out, at, field, bytes.length);
  out.set(bytes, start);
  return start + bytes.length;
}

/** Path and headers of a call, as fields of Call. */
export function callHead(path: string, headers: Readonly<Record<string, string>>): Buffer {
  const parts = [field(2, Buffer.from(path))];
  for (const key in headers) parts.push(field(4, Buffer.concat([field(1, Buffer.from(key)), field(2, Buffer.from(headers[key]))])));
  return Buffer.concat(parts);
}

function field(number: number, bytes: Buffer): Buffer {
  const out = Buffer.allocUnsafe(bytesSize(bytes.length));
  putBytes(out, 0, number, bytes);
  return out;
}

const callSize = ({ id, head, timeoutMs, request }: SentCall): number =>
  numberSize(id) + head.length + numberSize(timeoutMs) + bytesSize(request.length);

/** A CallBatch. */
export function encodeCalls(calls: readonly SentCall[], cancelled: readonly number[]): Buffer {
  let size = 0;
  for (const call of calls) size += bytesSize(callSize(call));
  for (const id of cancelled) size += 1 + varintSize(id);
  const out = Buffer.allocUnsafe(size);
  let at = 0;
  for (const call of calls) {
    at = putHead(out, at, 1, callSize(call));
    at = putNumber(out, at, 1, call.id);
    out.set(call.head, at);
    at = putNumber(out, at + call.head.length, 3, call.timeoutMs);
    at = putBytes(out, at, 5, call.request);
  }
  // Not packed: a decoder takes either.
  for (const id of cancelled) at = putNumber(out, at, 2, id);
  return out;
}

/** An AnswerBatch. */
export function encodeAnswers(answers: readonly SentAnswer[]): Buffer {
  const failures = answers.map(({ failure }) => (failure === '' ? undefined : Buffer.from(failure)));
  const sizes = answers.map(({ id, response }, i) => {
    const failure = failures[i];
    return numberSize(id) + bytesSize(response.length) + (failure ? bytesSize(failure.length) : 0);
  });
  const out = Buffer.allocUnsafe(sizes.reduce((sum, size) => sum + bytesSize(size), 0));
  let at = 0;
  answers.forEach(({ id, response }, i) => {
    at = putHead(out, at, 1, sizes[i]);
    at = putNumber(out, at, 1, id);
    at = putBytes(out, at, 2, response);
    const failure = failures[i];
    if (failure) at = putBytes(out, at, 3, failure);
  });
  return out;
}
