import { CairnError } from '@cairn/base';
import type { FieldSchema, StructArrayFieldSchema, CollectionSchema as WireSchema } from '@cairn/proto/milvus/schema';
import { dynamicField, fieldFromWire, intParam, makeSchema, pairsToRecord, structFromWire } from './collection-schema.ts';
import { columnFromRaw } from './column-from-raw.ts';
import { columnToRaw } from './column-to-raw.ts';
import { familyOf, isVectorType, typeName } from './field-types.ts';
import { columnFromValues } from './plain-values.ts';
import { type CollectionSchema, DataType, FIRST_FIELD_ID, type Field, type StructField } from './types.ts';

/** What CreateCollection refuses. Numbers are Milvus's defaults. */
export interface SchemaLimits {
  /** Fields of one collection, `$meta` not counted. */
  readonly maxFields: number;
  readonly maxVectorFields: number;
  /** Dimensions of a dense vector; binary vectors may have eight times as many. */
  readonly maxDim: number;
  /** Bytes of a name. */
  readonly maxNameLength: number;
}

export const DEFAULT_SCHEMA_LIMITS: SchemaLimits = { maxFields: 64, maxVectorFields: 10, maxDim: 32_768, maxNameLength: 255 };

const MAX_VARCHAR_BYTES = 65_535;
const MAX_ARRAY_CAPACITY = 4_096;

function invalid(message: string): CairnError {
  return new CairnError('InvalidParameter', message);
}

/**
 * Validates the schema of a CreateCollection, gives field ids from 100 in the order of the fields and adds `$meta` when the dynamic field is on.
 * InvalidParameter in most cases, InvalidFieldName for names of fields, NotSupported for what is not built.
 */
export function prepareNewSchema(message: WireSchema, limits: SchemaLimits = DEFAULT_SCHEMA_LIMITS): CollectionSchema {
  if (message.functions.length > 0)
    throw new CairnError('NotSupported', `not supported: function "${message.functions[0].name}" in a schema`);
  checkName(message.name, limits, (reason) => invalid(`Invalid collection name: ${message.name}. ${reason}`));
  if (message.fields.length > limits.maxFields)
    throw invalid(`maximum field's number should be limited to ${limits.maxFields}, got ${message.fields.length}`);
  const fields = message.fields.map((field, index) => prepareField(field, FIRST_FIELD_ID + index, message.autoID, limits));
  let nextId = FIRST_FIELD_ID + fields.length + (message.enableDynamicField ? 1 : 0);
  const structs = message.structArrayFields.map((struct) => {
    const prepared = prepareStruct(struct, nextId, limits);
    nextId += 1 + prepared.members.length;
    return prepared;
  });
  const all = [...fields, ...structs.flatMap(({ members }) => members)];
  checkTogether(message.name, all, limits);
  checkStructNames(
    structs.map(({ struct }) => struct),
    fields,
  );
  if (all.length > limits.maxFields) throw invalid(`maximum field's number should be limited to ${limits.maxFields}, got ${all.length}`);
  if (message.enableDynamicField) all.push(dynamicField(FIRST_FIELD_ID + fields.length));
  return makeSchema({
    name: message.name,
    description: message.description,
    fields: all,
    structs: structs.map(({ struct }) => struct),
    enableDynamicField: message.enableDynamicField,
    properties: pairsToRecord(message.properties),
  });
}

/** AddCollectionField. The new field must be nullable: rows written before have null, or the default. */
export function addField(
  schema: CollectionSchema,
  message: FieldSchema,
  fieldId: number,
  limits: SchemaLimits = DEFAULT_SCHEMA_LIMITS,
): CollectionSchema {
  const field = prepareField(message, fieldId, false, limits);
  if (schema.byName.has(field.name)) throw invalid(`duplicated field name: ${field.name}`);
  if (schema.byId.has(fieldId)) throw new CairnError('Internal', `field id ${fieldId} is taken by "${schema.byId.get(fieldId)?.name}"`);
  if (field.isPrimaryKey || field.isPartitionKey || field.autoId)
    throw invalid(`field "${field.name}" cannot be added: it is a primary key, a partition key or an auto id`);
  if (isVectorType(field.type) && schema.vectorFields.length >= limits.maxVectorFields)
    throw invalid(`maximum vector field's number should be limited to ${limits.maxVectorFields}`);
  if (!field.nullable) throw invalid(`added field must be nullable, please check it, field name = ${field.name}`);
  if (schema.fields.length - (schema.dynamicField === undefined ? 0 : 1) >= limits.maxFields)
    throw invalid(`maximum field's number should be limited to ${limits.maxFields}`);
  return makeSchema({ ...schema, fields: [...schema.fields, field] });
}

function checkName(name: string, limits: SchemaLimits, error: (reason: string) => CairnError): void {
  if (name.trim() === '') throw error('the name should not be empty');
  if (Buffer.byteLength(name, 'utf8') > limits.maxNameLength)
    throw error(`the length of the name must be at most ${limits.maxNameLength} bytes`);
  if (!/^[A-Za-z_]/.test(name)) throw error('the first character must be an underscore or a letter');
  if (!/^[A-Za-z0-9_]*$/.test(name)) throw error('the name can only contain letters, digits and underscores');
}

/** A struct takes the id `id`, its members the ones behind it. */
function prepareStruct(
  message: StructArrayFieldSchema,
  id: number,
  limits: SchemaLimits,
): { readonly struct: StructField; readonly members: readonly Field[] } {
  checkName(message.name, limits, (reason) => new CairnError('InvalidFieldName', `Invalid field name: ${message.name}. ${reason}`));
  if (message.nullable) throw new CairnError('NotSupported', `not supported: nullable struct array field "${message.name}"`);
  if (message.fields.length === 0) throw invalid(`struct array field ${message.name} must have at least one sub-field`);
  const names = new Set<string>();
  const sent = { ...message, fieldID: BigInt(id), fields: message.fields.map((field, i) => ({ ...field, fieldID: BigInt(id + 1 + i) })) };
  for (const { name } of message.fields) {
    checkName(name, limits, (reason) => new CairnError('InvalidFieldName', `Invalid field name: ${name}. ${reason}`));
    if (names.has(name)) throw invalid(`duplicated field name: ${name} in struct ${message.name}`);
    names.add(name);
  }
  const prepared = structFromWire(sent);
  for (const field of prepared.members) {
    if (field.type !== DataType.Array && field.type !== DataType.ArrayOfVector)
      throw invalid(`sub-field ${field.name} is of type ${typeName(field.type)}: only Array and ArrayOfVector are allowed in a struct`);
    if (field.isPrimaryKey || field.isPartitionKey || field.isClusteringKey || field.isDynamic || field.autoId)
      throw invalid(`sub-field ${field.name} of a struct cannot be a key or dynamic`);
    if (field.nullable || field.defaultValue !== undefined)
      throw invalid(`sub-field ${field.name} of a struct cannot be nullable or have a default value`);
    if (field.type === DataType.Array) checkArray(field);
    else checkVectorArray(field, limits);
  }
  return prepared;
}

function checkStructNames(structs: readonly StructField[], fields: readonly Field[]): void {
  const names = new Set(fields.map((field) => field.name));
  for (const { name } of structs) {
    if (names.has(name)) throw invalid(`duplicated field name: ${name}`);
    names.add(name);
  }
}

function checkVectorArray(field: Field, limits: SchemaLimits): void {
  checkRange(field, 'max_capacity', MAX_ARRAY_CAPACITY);
  if (familyOf(field.elementType) !== 'vector')
    throw invalid(`element type ${typeName(field.elementType)} of vector array field ${field.name} is not supported`);
  checkDim({ ...field, type: field.elementType }, limits);
}

function prepareField(message: FieldSchema, id: number, schemaAutoId: boolean, limits: SchemaLimits): Field {
  checkName(message.name, limits, (reason) => new CairnError('InvalidFieldName', `Invalid field name: ${message.name}. ${reason}`));
  const sent = fieldFromWire(message);
  const field = { ...sent, id, autoId: sent.autoId || (sent.isPrimaryKey && schemaAutoId) };
  if (field.isDynamic) throw invalid(`field "${field.name}" cannot be the dynamic field: set enable_dynamic_field instead`);
  if (field.isFunctionOutput) throw new CairnError('NotSupported', `not supported: field "${field.name}" as output of a function`);
  checkType(field, limits);
  checkRoles(field);
  checkDefault(field);
  return field;
}

const notBuilt: ReadonlySet<DataType> = new Set([DataType.Text, DataType.Struct, DataType.ArrayOfStruct, DataType.ArrayOfVector]);

function checkType(field: Field, limits: SchemaLimits): void {
  if (notBuilt.has(field.type))
    throw new CairnError('NotSupported', `not supported: field "${field.name}" of type ${typeName(field.type)}`);
  const family = familyOf(field.type);
  if (family === undefined || field.type === DataType.String)
    throw invalid(`field "${field.name}": data type ${typeName(field.type)} is not valid`);
  if (family === 'vector') checkDim(field, limits);
  else if (field.type === DataType.SparseFloatVector && field.typeParams['dim'] !== undefined)
    throw invalid(`dim should not be specified for sparse vector field ${field.name}(${field.id})`);
  if (field.type === DataType.VarChar) checkRange(field, 'max_length', MAX_VARCHAR_BYTES);
  if (family === 'list') checkArray(field);
}

function checkDim(field: Field, limits: SchemaLimits): void {
  const text = field.typeParams['dim'];
  if (text === undefined)
    throw invalid(`dimension is not defined in field type params of field ${field.name}, check type param \`dim\` for vector field`);
  const dim = intParam(field.typeParams, 'dim') ?? Number.NaN;
  const binary = field.type === DataType.BinaryVector;
  const [least, most] = binary ? [8, limits.maxDim * 8] : [2, limits.maxDim];
  if (!(dim >= least && dim <= most))
    throw invalid(`invalid dimension: ${text} of field ${field.name}. should be in range ${least} ~ ${most}`);
  if (binary && dim % 8 !== 0) throw invalid(`invalid dimension: ${dim} of field ${field.name}. should be multiple of 8.`);
}

function checkRange(field: Field, param: 'max_length' | 'max_capacity', most: number): void {
  const text = field.typeParams[param];
  if (text === undefined)
    throw invalid(`type param(${param}) should be specified for the field(${field.name}) of type ${typeName(field.type)}`);
  const value = intParam(field.typeParams, param) ?? Number.NaN;
  if (!(value >= 1 && value <= most)) throw invalid(`the ${param} of field ${field.name} must be in range 1 ~ ${most}, got ${text}`);
}

function checkArray(field: Field): void {
  checkRange(field, 'max_capacity', MAX_ARRAY_CAPACITY);
  const element = field.elementType;
  if (familyOf(element) !== 'fixed' && element !== DataType.VarChar)
    throw invalid(`element type ${typeName(element)} of array field ${field.name} is not supported`);
  if (element === DataType.VarChar) checkRange(field, 'max_length', MAX_VARCHAR_BYTES);
}

function checkRoles(field: Field): void {
  const isKey = field.type === DataType.Int64 || field.type === DataType.VarChar;
  if (field.isPrimaryKey) {
    if (!isKey) throw invalid(`the data type of primary key should be Int64 or VarChar, field ${field.name} is ${typeName(field.type)}`);
    if (field.nullable) throw invalid(`primary field ${field.name} cannot be nullable`);
    if (field.defaultValue !== undefined) throw invalid(`primary field ${field.name} does not support a default value`);
    if (field.isPartitionKey) throw invalid(`the primary field ${field.name} cannot be the partition key`);
  } else if (field.autoId) throw invalid(`only the primary field can have an auto id, field name = ${field.name}`);
  if (field.isPartitionKey) {
    if (!isKey) throw invalid(`the data type of partition key should be Int64 or VarChar, field ${field.name} is ${typeName(field.type)}`);
    if (field.nullable) throw invalid(`partition key field ${field.name} cannot be nullable`);
  }
}

/** A default goes through the same gate as inserted data: range, length, NaN. */
function checkDefault(field: Field): void {
  if (field.defaultValue === undefined) return;
  if (isVectorType(field.type) || familyOf(field.type) === 'list')
    throw invalid(`type ${typeName(field.type)} of field ${field.name} does not support a default value`);
  const plain = { ...field, defaultValue: undefined };
  columnFromRaw(plain, columnToRaw(plain, columnFromValues(plain, [field.defaultValue])), 1);
}

function checkTogether(collection: string, fields: readonly Field[], limits: SchemaLimits): void {
  const names = new Set<string>();
  for (const field of fields) {
    if (names.has(field.name)) throw invalid(`duplicated field name: ${field.name}`);
    names.add(field.name);
  }
  const keys = fields.filter((field) => field.isPrimaryKey);
  if (keys.length === 0) throw invalid(`primary key is not specified in schema of collection ${collection}`);
  if (keys.length > 1) throw invalid(`there are more than one primary key, field name = ${keys[0].name}, ${keys[1].name}`);
  const partitionKeys = fields.filter((field) => field.isPartitionKey);
  if (partitionKeys.length > 1)
    throw invalid(`there are more than one partition key, field name = ${partitionKeys[0].name}, ${partitionKeys[1].name}`);
  if (fields.filter((field) => field.isClusteringKey).length > 1)
    throw invalid(`there are more than one clustering key in collection ${collection}`);
  const vectors = fields.filter((field) => isVectorType(field.type));
  if (vectors.length === 0) throw invalid(`schema does not contain vector field: collection ${collection}`);
  if (vectors.length > limits.maxVectorFields)
    throw invalid(`maximum vector field's number should be limited to ${limits.maxVectorFields}, got ${vectors.length}`);
}
