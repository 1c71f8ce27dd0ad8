export * from './face.ts';
export * from './readable-segment.ts';
