import { CairnError } from '@cairn/base';
import { type CollectionSchema, type Column, type ColumnBatch, emptyColumn, type Field, makeBatch, selectDynamicKeys } from '@cairn/schema';
import type { ReadableSegment } from '@cairn/segment';
import { arrange, groupPicks, type Picks } from './picks.ts';

export interface OutputRequest {
  readonly schema: CollectionSchema;
  readonly fieldIds: readonly number[];
  /** Keys to keep of the dynamic field; none: all. */
  readonly dynamicKeys: readonly string[];
}

/** Fields of a result, the primary key first, each once. FieldNotFound for an id that the schema has not. */
export function outputFields(schema: CollectionSchema, fieldIds: readonly number[]): Field[] {
  const ids = new Set([schema.primaryKey.id, ...fieldIds]);
  return [...ids].map((id) => {
    const field = schema.byId.get(id);
    if (!field) throw new CairnError('FieldNotFound', `field ${id} is not in the schema of collection ${schema.name}`);
    return field;
  });
}

/** Chosen rows of the segments with all their output fields, in result order. Only these rows are read. */
export async function gatherOutput(segments: readonly ReadableSegment[], picks: Picks, request: OutputRequest): Promise<ColumnBatch> {
  const fields = outputFields(request.schema, request.fieldIds);
  const { parts, order } = groupPicks(picks);
  const columns = await Promise.all(
    fields.map(async (field): Promise<[number, Column]> => {
      if (parts.length === 0) return [field.id, emptyColumn(field)];
      const taken = await Promise.all(parts.map(({ part, rows }) => segments[part].gather(field.id, rows)));
      return [field.id, withKeys(field, arrange(taken, order), request.dynamicKeys)];
    }),
  );
  return makeBatch(columns);
}

function withKeys(field: Field, column: Column, keys: readonly string[]): Column {
  return field.isDynamic && keys.length > 0 && column.kind === 'bytes' ? selectDynamicKeys(column, keys) : column;
}
