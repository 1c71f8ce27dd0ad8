export * from './merge.ts';
export * from './query.ts';
export * from './results.ts';
export { checkScalarIndex, jsonIndexPath, scalarEntries } from './scalar-entries.ts';
export * from './search.ts';
export * from './search-params.ts';
export * from './wire.ts';
