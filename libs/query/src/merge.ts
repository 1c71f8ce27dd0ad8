import { CairnError, type Runtime, Stretch } from '@cairn/base';
import { isDescending } from '@cairn/index';
import {
  type Column,
  type ColumnBatch,
  concatColumns,
  type Field,
  isNull,
  keyRowOrder,
  makeBatch,
  takeColumn,
  valueAt,
} from '@cairn/schema';
import { arrange, groupPicks, PickList, type Picks, type PicksByPart } from './picks.ts';
import type { QueryRows, SearchHits } from './results.ts';

export interface MergeOptions {
  readonly metric: string;
  readonly nq: number;
  /** Rows of each query, or groups when grouping. */
  readonly k: number;
  readonly pkField: Field;
  /** Group-by field; 0 or absent: none. */
  readonly groupByFieldId?: number;
  /** Rows of one group; 0 or absent: 1. */
  readonly groupSize?: number;
  /** The groups have their best rows, not only some. */
  readonly strictGroupSize?: boolean;
}

/** What a merge chose: rows of the parts by query, in order. */
export interface MergedHits extends Picks {
  readonly counts: readonly number[];
  readonly scores: Float32Array;
  /**
   * Score of each query's last row that had to be among the best of its part: with grouping the last one that opened a group, or, where groups are
   * strict, any. What a part left out is no better than what it gave, so it is missed only if it is better than this. NaN: no rows.
   */
  readonly decisive: readonly number[];
}

/**
 * Best k rows of each query out of several parts; ties by primary key. A key stands once, with its best score (the same row may be growing in one
 * part and sealed in another while a segment is swapped). With grouping: the k groups with the best rows, each with its best groupSize rows.
 */
export function mergeHits(parts: readonly SearchHits[], options: MergeOptions): SearchHits {
  const searchedRows = parts.reduce((sum, part) => sum + part.searchedRows, 0);
  if (parts.length === 0)
    return { counts: new Array<number>(options.nq).fill(0), scores: new Float32Array(0), columns: makeBatch([]), searchedRows };
  const merged = chooseHits(parts, options);
  return {
    counts: merged.counts,
    scores: merged.scores,
    columns: takePicks(
      parts.map((part) => part.columns),
      merged,
    ),
    searchedRows,
  };
}

export function chooseHits(parts: readonly SearchHits[], options: MergeOptions): MergedHits {
  const { nq } = options;
  const keys = parts.map((part) => columnOf(part.columns, options.pkField.id));
  parts.forEach((part, i) => {
    if (part.counts.length !== nq || part.scores.length !== part.columns.length)
      throw new CairnError(
        'Internal',
        `part ${i} of a search has ${part.counts.length} queries (asked ${nq}), ${part.scores.length} scores, ${part.columns.length} rows`,
      );
  });
  const starts = new Array<number>(parts.length).fill(0);
  const counts: number[] = [];
  const scores: number[] = [];
  const decisive: number[] = [];
  const picks = new PickList();
  const byKey = keyRowOrder(keys);
  const alone = parts.length === 1 && (options.groupByFieldId ?? 0) === 0 ? parts[0] : undefined;
  for (let query = 0; query < nq; query++) {
    const before = picks.length;
    const count = alone ? Math.min(options.k, alone.counts[query]) : 0;
    if (alone && isMerged(alone, keys[0], byKey, starts[0], alone.counts[query], count, isDescending(options.metric))) {
      for (let row = starts[0]; row < starts[0] + count; row++) {
        picks.add(0, row);
        scores.push(alone.scores[row]);
      }
      decisive.push(count === 0 ? Number.NaN : alone.scores[starts[0] + count - 1]);
      counts.push(count);
      starts[0] += alone.counts[query];
      continue;
    }
    const best = bestOf(parts, keys, byKey, starts, query, options);
    decisive.push(best.decisive);
    for (const { part, row } of best.rows) {
      picks.add(part, row);
      scores.push(parts[part].scores[row]);
    }
    counts.push(picks.length - before);
    parts.forEach((part, i) => {
      starts[i] += part.counts[query];
    });
  }
  return { counts, scores: Float32Array.from(scores), decisive, ...picks.finish() };
}

/** Up to so many keys are compared with each other, more by a set. */
const FEW_KEYS = 16;

/** Whether the rows of one query are in the order that a merge would give them, and no key stands twice among the first `wanted`. */
function isMerged(
  { scores }: SearchHits,
  keys: Column,
  byKey: KeyOrder,
  start: number,
  count: number,
  wanted: number,
  descending: boolean,
): boolean {
  for (let row = start + 1; row < start + count; row++) {
    const gain = descending ? scores[row - 1] - scores[row] : scores[row] - scores[row - 1];
    if (!(gain > 0) && !(gain === 0 && byKey(0, row - 1, 0, row) <= 0)) return false;
  }
  if (wanted > FEW_KEYS) {
    const seen = new Set<unknown>();
    for (let row = start; row < start + wanted; row++) seen.add(valueAt(keys, row));
    return seen.size === wanted;
  }
  for (let row = start + 1; row < start + wanted; row++)
    for (let before = start; before < row; before++) if (byKey(0, before, 0, row) === 0) return false;
  return true;
}

type KeyOrder = ReturnType<typeof keyRowOrder>;

interface Candidate {
  readonly part: number;
  readonly row: number;
  readonly score: number;
}

function bestOf(
  parts: readonly SearchHits[],
  keys: readonly Column[],
  byKey: KeyOrder,
  starts: readonly number[],
  query: number,
  options: MergeOptions,
): { readonly rows: readonly Candidate[]; readonly decisive: number } {
  const candidates: Candidate[] = [];
  parts.forEach((part, i) => {
    for (let row = starts[i]; row < starts[i] + part.counts[query]; row++) candidates.push({ part: i, row, score: part.scores[row] });
  });
  const sign = isDescending(options.metric) ? -1 : 1;
  const order = (a: Candidate, b: Candidate): number =>
    sign * (a.score - b.score) || byKey(a.part, a.row, b.part, b.row) || a.part - b.part;
  // One part alone is in order already, but for ties that its rows' order decided.
  if (candidates.some((candidate, i) => i > 0 && order(candidates[i - 1], candidate) > 0)) candidates.sort(order);
  const groupId = options.groupByFieldId ?? 0;
  const groups = groupId > 0 ? new GroupLimit(options.k, Math.max(1, options.groupSize ?? 1)) : undefined;
  const groupColumns = groups ? parts.map((part) => columnOf(part.columns, groupId)) : [];
  const seen = new Set<string | bigint>();
  const best: Candidate[] = [];
  let decisive = Number.NaN;
  for (const candidate of candidates) {
    if (groups ? groups.full : best.length === options.k) break;
    const key = valueAt(keys[candidate.part], candidate.row) as string | bigint;
    if (seen.has(key)) continue;
    seen.add(key);
    const opened = groups?.opened;
    if (groups && !groups.admit(groupKey(groupColumns[candidate.part], candidate.row))) continue;
    best.push(candidate);
    if (!groups || options.strictGroupSize || groups.opened !== opened) decisive = candidate.score;
  }
  return { rows: best, decisive };
}

/** At most so many groups, at most so many rows of each. */
class GroupLimit {
  readonly #groups: number;
  readonly #size: number;
  readonly #rows = new Map<string, number>();
  #complete = 0;

  constructor(groups: number, size: number) {
    this.#groups = groups;
    this.#size = size;
  }

  get opened(): number {
    return this.#rows.size;
  }

  get full(): boolean {
    return this.#complete === this.#groups;
  }

  admit(group: string): boolean {
    const rows = this.#rows.get(group) ?? 0;
    if (rows === this.#size || (rows === 0 && this.#rows.size === this.#groups)) return false;
    this.#rows.set(group, rows + 1);
    if (rows + 1 === this.#size) this.#complete++;
    return true;
  }
}

/** Null is a group of its own. */
const groupKey = (column: Column, row: number): string => (isNull(column, row) ? 'null' : `=${valueAt(column, row)}`);

function columnOf(batch: ColumnBatch, fieldId: number): Column {
  const column = batch.columns.get(fieldId);
  if (!column) throw new CairnError('Internal', `result has no column of field ${fieldId}, only ${[...batch.columns.keys()].join(', ')}`);
  return column;
}

/** Chosen rows as one batch with the fields of the first part. */
export function takePicks(batches: readonly ColumnBatch[], picks: Picks): ColumnBatch {
  const { parts, order } = groupPicks(picks);
  const columns: [number, Column][] = [];
  for (const [id, first] of batches[0].columns) {
    const taken = parts.map(({ part, rows }) => takeColumn(columnOf(batches[part], id), rows));
    columns.push([id, taken.length === 0 ? takeColumn(first, new Int32Array(0)) : arrange(taken, order)]);
  }
  return makeBatch(columns);
}

/**
 * Rows of several parts by primary key; `limit` 0: all. Parts are in key order. A key that several parts have is taken from the first of them, so
 * growing rows come first. Counts add up. With a runtime, large results give way to the event loop.
 */
export async function mergeRows(parts: readonly QueryRows[], pkField: Field, limit: number, runtime?: Runtime): Promise<QueryRows> {
  const count = parts.reduce((sum, part) => sum + part.count, 0);
  const filled = parts.filter((part) => part.columns.columns.size > 0);
  if (filled.length === 0) return { columns: makeBatch([]), count };
  const stretch = runtime && new Stretch(runtime);
  const keys = filled.map((part) => columnOf(part.columns, pkField.id));
  const picks = await mergeKeys(keys, limit, stretch);
  const grouped = groupPicks(picks);
  const columns: [number, Column][] = [];
  for (const [id, first] of filled[0].columns.columns) {
    columns.push([id, await takeInSlices(id, first, filled, grouped, stretch)]);
  }
  return { columns: makeBatch(columns), count };
}

/** Rows that one stretch takes, and picks between two looks at the clock. */
const TAKE_ROWS = 4_096;
const PICKS_BETWEEN = 256;

async function takeInSlices(
  id: number,
  first: Column,
  filled: readonly QueryRows[],
  { parts, order }: PicksByPart,
  stretch: Stretch | undefined,
): Promise<Column> {
  if (parts.length === 0) return takeColumn(first, new Int32Array(0));
  const sources = parts.map(({ part }) => columnOf(filled[part].columns, id));
  if (!stretch || order.length <= TAKE_ROWS) {
    return arrange(
      parts.map(({ rows }, i) => takeColumn(sources[i], rows)),
      order,
    );
  }
  const taken: Column[] = [];
  for (const [i, { rows }] of parts.entries()) {
    for (let at = 0; at < rows.length; at += TAKE_ROWS) {
      taken.push(takeColumn(sources[i], rows.subarray(at, at + TAKE_ROWS)));
      await stretch.pause();
    }
  }
  const all = concatColumns(taken);
  await stretch.pause();
  const pieces: Column[] = [];
  for (let at = 0; at < order.length; at += TAKE_ROWS) {
    pieces.push(takeColumn(all, order.subarray(at, at + TAKE_ROWS)));
    await stretch.pause();
  }
  return concatColumns(pieces);
}

/** Walks key columns in step: each key once, from the first part that has it; of equal keys within one part the last (the newest). `limit` 0: all. */
async function mergeKeys(keys: readonly Column[], limit: number, stretch: Stretch | undefined): Promise<Picks> {
  const compare = keyRowOrder(keys);
  const at = new Int32Array(keys.length);
  const picks = new PickList();
  const most = limit > 0 ? limit : Number.POSITIVE_INFINITY;
  while (picks.length < most) {
    if (stretch && picks.length % PICKS_BETWEEN === 0) await stretch.pause();
    let least = -1;
    for (let part = 0; part < keys.length; part++) {
      if (at[part] < keys[part].length && (least < 0 || compare(part, at[part], least, at[least]) < 0)) least = part;
    }
    if (least < 0) break;
    const first = at[least];
    for (let part = keys.length - 1; part >= 0; part--) {
      if (part !== least) while (at[part] < keys[part].length && compare(part, at[part], least, first) === 0) at[part]++;
    }
    let last = first;
    while (last + 1 < keys[least].length && compare(least, last + 1, least, first) === 0) last++;
    at[least] = last + 1;
    picks.add(least, last);
  }
  return picks.finish();
}
