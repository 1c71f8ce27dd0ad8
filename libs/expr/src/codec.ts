import { CairnError } from '@cairn/base';
import type { Expr } from './expression.ts';

export function serializeExpr(_expr: Expr): Uint8Array {
  throw new CairnError('NotSupported', 'not supported: filters');
}
/** Empty bytes are `true`. */
export function deserializeExpr(_bytes: Uint8Array): Expr {
  throw new CairnError('NotSupported', 'not supported: filters');
}
