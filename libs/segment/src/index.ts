export * from './deletes.ts';
export * from './delta-log.ts';
export * from './growing-segment.ts';
export * from './object-bytes.ts';
export * from './readable-segment.ts';
export * from './sealed-segment.ts';
export * from './segment-writer.ts';
export { snapshotManifestPrefix, snapshotMetadataKey } from './snapshot-metadata.ts';
export * from './snapshot-store.ts';
