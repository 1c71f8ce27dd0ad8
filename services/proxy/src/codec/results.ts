import { Status } from '@cairn/proto/milvus/common';
import type { RawByteStrings, RawScalars } from '@cairn/schema';
import { estimateFieldBytes, type ResultField, writeFieldData, writeLongs } from './field-data-encoder.ts';
import { WireWriter } from './wire-writer.ts';

/** Primary keys of hits. */
export type ResultIds = Extract<RawScalars, { kind: 'long' }> | RawByteStrings;

/** SearchResults, its columns still as columns. */
export interface SearchReply {
  readonly status: Status;
  /** undefined when the status is an error. */
  readonly results: SearchReplyData | undefined;
  readonly collectionName: string;
  /** Wire timestamp that the search read at. */
  readonly sessionTs: bigint;
}

export interface SearchReplyData {
  readonly numQueries: number;
  readonly topK: number;
  readonly fields: readonly ResultField[];
  readonly scores: Float32Array;
  readonly ids: ResultIds;
  /** Hits of each query. */
  readonly topks: readonly number[];
  readonly outputFields: readonly string[];
  readonly primaryFieldName: string;
  readonly searchedRows: number;
  readonly groupBy: ResultField | undefined;
  /** Of a page of an iterator. */
  readonly iterator?: { readonly token: string; readonly lastBound: number } | undefined;
}

/** QueryResults, its columns still as columns. */
export interface QueryReply {
  readonly status: Status;
  readonly fields: readonly ResultField[];
  readonly collectionName: string;
  readonly outputFields: readonly string[];
  readonly sessionTs: bigint;
  readonly primaryFieldName: string;
}

export function encodeSearchReply(reply: SearchReply): Buffer {
  const { results } = reply;
  const writer = new WireWriter(512 + (results ? estimateBytes(results) : 0));
  writer.integer(4, reply.sessionTs);
  writer.string(3, reply.collectionName);
  if (results) writer.message(2, () => writeResults(writer, results));
  writer.bytes(1, Status.encode(reply.status).finish());
  return writer.finish();
}

export function encodeQueryReply(reply: QueryReply): Buffer {
  const writer = new WireWriter(512 + reply.fields.reduce((sum, field) => sum + estimateFieldBytes(field), 0));
  writer.string(6, reply.primaryFieldName);
  writer.integer(5, reply.sessionTs);
  writeStrings(writer, 4, reply.outputFields);
  writer.string(3, reply.collectionName);
  for (const field of reply.fields.toReversed()) writeFieldData(writer, 2, field);
  writer.bytes(1, Status.encode(reply.status).finish());
  return writer.finish();
}

function estimateBytes(results: SearchReplyData): number {
  const fields = results.fields.reduce((sum, field) => sum + estimateFieldBytes(field), 0);
  return fields + results.scores.length * 24 + results.topks.length * 8;
}

function writeResults(writer: WireWriter, results: SearchReplyData): void {
  if (results.groupBy) {
    writeFieldData(writer, 17, results.groupBy);
  }
  writer.string(13, results.primaryFieldName);
  const { iterator } = results;
  if (iterator) {
    writer.message(11, () => {
      writer.float(2, iterator.lastBound);
      writer.string(1, iterator.token);
    });
  }
  writer.integer(9, results.searchedRows);
  if (results.groupBy) writeFieldData(writer, 8, results.groupBy);
  writeStrings(writer, 7, results.outputFields);
  writeLongs(writer, 6, BigInt64Array.from(results.topks, BigInt));
  writer.message(5, () => writeIds(writer, results.ids));
  const { scores } = results;
  if (scores.length > 0) writer.bytes(4, new Uint8Array(scores.buffer, scores.byteOffset, scores.byteLength));
  for (const field of results.fields.toReversed()) writeFieldData(writer, 3, field);
  writer.integer(2, results.topK);
  writer.integer(1, results.numQueries);
}

function writeIds(writer: WireWriter, ids: ResultIds): void {
  if (ids.kind === 'long') writer.message(1, () => writeLongs(writer, 1, ids.values));
  else {
    writer.message(2, () => {
      for (let i = ids.offsets.length - 2; i >= 0; i--) {
        writer.rawRange(ids.data, ids.offsets[i], ids.offsets[i + 1]);
        writer.varint(ids.offsets[i + 1] - ids.offsets[i]);
        writer.tag(1, 2);
      }
    });
  }
}

function writeStrings(writer: WireWriter, field: number, values: readonly string[]): void {
  for (const value of values.toReversed()) writer.text(field, value);
}
