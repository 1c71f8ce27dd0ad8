import type { RawFieldData } from '@cairn/schema';
import { decodeFieldData } from './field-data-decoder.ts';
import { WireReader } from './wire-reader.ts';

export interface FieldOpRequest {
  readonly fieldName: string;
  /** 0 replace, 1 append to the array, 2 remove from it; others are unknown. */
  readonly op: number;
}

/** InsertRequest or UpsertRequest, its columns still as they lie on the wire. */
export interface MutationRequest {
  readonly dbName: string;
  readonly collectionName: string;
  readonly partitionName: string;
  readonly fields: readonly RawFieldData[];
  readonly numRows: number;
  /** Wire form of the collection's update timestamp that the sender knew; 0: it did not say. */
  readonly schemaTimestamp: bigint;
  readonly partialUpdate: boolean;
  /** Per named field, how its values change what is stored; `FieldPartialUpdateOp`. */
  readonly fieldOps: readonly FieldOpRequest[];
  readonly namespace: string | undefined;
  /** Of the whole request. */
  readonly bytes: number;
}

interface FieldNumbers {
  readonly partialUpdate: number;
  readonly namespace: number;
  readonly fieldOps: number;
}

export function decodeInsertRequest(bytes: Uint8Array): MutationRequest {
  return decode(bytes, { partialUpdate: -1, namespace: 9, fieldOps: -1 });
}

export function decodeUpsertRequest(bytes: Uint8Array): MutationRequest {
  return decode(bytes, { partialUpdate: 9, namespace: 10, fieldOps: 11 });
}

function decode(bytes: Uint8Array, numbers: FieldNumbers): MutationRequest {
  const reader = new WireReader(bytes);
  const fields: RawFieldData[] = [];
  let dbName = '';
  let collectionName = '';
  let partitionName = '';
  let numRows = 0;
  let schemaTimestamp = 0n;
  let partialUpdate = false;
  const fieldOps: FieldOpRequest[] = [];
  let namespace: string | undefined;
  reader.fields((field, wire) => {
    if (field === 5) fields.push(decodeFieldData(reader, wire));
    else if (field === 2) dbName = reader.string(wire);
    else if (field === 3) collectionName = reader.string(wire);
    else if (field === 4) partitionName = reader.string(wire);
    else if (field === 7) numRows = reader.number(wire);
    else if (field === 8 && wire === 0) schemaTimestamp = reader.varint64();
    else if (field === numbers.partialUpdate) partialUpdate = reader.number(wire) !== 0;
    else if (field === numbers.namespace) namespace = reader.string(wire);
    else if (field === numbers.fieldOps) fieldOps.push(decodeFieldOp(reader, wire));
    else reader.skip(wire);
  });
  return {
    dbName,
    collectionName,
    partitionName,
    fields,
    numRows,
    schemaTimestamp,
    partialUpdate,
    fieldOps,
    namespace,
    bytes: bytes.length,
  };
}

function decodeFieldOp(reader: WireReader, wireType: number): FieldOpRequest {
  let fieldName = '';
  let op = 0;
  reader.message(wireType, (field, wire) => {
    if (field === 1) fieldName = reader.string(wire);
    else if (field === 2) op = reader.number(wire);
    else reader.skip(wire);
  });
  return { fieldName, op };
}
