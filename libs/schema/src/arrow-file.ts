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
  RecordBatchReader,
  Schema,
  Struct,
  TimestampMicrosecond,
  Utf8,
} from 'apache-arrow';
import { countValid } from './bitmap.ts';
import type { BytesColumn, Column, ColumnBatch, FixedColumn, ListColumn, Validity, VectorColumn } from './column.ts';
import { bytesOf } from './column-ops.ts';
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
  let batches: RecordBatch[];
  let fields: readonly ArrowField[];
  try {
    const reader = RecordBatchReader.from(aligned).open();
    fields = reader.schema.fields;
    batches = [...reader];
  } catch (error) {
    throw damaged('the Arrow reader refuses it', error);
  }
  const batch = batches[0];
  if (batch === undefined || batches.length !== 1) throw damaged(`${batches.length} record batches, expected 1`);
  const columns = new Map<number, Column>();
  for (const [i, field] of fields.entries()) {
    const { id, type, dim, elementType } = readDescription(field);
    columns.set(id, fromArrow(batch.data.children[i], type, dim, elementType, batch.numRows));
  }
  return { length: batch.numRows, columns };
}

export interface ArrowColumnInfo {
  readonly id: number;
  readonly type: DataType;
  /** Of vectors, or of vectors in a list. Else 0. */
  readonly dim: number;
  readonly elementType: DataType;
}

/** What the metadata of an Arrow field says. */
export function readDescription(field: ArrowField): ArrowColumnInfo {
  const id = Number(field.metadata.get(FIELD_ID) ?? Number.NaN);
  const type = toDataType(Number(field.metadata.get(TYPE) ?? Number.NaN));
  const elementType = toDataType(Number(field.metadata.get('cairn.element_type') ?? 0));
  if (!Number.isSafeInteger(id) || type === undefined || elementType === undefined)
    throw damaged(`column "${field.name}" has no field id and type`);
  return { id, type, dim: Number(field.metadata.get(DIM) ?? 0), elementType };
}

function fromArrow(data: Data, type: DataType, dim: number, elementType: DataType, length: number): Column {
  const validity: Validity = data.nullBitmap && data.nullBitmap.byteLength > 0 ? data.nullBitmap.subarray(0, (length + 7) >> 3) : null;
  const bytes = (from: Data, expected: number): Uint8Array => {
    const found = bytesOf(from.values);
    if (found.byteLength < expected) throw damaged(`${found.byteLength} bytes of ${typeName(type)}, expected ${expected}`);
    return found.subarray(0, expected);
  };
  const offsets = (): Int32Array => {
    if (!(data.valueOffsets instanceof Int32Array)) return new Int32Array(length + 1);
    return data.valueOffsets.subarray(0, length + 1);
  };
  switch (familyOf(type)) {
    case 'fixed': {
      const make = fixedArray(type);
      const values = bytes(data, length * make.BYTES_PER_ELEMENT);
      return { kind: 'fixed', type, length, validity, values: new make(values.buffer, values.byteOffset, length) };
    }
    case 'bytes': {
      const at = offsets();
      return { kind: 'bytes', type, length, validity, offsets: at, data: bytes(data, at[length] ?? 0) };
    }
    case 'vector': {
      const bytesPerRow = vectorBytes(type, dim);
      const from = data.children[0] ?? data;
      return { kind: 'vector', type, length, validity, dim, bytesPerRow, data: bytes(from, length * bytesPerRow) };
    }
    case 'list': {
      const at = offsets();
      const child = fromArrow(data.children[0], elementType, dim, DataType.None, at[length] ?? 0);
      return { kind: 'list', type, length, validity, offsets: at, child };
    }
    default:
      throw damaged(`a column of type ${typeName(type)}`);
  }
}
