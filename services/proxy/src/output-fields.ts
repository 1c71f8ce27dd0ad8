import { CairnError } from '@cairn/base';
import {
  type CollectionSchema,
  type Column,
  type ColumnBatch,
  columnToRaw,
  DataType,
  DYNAMIC_FIELD_NAME,
  type Field,
  makeBatch,
  nameInStruct,
  nullColumn,
  type RawFieldData,
  type StructField,
  selectDynamicKeys,
  type TimeForm,
  TimeZone,
} from '@cairn/schema';
import type { ResultField } from './codec/field-data-encoder.ts';

/** What a read gives back. */
export interface OutputFields {
  readonly fields: readonly Field[];
  /** Of the collection: members of one come back as one. */
  readonly structs: readonly StructField[];
  /** Keys to take out of the dynamic field; none with the dynamic field among `fields`: all. */
  readonly dynamicKeys: readonly string[];
  /** As the reply lists them: names of fields and dynamic keys, each once. */
  readonly names: readonly string[];
  /** How Timestamptz values are shown. */
  readonly times: TimeForm;
}

/**
 * Fields for the names that a request lists. `*` is every field, the dynamic one with all its keys included; a name that no field has is a key of
 * the dynamic field where there is one. A struct is all its members, `struct[member]` one of them; they come back together under the struct's name.
 * Paths into JSON fields are not results.
 */
export function resolveOutputFields(
  schema: CollectionSchema,
  requested: readonly string[],
  times: TimeForm = { zone: TimeZone.UTC },
): OutputFields {
  const fields = new Map<number, Field>();
  const names = new Set<string>();
  const dynamicKeys = new Set<string>();
  let allKeys = false;
  const add = (field: Field): void => {
    fields.set(field.id, field);
    const struct = schema.structs.find(({ memberIds }) => memberIds.includes(field.id));
    if (!(field.isDynamic && dynamicKeys.size > 0 && !allKeys)) names.add(struct?.name ?? field.name);
  };
  for (const raw of requested) {
    const name = raw.trim();
    if (name === '*') {
      allKeys = schema.dynamicField !== undefined;
      for (const field of schema.fields) if (!field.isFunctionOutput) add(field);
      continue;
    }
    const struct = schema.structs.find((candidate) => candidate.name === name);
    if (struct) {
      for (const id of struct.memberIds) add(schema.byId.get(id) as Field);
      continue;
    }
    const field = schema.byName.get(name);
    if (field) {
      if (field.isFunctionOutput)
        throw new CairnError('InvalidParameter', `not allowed to retrieve raw data of field ${name}`, { legacy: 1 });
      if (field.isDynamic) allKeys = true;
      add(field);
    } else if (schema.dynamicField) {
      const key = dynamicKey(name);
      dynamicKeys.add(key);
      names.add(key);
      fields.set(schema.dynamicField.id, schema.dynamicField);
    } else
      throw new CairnError(
        'InvalidParameter',
        `field ${name} not exist: it is no field of collection ${schema.name}, whose dynamic field is off`,
      );
  }
  return { fields: [...fields.values()], structs: schema.structs, dynamicKeys: allKeys ? [] : [...dynamicKeys], names: [...names], times };
}

/** `$meta["key"]` and `key` are the same. */
function dynamicKey(name: string): string {
  const match = /^\$meta\[(["'])(.*)\1\]$/.exec(name);
  const key = match ? match[2] : name;
  if (key === '' || key.length > 65_535)
    throw new CairnError('InvalidParameter', `output field ${JSON.stringify(name.slice(0, 64))} is no name`);
  return key;
}

/** The columns of a result as the wire has them. A column that no shard sent stands empty, but with its type: clients read it without a check. */
export function resultFields(output: OutputFields, columns: ColumnBatch): ResultField[] {
  const results: ResultField[] = [];
  const members = new Map<StructField, RawFieldData[]>();
  for (const field of output.fields) {
    const result = resultField(field, columns.columns.get(field.id) ?? nullColumn(field, columns.length), output.times);
    const struct = output.structs.find(({ memberIds }) => memberIds.includes(field.id));
    if (!struct) {
      results.push(result);
      continue;
    }
    const before = members.get(struct);
    const raws = before ?? [];
    raws.push({ ...result.raw, name: nameInStruct(struct, field) });
    if (before) continue;
    members.set(struct, raws);
    const raw: RawFieldData = {
      name: struct.name,
      type: DataType.ArrayOfStruct,
      isDynamic: false,
      payload: { kind: 'struct', members: raws },
    };
    results.push({ fieldId: struct.id, raw });
  }
  return results;
}

export function resultField(field: Field, column: Column, times: TimeForm): ResultField {
  const raw = columnToRaw(field, column, times);
  return { fieldId: field.id, raw: field.isDynamic ? { ...raw, name: DYNAMIC_FIELD_NAME, isDynamic: true } : raw };
}

/** Keys of the dynamic field that a read asks for: those of its output, and those that are needed to put it in order. None: all. */
export function keysToRead({ fields, dynamicKeys }: OutputFields, needed: readonly string[]): string[] {
  const isWhole = dynamicKeys.length === 0 && fields.some((field) => field.isDynamic);
  return isWhole ? [] : [...new Set([...dynamicKeys, ...needed])];
}

/** Without the keys of the dynamic field that were read beyond those of the output. */
export function withoutNeededKeys(batch: ColumnBatch, { fields, dynamicKeys }: OutputFields, needed: readonly string[]): ColumnBatch {
  const dynamic = fields.find((field) => field.isDynamic);
  const column = dynamic && batch.columns.get(dynamic.id);
  if (!dynamic || column?.kind !== 'bytes' || dynamicKeys.length === 0) return batch;
  if (needed.every((key) => dynamicKeys.includes(key))) return batch;
  return makeBatch([...batch.columns, [dynamic.id, selectDynamicKeys(column, dynamicKeys)]]);
}
