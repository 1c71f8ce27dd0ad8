import { CairnError, type Runtime } from '@cairn/base';
import type { IndexPool } from '@cairn/index';
import type { SearchPlan } from '@cairn/proto/cairn/services';
import type { CollectionSchema } from '@cairn/schema';
import type { ReadableSegment } from '@cairn/segment';
import type { SearchHits } from './results.ts';

export interface SearchRequest {
  readonly segments: readonly ReadableSegment[];
  readonly schema: CollectionSchema;
  readonly plan: SearchPlan;
  readonly readTs: number;
  readonly pool: IndexPool;
  readonly runtime: Runtime;
}

/** Best `plan.topK` rows of each query over these segments. */
export async function executeSearch(_request: SearchRequest): Promise<SearchHits> {
  throw new CairnError('NotSupported', 'not supported: search');
}
