import { CairnError, fromWireTimestamp } from '@cairn/base';
import {
  type Column,
  checkDynamicColumn,
  columnFromRaw,
  DataType,
  DYNAMIC_FIELD_NAME,
  type Field,
  fillDefaults,
  keyColumn,
  type RawFieldData,
} from '@cairn/schema';
import type { MutationRequest } from './codec/mutation-request.ts';
import type { ProxyParts } from './parts.ts';
import type { CollectionEntry } from './proxy-catalog.ts';
import type { RequestContext } from './request-context.ts';

/** Property that lets a sender give keys to a collection with auto ids. */
const ALLOW_AUTO_ID = 'allow_insert_auto_id';

/** Rows of an Insert or Upsert as they will be stored: one column for each stored field, defaults and auto ids filled. */
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

/** Validates the columns against the schema and completes them. Nothing is written before all of it holds. */
export async function prepareRows(
  parts: ProxyParts,
  context: RequestContext,
  entry: CollectionEntry,
  request: MutationRequest,
  upsert: boolean,
): Promise<RowsToWrite> {
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
  const keys = sentKeys && keepsKeys ? sentKeys : primaryKey.autoId ? await autoKeys(parts, context, primaryKey, rows) : undefined;
  if (!keys) throw new CairnError('InvalidParameter', `primary key field ${primaryKey.name} is missing`);
  sent.set(primaryKey.id, keys);
  return { rows, columns: fillDefaults(schema, sent, rows), keys, sentKeys };
}

function decodeColumns({ schema, record }: CollectionEntry, fields: readonly RawFieldData[], rows: number): Map<number, Column> {
  const columns = new Map<number, Column>();
  for (const raw of fields) {
    const dynamic = raw.isDynamic || raw.name === DYNAMIC_FIELD_NAME;
    const field = dynamic ? schema.dynamicField : schema.byName.get(raw.name);
    if (!field && dynamic)
      throw new CairnError('InvalidParameter', `the dynamic field of collection ${record.name} is off, but dynamic keys were sent`);
    if (!field) throw new CairnError('InvalidParameter', `field ${raw.name} does not exist in collection ${record.name}`);
    if (columns.has(field.id)) throw new CairnError('InvalidParameter', `field ${field.name} was sent twice`);
    const column = columnFromRaw(field, raw, rows);
    if (field.isDynamic) checkDynamicColumn(schema, column);
    columns.set(field.id, column);
  }
  return columns;
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
