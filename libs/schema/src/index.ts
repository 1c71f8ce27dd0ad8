export * from './column.ts';
export * from './face.ts';
export * from './raw-field-data.ts';
export * from './types.ts';
