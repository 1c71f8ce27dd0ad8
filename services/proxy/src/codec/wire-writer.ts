/**
 * Writes protobuf from the end to the beginning: the length of a nested message is known once its content stands behind it, so one pass and one
 * buffer do. Everything comes in reverse: the last field first, the last element of a list first.
 */
export class WireWriter {
  #buffer: Buffer;
  #start: number;

  /** `capacity`: bytes expected; more are grown to by doubling. */
  constructor(capacity: number) {
    this.#buffer = Buffer.allocUnsafe(Math.max(64, capacity));
    this.#start = this.#buffer.length;
  }

  /** Bytes written so far. */
  get size(): number {
    return this.#buffer.length - this.#start;
  }

  finish(): Buffer {
    return this.#buffer.subarray(this.#start);
  }

  tag(field: number, wireType: number): void {
    this.varint((field << 3) | wireType);
  }

  /** An unsigned 32-bit varint. */
  varint(value: number): void {
    let size = 1;
    for (let rest = value >>> 7; rest !== 0; rest >>>= 7) size++;
    let at = this.#reserve(size);
    let rest = value >>> 0;
    while (rest >= 0x80) {
      this.#buffer[at++] = (rest & 0x7f) | 0x80;
      rest >>>= 7;
    }
    this.#buffer[at] = rest;
  }

  /** A 64-bit varint from its two halves, signed or not. */
  varint64(low: number, high: number): void {
    if (high === 0) {
      this.varint(low);
      return;
    }
    let lo = low >>> 0;
    let hi = high >>> 0;
    let size = 0;
    for (let l = lo, h = hi; l !== 0 || h !== 0; size++) {
      l = ((l >>> 7) | (h << 25)) >>> 0;
      h >>>= 7;
    }
    let at = this.#reserve(size);
    for (let i = 1; i < size; i++) {
      this.#buffer[at++] = (lo & 0x7f) | 0x80;
      lo = ((lo >>> 7) | (hi << 25)) >>> 0;
      hi >>>= 7;
    }
    this.#buffer[at] = lo & 0x7f;
  }

  /** A non-negative safe integer or a bigint as a 64-bit varint field; nothing when 0. */
  integer(field: number, value: number | bigint): void {
    const wide = BigInt.asUintN(64, BigInt(value));
    if (wide === 0n) return;
    this.varint64(Number(wide & 0xffffffffn), Number(wide >> 32n));
    this.tag(field, 0);
  }

  bool(field: number, value: boolean): void {
    if (value) this.integer(field, 1);
  }

  /** A float that stands by itself; written also when 0. */
  float(field: number, value: number): void {
    const at = this.#reserve(4);
    this.#buffer.writeFloatLE(value, at);
    this.tag(field, 5);
  }

  bytes(field: number, value: Uint8Array): void {
    this.raw(value);
    this.varint(value.length);
    this.tag(field, 2);
  }

  /** Nothing when empty. */
  string(field: number, value: string): void {
    if (value === '') return;
    this.text(field, value);
  }

  /** An element of a list of strings: also when empty. */
  text(field: number, value: string): void {
    this.bytes(field, Buffer.from(value, 'utf8'));
  }

  message(field: number, content: () => void): void {
    const before = this.size;
    content();
    this.varint(this.size - before);
    this.tag(field, 2);
  }

  raw(value: Uint8Array): void {
    const at = this.#reserve(value.length);
    this.#buffer.set(value, at);
  }

  rawRange(value: Uint8Array, start: number, end: number): void {
    const length = end - start;
    const at = this.#reserve(length);
    if (length <= 24) for (let i = 0; i < length; i++) this.#buffer[at + i] = value[start + i];
    else this.#buffer.set(value.subarray(start, end), at);
  }

  #reserve(bytes: number): number {
    if (bytes > this.#start) {
      const used = this.size;
      const larger = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, used + bytes + 64));
      this.#buffer.copy(larger, larger.length - used, this.#start);
      this.#start = larger.length - used;
      this.#buffer = larger;
    }
    this.#start -= bytes;
    return this.#start;
  }
}
