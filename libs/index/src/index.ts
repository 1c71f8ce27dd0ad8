export * from './index-params.ts';
export * from './index-pool.ts';
export * from './search-types.ts';
