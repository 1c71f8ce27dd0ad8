export * from './column.ts';
export * from './types.ts';
