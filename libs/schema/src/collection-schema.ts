import { CairnError } from '@cairn/base';
import type { KeyValuePair } from '@cairn/proto/milvus/common';
import {
  type FieldSchema,
  type StructArrayFieldSchema,
  type ValueField,
  CollectionSchema as WireCollectionSchema,
} from '@cairn/proto/milvus/schema';
import { isVectorType, toDataType } from './field-types.ts';
import { formatTimestamptz, parseTimestamptz } from './timestamptz.ts';
import { type CollectionSchema, DataType, DYNAMIC_FIELD_NAME, type Field, type PlainValue, type StructField } from './types.ts';

type SchemaParts = Pick<CollectionSchema, 'name' | 'description' | 'fields' | 'enableDynamicField' | 'properties'> & {
  readonly structs?: readonly StructField[];
};

/** Schema from its fields (ids given), derived parts computed; `$meta` is moved to the end. */
export function makeSchema(parts: SchemaParts): CollectionSchema {
  const fields = [...parts.fields.filter((field) => !field.isDynamic), ...parts.fields.filter((field) => field.isDynamic)];
  const primaryKey = fields.find((field) => field.isPrimaryKey);
  if (primaryKey === undefined) throw new CairnError('IllegalSchema', `schema "${parts.name}" has no primary key`);
  return {
    name: parts.name,
    description: parts.description,
    fields,
    structs: parts.structs ?? [],
    enableDynamicField: parts.enableDynamicField,
    properties: parts.properties,
    primaryKey,
    byId: new Map(fields.map((field) => [field.id, field])),
    byName: new Map(fields.map((field) => [field.name, field])),
    vectorFields: fields.filter((field) => isVectorType(field.type)),
    dynamicField: fields.find((field) => field.isDynamic),
    partitionKey: fields.find((field) => field.isPartitionKey),
  };
}

/** The dynamic field of a collection. */
export function dynamicField(id: number): Field {
  return {
    id,
    name: DYNAMIC_FIELD_NAME,
    description: 'dynamic schema',
    type: DataType.Json,
    elementType: DataType.None,
    isPrimaryKey: false,
    autoId: false,
    nullable: false,
    isDynamic: true,
    isPartitionKey: false,
    isClusteringKey: false,
    isFunctionOutput: false,
    defaultValue: undefined,
    dim: 0,
    maxLength: 0,
    maxCapacity: 0,
    typeParams: {},
    indexParams: {},
  };
}

export function pairsToRecord(pairs: readonly KeyValuePair[]): Record<string, string> {
  return Object.fromEntries(pairs.map((pair) => [pair.key, pair.value]));
}

export function recordToPairs(record: Readonly<Record<string, string>>): KeyValuePair[] {
  return Object.entries(record).map(([key, value]) => ({ key, value }));
}

/** A whole number from type_params; undefined when absent, NaN when it is no number. */
export function intParam(params: Readonly<Record<string, string>>, name: string): number | undefined {
  const text = params[name];
  if (text === undefined) return undefined;
  return /^-?\d{1,15}$/.test(text.trim()) ? Number(text) : Number.NaN;
}

/** Field of the message without judging it; unknown type numbers are IllegalSchema. */
export function fieldFromWire(message: FieldSchema): Field {
  const type = toDataType(message.dataType);
  const elementType = toDataType(message.elementType);
  if (type === undefined || elementType === undefined)
    throw new CairnError(
      'IllegalSchema',
      `field "${message.name}": unknown data type ${message.dataType} (element type ${message.elementType})`,
    );
  const typeParams = pairsToRecord(message.typeParams);
  return {
    id: Number(message.fieldID),
    name: message.name,
    description: message.description,
    type,
    elementType,
    isPrimaryKey: message.isPrimaryKey,
    autoId: message.autoID,
    nullable: message.nullable,
    isDynamic: message.isDynamic,
    isPartitionKey: message.isPartitionKey,
    isClusteringKey: message.isClusteringKey,
    isFunctionOutput: message.isFunctionOutput,
    defaultValue: defaultFromWire(message.name, type, message.defaultValue),
    dim: intParam(typeParams, 'dim') ?? 0,
    maxLength: intParam(typeParams, 'max_length') ?? 0,
    maxCapacity: intParam(typeParams, 'max_capacity') ?? 0,
    typeParams,
    indexParams: pairsToRecord(message.indexParams),
  };
}

/** Carriers of default values, by field type. */
const defaultCarriers: Partial<Record<DataType, readonly NonNullable<ValueField['data']>['$case'][]>> = {
  [DataType.Bool]: ['boolData'],
  [DataType.Int8]: ['intData'],
  [DataType.Int16]: ['intData'],
  [DataType.Int32]: ['intData'],
  [DataType.Int64]: ['longData', 'intData'],
  [DataType.Float]: ['floatData', 'doubleData'],
  [DataType.Double]: ['doubleData', 'floatData'],
  [DataType.VarChar]: ['stringData'],
  [DataType.Json]: ['bytesData', 'stringData'],
  [DataType.Geometry]: ['stringData'],
  [DataType.Timestamptz]: ['stringData', 'timestamptzData', 'longData'],
};

function defaultFromWire(name: string, type: DataType, message: ValueField | undefined): PlainValue | undefined {
  const data = message?.data;
  if (data === undefined) return undefined;
  if (!(defaultCarriers[type] ?? []).includes(data.$case))
    throw new CairnError('InvalidParameter', `type (${type}) of field (${name}) does not fit a default value in ${data.$case}`);
  if (type === DataType.Timestamptz && data.$case === 'stringData') return parseTimestamptz(data.value);
  if (type === DataType.Json && data.$case === 'stringData') return Buffer.from(data.value, 'utf8');
  if (type === DataType.Int64 && typeof data.value === 'number') return BigInt(data.value);
  return data.value;
}

function defaultToWire(field: Field): ValueField | undefined {
  const value = field.defaultValue;
  if (value === undefined || value === null) return undefined;
  if (typeof value === 'boolean') return { data: { $case: 'boolData', value } };
  if (typeof value === 'string') return { data: { $case: 'stringData', value } };
  if (value instanceof Uint8Array) return { data: { $case: 'bytesData', value } };
  if (typeof value === 'bigint')
    return field.type === DataType.Timestamptz
      ? { data: { $case: 'stringData', value: formatTimestamptz(value) } }
      : { data: { $case: 'longData', value } };
  if (typeof value !== 'number') throw new CairnError('Internal', `field "${field.name}": a list as default`);
  if (field.type === DataType.Float) return { data: { $case: 'floatData', value } };
  if (field.type === DataType.Double) return { data: { $case: 'doubleData', value } };
  return { data: { $case: 'intData', value } };
}

export function fieldToWire(field: Field): FieldSchema {
  return {
    fieldID: BigInt(field.id),
    name: field.name,
    isPrimaryKey: field.isPrimaryKey,
    description: field.description,
    dataType: field.type,
    typeParams: recordToPairs(field.typeParams),
    indexParams: recordToPairs(field.indexParams),
    autoID: field.autoId,
    state: 0,
    elementType: field.elementType,
    defaultValue: defaultToWire(field),
    isDynamic: field.isDynamic,
    isPartitionKey: field.isPartitionKey,
    isClusteringKey: field.isClusteringKey,
    nullable: field.nullable,
    isFunctionOutput: field.isFunctionOutput,
    externalField: '',
  };
}

/** Name under which a member of a struct stands among the fields. */
export const memberName = (struct: string, member: string): string => `${struct}[${member}]`;

/** The part of a member's name that its struct's schema and data have. */
export function nameInStruct(struct: StructField, field: Field): string {
  return field.name.slice(struct.name.length + 1, -1);
}

/** The struct and its members without judging them. */
export function structFromWire(message: StructArrayFieldSchema): { readonly struct: StructField; readonly members: readonly Field[] } {
  const members = message.fields.map(fieldFromWire).map((field) => ({ ...field, name: memberName(message.name, field.name) }));
  const struct = {
    id: Number(message.fieldID),
    name: message.name,
    description: message.description,
    typeParams: pairsToRecord(message.typeParams),
    memberIds: members.map((field) => field.id),
  };
  return { struct, members };
}

function structToWire(schema: CollectionSchema, struct: StructField): StructArrayFieldSchema {
  const members = schema.fields.filter((field) => struct.memberIds.includes(field.id));
  return {
    fieldID: BigInt(struct.id),
    name: struct.name,
    description: struct.description,
    fields: members.map((field) => ({ ...fieldToWire(field), name: nameInStruct(struct, field) })),
    typeParams: recordToPairs(struct.typeParams),
    nullable: false,
  };
}

/** A stored schema (ids given). What a user sends goes through `prepareNewSchema`. */
export function schemaFromWire(message: WireCollectionSchema): CollectionSchema {
  const structs = message.structArrayFields.map(structFromWire);
  return makeSchema({
    name: message.name,
    description: message.description,
    fields: [...message.fields.map(fieldFromWire), ...structs.flatMap(({ members }) => members)],
    structs: structs.map(({ struct }) => struct),
    enableDynamicField: message.enableDynamicField,
    properties: pairsToRecord(message.properties),
  });
}

/** With `$meta` as a field unless `dynamicField: false`: DescribeCollection says enable_dynamic_field and does not list it. */
export function schemaToWire(schema: CollectionSchema, options: { readonly dynamicField?: boolean } = {}): WireCollectionSchema {
  const members = new Set(schema.structs.flatMap((struct) => struct.memberIds));
  const fields = schema.fields.filter((field) => !members.has(field.id) && !(field.isDynamic && options.dynamicField === false));
  return {
    ...WireCollectionSchema.create(),
    name: schema.name,
    description: schema.description,
    autoID: schema.primaryKey.autoId,
    fields: fields.map(fieldToWire),
    structArrayFields: schema.structs.map((struct) => structToWire(schema, struct)),
    enableDynamicField: schema.enableDynamicField,
    properties: recordToPairs(schema.properties),
  };
}

/** Bytes of milvus.proto.schema.CollectionSchema, as in CollectionRecord.schema. Damaged bytes are IllegalSchema. */
export function decodeSchema(bytes: Uint8Array): CollectionSchema {
  return schemaFromWire(decodeSchemaMessage(bytes));
}

/** Only the protobuf step; for the bytes of a CreateCollection, before `prepareNewSchema`. */
export function decodeSchemaMessage(bytes: Uint8Array): WireCollectionSchema {
  try {
    return WireCollectionSchema.decode(bytes);
  } catch (error) {
    throw new CairnError('IllegalSchema', `collection schema of ${bytes.byteLength} bytes cannot be decoded`, { cause: error });
  }
}

export function encodeSchema(schema: CollectionSchema): Uint8Array {
  return WireCollectionSchema.encode(schemaToWire(schema)).finish();
}
