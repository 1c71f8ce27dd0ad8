export * from './deletes.ts';
export * from './delta-log.ts';
export * from './face.ts';
export * from './growing-segment.ts';
export * from './object-bytes.ts';
export * from './readable-segment.ts';
export * from './sealed-segment.ts';
export * from './segment-writer.ts';
