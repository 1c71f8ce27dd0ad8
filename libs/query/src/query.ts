import { mapLimit, type Runtime, rowsOfBits } from '@cairn/base';
import type { QueryPlan } from '@cairn/proto/cairn/services';
import { type CollectionSchema, type Column, keyRowOrder, makeBatch, sortOrder, takeColumn } from '@cairn/schema';
import type { ReadableSegment } from '@cairn/segment';
import { decodeFilter } from './known-filters.ts';
import { countMatches, type MatchingRows, matchingRows } from './matching-rows.ts';
import { gatherOutput } from './output.ts';
import { PickList, type Picks } from './picks.ts';
import type { QueryRows } from './results.ts';

export interface QueryRequest {
  readonly segments: readonly ReadableSegment[];
  readonly schema: CollectionSchema;
  readonly plan: QueryPlan;
  readonly readTs: number;
  /** See MatchRequest. */
  readonly expiredTs?: number | undefined;
  /** Gives way to the event loop while large segments are filtered, when given. */
  readonly runtime?: Runtime;
}

/** Segments of one request that are filtered at once. */
const SEGMENTS_AT_ONCE = 8;

/**
 * Rows that match, in primary key order, at most `plan.limit` (0: all) with their output fields; or, with countOnly, their number and no rows. A key
 * that stands in several visible rows (it was inserted twice) is returned once, its newest row; a count counts every row, as Milvus does.
 */
export async function executeQuery(request: QueryRequest): Promise<QueryRows> {
  const { segments, schema, plan, readTs, expiredTs, runtime } = request;
  const expr = decodeFilter(plan.filter);
  const seed = runtime ? Math.floor(runtime.random() * 2 ** 31) : 0;
  const matches = await mapLimit(segments, SEGMENTS_AT_ONCE, (segment) =>
    matchingRows(segment, { expr, primaryKey: schema.primaryKey, readTs, expiredTs, runtime, seed }),
  );
  if (plan.countOnly) return { columns: makeBatch([]), count: matches.reduce((sum, each) => sum + countMatches(each), 0) };
  const candidates = await mapLimit(segments.entries(), SEGMENTS_AT_ONCE, ([i, segment]) =>
    keyOrder(segment, matches[i], schema.primaryKey.id, plan.limit),
  );
  const picks = newestOfKeys(candidates, plan.limit);
  const columns = await gatherOutput(segments, picks, { schema, fieldIds: plan.outputFieldIds, dynamicKeys: plan.dynamicKeys });
  return { columns, count: columns.length };
}

/** Matching rows of one segment in key order, with their keys and timestamps. */
interface Candidates {
  readonly rows: Int32Array;
  readonly keys: Column;
  readonly timestamps: Float64Array;
}

async function keyOrder(segment: ReadableSegment, matches: MatchingRows, pkFieldId: number, limit: number): Promise<Candidates> {
  const all = matches.bits ? rowsOfBits(matches.bits) : Int32Array.from({ length: matches.rows }, (_, row) => row);
  // Sorted segments give the smallest keys first. Doubles of the last key may lie just behind the limit: they are of the same key and older or newer.
  const few = segment.sorted && limit > 0 && all.length > limit ? await throughLastKey(segment, all, pkFieldId, limit) : all;
  const keys = await segment.gather(pkFieldId, few);
  const timestamps = Float64Array.from(few, (row) => segment.timestamps[row]);
  if (segment.sorted) return { rows: few, keys, timestamps };
  const order = sortOrder(keys, timestamps);
  return { rows: order.map((at) => few[at]), keys: takeColumn(keys, order), timestamps: Float64Array.from(order, (at) => timestamps[at]) };
}

/** The first rows that hold `limit` different keys, all rows of these keys included. */
async function throughLastKey(segment: ReadableSegment, rows: Int32Array, pkFieldId: number, limit: number): Promise<Int32Array> {
  for (let take = limit + 16; take < rows.length; take *= 2) {
    const keys = await segment.gather(pkFieldId, rows.subarray(0, take));
    const compare = keyRowOrder([keys]);
    let different = 1;
    for (let i = 1; i < take; i++) {
      if (compare(0, i - 1, 0, i) === 0) continue;
      if (++different > limit) return rows.subarray(0, i);
    }
  }
  return rows;
}

/** Walks the segments in key order and takes the newest row of each key. */
function newestOfKeys(segments: readonly Candidates[], limit: number): Picks {
  const at = new Int32Array(segments.length);
  const picks = new PickList();
  const most = limit > 0 ? limit : Number.POSITIVE_INFINITY;
  const compare = keyRowOrder(segments.map(({ keys }) => keys));
  const keyAt = (part: number, other: number, row: number): number => compare(part, at[part], other, row);
  while (picks.length < most) {
    let least = -1;
    for (let part = 0; part < segments.length; part++) {
      if (at[part] < segments[part].rows.length && (least < 0 || keyAt(part, least, at[least]) < 0)) least = part;
    }
    if (least < 0) break;
    const leader = segments[least];
    const first = at[least];
    let best = { part: least, row: leader.rows[first], ts: leader.timestamps[first] };
    for (let part = 0; part < segments.length; part++) {
      for (; at[part] < segments[part].rows.length && keyAt(part, least, first) === 0; at[part]++) {
        const ts = segments[part].timestamps[at[part]];
        if (ts > best.ts) best = { part, row: segments[part].rows[at[part]], ts };
      }
    }
    picks.add(best.part, best.row);
  }
  return picks.finish();
}
