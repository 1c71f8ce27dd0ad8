export * from './analysis.ts';
export * from './codec.ts';
export * from './evaluate.ts';
export * from './expression.ts';
export * from './parser.ts';
