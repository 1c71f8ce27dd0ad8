import { CairnError } from '@cairn/base';
import type { QueryPlan } from '@cairn/proto/cairn/services';
import type { CollectionSchema } from '@cairn/schema';
import type { ReadableSegment } from '@cairn/segment';
import type { QueryRows } from './results.ts';

export interface QueryRequest {
  readonly segments: readonly ReadableSegment[];
  readonly schema: CollectionSchema;
  readonly plan: QueryPlan;
  readonly readTs: number;
}

/** Rows that match, by primary key; or their number. */
export async function executeQuery(_request: QueryRequest): Promise<QueryRows> {
  throw new CairnError('NotSupported', 'not supported: query');
}
