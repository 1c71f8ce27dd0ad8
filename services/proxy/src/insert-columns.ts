import { CairnError, fromWireTimestamp } from '@cairn/base';
import {
  type CollectionSchema,
  type Column,
  checkDynamicColumn,
  columnFromRaw,
  concatColumns,
  DataType,
  DYNAMIC_FIELD_NAME,
  type Field,
  fillDefaults,
  hashKeys,
  keyColumn,
  memberName,
  type RawFieldData,
  type StructField,
  shardOf,
  takeColumn,
} from '@cairn/schema';
import type { MutationRequest } from './codec/mutation-request.ts';
import type { ProxyParts } from './parts.ts';
import { type CollectionEntry, shardsOf } from './proxy-catalog.ts';
import type { RequestContext } from './request-context.ts';
import { zoneOf } from './time-zones.ts';

/** Property that lets a sender give keys to a collection with auto ids. */
const ALLOW_AUTO_ID = 'allow_insert_auto_id';

/** Rows of an Insert or Upsert as they will be stored: one column for each stored field (of a partial update: each sent one), defaults and auto ids filled. */
export interface RowsToWrite {
  readonly rows: number;
  readonly columns: ReadonlyMap<number, Column>;
  /** Primary keys that the rows get. */
  readonly keys: Column;
  /** Primary keys that were sent; an upsert deletes them. undefined when none were. */
  readonly sentKeys: Column | undefined;
}

/**
 * SchemaMismatch when the sender knew an older schema: SDKs describe again and send once more. Checked before the columns, which would fail with a
 * worse message. A sender that knows a newer one than this view has was told by another proxy: sync.
 */
export async function checkSchemaTimestamp(parts: ProxyParts, entry: CollectionEntry, sent: bigint): Promise<CollectionEntry> {
  if (sent === 0n) return entry;
  const known = fromWireTimestamp(sent);
  let current = entry;
  if (known > entry.record.updatedTs) {
    await parts.catalog.sync();
    current = await parts.catalog.resolveLive(entry.database.name, entry.record.name);
  }
  if (known < current.record.updatedTs) {
    throw new CairnError(
      'SchemaMismatch',
      `collection schema mismatch[collection=${current.record.name}]: it was changed after the sender described it`,
    );
  }
  return current;
}

/** insert: new rows. upsert: whole rows in place of those with their keys. partial: only some fields of such rows. */
export type WriteMode = 'insert' | 'upsert' | 'partial';

/** Validates the columns against the schema and, but for a partial update, completes them. Nothing is written before all of it holds. */
export async function prepareRows(
  parts: ProxyParts,
  context: RequestContext,
  entry: CollectionEntry,
  request: MutationRequest,
  mode: WriteMode,
): Promise<RowsToWrite> {
  const upsert = mode !== 'insert';
  const rows = request.numRows;
  if (rows === 0)
    throw new CairnError('InvalidParameter', `num_rows of a write to collection ${entry.record.name} should be greater than 0`);
  if (request.bytes > parts.config.limits.maxInsertBytes) {
    throw new CairnError(
      'ParameterTooLarge',
      `the request has ${request.bytes} bytes, at most ${parts.config.limits.maxInsertBytes} are taken (limits.maxInsertBytes)`,
    );
  }
  const { schema } = entry;
  const { primaryKey } = schema;
  const sent = decodeColumns(entry, request.fields, rows);
  const sentKeys = sent.get(primaryKey.id);
  if (upsert && !sentKeys) throw new CairnError('InvalidParameter', `upsert needs the primary key: field ${primaryKey.name} is missing`);
  const keepsKeys = !primaryKey.autoId || (!upsert && allowsAutoIdInsert(entry));
  if (primaryKey.autoId && sentKeys && !upsert && !keepsKeys) {
    throw new CairnError(
      'InvalidParameter',
      `field ${primaryKey.name} is the auto id of collection ${entry.record.name}: it must not be sent`,
    );
  }
  const makeKeys = (): Promise<Column> =>
    upsert && sentKeys ? autoKeysNear(parts, context, entry, sentKeys) : autoKeys(parts, context, primaryKey, rows);
  const keys = sentKeys && keepsKeys ? sentKeys : primaryKey.autoId ? await makeKeys() : undefined;
  if (!keys) throw new CairnError('InvalidParameter', `primary key field ${primaryKey.name} is missing`);
  sent.set(primaryKey.id, keys);
  return { rows, columns: mode === 'partial' ? sent : fillDefaults(schema, sent, rows), keys, sentKeys };
}

function decodeColumns(entry: CollectionEntry, fields: readonly RawFieldData[], rows: number): Map<number, Column> {
  const { schema, record } = entry;
  const columns = new Map<number, Column>();
  const zone = zoneOf(record);
  for (const raw of fields.flatMap((sent) => membersOf(entry, sent))) {
    const dynamic = raw.isDynamic || raw.name === DYNAMIC_FIELD_NAME;
    const field = dynamic ? schema.dynamicField : schema.byName.get(raw.name);
    if (!field && dynamic)
      throw new CairnError('InvalidParameter', `the dynamic field of collection ${record.name} is off, but dynamic keys were sent`);
    if (!field) throw new CairnError('InvalidParameter', `field ${raw.name} does not exist in collection ${record.name}`);
    if (columns.has(field.id)) throw new CairnError('InvalidParameter', `field ${field.name} was sent twice`);
    const column = columnFromRaw(field, raw, rows, zone);
    if (field.isDynamic) checkDynamicColumn(schema, column);
    columns.set(field.id, column);
  }
  for (const struct of schema.structs) checkStruct(schema, struct, columns);
  return columns;
}

/** An array of structs as its members; any other field as it is. */
function membersOf({ schema, record }: CollectionEntry, raw: RawFieldData): readonly RawFieldData[] {
  const struct = schema.structs.find(({ name }) => name === raw.name);
  if (!struct && raw.payload.kind !== 'struct') return [raw];
  if (!struct) throw new CairnError('InvalidParameter', `field ${raw.name} of collection ${record.name} is no array of structs`);
  if (raw.payload.kind !== 'struct')
    throw new CairnError('InvalidParameter', `field ${raw.name} is an array of structs, it was sent as ${raw.payload.kind}`);
  if (raw.validData && raw.validData.length > 0 && !Array.from<number | boolean>(raw.validData).every(Boolean))
    throw new CairnError('InvalidParameter', `field ${raw.name} is an array of structs and not nullable`);
  return raw.payload.members.map((member) => ({
    ...member,
    name: member.name.startsWith(`${struct.name}[`) ? member.name : memberName(struct.name, member.name),
  }));
}

/** All members of a struct or none, with as many elements each in every row. */
function checkStruct(schema: CollectionSchema, struct: StructField, columns: ReadonlyMap<number, Column>): void {
  const sent = struct.memberIds.flatMap((id) => columns.get(id) ?? []);
  if (sent.length === 0) return;
  const nameOf = (at: number): string => schema.byId.get(struct.memberIds[at])?.name ?? '';
  const absent = struct.memberIds.findIndex((id) => !columns.has(id));
  if (absent >= 0) throw new CairnError('InvalidParameter', `no data for field ${nameOf(absent)} of the array of structs ${struct.name}`);
  const [first, ...others] = sent.map((column) => (column.kind === 'list' ? column.offsets : new Int32Array()));
  others.forEach((offsets, at) => {
    const row = offsets.findIndex((offset, i) => offset !== first[i]);
    if (row > 0)
      throw new CairnError(
        'InvalidParameter',
        `array of structs ${struct.name}: row ${row - 1} has fields of different lengths, ${nameOf(0)} and ${nameOf(at + 1)}`,
      );
  });
}

function allowsAutoIdInsert({ record }: CollectionEntry): boolean {
  return record.properties.some(({ key, value }) => key === ALLOW_AUTO_ID && value.toLowerCase() === 'true');
}

async function autoKeys(parts: ProxyParts, context: RequestContext, field: Field, rows: number): Promise<Column> {
  const first = await parts.autoIds.take(rows, context);
  if (field.type === DataType.Int64) {
    const ids = new BigInt64Array(rows);
    for (let row = 0; row < rows; row++) ids[row] = BigInt(first + row);
    return keyColumn(ids);
  }
  return keyColumn(Array.from({ length: rows }, (_, row) => String(first + row)));
}

/**
 * New keys that belong to the shards of the old ones, row by row: the old row goes and the new one comes in one write of one shard, and the owner of
 * a partial update finds the old row where it writes the new one.
 */
async function autoKeysNear(parts: ProxyParts, context: RequestContext, { record, schema }: CollectionEntry, old: Column): Promise<Column> {
  const shards = shardsOf(record).length;
  if (shards === 1) return autoKeys(parts, context, schema.primaryKey, old.length);
  const wanted = Array.from({ length: shards }, (): number[] => []);
  hashKeys(old).forEach((hash, row) => {
    wanted[shardOf(hash, shards)].push(row);
  });
  const from = new Int32Array(old.length);
  const found: Column[] = [];
  for (let missing = old.length, seen = 0; missing > 0; ) {
    const fresh = await autoKeys(parts, context, schema.primaryKey, missing * shards);
    hashKeys(fresh).forEach((hash, at) => {
      const row = wanted[shardOf(hash, shards)].pop();
      if (row === undefined) return;
      from[row] = seen + at;
      missing--;
    });
    seen += fresh.length;
    found.push(fresh);
  }
  return takeColumn(concatColumns(found), from);
}
