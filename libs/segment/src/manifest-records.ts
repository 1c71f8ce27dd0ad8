import { DeltaLogRecord, SegmentIndexRecord, SegmentRecord } from '@cairn/proto/cairn/meta';
// CommonJS without names that Node could see: the default import is the whole module.
import avro, { type Schema } from 'avsc';

/**
 * Records of manifests: those of the MetaStore, with field names in snake case. A later version may add fields with defaults; Avro resolves them.
 * Ids and timestamps are safe integers throughout the house, so avsc's own long type does (up to 2^53 - 2); it refuses larger ones.
 */
type FieldList = readonly (readonly [name: string, type: Schema, fallback?: unknown])[];

function record(name: string, fields: FieldList): Schema {
  return {
    type: 'record',
    name,
    namespace: 'cairn.snapshot.v1',
    fields: fields.map(([field, type, fallback]) =>
      fallback === undefined ? { name: field, type } : { name: field, type, default: fallback },
    ),
  } as Schema;
}

const OBJECT = 'cairn.snapshot.v1.ObjectRef';
const objectRefFields: FieldList = [
  ['key', 'string'],
  ['size', 'long'],
  ['crc32c', 'long'],
  ['etag', 'string'],
  ['role', 'string'],
  ['field_id', 'long'],
];
const objectRef = record('ObjectRef', objectRefFields);

const segmentIndexFields: FieldList = [
  ['build_id', 'long'],
  ['index_id', 'long'],
  ['collection_id', 'long'],
  ['segment_id', 'long'],
  ['field_id', 'long'],
  ['state', 'int'],
  ['object', ['null', OBJECT] as Schema],
  ['rows', 'long'],
  ['epoch', 'long'],
  ['index_type', 'string'],
];
const segmentIndex = record('SegmentIndex', segmentIndexFields);

const segmentFields: FieldList = [
  ['id', 'long'],
  ['collection_id', 'long'],
  ['partition_id', 'long'],
  ['shard', 'int'],
  ['generation', 'string'],
  ['prefix', 'string'],
  ['rows', 'long'],
  ['min_ts', 'long'],
  ['max_ts', 'long'],
  ['objects', { type: 'array', items: objectRef }],
  ['as_of', 'long'],
  ['sorted', 'boolean'],
  ['commit_ts', 'long'],
  ['content_hash', 'string'],
  ['schema_version', 'long'],
  ['bytes', 'long'],
  ['level', 'int'],
  ['indexes', { type: 'array', items: segmentIndex }],
];
const segment = record('Segment', segmentFields);

const deltaLogFields: FieldList = [
  ['id', 'long'],
  ['collection_id', 'long'],
  ['shard', 'int'],
  ['partition_id', 'long'],
  ['rows', 'long'],
  ['min_ts', 'long'],
  ['max_ts', 'long'],
  ['object', ['null', objectRef] as Schema],
  ['as_of', 'long'],
];
const deltaLog = record('DeltaLog', deltaLogFields);

export const segmentType = avro.Type.forSchema(segment, { wrapUnions: false });
export const deltaLogType = avro.Type.forSchema(deltaLog, { wrapUnions: false });

type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };

/** Message to plain data: keys in snake case, bytes in base64, absent messages null. */
export function toPlain(value: unknown): Json {
  if (value === null || value === undefined) return null;
  if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64');
  if (Array.isArray(value)) return value.map(toPlain);
  if (typeof value === 'object')
    return Object.fromEntries(
      Object.entries(value).map(([key, item]) => [key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), toPlain(item)]),
    );
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') return value;
  return String(value);
}

/** Keys back to camel case; null becomes absent. Bytes stay base64: the caller knows where they are. */
export function fromPlain(value: unknown): unknown {
  if (value === null || value === undefined) return undefined;
  if (Array.isArray(value)) return value.map(fromPlain);
  if (typeof value !== 'object') return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase()), fromPlain(item)]),
  );
}

const camel = (name: string): string => name.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase());

type Take = (message: Readonly<Record<string, unknown>>) => object;

/** Messages to Avro records by the fields of the schema, their names looked up once: there may be 100,000 of them in one snapshot. */
function taker(fields: FieldList, nested: Readonly<Record<string, (value: unknown) => unknown>> = {}): Take {
  const plan = fields.map(([name]) => ({
    name,
    from: camel(name),
    map: nested[name],
  }));
  return (message) => {
    const out: Record<string, unknown> = {};
    for (const { name, from, map } of plan) out[name] = map ? map(message[from]) : message[from];
    return out;
  };
}

const each = (take: Take) => (values: unknown) => (values as Readonly<Record<string, unknown>>[]).map(take);
const takeObject = taker(objectRefFields);
const orNull = (value: unknown): unknown => (value === undefined ? null : takeObject(value as Readonly<Record<string, unknown>>));
const takeIndex = taker(segmentIndexFields, { object: orNull });
const takeSegment = taker(segmentFields, { objects: each(takeObject), indexes: each(takeIndex) });
const takeDeltaLog = taker(deltaLogFields, { object: orNull });

/** The other way: Avro records to messages, as far as the schema goes. */
function giver(fields: FieldList, nested: Readonly<Record<string, (value: unknown) => unknown>> = {}): (record: unknown) => object {
  const plan = fields.map(([name]) => ({ name, to: camel(name), map: nested[name] }));
  return (record) => {
    const out: Record<string, unknown> = {};
    for (const { name, to, map } of plan) {
      const value = (record as Readonly<Record<string, unknown>>)[name];
      out[to] = map ? map(value) : value;
    }
    return out;
  };
}

const giveObject = giver(objectRefFields);
const orAbsent = (value: unknown): unknown => (value === null ? undefined : giveObject(value));
const giveIndexFields = giver(segmentIndexFields, { object: orAbsent });
const giveIndex = (value: unknown): SegmentIndexRecord => ({ ...SegmentIndexRecord.fromPartial({}), ...giveIndexFields(value) });
const giveSegment = giver(segmentFields, {
  objects: (values) => (values as unknown[]).map(giveObject),
  indexes: (values) => (values as unknown[]).map(giveIndex),
});
const giveDeltaLog = giver(deltaLogFields, { object: orAbsent });

/** Avro record of a segment with its index builds. What belongs to the live collection only (state, group, WAL sequences) is left out. */
export function segmentToAvro(of: SegmentRecord, indexes: readonly SegmentIndexRecord[]): object {
  return takeSegment({ ...of, indexes });
}

export function segmentFromAvro(value: unknown): { readonly segment: SegmentRecord; readonly indexes: SegmentIndexRecord[] } {
  const { indexes, ...rest } = giveSegment(value) as { readonly indexes: SegmentIndexRecord[] } & Partial<SegmentRecord>;
  return { segment: { ...SegmentRecord.fromPartial({}), ...rest }, indexes };
}

export function deltaLogToAvro(of: DeltaLogRecord): object {
  return takeDeltaLog({ ...of });
}

export function deltaLogFromAvro(value: unknown): DeltaLogRecord {
  return { ...DeltaLogRecord.fromPartial({}), ...(giveDeltaLog(value) as Partial<DeltaLogRecord>) };
}
