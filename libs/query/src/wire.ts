import { CairnError, type Runtime } from '@cairn/base';
import type { QueryResult, SearchResult } from '@cairn/proto/cairn/services';
import { batchBytes, decodeFrame, encodeFrame, encodeFrameInTurns } from '@cairn/schema';
import type { QueryRows, SearchHits } from './results.ts';

/** Results between services: columns as a frame, so that decoding makes views. */

/** A result of hits that are here: it becomes bytes only when it leaves the process. */
class ResultOfHits implements SearchResult {
  readonly hits: SearchHits;
  readonly ts: number;
  #columns: Uint8Array | undefined;

  constructor(hits: SearchHits, ts: number) {
    this.hits = hits;
    this.ts = ts;
  }

  get counts(): number[] {
    return [...this.hits.counts];
  }

  get scores(): number[] {
    return [...this.hits.scores];
  }

  get columns(): Uint8Array {
    this.#columns ??= encodeFrame(this.hits.columns);
    return this.#columns;
  }

  get searchedRows(): number {
    return this.hits.searchedRows;
  }
}

/** The hits must not change any more: within one process they pass as they are. */
export function encodeSearchResult(hits: SearchHits, ts: number): SearchResult {
  return new ResultOfHits(hits, ts);
}

/** Internal when the numbers do not add up: a peer of another release, or a bug. */
export function decodeSearchResult(result: SearchResult): SearchHits {
  if (result instanceof ResultOfHits) return result.hits;
  const columns = decodeFrame(result.columns);
  const total = result.counts.reduce((sum, count) => sum + count, 0);
  if (result.scores.length !== total || (columns.columns.size > 0 && columns.length !== total))
    throw new CairnError('Internal', `search result of ${total} hits has ${result.scores.length} scores and ${columns.length} rows`);
  return { counts: result.counts, scores: Float32Array.from(result.scores), columns, searchedRows: result.searchedRows };
}

/** The same result as one that was read at `ts`. */
export function readAt(result: SearchResult, ts: number): SearchResult {
  if (result.ts === ts) return result;
  return result instanceof ResultOfHits ? new ResultOfHits(result.hits, ts) : { ...result, ts };
}

/** Bytes of a result's columns. */
export function resultBytes(result: SearchResult | QueryResult): number {
  return result instanceof ResultOfHits ? batchBytes(result.hits.columns) : result.columns.length;
}

/** Large results are copied in stretches. */
export async function encodeQueryResult(rows: QueryRows, ts: number, runtime: Runtime): Promise<QueryResult> {
  return { columns: await encodeFrameInTurns(rows.columns, runtime), count: rows.count, ts };
}

export function decodeQueryResult(result: QueryResult): QueryRows {
  return { columns: decodeFrame(result.columns), count: result.count };
}
