export * from './readable-segment.ts';
