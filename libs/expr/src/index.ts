export * from './analysis.ts';
export * from './codec.ts';
export * from './evaluate.ts';
export * from './expression.ts';
export * from './json-values.ts';
export { literalPrefix, needlesOf } from './like-pattern.ts';
export { type Bounds, doubleBounds, integerBounds, isFloating, isInteger64 } from './number-bounds.ts';
export * from './parser.ts';
export { isLiteral } from './values.ts';
