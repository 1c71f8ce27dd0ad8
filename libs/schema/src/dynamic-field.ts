import { CairnError } from '@cairn/base';
import type { BytesColumn, Column } from './column.ts';
import { jsonMembers, jsonObject } from './json-members.ts';
import { defaultColumn, packBytes } from './plain-values.ts';
import { type CollectionSchema, DYNAMIC_FIELD_NAME } from './types.ts';

type JsonObject = Record<string, unknown>;

function parseObject(text: string, row: number): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new CairnError('InvalidParameter', `dynamic field of row ${row} is not valid JSON`, { cause: error });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new CairnError('InvalidParameter', `dynamic field of row ${row} is not a JSON object`);
  return value as JsonObject;
}

function bufferOf(column: BytesColumn): Buffer {
  return Buffer.from(column.data.buffer, column.data.byteOffset, column.data.byteLength);
}

/** Each row must be a JSON object whose keys are no fields of the collection (and not `$meta`): such a key could never be read again. */
export function checkDynamicColumn(schema: CollectionSchema, column: Column): void {
  if (column.kind !== 'bytes') throw new CairnError('InvalidParameter', `the dynamic field is sent as a ${column.kind} column`);
  const buffer = bufferOf(column);
  for (let row = 0; row < column.length; row++) {
    for (const key of Object.keys(parseObject(buffer.toString('utf8', column.offsets[row], column.offsets[row + 1]), row)))
      if (schema.byName.has(key) || key === DYNAMIC_FIELD_NAME)
        throw new CairnError(
          'InvalidParameter',
          `dynamic field of row ${row} has the key "${key}", which is a field of collection ${schema.name}`,
        );
  }
}

/** Keeps only these keys of each row's object; keys that a row has not are left out. Values keep their order and their spelling. */
export function selectDynamicKeys(column: BytesColumn, keys: readonly string[]): BytesColumn {
  const wanted = new Set(keys);
  const rows = Array.from({ length: column.length }, (_, row) =>
    jsonObject(jsonMembers(column.data.subarray(column.offsets[row], column.offsets[row + 1])).filter(({ key }) => wanted.has(key))),
  );
  return { ...column, ...packBytes(rows) };
}

/** Row by row: keys of `update` win over those of `base`, which keep their place. */
export function mergeDynamic(base: BytesColumn, update: BytesColumn): BytesColumn {
  if (base.length !== update.length) throw new CairnError('Internal', `dynamic fields of ${base.length} and ${update.length} rows`);
  const membersAt = ({ data, offsets }: BytesColumn, row: number) => jsonMembers(data.subarray(offsets[row], offsets[row + 1]));
  const rows = Array.from({ length: base.length }, (_, row) => {
    const merged = new Map(membersAt(base, row).map((member) => [member.key, member]));
    for (const member of membersAt(update, row)) merged.set(member.key, member);
    return jsonObject(merged.values());
  });
  return { ...base, validity: null, ...packBytes(rows) };
}

/**
 * The columns of an insert with those that were not sent: default, null, `{}` for $meta. An auto-id key stays out (the proxy makes it).
 * InvalidParameter names a field that is required.
 */
export function fillDefaults(schema: CollectionSchema, columns: ReadonlyMap<number, Column>, rows: number): Map<number, Column> {
  const filled = new Map(columns);
  for (const field of schema.fields) {
    if (filled.has(field.id) || (field.isPrimaryKey && field.autoId)) continue;
    if (!field.nullable && field.defaultValue === undefined && !field.isDynamic)
      throw new CairnError(
        'InvalidParameter',
        `no data for field "${field.name}" of collection ${schema.name}: it is not nullable and has no default`,
      );
    filled.set(field.id, defaultColumn(field, rows));
  }
  return filled;
}
