import { SystemRuntime } from '@cairn/base';
import { parseFilter, serializeExpr } from '@cairn/expr';
import { MemoryObjectStore } from '@cairn/objects';
import { SegmentRecord } from '@cairn/proto/cairn/meta';
import { QueryPlan, SearchPlan } from '@cairn/proto/cairn/services';
import {
  type CollectionSchema,
  type Column,
  columnFromValues,
  DataType,
  type Field,
  keyColumn,
  makeBatch,
  makeSchema,
  type PlainValue,
  valueAt,
} from '@cairn/schema';
import { deletesOf, GrowingSegment, openSegment, type ReadableSegment, type SealedSegment, writeSegment } from '@cairn/segment';
import type { QueryRows, SearchHits } from '../src/index.ts';

export const runtime = new SystemRuntime();
const DIM = 4;

function field(id: number, name: string, type: DataType, more: Partial<Field> = {}): Field {
  return {
    id,
    name,
    description: '',
    type,
    elementType: DataType.None,
    isPrimaryKey: false,
    autoId: false,
    nullable: false,
    isDynamic: false,
    isPartitionKey: false,
    isClusteringKey: false,
    isFunctionOutput: false,
    defaultValue: undefined,
    dim: 0,
    maxLength: 0,
    maxCapacity: 0,
    typeParams: {},
    indexParams: {},
    ...more,
  };
}

const FIELDS = [
  field(100, 'id', DataType.Int64, { isPrimaryKey: true }),
  field(101, 'color', DataType.VarChar, { maxLength: 64, nullable: true }),
  field(102, 'count', DataType.Int32),
  field(103, 'vec', DataType.FloatVector, { dim: DIM, nullable: true }),
  field(104, '$meta', DataType.Json, { isDynamic: true }),
];
const added = field(105, 'added', DataType.Int64, { nullable: true, defaultValue: 7n });
const schemaOf = (fields: Field[]): CollectionSchema =>
  makeSchema({ name: 'c', description: '', fields, enableDynamicField: true, properties: {} });
export const SCHEMA = schemaOf(FIELDS);
/** The schema after a field was added: segments written before do not have it. */
export const NEWER_SCHEMA = schemaOf([...FIELDS, added]);

export interface Row {
  readonly id: number;
  readonly color: string | null;
  readonly count: number;
  readonly vec: readonly number[] | null;
  readonly extra?: Readonly<Record<string, unknown>>;
}

function batchOf(rows: readonly Row[]) {
  const bytes = (vec: readonly number[] | null): PlainValue => (vec === null ? null : new Uint8Array(Float32Array.from(vec).buffer));
  const columns: [Field, PlainValue[]][] = [
    [FIELDS[0], rows.map((row) => BigInt(row.id))],
    [FIELDS[1], rows.map((row) => row.color)],
    [FIELDS[2], rows.map((row) => row.count)],
    [FIELDS[3], rows.map((row) => bytes(row.vec))],
    [FIELDS[4], rows.map((row) => new Uint8Array(Buffer.from(JSON.stringify(row.extra ?? {}))))],
  ];
  return makeBatch(columns.map(([of, values]): [number, Column] => [of.id, columnFromValues(of, values)]));
}

export function growing(writes: readonly (readonly [ts: number, rows: readonly Row[]])[]): GrowingSegment {
  const segment = new GrowingSegment({ id: 1, partitionId: 2, schema: SCHEMA });
  for (const [ts, rows] of writes) segment.append(batchOf(rows), ts, 1);
  return segment;
}

export async function sealed(writes: readonly (readonly [ts: number, rows: readonly Row[]])[], schema = SCHEMA): Promise<SealedSegment> {
  const objects = new MemoryObjectStore(runtime);
  const written = await writeSegment({ objects, runtime, prefix: 'segments/1/', schema: SCHEMA, batch: growing(writes).freeze() });
  const record: SegmentRecord = {
    ...SegmentRecord.fromPartial({}),
    id: 3,
    partitionId: 2,
    sorted: true,
    prefix: 'segments/1/',
    ...written,
  };
  return openSegment({ objects, runtime, schema, record });
}

export function remove(segment: SealedSegment | GrowingSegment, ids: readonly number[], ts: number): ReadableSegment {
  segment.applyDeletes(deletesOf(keyColumn(ids.map(BigInt)), ts));
  return segment;
}

export function searchPlan(
  vectors: readonly (readonly number[])[],
  more: Partial<Omit<SearchPlan, 'filter'>> & { filter?: string } = {},
): SearchPlan {
  const { filter = '', ...rest } = more;
  const plan = SearchPlan.fromPartial({ fieldId: 103, metric: 'L2', nq: vectors.length, topK: 10, ...rest });
  return { ...plan, queries: new Uint8Array(Float32Array.from(vectors.flat()).buffer), filter: serializeExpr(parseFilter(filter, SCHEMA)) };
}

export function queryPlan(filter: string, more: Partial<Omit<QueryPlan, 'filter'>> = {}): QueryPlan {
  return {
    ...QueryPlan.fromPartial({ outputFieldIds: [102], ordered: true, ...more }),
    filter: serializeExpr(parseFilter(filter, SCHEMA)),
  };
}

export const cells = (column: Column | undefined): PlainValue[] =>
  column ? Array.from({ length: column.length }, (_, row) => valueAt(column, row)) : [];

/** Keys of each query's hits. */
export function keysOf(hits: SearchHits): number[][] {
  const keys = cells(hits.columns.columns.get(100)).map(Number);
  return hits.counts.map((count) => keys.splice(0, count));
}

export const rowKeys = (rows: QueryRows): number[] => cells(rows.columns.columns.get(100)).map(Number);
