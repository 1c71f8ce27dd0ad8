import { countBits, mapLimit, type Runtime, rowsOfBits } from '@cairn/base';
import { type IndexHits, type IndexPool, isDescending, type VectorQuery } from '@cairn/index';
import type { SearchPlan } from '@cairn/proto/cairn/services';
import { type CollectionSchema, type Column, DataType, emptyColumn, makeBatch } from '@cairn/schema';
import type { ReadableSegment } from '@cairn/segment';
import { decodeFilter } from './known-filters.ts';
import { type MatchRequest, matchingRows } from './matching-rows.ts';
import { chooseHits, type MergeOptions } from './merge.ts';
import { gatherOutput } from './output.ts';
import type { SearchHits } from './results.ts';
import { readSearchPlan, type SearchParams } from './search-params.ts';

export interface SearchRequest {
  readonly segments: readonly ReadableSegment[];
  readonly schema: CollectionSchema;
  readonly plan: SearchPlan;
  readonly readTs: number;
  /** See MatchRequest. */
  readonly expiredTs?: number | undefined;
  readonly pool: IndexPool;
  readonly runtime: Runtime;
}

/** Segments of one request that are searched at once. */
const SEGMENTS_AT_ONCE = 8;
/** With so few matches their vectors are read one by one; the whole column stays on disk. */
const GATHER_ROWS = 256;
/** How much further a search reaches when duplicates or groups have used up what was found. */
const WIDER = 4;

/** Best `plan.topK` rows of each query over these segments (with grouping: the best groups), with their output fields. */
export async function executeSearch(request: SearchRequest): Promise<SearchHits> {
  const { schema, plan, readTs, expiredTs, runtime } = request;
  const params = readSearchPlan(plan, schema);
  const match: MatchRequest = {
    expr: decodeFilter(plan.filter),
    primaryKey: schema.primaryKey,
    readTs,
    expiredTs,
    runtime,
    seed: Math.floor(runtime.random() * 2 ** 31),
  };
  const searches = await mapLimit(request.segments, SEGMENTS_AT_ONCE, async (segment) =>
    SegmentSearch.prepare(segment, match, request, params),
  );
  const options: MergeOptions = {
    metric: plan.metric,
    nq: plan.nq,
    k: plan.topK,
    pkField: schema.primaryKey,
    groupByFieldId: plan.groupByFieldId,
    groupSize: plan.groupSize,
    strictGroupSize: plan.strictGroupSize,
  };
  const grouped = plan.groupByFieldId > 0;
  const most = searches.reduce((sum, search) => Math.max(sum, search.matches), 0);
  for (let k = plan.topK * Math.max(1, plan.groupByFieldId > 0 ? plan.groupSize * WIDER : 1); ; k *= WIDER) {
    const found = await mapLimit(searches, SEGMENTS_AT_ONCE, (search) => search.find(Math.min(k, Math.max(1, search.matches))));
    const merged = chooseHits(
      found.map((part) => part.hits),
      options,
    );
    if (k < most && found.some((part) => part.cut)) {
      if (merged.counts.some((count) => count < wantedRows(plan))) continue;
      if (grouped && found.some((part) => leavesOut(part, k, merged.decisive, plan.metric))) continue;
    }
    const picks = { parts: merged.parts, rows: merged.rows.map((at, i) => found[merged.parts[i]].rows[at]) };
    const fieldIds = plan.groupByFieldId > 0 ? [plan.groupByFieldId, ...plan.outputFieldIds] : plan.outputFieldIds;
    const columns = await gatherOutput(request.segments, picks, { schema, fieldIds, dynamicKeys: plan.dynamicKeys });
    const searchedRows = request.segments.reduce((sum, segment) => sum + segment.rows, 0);
    return { counts: merged.counts, scores: merged.scores, columns, searchedRows };
  }
}

const wantedRows = (plan: SearchPlan): number =>
  plan.groupByFieldId > 0 ? plan.topK * Math.max(1, plan.strictGroupSize ? plan.groupSize : 1) : plan.topK;

/** The part ended before the score that a row had to have to be chosen: with grouping there may be better ones behind its end. */
function leavesOut({ hits }: Found, k: number, decisive: readonly number[], metric: string): boolean {
  const sign = isDescending(metric) ? -1 : 1;
  let end = 0;
  return hits.counts.some((count, query) => {
    end += count;
    return count >= k && sign * (hits.scores[end - 1] - decisive[query]) < 0;
  });
}

interface Found {
  readonly hits: SearchHits;
  /** Segment row of each hit. */
  readonly rows: Int32Array;
  /** Some query has as many hits as were asked for: there may be more. */
  readonly cut: boolean;
}

/** One segment's part of a search: its matching rows are found once, and searched as often as more hits are needed. */
class SegmentSearch {
  readonly matches: number;
  readonly #segment: ReadableSegment;
  readonly #request: SearchRequest;
  readonly #params: SearchParams;
  readonly #rows: number;
  readonly #filter: Uint8Array | undefined;

  private constructor(
    segment: ReadableSegment,
    request: SearchRequest,
    params: SearchParams,
    rows: number,
    filter: Uint8Array | undefined,
  ) {
    this.#segment = segment;
    this.#request = request;
    this.#params = params;
    this.#rows = rows;
    this.#filter = filter;
    this.matches = filter ? countBits(filter) : rows;
  }

  static async prepare(
    segment: ReadableSegment,
    match: MatchRequest,
    request: SearchRequest,
    params: SearchParams,
  ): Promise<SegmentSearch> {
    const { rows, bits } = await matchingRows(segment, match);
    return new SegmentSearch(segment, request, params, rows, bits);
  }

  async find(k: number): Promise<Found> {
    const { nq, groupByFieldId } = this.#request.plan;
    const { primaryKey, byId } = this.#request.schema;
    const groupField = byId.get(groupByFieldId);
    const fields = groupField && groupField.id !== primaryKey.id ? [primaryKey, groupField] : [primaryKey];
    const found = this.matches === 0 ? undefined : await this.#search(k);
    if (!found || found.rows.length === 0) {
      const columns = makeBatch(fields.map((field): [number, Column] => [field.id, emptyColumn(field)]));
      return {
        hits: { counts: new Array<number>(nq).fill(0), scores: new Float32Array(0), columns, searchedRows: 0 },
        rows: new Int32Array(0),
        cut: false,
      };
    }
    const columns = makeBatch(
      await Promise.all(
        fields.map(async (field): Promise<[number, Column]> => [field.id, await this.#segment.gather(field.id, found.rows)]),
      ),
    );
    const counts = [...found.counts];
    return {
      hits: { counts, scores: found.scores, columns, searchedRows: this.#rows },
      rows: found.rows,
      cut: counts.some((count) => count >= k),
    };
  }

  async #search(k: number): Promise<IndexHits> {
    const { plan, pool } = this.#request;
    const { field, ef, range } = this.#params;
    const query: VectorQuery = { queries: plan.queries, nq: plan.nq, k, filter: this.#filter, range };
    const dense = field.type !== DataType.SparseFloatVector && field.type !== DataType.ArrayOfVector;
    if (dense && this.#filter && this.matches <= GATHER_ROWS && this.matches * 8 < this.#rows) return this.#searchFew(query, this.#filter);
    const vectors = async () =>
      dense ? this.#segment.vectors(field.id) : ((await this.#segment.column(field.id)) as Extract<Column, { kind: 'bytes' | 'list' }>);
    const index = this.#segment.vectorIndex(field.id);
    // An index of another metric than the one asked for is of no use; the answer is still right.
    if (index && index.metric === plan.metric) {
      const segment = this.#segment;
      const inPlace = async () => (segment.vectorsInPlace ? segment.vectorsInPlace(field.id) : vectors());
      return pool.search(index, { ...query, ef, vectors, inPlace: dense ? inPlace : undefined });
    }
    return pool.exact({ ...query, vectors: await vectors(), metric: plan.metric, rows: this.#rows });
  }

  async #searchFew(query: VectorQuery, filter: Uint8Array): Promise<IndexHits> {
    const rows = rowsOfBits(filter);
    const vectors = await this.#segment.gather(this.#params.field.id, rows);
    if (vectors.kind !== 'vector')
      return this.#request.pool.exact({
        ...query,
        vectors: await this.#segment.vectors(this.#params.field.id),
        metric: this.#request.plan.metric,
        rows: this.#rows,
      });
    const hits = await this.#request.pool.exact({ ...query, filter: undefined, vectors, metric: this.#request.plan.metric });
    return { ...hits, rows: hits.rows.map((at) => rows[at]) };
  }
}
