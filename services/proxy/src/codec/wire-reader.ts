import { CairnError } from '@cairn/base';

export const WIRE_VARINT = 0;
export const WIRE_FIXED64 = 1;
export const WIRE_BYTES = 2;
export const WIRE_FIXED32 = 5;

/** A stretch of the request's bytes. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

/**
 * Reads protobuf straight on the request's bytes, for the few messages that carry columns. Every step checks bounds, so malformed bytes give
 * InvalidParameter and nothing else.
 */
export class WireReader {
  readonly bytes: Uint8Array;
  position: number;
  #end: number;
  #depth = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
    this.position = 0;
    this.#end = bytes.length;
  }

  /** Calls `field` for each field of the message up to the reader's end; `field` reads or skips the value. */
  fields(field: (number: number, wireType: number) => void): void {
    while (this.position < this.#end) {
      const tag = this.varint();
      field(tag >>> 3, tag & 7);
    }
  }

  /** The same for a message that stands in a length-delimited field. */
  message(wireType: number, field: (number: number, wireType: number) => void): void {
    const { end } = this.#open(wireType);
    if (++this.#depth > 100) throw this.malformed('messages are nested too deeply');
    const outer = this.#end;
    this.#end = end;
    this.fields(field);
    this.#end = outer;
    this.#depth--;
  }

  /** A length-delimited value as a stretch of the bytes. */
  span(wireType: number): Span {
    const span = this.#open(wireType);
    this.position = span.end;
    return span;
  }

  view(wireType: number): Uint8Array {
    const { start, end } = this.span(wireType);
    return this.bytes.subarray(start, end);
  }

  string(wireType: number): string {
    return decoder.decode(this.view(wireType));
  }

  /** Low 32 bits of a varint, unsigned. */
  varint(): number {
    const { bytes } = this;
    const end = this.#end;
    let value = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      if (this.position >= end) throw this.malformed('a number is cut off');
      const byte = bytes[this.position++];
      if (shift < 32) value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value >>> 0;
    }
    throw this.malformed('a number has more than ten bytes');
  }

  /** A varint as an unsigned 64-bit number. */
  varint64(): bigint {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      if (this.position >= this.#end) throw this.malformed('a number is cut off');
      const byte = this.bytes[this.position++];
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return BigInt.asUintN(64, value);
    }
    throw this.malformed('a number has more than ten bytes');
  }

  number(wireType: number): number {
    if (wireType !== WIRE_VARINT) throw this.malformed(`wire type ${wireType} where a number belongs`);
    return this.varint();
  }

  skip(wireType: number): void {
    if (wireType === WIRE_VARINT) this.varint();
    else if (wireType === WIRE_FIXED64) this.#advance(8);
    else if (wireType === WIRE_BYTES) this.span(wireType);
    else if (wireType === WIRE_FIXED32) this.#advance(4);
    else throw this.malformed(`unknown wire type ${wireType}`);
  }

  /** A value of `width` bytes in place. */
  fixed(width: number): Span {
    const start = this.position;
    this.#advance(width);
    return { start, end: this.position };
  }

  malformed(what: string): CairnError {
    return new CairnError('InvalidParameter', `malformed request: ${what} at byte ${this.position}`);
  }

  #open(wireType: number): Span {
    if (wireType !== WIRE_BYTES) throw this.malformed(`wire type ${wireType} where bytes belong`);
    const length = this.varint();
    if (length > this.#end - this.position) throw this.malformed(`${length} bytes announced, ${this.#end - this.position} are left`);
    return { start: this.position, end: this.position + length };
  }

  #advance(bytes: number): void {
    if (bytes > this.#end - this.position) throw this.malformed('a number is cut off');
    this.position += bytes;
  }
}

const decoder = new TextDecoder();
