export * from './catalog-change.ts';
export {
  CatalogView,
  type CatalogViewOptions,
  DEFAULT_DATABASE,
  type ResolvedCollection,
} from './catalog-view.ts';
export * from './grouped-commit.ts';
export * from './hidden-names.ts';
export * from './id-allocator.ts';
export * from './keys.ts';
export * from './leader-watch.ts';
export * from './machines.ts';
export * from './node-registration.ts';
export * from './object-names.ts';
export * from './record-watch.ts';
export * from './records.ts';
export * from './row-ttl.ts';
export * from './state-machine.ts';
