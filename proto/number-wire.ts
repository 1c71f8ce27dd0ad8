import { BinaryReader as PlainReader, BinaryWriter as PlainWriter } from '@bufbuild/protobuf/wire';

/**
 * Reader and writer of our own records (not Milvus's), whose 64-bit fields are safe integers: without the way over BigInt and text that the
 * general ones take, which is two thirds of decoding a catalog. generate.sh puts them in.
 */
/** What the plain reader keeps to itself. */
interface Words {
  readonly buf: Uint8Array;
  varint64Lo: number;
  varint64Hi: number;
  varint64(): void;
}

const HIGH = 2 ** 32;
const BITS = 0x80;

export class BinaryReader extends PlainReader {
  /** A uint64 as a number; throws above 2^53 - 1. */
  uint64Number(): number {
    const words = this as unknown as Words;
    const first = words.buf[this.pos] ?? BITS;
    if (first < BITS) {
      this.pos++;
      return first;
    }
    words.varint64();
    const number = (words.varint64Hi >>> 0) * HIGH + (words.varint64Lo >>> 0);
    if (number > Number.MAX_SAFE_INTEGER) throw new Error('Value is larger than Number.MAX_SAFE_INTEGER');
    return number;
  }
}

export class BinaryWriter extends PlainWriter {
  override uint64(value: string | number | bigint): this {
    if (typeof value === 'number' && value >= 0 && value < HIGH && Number.isInteger(value)) return this.uint32(value);
    return super.uint64(value);
  }
}
