import { CairnError } from '@cairn/base';
import type { Expr, Literal } from './expression.ts';

/** Ids of the fields that the expression reads. */
export function fieldsOf(_expr: Expr): Set<number> {
  throw new CairnError('NotSupported', 'not supported: filters');
}
/** The primary keys that a match must have, when the expression says so (`pk in […]`, `pk == x`, also as a part of an `and`). */
export function keyLookup(_expr: Expr, _pkFieldId: number): readonly Literal[] | undefined {
  throw new CairnError('NotSupported', 'not supported: filters');
}
