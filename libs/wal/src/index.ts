export { type AppendEntry, type ChannelWriter, type ChannelWriterOptions, openChannelWriter } from './channel-writer.ts';
export type { JetStreamAccess } from './jetstream-connection.ts';
export { type LmdbWalOptions, LmdbWalStore } from './lmdb-wal.ts';
export { type MemoryWalOptions, MemoryWalStore } from './memory-wal.ts';
export { FENCE_SUBJECT } from './take-over.ts';
export * from './wal.ts';
export { DeposedError, TrimmedError, WrongTailError } from './wal-errors.ts';
export { decodeRecord, ENVELOPE_BYTES, encodeRecord, type WalRecord, type WalRecordKind } from './wal-record.ts';
