import { CairnError, type Runtime } from '@cairn/base';
import type { QueryResult, SearchResult } from '@cairn/proto/cairn/services';
import { decodeFrame, encodeFrame, encodeFrameInTurns } from '@cairn/schema';
import type { QueryRows, SearchHits } from './results.ts';

/** Results between services: columns as a frame, so that decoding makes views. */

export function encodeSearchResult(hits: SearchHits, ts: number): SearchResult {
  return { counts: [...hits.counts], scores: [...hits.scores], columns: encodeFrame(hits.columns), ts, searchedRows: hits.searchedRows };
}

/** Internal when the numbers do not add up: a peer of another release, or a bug. */
export function decodeSearchResult(result: SearchResult): SearchHits {
  const columns = decodeFrame(result.columns);
  const total = result.counts.reduce((sum, count) => sum + count, 0);
  if (result.scores.length !== total || (columns.columns.size > 0 && columns.length !== total))
    throw new CairnError('Internal', `search result of ${total} hits has ${result.scores.length} scores and ${columns.length} rows`);
  return { counts: result.counts, scores: Float32Array.from(result.scores), columns, searchedRows: result.searchedRows };
}

/** Large results are copied in stretches. */
export async function encodeQueryResult(rows: QueryRows, ts: number, runtime: Runtime): Promise<QueryResult> {
  return { columns: await encodeFrameInTurns(rows.columns, runtime), count: rows.count, ts };
}

export function decodeQueryResult(result: QueryResult): QueryRows {
  return { columns: decodeFrame(result.columns), count: result.count };
}
