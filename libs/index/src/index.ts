export * from './index-params.ts';
export * from './index-pool.ts';
export { isDescending } from './metric.ts';
export * from './search-types.ts';
