import { type Bitmap, CairnError } from '@cairn/base';
import type { Column } from '@cairn/schema';
import type { Expr } from './expression.ts';

/** Rows 0..rows-1 (of `within`, when given) for which the expression is true. Columns may be longer than `rows`. */
export function evaluate(_expr: Expr, _columns: (fieldId: number) => Column, _rows: number, _within?: Bitmap): Bitmap {
  throw new CairnError('NotSupported', 'not supported: filters');
}
