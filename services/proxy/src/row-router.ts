import { CairnError } from '@cairn/base';
import type { PartitionRecord, Shard } from '@cairn/proto/cairn/meta';
import type { PartialUpdate } from '@cairn/proto/cairn/services';
import { type Column, compareKeyRows, encodeFrame, hashKeys, makeBatch, shardOf, takeBatch, takeColumn, valueAt } from '@cairn/schema';
import type { RowsToWrite } from './insert-columns.ts';
import { type CollectionEntry, shardsOf } from './proxy-catalog.ts';

/** Rows of one shard and partition. */
export interface RoutedRows {
  readonly partitionId: number;
  readonly rows: number;
  readonly frame: Uint8Array;
}

/** What one shard's owner gets of a write. */
export interface ShardWrite {
  readonly shard: Shard;
  readonly inserts: RoutedRows[];
  /** Frame of keys to delete; empty: none. */
  deletes: Uint8Array;
  deleteRows: number;
  /** Rows of which only some fields were sent; then there is nothing else. */
  partial?: PartialUpdate;
}

/** Where the rows of a partial update go, and which arrays it changes. */
export type PartialScope = Pick<PartialUpdate, 'ops' | 'partitionId' | 'defaultPartitionId'>;

/**
 * The rows of a partial update to the shards that hold their keys: the owner reads the rest there, and writes there. Under auto ids the new key
 * belongs to the same shard as the old one (`autoKeysNear`).
 */
export function routePartialRows(entry: CollectionEntry, write: RowsToWrite, scope: PartialScope): Map<number, ShardWrite> {
  const { sentKeys } = write;
  if (!sentKeys) throw new CairnError('Internal', 'a partial update without keys');
  const shards = shardsOf(entry.record);
  const batch = makeBatch(write.columns);
  const writes = new Map<number, ShardWrite>();
  for (const [target, rows] of groupRows(write.rows, rowTargets(sentKeys, shards.length), undefined, 1)) {
    const whole = rows.length === write.rows;
    writeOf(writes, shards[target]).partial = {
      ...scope,
      rows: rows.length,
      columns: encodeFrame(whole ? batch : takeBatch(batch, rows)),
      keys: encodeFrame(makeBatch([[entry.schema.primaryKey.id, whole ? sentKeys : takeColumn(sentKeys, rows)]])),
    };
  }
  return writes;
}

/** Rows by key hash to shards and, with a partition key, by its hash to partitions; one frame for each shard and partition that gets rows. */
export function routeRows(entry: CollectionEntry, write: RowsToWrite, partitions: readonly PartitionRecord[]): Map<number, ShardWrite> {
  const shards = shardsOf(entry.record);
  const shardByRow = rowTargets(write.keys, shards.length);
  const partitionByRow = partitionTargets(entry, write, partitions);
  const batch = makeBatch(write.columns);
  const writes = new Map<number, ShardWrite>();
  for (const [target, rows] of groupRows(write.rows, shardByRow, partitionByRow, partitions.length)) {
    const shard = shards[Math.floor(target / partitions.length)];
    const part = rows.length === write.rows ? batch : takeBatch(batch, rows);
    const { inserts } = writeOf(writes, shard);
    inserts.push({ partitionId: partitions[target % partitions.length].id, rows: rows.length, frame: encodeFrame(part) });
  }
  return writes;
}

/** Adds the deletes of these keys to the shards that hold them. */
export function routeDeletes(entry: CollectionEntry, keys: Column, writes: Map<number, ShardWrite> = new Map()): Map<number, ShardWrite> {
  const shards = shardsOf(entry.record);
  const pk = entry.schema.primaryKey.id;
  for (const [target, rows] of groupRows(keys.length, rowTargets(keys, shards.length), undefined, 1)) {
    const write = writeOf(writes, shards[target]);
    write.deletes = encodeFrame(makeBatch([[pk, rows.length === keys.length ? keys : takeColumn(keys, rows)]]));
    write.deleteRows = rows.length;
  }
  return writes;
}

/** InvalidParameter when a key stands twice: which of the two rows would win is nobody's to say. */
export function refuseDuplicateKeys(keys: Column, fieldName: string): void {
  const hashes = hashKeys(keys);
  const rowsByHash = new Map<number, number | number[]>();
  for (let row = 0; row < hashes.length; row++) {
    const before = rowsByHash.get(hashes[row]);
    if (before === undefined) {
      rowsByHash.set(hashes[row], row);
      continue;
    }
    const rows = typeof before === 'number' ? [before] : before;
    const twin = rows.find((other) => compareKeyRows(keys, other, keys, row) === 0);
    if (twin !== undefined) {
      throw new CairnError(
        'InvalidParameter',
        `duplicate primary keys are not allowed in the same batch: field ${fieldName}, key ${valueAt(keys, row)} in rows ${twin} and ${row}`,
      );
    }
    rowsByHash.set(hashes[row], [...rows, row]);
  }
}

/** Row numbers of the first row of each key. */
export function distinctKeys(keys: Column): Column {
  const hashes = hashKeys(keys);
  const rowsByHash = new Map<number, number[]>();
  const kept: number[] = [];
  for (let row = 0; row < hashes.length; row++) {
    const rows = rowsByHash.get(hashes[row]) ?? [];
    if (rows.some((other) => compareKeyRows(keys, other, keys, row) === 0)) continue;
    rows.push(row);
    rowsByHash.set(hashes[row], rows);
    kept.push(row);
  }
  return kept.length === keys.length ? keys : takeColumn(keys, Int32Array.from(kept));
}

function writeOf(writes: Map<number, ShardWrite>, shard: Shard): ShardWrite {
  let write = writes.get(shard.index);
  if (!write) {
    write = { shard, inserts: [], deletes: new Uint8Array(), deleteRows: 0 };
    writes.set(shard.index, write);
  }
  return write;
}

function rowTargets(keys: Column, targets: number): Uint16Array | undefined {
  if (targets === 1) return undefined;
  return Uint16Array.from(hashKeys(keys), (hash) => shardOf(hash, targets));
}

function partitionTargets(entry: CollectionEntry, write: RowsToWrite, partitions: readonly PartitionRecord[]): Uint16Array | undefined {
  const { partitionKey } = entry.schema;
  if (!partitionKey || partitions.length === 1) return undefined;
  const column = write.columns.get(partitionKey.id);
  if (!column) throw new CairnError('Internal', `no column of partition key ${partitionKey.name}`);
  return rowTargets(column, partitions.length);
}

/** Rows by target `shard * partitionCount + partition`, in row order; only targets that get rows. */
function groupRows(
  rows: number,
  shards: Uint16Array | undefined,
  partitions: Uint16Array | undefined,
  partitionCount: number,
): Map<number, Int32Array> {
  if (!shards && !partitions) return new Map([[0, Int32Array.from({ length: rows }, (_, row) => row)]]);
  const targets = new Int32Array(rows);
  const counts = new Map<number, number>();
  for (let row = 0; row < rows; row++) {
    const target = (shards ? shards[row] : 0) * partitionCount + (partitions ? partitions[row] : 0);
    targets[row] = target;
    counts.set(target, (counts.get(target) ?? 0) + 1);
  }
  const groups = new Map<number, Int32Array>();
  const filled = new Map<number, number>();
  for (let row = 0; row < rows; row++) {
    const target = targets[row];
    const group = groups.get(target) ?? new Int32Array(counts.get(target) ?? 0);
    const at = filled.get(target) ?? 0;
    group[at] = row;
    filled.set(target, at + 1);
    if (at === 0) groups.set(target, group);
  }
  return groups;
}
