import { type Bitmap, CairnError, fullBitmap, rowsOfBits } from '@cairn/base';
import type { VectorColumn } from '@cairn/schema';
import { HitList, hitsOf } from './hit-list.ts';
import { metricOf, rangeTest } from './metric.ts';
import type { ExactTask, IndexHits } from './search-types.ts';

const POPCOUNT = new Uint8Array(256);
for (let i = 1; i < 256; i++) POPCOUNT[i] = POPCOUNT[i >> 1] + (i & 1);

/** Bits that differ. */
export function hamming(data: Uint8Array, at: number, query: Uint8Array, from: number, bytes: number): number {
  let count = 0;
  for (let i = 0; i < bytes; i++) count += POPCOUNT[data[at + i] ^ query[from + i]];
  return count;
}

/** 1 - shared bits / bits of either; two empty sets are the same. */
export function jaccard(data: Uint8Array, at: number, query: Uint8Array, from: number, bytes: number): number {
  let both = 0;
  let either = 0;
  for (let i = 0; i < bytes; i++) {
    both += POPCOUNT[data[at + i] & query[from + i]];
    either += POPCOUNT[data[at + i] | query[from + i]];
  }
  return either === 0 ? 0 : 1 - both / either;
}

/** Exact search of binary vectors by HAMMING or JACCARD. */
export function searchBinary(task: ExactTask, column: VectorColumn, eligible: Bitmap | undefined): IndexHits {
  const distanceOf = { HAMMING: hamming, JACCARD: jaccard }[task.metric];
  if (!distanceOf) throw new CairnError('InvalidParameter', `metric type ${task.metric} does not go with binary vectors`);
  const { data, bytesPerRow } = column;
  const rows = rowsOfBits(eligible ?? fullBitmap(task.rows));
  const range = rangeTest(metricOf(task.metric), task.range);
  const lists: HitList[] = [];
  for (let query = 0; query < task.nq; query++) {
    const list = new HitList();
    for (const row of rows) {
      const distance = distanceOf(data, row * bytesPerRow, task.queries, query * bytesPerRow, bytesPerRow);
      if (range.better(distance) || range.worse(distance)) continue;
      list.add(distance, row);
      if (list.length > 4 * task.k + 4096) list.prune(task.k);
    }
    lists.push(list);
  }
  return hitsOf(lists, task.k, (distance) => distance);
}
