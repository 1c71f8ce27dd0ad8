import type { RawFieldData } from '@cairn/schema';
import { decodeFieldData } from './field-data-decoder.ts';
import { WireReader } from './wire-reader.ts';

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
  /** Names of fields with a partial update operation other than replace. */
  readonly fieldOps: number;
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
  let fieldOps = 0;
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
    else {
      if (field === numbers.fieldOps) fieldOps++;
      reader.skip(wire);
    }
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
