import { CairnError } from '@cairn/base';
import type { Field } from '@cairn/schema';
import type { IndexSpec } from './search-types.ts';

/**
 * Checks what CreateIndex was asked for and fills in what it left out. `params` are the flattened extra_params (index_type, metric_type, M, …).
 * IndexNotSupported for a pair that does not go together, InvalidParameter for values, NotSupported for a type that is not built.
 */
export function resolveIndex(_field: Field, _params: Readonly<Record<string, string>>): IndexSpec {
  throw new CairnError('NotSupported', 'not supported: index parameters');
}
