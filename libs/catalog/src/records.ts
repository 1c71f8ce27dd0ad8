import { asCairnError, CairnError } from '@cairn/base';
import type { Op } from '@cairn/meta';
import type { MessageFns } from '@cairn/proto/cairn/meta';

/** What encodes and decodes one kind of record: a generated message of cairn/meta.proto. */
export type RecordType<T> = Pick<MessageFns<T>, 'encode' | 'decode'>;

export function encodeRecord<T>(type: RecordType<T>, record: T): Uint8Array {
  return type.encode(record).finish();
}

/** Bytes that are no such record are damage of the store, or a bug: Internal, with the key. */
export function decodeRecord<T>(type: RecordType<T>, key: string, bytes: Uint8Array): T {
  try {
    return type.decode(bytes);
  } catch (error) {
    throw new CairnError('Internal', `record ${key} (${bytes.length} bytes) cannot be decoded: ${asCairnError(error).message}`, {
      cause: error,
    });
  }
}

/** The op that writes a record. */
export function putRecord<T>(key: string, type: RecordType<T>, record: T, lease?: string): Op {
  return { kind: 'put', key, value: encodeRecord(type, record), ...(lease === undefined ? {} : { lease }) };
}
