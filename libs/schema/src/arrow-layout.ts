import { CairnError } from '@cairn/base';
import { MessageHeader, type Schema } from 'apache-arrow';
import { Footer } from 'apache-arrow/ipc/metadata/file';
import { Message, type RecordBatch as RecordBatchMetadata } from 'apache-arrow/ipc/metadata/message';
import { readDescription } from './arrow-file.ts';
import { familyOf, vectorBytes } from './field-types.ts';
import type { DataType } from './types.ts';

/** Where the vectors lie in a vector file: enough to read single rows by position. */
export interface VectorLayout {
  readonly fieldId: number;
  readonly type: DataType;
  readonly dim: number;
  readonly rows: number;
  readonly bytesPerRow: number;
  /** Position of row 0 in the file. */
  readonly dataOffset: number;
  /** Position and bytes of the validity bitmap; undefined: no nulls. */
  readonly validity: { readonly offset: number; readonly length: number } | undefined;
}

/** Reads exactly the bytes [offset, offset + length) of the file. */
export type ReadAt = (offset: number, length: number) => Promise<Uint8Array>;

/** "ARROW1" and the footer's length before it. */
const TRAILER_BYTES = 10;
/** Continuation marker and length before a message. */
const PREFIX_BYTES = 8;
const MAX_METADATA_BYTES = 16 * 1024 * 1024;

function damaged(reason: string, cause?: unknown): CairnError {
  return new CairnError('ObjectDamaged', `not a vector file: ${reason}`, { cause });
}

/** Layout of a file with one dense vector column, from its footer and one message; ObjectDamaged when it is something else. */
export async function readVectorLayout(readAt: ReadAt, size: number): Promise<VectorLayout> {
  if (size < TRAILER_BYTES) throw damaged(`${size} bytes`);
  const trailer = await readAt(size - TRAILER_BYTES, TRAILER_BYTES);
  const footerBytes = new DataView(trailer.buffer, trailer.byteOffset, TRAILER_BYTES).getInt32(0, true);
  if (
    Buffer.from(trailer.subarray(4)).toString('latin1') !== 'ARROW1' ||
    footerBytes <= 0 ||
    footerBytes > Math.min(size, MAX_METADATA_BYTES)
  )
    throw damaged('it does not end as an Arrow file does');
  const footer = decode(await readAt(size - TRAILER_BYTES - footerBytes, footerBytes), (bytes) => Footer.decode(bytes));
  const block = footer.getRecordBatch(0);
  if (block === null || footer.numRecordBatches !== 1) throw damaged(`${footer.numRecordBatches} record batches, expected 1`);
  const { offset, metaDataLength, bodyLength } = block;
  if (metaDataLength > MAX_METADATA_BYTES || offset + metaDataLength + bodyLength > size)
    throw damaged('its record batch lies outside the file');
  const message = decode(await readAt(offset + PREFIX_BYTES, metaDataLength - PREFIX_BYTES), (bytes) => Message.decode(bytes));
  if (message.headerType !== MessageHeader.RecordBatch) throw damaged('its block is no record batch');
  return layoutOf(footer.schema, message.header() as RecordBatchMetadata, offset + metaDataLength, bodyLength);
}

function decode<T>(bytes: Uint8Array, work: (bytes: Uint8Array) => T): T {
  try {
    return work(bytes);
  } catch (error) {
    throw damaged('its metadata cannot be decoded', error);
  }
}

function layoutOf(schema: Schema, batch: RecordBatchMetadata, body: number, bodyLength: number): VectorLayout {
  const field = schema.fields[0];
  if (field === undefined || schema.fields.length !== 1) throw damaged(`${schema.fields.length} columns, expected 1`);
  const { id, type, dim } = readDescription(field);
  if (familyOf(type) !== 'vector') throw damaged(`its column has type ${type}`);
  const rows = Number(batch.length);
  const bytesPerRow = vectorBytes(type, dim);
  // Buffers of the column in order: its validity, the child's validity where there is a child, the values.
  const [validity] = batch.buffers;
  const data = batch.buffers[batch.buffers.length - 1];
  if (data === undefined || data.length < rows * bytesPerRow || data.offset + data.length > bodyLength)
    throw damaged('its buffers do not fit its rows');
  return {
    fieldId: id,
    type,
    dim,
    rows,
    bytesPerRow,
    dataOffset: body + data.offset,
    validity: validity.length === 0 ? undefined : { offset: body + validity.offset, length: (rows + 7) >> 3 },
  };
}
