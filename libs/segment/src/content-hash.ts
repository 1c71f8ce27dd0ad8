import type { Runtime } from '@cairn/base';
import { type Column, type ColumnBatch, isVectorType, ROW_ID_FIELD } from '@cairn/schema';
import { pause } from './object-bytes.ts';
import { formatHash, RowHashes } from './row-hash.ts';

/** The cells of a row in the order they are hashed: scalars by field id, the row's timestamp first, then vectors by field id; no row id. */
export function hashedColumns(columns: ReadonlyMap<number, Column>): [fieldId: number, column: Column][] {
  return [...columns]
    .filter(([id]) => id !== ROW_ID_FIELD)
    .sort(([a, left], [b, right]) => Number(isVectorType(left.type)) - Number(isVectorType(right.type)) || a - b);
}

/** Content hash of all rows of a batch, 32 hex digits. Gives way to the event loop about every millisecond. */
export async function contentHash(batch: ColumnBatch, runtime: Runtime): Promise<string> {
  const hashes = new RowHashes(batch.length);
  for (const [fieldId, column] of hashedColumns(batch.columns)) for (const _ of hashes.mix(fieldId, column)) await pause(runtime);
  return formatHash(hashes.sum().hash);
}
