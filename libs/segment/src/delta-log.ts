import { assert, CairnError } from '@cairn/base';
import type { ObjectStore } from '@cairn/objects';
import type { ObjectRef } from '@cairn/proto/cairn/meta';
import { type Column, numberColumn, readArrowFile, writeArrowFile } from '@cairn/schema';
import type { Deletes } from './deletes.ts';
import { getObject, putObject, readingObject } from './object-bytes.ts';

export interface WrittenDeltaLog {
  readonly object: ObjectRef;
  readonly rows: number;
  readonly minTs: number;
  readonly maxTs: number;
}

/** Columns of a delta log: an Arrow file like a segment's, with field ids of its own. */
const KEY = 10;
const TS = 11;
const READ_TS = 12;
const names = new Map([
  [KEY, { name: 'key' }],
  [TS, { name: 'timestamp' }],
  [READ_TS, { name: 'read_timestamp' }],
]);

/** Deletes of one shard as one object, in the order given. */
export async function writeDeltaLog(objects: ObjectStore, key: string, deletes: Deletes): Promise<WrittenDeltaLog> {
  const rows = deletes.ts.length;
  assert(rows > 0 && deletes.keys.length === rows && deletes.readTs.length === rows, `delta log ${key} of ${rows} deletes`);
  const columns = new Map<number, Column>([
    [KEY, deletes.keys],
    [TS, numberColumn(deletes.ts)],
    [READ_TS, numberColumn(deletes.readTs)],
  ]);
  const object = await putObject(objects, key, await writeArrowFile({ length: rows, columns }, { byId: names }), { role: 'delta' });
  let minTs = Number.POSITIVE_INFINITY;
  let maxTs = 0;
  for (const ts of deletes.ts) {
    if (ts < minTs) minTs = ts;
    if (ts > maxTs) maxTs = ts;
  }
  return { object, rows, minTs, maxTs };
}

/** Verified by length and checksum; ObjectNotFound, ObjectDamaged name the key. The caller applies the record's as_of (`deletesAsOf`). */
export async function readDeltaLog(objects: ObjectStore, object: ObjectRef): Promise<Deletes> {
  const bytes = await getObject(objects, object);
  const { columns } = readingObject(object.key, () => readArrowFile(bytes));
  const [keys, ts, readTs] = [columns.get(KEY), columns.get(TS), columns.get(READ_TS)];
  if (keys === undefined || ts?.kind !== 'fixed' || readTs?.kind !== 'fixed')
    throw new CairnError('ObjectDamaged', `object ${object.key} is no delta log`);
  if (!(ts.values instanceof Float64Array) || !(readTs.values instanceof Float64Array))
    throw new CairnError('ObjectDamaged', `object ${object.key} has timestamps of another type`);
  return { keys, ts: ts.values, readTs: readTs.values };
}
