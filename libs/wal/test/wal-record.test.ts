import { checksum } from '@cairn/base';
import { expect, test } from 'vitest';
import { decodeRecord, encodeRecord } from '../src/wal-record.ts';

const HEADER = 32;
const CRC_AT = 28;

test('a record of a newer format is refused in words, not taken for damage', () => {
  const bytes = Buffer.from(encodeRecord('data', 3, 7, Buffer.from('rows')));
  const stored = { bytes, sequence: 12, subject: 'x' };
  expect(decodeRecord('dml_0', stored)).toMatchObject({ epoch: 3, index: 7 });
  bytes.writeUInt8(2, 2);
  bytes.writeUInt32LE(checksum(bytes.subarray(HEADER), checksum(bytes.subarray(0, CRC_AT))), CRC_AT);
  expect(() => decodeRecord('dml_0', stored)).toThrowError(
    expect.objectContaining({
      codeName: 'NotSupported',
      message: expect.stringContaining('newer version of Cairn: format 2, this one reads up to 1'),
    }),
  );
});
