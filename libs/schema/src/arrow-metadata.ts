/**
 * The metadata of an Arrow IPC file with one record batch, read where it lies: footer, schema and batch are flatbuffers (tables with a vtable each,
 * vectors of offsets or of structs). Layouts: Arrow's File.fbs, Schema.fbs and Message.fbs. What lies outside the file is a RangeError.
 */

export interface ArrowColumn {
  readonly name: string;
  readonly metadata: ReadonlyMap<string, string>;
}

export interface ArrowMetadata {
  readonly columns: readonly ArrowColumn[];
  readonly rows: number;
  /** Number of nulls of each column and of its child, in the order of the schema, a column before its child. */
  readonly nulls: readonly number[];
  /** The bytes of each buffer, in the same order. */
  readonly buffers: readonly Uint8Array[];
}

const MAGIC = 'ARROW1';
/** Magic, and the footer's length before it. */
const TRAILER_BYTES = 10;
/** Continuation marker and length before a message. */
const PREFIX_BYTES = 8;
const BLOCK_BYTES = 24;
const PAIR_BYTES = 16;
const RECORD_BATCH = 3;

/** Numbers of the fields in their tables. */
const FOOTER = { schema: 1, recordBatches: 3 } as const;
const SCHEMA = { fields: 1 } as const;
const FIELD = { name: 0, metadata: 6 } as const;
const PAIR = { key: 0, value: 1 } as const;
const MESSAGE = { headerType: 1, header: 2 } as const;
const BATCH = { length: 0, nodes: 1, buffers: 2, compression: 3 } as const;

/** Flatbuffers in the bytes of a file; positions are those in the file. */
class Tables {
  readonly bytes: Buffer;
  readonly #view: DataView;

  constructor(bytes: Uint8Array) {
    this.bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  byte(at: number): number {
    return this.#view.getUint8(at);
  }

  int(at: number): number {
    return this.#view.getInt32(at, true);
  }

  /** A 64-bit length or offset; RangeError beyond what the file can hold. */
  long(at: number): number {
    const value = this.#view.getUint32(at, true) + this.#view.getInt32(at + 4, true) * 2 ** 32;
    if (value < 0 || value > Number.MAX_SAFE_INTEGER) throw new RangeError(`${value} at ${at}`);
    return value;
  }

  /** Where the offset at this position leads. */
  follow(at: number): number {
    return at + this.#view.getUint32(at, true);
  }

  /** Where a field of a table lies; 0: it is not set. */
  field(table: number, number: number): number {
    const vtable = table - this.int(table);
    const slot = 4 + 2 * number;
    const offset = slot < this.#view.getUint16(vtable, true) ? this.#view.getUint16(vtable + slot, true) : 0;
    return offset === 0 ? 0 : table + offset;
  }

  /** Items of a field that is a vector, and where the first lies; each takes at least `itemBytes`. */
  vector(table: number, number: number, itemBytes: number): { readonly length: number; readonly at: number } {
    const field = this.field(table, number);
    if (field === 0) return { length: 0, at: 0 };
    const at = this.follow(field);
    const length = this.int(at);
    if (length < 0 || at + 4 + length * itemBytes > this.bytes.length) throw new RangeError(`a vector of ${length} items at ${at}`);
    return { length, at: at + 4 };
  }

  text(table: number, number: number): string {
    const { length, at } = this.vector(table, number, 1);
    return this.bytes.toString('utf8', at, at + length);
  }
}

/** RangeError when the bytes are no such file. */
export function readArrowMetadata(file: Uint8Array): ArrowMetadata {
  const tables = new Tables(file);
  const { bytes } = tables;
  const end = bytes.length - TRAILER_BYTES;
  if (bytes.toString('latin1', 0, MAGIC.length) !== MAGIC || bytes.toString('latin1', end + 4) !== MAGIC)
    throw new RangeError('it does not begin and end as an Arrow file does');
  const footerAt = end - tables.int(end);
  const footer = tables.follow(footerAt);
  const schema = tables.field(footer, FOOTER.schema);
  const batches = tables.vector(footer, FOOTER.recordBatches, BLOCK_BYTES);
  if (schema === 0 || batches.length !== 1) throw new RangeError(`${batches.length} record batches, expected 1`);
  return { columns: readColumns(tables, tables.follow(schema)), ...readBatch(tables, batches.at) };
}

function readColumns(tables: Tables, schema: number): ArrowColumn[] {
  const fields = tables.vector(schema, SCHEMA.fields, 4);
  const columns: ArrowColumn[] = [];
  for (let i = 0; i < fields.length; i++) {
    const field = tables.follow(fields.at + 4 * i);
    const pairs = tables.vector(field, FIELD.metadata, 4);
    const metadata = new Map<string, string>();
    for (let j = 0; j < pairs.length; j++) {
      const pair = tables.follow(pairs.at + 4 * j);
      metadata.set(tables.text(pair, PAIR.key), tables.text(pair, PAIR.value));
    }
    columns.push({ name: tables.text(field, FIELD.name), metadata });
  }
  return columns;
}

/** `block`: where the footer says where the batch lies. */
function readBatch(tables: Tables, block: number): Omit<ArrowMetadata, 'columns'> {
  const { bytes } = tables;
  const offset = tables.long(block);
  const body = offset + tables.int(block + 8);
  const bodyEnd = body + tables.long(block + 16);
  if (bodyEnd > bytes.length) throw new RangeError('its record batch lies outside the file');
  const message = tables.follow(offset + PREFIX_BYTES);
  const headerType = tables.field(message, MESSAGE.headerType);
  const header = tables.field(message, MESSAGE.header);
  if (headerType === 0 || tables.byte(headerType) !== RECORD_BATCH || header === 0) throw new RangeError('its block is no record batch');
  const batch = tables.follow(header);
  if (tables.field(batch, BATCH.compression) !== 0) throw new RangeError('its record batch is compressed');
  const length = tables.field(batch, BATCH.length);
  const nodes = tables.vector(batch, BATCH.nodes, PAIR_BYTES);
  const nulls: number[] = [];
  for (let i = 0; i < nodes.length; i++) nulls.push(tables.long(nodes.at + PAIR_BYTES * i + 8));
  const ranges = tables.vector(batch, BATCH.buffers, PAIR_BYTES);
  const buffers: Uint8Array[] = [];
  for (let i = 0; i < ranges.length; i++) {
    const from = body + tables.long(ranges.at + PAIR_BYTES * i);
    const to = from + tables.long(ranges.at + PAIR_BYTES * i + 8);
    if (to > bodyEnd) throw new RangeError(`buffer ${i} lies outside its record batch`);
    buffers.push(new Uint8Array(bytes.buffer, bytes.byteOffset + from, to - from));
  }
  return { rows: length === 0 ? 0 : tables.long(length), nulls, buffers };
}
