import { CairnError } from '@cairn/base';
import {
  Field as ArrowField,
  type DataType as ArrowType,
  Binary,
  type Data,
  FixedSizeBinary,
  FixedSizeList,
  Float16,
  Float32,
  Float64,
  Int8,
  Int16,
  Int32,
  Int64,
  List,
  makeData,
  RecordBatch,
  RecordBatchFileWriter,
  Schema,
  Struct,
  TimestampMicrosecond,
  Utf8,
} from 'apache-arrow';
import { type ArrowColumn, type ArrowMetadata, readArrowMetadata } from './arrow-metadata.ts';
import { countValid } from './bitmap.ts';
import type { BytesColumn, Column, ColumnBatch, FixedColumn, ListColumn, Validity, VectorColumn } from './column.ts';
import { familyOf, fixedArray, toDataType, typeName, vectorBytes, visitColumn } from './field-types.ts';
import { DataType, ROW_ID_FIELD, TIMESTAMP_FIELD } from './types.ts';

/**
 * Segment files: Arrow IPC files of one record batch. Each Arrow field carries `cairn.field_id`, `cairn.type` and `cairn.dim`, so a file can be
 * read without its schema. Buffers go in and come out as they lie in our columns. Two choices follow from that: Bool is an int8 (Arrow's bitmap
 * would need a conversion each way), and bfloat16 and binary vectors are fixed-size binary.
 */
const FIELD_ID = 'cairn.field_id';
const TYPE = 'cairn.type';
const DIM = 'cairn.dim';

/** Vectors that are lists of numbers in Arrow, their values in a column inside with a validity of its own; the others are fixed-size binary. */
const LISTED: ReadonlySet<DataType> = new Set([DataType.FloatVector, DataType.Float16Vector, DataType.Int8Vector]);

/** Names of the columns that are not the user's; `$` cannot occur in a user's name. */
const systemNames = new Map([
  [ROW_ID_FIELD, '$row_id'],
  [TIMESTAMP_FIELD, '$timestamp'],
]);

/** File as chunks, to be written back to back; the large buffers among them are views on the columns. */
export async function writeArrowFile(
  batch: ColumnBatch,
  names: { readonly byId: ReadonlyMap<number, { readonly name: string }> },
): Promise<Uint8Array[]> {
  const fields: ArrowField[] = [];
  const children: Data[] = [];
  for (const [id, column] of batch.columns) {
    const data = visitColumn(column, toArrow);
    fields.push(new ArrowField(names.byId.get(id)?.name ?? systemNames.get(id) ?? `$field_${id}`, data.type, true, describe(id, column)));
    children.push(data);
  }
  const arrowSchema = new Schema(fields);
  const struct = makeData({ type: new Struct(fields), length: batch.length, nullCount: 0, children });
  const writer = new RecordBatchFileWriter();
  writer.reset(undefined, arrowSchema);
  writer.write(new RecordBatch(arrowSchema, struct));
  writer.close();
  const chunks: Uint8Array[] = [];
  for await (const chunk of writer) chunks.push(chunk);
  return chunks;
}

function describe(id: number, column: Column): Map<string, string> {
  const metadata = new Map([
    [FIELD_ID, String(id)],
    [TYPE, String(column.type)],
  ]);
  if (column.kind === 'vector') metadata.set(DIM, String(column.dim));
  if (column.kind === 'list') {
    metadata.set('cairn.element_type', String(column.child.type));
    if (column.child.kind === 'vector') metadata.set(DIM, String(column.child.dim));
  }
  return metadata;
}

function nulls(column: Column): { nullCount: number; nullBitmap?: Uint8Array } {
  if (column.validity === null) return { nullCount: 0 };
  return { nullCount: column.length - countValid(column.validity, column.length), nullBitmap: column.validity };
}

const toArrow = {
  fixed(column: FixedColumn): Data {
    const common = { length: column.length, ...nulls(column) };
    const { values } = column;
    if (values instanceof BigInt64Array)
      return column.type === DataType.Timestamptz
        ? makeData({ type: new TimestampMicrosecond('UTC'), ...common, data: values })
        : makeData({ type: new Int64(), ...common, data: values });
    if (values instanceof Float32Array) return makeData({ type: new Float32(), ...common, data: values });
    if (values instanceof Float64Array) return makeData({ type: new Float64(), ...common, data: values });
    if (values instanceof Int32Array) return makeData({ type: new Int32(), ...common, data: values });
    if (values instanceof Int16Array) return makeData({ type: new Int16(), ...common, data: values });
    return makeData({ type: new Int8(), ...common, data: values });
  },

  bytes(column: BytesColumn): Data {
    const common = { length: column.length, ...nulls(column), valueOffsets: column.offsets, data: column.data };
    const binary = column.type === DataType.SparseFloatVector || column.type === DataType.Geometry;
    return binary ? makeData({ type: new Binary(), ...common }) : makeData({ type: new Utf8(), ...common });
  },

  vector(column: VectorColumn): Data {
    const common = { length: column.length, ...nulls(column) };
    const { dim, data } = column;
    const length = column.length * dim;
    const item = (type: ArrowType): ArrowField => new ArrowField('item', type, false);
    switch (column.type) {
      case DataType.FloatVector: {
        const child = makeData({ type: new Float32(), length, nullCount: 0, data: new Float32Array(data.buffer, data.byteOffset, length) });
        return makeData({ type: new FixedSizeList(dim, item(child.type)), ...common, child });
      }
      case DataType.Float16Vector: {
        const even = data.byteOffset % 2 === 0 ? data : data.slice();
        const child = makeData({ type: new Float16(), length, nullCount: 0, data: new Uint16Array(even.buffer, even.byteOffset, length) });
        return makeData({ type: new FixedSizeList(dim, item(child.type)), ...common, child });
      }
      case DataType.Int8Vector: {
        const child = makeData({ type: new Int8(), length, nullCount: 0, data: new Int8Array(data.buffer, data.byteOffset, length) });
        return makeData({ type: new FixedSizeList(dim, item(child.type)), ...common, child });
      }
      default:
        return makeData({ type: new FixedSizeBinary(column.bytesPerRow), ...common, data });
    }
  },

  list(column: ListColumn): Data {
    const child = visitColumn<Data>(column.child, toArrow);
    const type = new List(new ArrowField('item', child.type, true));
    return makeData({ type, length: column.length, ...nulls(column), valueOffsets: column.offsets, child });
  },
};

function damaged(reason: string, cause?: unknown): CairnError {
  return new CairnError('ObjectDamaged', `not a segment file: ${reason}`, { cause });
}

/**
 * File to batch, as views on its bytes (one copy first when they do not start at a multiple of 8). ObjectDamaged for bytes that are not such a
 * file; the caller has compared the checksum before and names the object.
 */
export function readArrowFile(bytes: Uint8Array): ColumnBatch {
  const aligned = bytes.byteOffset % 8 === 0 ? bytes : new Uint8Array(bytes);
  try {
    const metadata = readArrowMetadata(aligned);
    const next = new Buffers(metadata);
    const columns = new Map<number, Column>();
    for (const field of metadata.columns) {
      const { id, type, dim, elementType } = readDescription(field);
      columns.set(id, columnOf(next, type, dim, elementType, metadata.rows));
    }
    return { length: metadata.rows, columns };
  } catch (error) {
    if (error instanceof CairnError) throw error;
    throw damaged(error instanceof Error ? error.message : String(error), error);
  }
}

/** Takes the nulls and buffers of a batch one by one. */
class Buffers {
  readonly #metadata: ArrowMetadata;
  #node = 0;
  #buffer = 0;

  constructor(metadata: ArrowMetadata) {
    this.#metadata = metadata;
  }

  nulls(): number {
    const nulls = this.#metadata.nulls[this.#node++];
    if (nulls === undefined) throw damaged('it has fewer columns than its schema');
    return nulls;
  }

  /** At least so many bytes of what it is called. */
  take(expected: number, what: string): Uint8Array {
    const found = this.#metadata.buffers[this.#buffer++];
    if (found === undefined || found.byteLength < expected) throw damaged(`${found?.byteLength} bytes of ${what}, expected ${expected}`);
    return found;
  }

  validity(length: number): Validity {
    const bytes = this.nulls() === 0 ? 0 : (length + 7) >> 3;
    const found = this.take(bytes, 'validity');
    return bytes === 0 ? null : found.subarray(0, bytes);
  }

  /** Of a column without rows they may be left out. */
  offsets(length: number): Int32Array {
    const found = this.take(length === 0 ? 0 : (length + 1) * 4, 'offsets');
    return found.byteLength === 0 ? new Int32Array(1) : new Int32Array(found.buffer, found.byteOffset, length + 1);
  }
}

export interface ArrowColumnInfo {
  readonly id: number;
  readonly type: DataType;
  /** Of vectors, or of vectors in a list. Else 0. */
  readonly dim: number;
  readonly elementType: DataType;
}

/** What the metadata of an Arrow field says. */
export function readDescription(field: Pick<ArrowColumn, 'name' | 'metadata'>): ArrowColumnInfo {
  const id = Number(field.metadata.get(FIELD_ID) ?? Number.NaN);
  const type = toDataType(Number(field.metadata.get(TYPE) ?? Number.NaN));
  const elementType = toDataType(Number(field.metadata.get('cairn.element_type') ?? 0));
  if (!Number.isSafeInteger(id) || type === undefined || elementType === undefined)
    throw damaged(`column "${field.name}" has no field id and type`);
  return { id, type, dim: Number(field.metadata.get(DIM) ?? 0), elementType };
}

function columnOf(next: Buffers, type: DataType, dim: number, elementType: DataType, length: number): Column {
  const validity = next.validity(length);
  switch (familyOf(type)) {
    case 'fixed': {
      const make = fixedArray(type);
      const values = next.take(length * make.BYTES_PER_ELEMENT, typeName(type));
      return { kind: 'fixed', type, length, validity, values: new make(values.buffer as ArrayBuffer, values.byteOffset, length) };
    }
    case 'bytes': {
      const offsets = next.offsets(length);
      const bytes = offsets[length] ?? 0;
      return { kind: 'bytes', type, length, validity, offsets, data: next.take(bytes, typeName(type)).subarray(0, bytes) };
    }
    case 'vector': {
      const bytesPerRow = vectorBytes(type, dim);
      if (LISTED.has(type)) next.validity(length * dim);
      const data = next.take(length * bytesPerRow, typeName(type)).subarray(0, length * bytesPerRow);
      return { kind: 'vector', type, length, validity, dim, bytesPerRow, data };
    }
    case 'list': {
      const offsets = next.offsets(length);
      const child = columnOf(next, elementType, dim, DataType.None, offsets[length] ?? 0);
      return { kind: 'list', type, length, validity, offsets, child };
    }
    default:
      throw damaged(`a column of type ${typeName(type)}`);
  }
}
