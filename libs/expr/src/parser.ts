import { CairnError } from '@cairn/base';
import type { CollectionSchema, PlainValue } from '@cairn/schema';
import type { Expr } from './expression.ts';

/** Filter text to a typed tree; empty text is `true`. InvalidParameter with the position when it does not parse. */
export function parseFilter(_text: string, _schema: CollectionSchema, _templates?: Readonly<Record<string, PlainValue>>): Expr {
  throw new CairnError('NotSupported', 'not supported: filters');
}
