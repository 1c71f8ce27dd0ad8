export * from './merge.ts';
export * from './query.ts';
export * from './results.ts';
export * from './search.ts';
export * from './wire.ts';
