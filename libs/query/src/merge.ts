import { CairnError } from '@cairn/base';
import type { Field } from '@cairn/schema';
import type { QueryRows, SearchHits } from './results.ts';

/** Best k rows of each query out of several parts; a primary key stands once, with its best score. */
export function mergeHits(_parts: readonly SearchHits[], _options: MergeOptions): SearchHits {
  throw new CairnError('NotSupported', 'not supported: merge');
}

export interface MergeOptions {
  readonly metric: string;
  readonly nq: number;
  readonly k: number;
  readonly pkField: Field;
  /** Group-by field; 0: none. */
  readonly groupByFieldId?: number;
  readonly groupSize?: number;
}

/** Rows of several parts by primary key, each key once; `limit` 0: all. Counts add up. */
export function mergeRows(_parts: readonly QueryRows[], _pkField: Field, _limit: number): QueryRows {
  throw new CairnError('NotSupported', 'not supported: merge');
}
