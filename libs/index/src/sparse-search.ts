import { type Bitmap, CairnError, fullBitmap, rowsOfBits } from '@cairn/base';
import type { BytesColumn } from '@cairn/schema';
import { HitList, hitsOf } from './hit-list.ts';
import { metricOf, rangeTest } from './metric.ts';
import type { ExactTask, IndexHits } from './search-types.ts';

/** One pair: u32 LE index, f32 LE value. */
const PAIR_BYTES = 8;

/** Query vectors, each as u32 LE length in bytes and its pairs. */
function sparseQueries(bytes: Uint8Array, nq: number): ReadonlyMap<number, number>[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const queries: Map<number, number>[] = [];
  let at = 0;
  for (let i = 0; i < nq; i++) {
    const length = at + 4 <= bytes.length ? view.getUint32(at, true) : -1;
    if (length < 0 || length % PAIR_BYTES !== 0 || at + 4 + length > bytes.length)
      throw new CairnError('InvalidParameter', `sparse query ${i} of ${nq} is damaged at byte ${at}`);
    const query = new Map<number, number>();
    for (let pair = at + 4; pair < at + 4 + length; pair += PAIR_BYTES)
      query.set(view.getUint32(pair, true), view.getFloat32(pair + 4, true));
    queries.push(query);
    at += 4 + length;
  }
  return queries;
}

/** Exact search of sparse vectors by IP. Rows that share no dimension with the query are no hits. */
export function searchSparse(task: ExactTask, column: BytesColumn, eligible: Bitmap | undefined): IndexHits {
  if (task.metric !== 'IP') throw new CairnError('InvalidParameter', `metric type ${task.metric} does not go with sparse vectors`);
  const rows = rowsOfBits(eligible ?? fullBitmap(task.rows));
  const view = new DataView(column.data.buffer, column.data.byteOffset, column.data.byteLength);
  const range = rangeTest(metricOf('IP'), task.range);
  const lists = sparseQueries(task.queries, task.nq).map((query) => {
    const list = new HitList();
    for (const row of rows) {
      let product = 0;
      let shared = false;
      for (let pair = column.offsets[row]; pair < column.offsets[row + 1]; pair += PAIR_BYTES) {
        const weight = query.get(view.getUint32(pair, true));
        if (weight === undefined) continue;
        shared = true;
        product += weight * view.getFloat32(pair + 4, true);
      }
      if (!shared || range.better(product) || range.worse(product)) continue;
      list.add(-product, row);
      if (list.length > 4 * task.k + 4096) list.prune(task.k);
    }
    return list;
  });
  return hitsOf(lists, task.k, (distance) => -distance);
}
