export * from './channel-writer.ts';
export * from './wal.ts';
