import { assert, CairnError } from '@cairn/base';
import { type Compare, type Op, TXN_MAX_BYTES, TXN_MAX_OPS, type Txn } from './meta-store.ts';

/** Longest key in bytes of UTF-8: LMDB's own limit is 1978, less room for what a tenant puts before it. */
export const KEY_MAX_BYTES = 1024;

/**
 * What every tenant refuses alike, so that a transaction that passes on one passes on all. Breaking it is a bug of the caller: Internal.
 * That one branch must not write a key twice is etcd's rule.
 */
export function checkTxn(txn: Txn): void {
  const compares = txn.if ?? [];
  const otherwise = txn.else ?? [];
  const ops = compares.length + txn.then.length + otherwise.length;
  assert(ops <= TXN_MAX_OPS, `transaction has ${ops} compares and ops, the limit is ${TXN_MAX_OPS}`);
  let bytes = 0;
  for (const compare of compares) bytes += compareBytes(compare);
  for (const op of txn.then) bytes += opBytes(op);
  for (const op of otherwise) bytes += opBytes(op);
  assert(bytes <= TXN_MAX_BYTES, `transaction has ${bytes} bytes of keys and values, the limit is ${TXN_MAX_BYTES}`);
  checkBranch(txn.then);
  checkBranch(otherwise);
}

/** Bytes an op counts for in TXN_MAX_BYTES; for callers that cut work into transactions. */
export function opBytes(op: Op): number {
  if (op.kind === 'put') return keyBytes(op.key) + op.value.length;
  return keyBytes(op.kind === 'deletePrefix' ? op.prefix : op.key);
}

/** Bytes a compare counts for in TXN_MAX_BYTES. */
export function compareBytes(compare: Compare): number {
  return keyBytes(compare.key) + (compare.kind === 'value' ? compare.equals.length : 0);
}

export function checkKey(key: string): void {
  keyBytes(key);
}

function keyBytes(key: string): number {
  const bytes = Buffer.byteLength(key);
  if (bytes === 0 || bytes > KEY_MAX_BYTES)
    throw new CairnError('Internal', `key ${JSON.stringify(key.slice(0, 100))} has ${bytes} bytes, must be 1 to ${KEY_MAX_BYTES}`);
  return bytes;
}

function checkBranch(ops: readonly Op[]): void {
  const puts = new Set<string>();
  for (const op of ops) {
    if (op.kind !== 'put') continue;
    assert(!puts.has(op.key), `transaction puts ${op.key} twice`);
    puts.add(op.key);
  }
  for (const op of ops) {
    if (op.kind === 'delete') assert(!puts.has(op.key), `transaction puts and deletes ${op.key}`);
    if (op.kind === 'deletePrefix')
      for (const key of puts) assert(!key.startsWith(op.prefix), `transaction puts ${key} and deletes prefix ${op.prefix}`);
  }
}
