import { type Span, WIRE_BYTES, WIRE_VARINT, type WireReader } from './wire-reader.ts';

/**
 * Values of one repeated field as they lie in the request: stretches of its bytes, found first and copied once at the end. A sender may pack
 * values, leave them unpacked, cut a packed run in several, or repeat the message around them; all of it ends up here in order.
 */
export class ValueRun {
  /** Start and end of each stretch, alternating. */
  readonly #spans: number[] = [];
  #bytes = 0;
  #count = 0;

  /** Values so far. */
  get count(): number {
    return this.#count;
  }

  /** Bytes so far. */
  get size(): number {
    return this.#bytes;
  }

  clear(): void {
    this.#spans.length = 0;
    this.#bytes = 0;
    this.#count = 0;
  }

  /** One string or byte string. */
  addBytes(reader: WireReader, wireType: number): void {
    this.#add(reader.span(wireType), 1);
  }

  /** float or double: a packed run, or one value. */
  addFixed(reader: WireReader, wireType: number, width: 4 | 8): void {
    if (wireType !== WIRE_BYTES) {
      if (wireType !== (width === 4 ? 5 : 1)) throw reader.malformed(`wire type ${wireType} where numbers of ${width} bytes belong`);
      this.#add(reader.fixed(width), 1);
      return;
    }
    const span = reader.span(wireType);
    const length = span.end - span.start;
    if (length % width !== 0) throw reader.malformed(`a run of ${length} bytes does not divide by ${width}`);
    if (length > 0) this.#add(span, length / width);
  }

  /** int32, int64 or bool: a packed run, or one value. */
  addVarints(reader: WireReader, wireType: number): void {
    if (wireType === WIRE_VARINT) {
      const start = reader.position;
      reader.varint();
      this.#add({ start, end: reader.position }, 1);
      return;
    }
    const span = reader.span(wireType);
    const { bytes } = reader;
    let count = 0;
    for (let i = span.start; i < span.end; i++) if (bytes[i] < 0x80) count++;
    if (span.end > span.start) {
      if (bytes[span.end - 1] >= 0x80) throw reader.malformed('a number is cut off');
      this.#add(span, count);
    }
  }

  /** All bytes back to back: a view when it is one stretch that is aligned to `width`, else one copy. */
  joined(source: Uint8Array, width: number): Uint8Array {
    const spans = this.#spans;
    if (spans.length === 2 && (source.byteOffset + spans[0]) % width === 0) return source.subarray(spans[0], spans[1]);
    const target = new Uint8Array(this.#bytes);
    let at = 0;
    for (let i = 0; i < spans.length; i += 2) {
      const start = spans[i];
      const end = spans[i + 1];
      // Short strings: a loop beats a call.
      if (end - start <= 24) for (let j = start; j < end; j++) target[at++] = source[j];
      else {
        target.set(source.subarray(start, end), at);
        at += end - start;
      }
    }
    return target;
  }

  /** Where each value begins in `joined`; one entry more than there are values. For strings only. */
  offsets(): Int32Array {
    const spans = this.#spans;
    const offsets = new Int32Array(spans.length / 2 + 1);
    for (let i = 0, at = 0; i < spans.length; i += 2) {
      at += spans[i + 1] - spans[i];
      offsets[i / 2 + 1] = at;
    }
    return offsets;
  }

  /** Varints as int32: the low 32 bits, as protobuf has it. */
  int32(source: Uint8Array): Int32Array {
    const target = new Int32Array(this.#count);
    let at = 0;
    this.#varints(source, (low) => {
      target[at++] = low;
    });
    return target;
  }

  bytes(source: Uint8Array): Uint8Array {
    const target = new Uint8Array(this.#count);
    let at = 0;
    this.#varints(source, (low, high) => {
      target[at++] = low !== 0 || high !== 0 ? 1 : 0;
    });
    return target;
  }

  /** Varints as int64, without a BigInt for each. */
  int64(source: Uint8Array): BigInt64Array {
    const target = new BigInt64Array(this.#count);
    const halves = new Int32Array(target.buffer);
    let at = 0;
    this.#varints(source, (low, high) => {
      halves[at++] = low;
      halves[at++] = high;
    });
    return target;
  }

  #varints(source: Uint8Array, emit: (low: number, high: number) => void): void {
    const spans = this.#spans;
    for (let i = 0; i < spans.length; i += 2) {
      const end = spans[i + 1];
      let position = spans[i];
      while (position < end) {
        let byte = source[position++];
        if (byte < 0x80) {
          emit(byte, 0);
          continue;
        }
        let low = byte & 0x7f;
        let high = 0;
        for (let shift = 7; byte >= 0x80; shift += 7) {
          byte = source[position++];
          const bits = byte & 0x7f;
          if (shift < 28) low |= bits << shift;
          else if (shift === 28) {
            low |= bits << 28;
            high = bits >>> 4;
          } else if (shift < 64) high |= bits << (shift - 32);
        }
        emit(low, high);
      }
    }
  }

  #add(span: Span, count: number): void {
    this.#spans.push(span.start, span.end);
    this.#bytes += span.end - span.start;
    this.#count += count;
  }
}
