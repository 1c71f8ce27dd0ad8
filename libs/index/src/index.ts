export { readTrailer } from './index-file.ts';
export * from './index-params.ts';
export * from './index-pool.ts';
export { isDescending } from './metric.ts';
export { columnEntries, gramKey, type ScalarBuildTask, type ScalarEntries } from './scalar-build.ts';
export * from './scalar-index.ts';
export * from './search-types.ts';
