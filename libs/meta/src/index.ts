export { DirectoryLock } from './directory-lock.ts';
export * from './election.ts';
export * from './lmdb-meta-store.ts';
export * from './memory-meta-store.ts';
export * from './meta-store.ts';
export { compareBytes, KEY_MAX_BYTES, opBytes } from './txn-limits.ts';
