import { crc32c } from '@node-rs/crc32';

/** CRC-32C (Castagnoli) of the bytes, as an unsigned 32-bit number; pass an earlier result to go on. */
export function checksum(bytes: Uint8Array, before = 0): number {
  return crc32c(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength), before) >>> 0;
}
