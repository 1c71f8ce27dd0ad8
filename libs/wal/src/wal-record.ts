import { CairnError, checksum } from '@cairn/base';
import type { StoredRecord } from './wal.ts';

/** One application record inside the WAL envelope (epoch, index, CRC). */
export interface WalRecord {
  readonly sequence: number;
  readonly subject: string;
  readonly epoch: number;
  /** Count of the records that its epoch wrote, from 0 (the fence). */
  readonly index: number;
  readonly kind: WalRecordKind;
  readonly payload: Uint8Array;
}

export type WalRecordKind = 'fence' | 'data';

/**
 * The envelope, little endian, 32 bytes before the payload (a multiple of 8, so that it does not disturb the payload's alignment):
 *   0 magic 'CW'   2 version   3 kind   4 payload length (u32)   8 epoch (f64)   16 index (f64)   24 reserved (u32)   28 CRC-32C (u32)
 * The CRC covers bytes 0..27 and the payload. Epoch and index are safe integers, exact in a double.
 */
export const ENVELOPE_BYTES = 32;
const MAGIC = 0x5743;
const VERSION = 1;
const CRC_AT = 28;
const kinds: readonly WalRecordKind[] = ['fence', 'data'];

/** The stored form of a record. Copies the payload once, behind its header. */
export function encodeRecord(kind: WalRecordKind, epoch: number, index: number, payload: Uint8Array): Uint8Array {
  const bytes = Buffer.allocUnsafeSlow(ENVELOPE_BYTES + payload.byteLength);
  bytes.writeUInt16LE(MAGIC, 0);
  bytes.writeUInt8(VERSION, 2);
  bytes.writeUInt8(kinds.indexOf(kind), 3);
  bytes.writeUInt32LE(payload.byteLength, 4);
  bytes.writeDoubleLE(epoch, 8);
  bytes.writeDoubleLE(index, 16);
  bytes.writeUInt32LE(0, 24);
  bytes.set(payload, ENVELOPE_BYTES);
  bytes.writeUInt32LE(crcOf(bytes), CRC_AT);
  return bytes;
}

function crcOf(bytes: Uint8Array): number {
  return checksum(bytes.subarray(ENVELOPE_BYTES), checksum(bytes.subarray(0, CRC_AT)));
}

/**
 * Opens the envelope; the payload is a view of the stored bytes. Anything that does not fit (magic, version, length, CRC) is ObjectDamaged
 * and names channel and sequence: a damaged record is never skipped.
 */
export function decodeRecord(channel: string, stored: StoredRecord): WalRecord {
  const { bytes, sequence, subject } = stored;
  const damaged = (what: string): CairnError =>
    new CairnError('ObjectDamaged', `channel ${channel}: record ${sequence} (${bytes.byteLength} bytes): ${what}`);
  if (bytes.byteLength < ENVELOPE_BYTES) throw damaged(`shorter than its header of ${ENVELOPE_BYTES} bytes`);
  const view = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.readUInt16LE(0) !== MAGIC) throw damaged('does not begin as a record does');
  const crc = crcOf(view);
  if (view.readUInt32LE(CRC_AT) !== crc) throw damaged(`CRC ${view.readUInt32LE(CRC_AT)} stands in it, ${crc} was computed`);
  if (view.readUInt8(2) > VERSION)
    throw new CairnError(
      'NotSupported',
      `not supported: record ${sequence} of channel ${channel} was written by a newer version of Cairn: format ${view.readUInt8(2)}, this one reads up to ${VERSION}`,
    );
  if (view.readUInt8(2) !== VERSION) throw damaged(`version ${view.readUInt8(2)} is not known`);
  const kind = kinds[view.readUInt8(3)];
  if (kind === undefined) throw damaged(`kind ${view.readUInt8(3)} is not known`);
  if (view.readUInt32LE(4) !== bytes.byteLength - ENVELOPE_BYTES) throw damaged(`its header counts ${view.readUInt32LE(4)} payload bytes`);
  return { sequence, subject, kind, epoch: view.readDoubleLE(8), index: view.readDoubleLE(16), payload: bytes.subarray(ENVELOPE_BYTES) };
}
