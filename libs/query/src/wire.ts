import { CairnError } from '@cairn/base';
import type { QueryResult, SearchResult } from '@cairn/proto/cairn/services';
import type { QueryRows, SearchHits } from './results.ts';

export function encodeSearchResult(_hits: SearchHits, _ts: number): SearchResult {
  throw new CairnError('NotSupported', 'not supported: wire');
}
export function decodeSearchResult(_result: SearchResult): SearchHits {
  throw new CairnError('NotSupported', 'not supported: wire');
}
export function encodeQueryResult(_rows: QueryRows, _ts: number): QueryResult {
  throw new CairnError('NotSupported', 'not supported: wire');
}
export function decodeQueryResult(_result: QueryResult): QueryRows {
  throw new CairnError('NotSupported', 'not supported: wire');
}
