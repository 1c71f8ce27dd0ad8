/** ObjectStore and its tenants. S3 stands under `@cairn/objects/s3`, so that embedded processes do not load its client. */
export * from './disk-object-store.ts';
export * from './memory-object-store.ts';
export * from './object-store.ts';
