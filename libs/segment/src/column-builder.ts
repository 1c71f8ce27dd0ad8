import { assert } from '@cairn/base';
import {
  type BytesColumn,
  bytesOf,
  type Column,
  type DataType,
  defaultColumn,
  elementField,
  type Field,
  type FixedColumn,
  fixedArray,
  isValid,
  type ListColumn,
  typeInfo,
  type Validity,
  type VectorColumn,
  vectorBytes,
} from '@cairn/schema';

/**
 * A column that grows. `view(rows)` is a column on the same memory: later appends write behind it and never into it (in a bitmap they may set
 * bits past its rows, which nobody reads). When the memory is full it is copied to twice the size; views keep the old one.
 */
export interface ColumnBuilder {
  readonly rows: number;
  readonly bytes: number;
  append(column: Column): void;
  view(rows: number): Column;
}

/** First room, in rows. */
const FIRST_ROWS = 1024;

/** Shared memory grows in place up to this; pages are committed as they are needed, address space at once. */
const SHARED_RESERVE_BYTES = 512 * 1024 * 1024;

/** Bytes that grow: ordinary ones by copying to twice the size, shared ones (for workers) in place, so that no append copies a whole column. */
class GrowingBytes {
  #bytes: Uint8Array;
  #length = 0;
  readonly #shared: boolean;

  constructor(capacity: number, shared = false) {
    this.#shared = shared;
    this.#bytes = this.#allocate(capacity);
  }

  get length(): number {
    return this.#length;
  }

  get bytes(): Uint8Array {
    return this.#bytes;
  }

  append(part: Uint8Array): void {
    const end = this.#length + part.byteLength;
    this.reserve(end);
    this.#bytes.set(part, this.#length);
    this.#length = end;
  }

  /** Room for `total` bytes; what was not written is zero. */
  reserve(total: number): void {
    if (total <= this.#bytes.byteLength) return;
    const wanted = Math.max(total, this.#bytes.byteLength * 2);
    const { buffer } = this.#bytes;
    if (buffer instanceof SharedArrayBuffer && total <= buffer.maxByteLength) {
      const length = Math.min(buffer.maxByteLength, wanted);
      buffer.grow(length);
      this.#bytes = new Uint8Array(buffer, 0, length);
      return;
    }
    const larger = this.#allocate(wanted);
    larger.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = larger;
  }

  /** Counts bytes as written that were set through `bytes`. */
  extend(total: number): void {
    this.reserve(total);
    this.#length = total;
  }

  #allocate(capacity: number): Uint8Array {
    const rounded = Math.max(64, (capacity + 63) & ~63);
    if (!this.#shared) return new Uint8Array(rounded);
    // A length of its own: a view without one would follow the buffer as it grows.
    return new Uint8Array(new SharedArrayBuffer(rounded, { maxByteLength: Math.max(rounded, SHARED_RESERVE_BYTES) }), 0, rounded);
  }
}

/** The bitmap of a growing column; there is none before the first null. */
class GrowingValidity {
  #bits: GrowingBytes | undefined;

  append(validity: Validity, before: number, rows: number): void {
    if (validity === null && this.#bits === undefined) return;
    if (this.#bits === undefined) {
      this.#bits = new GrowingBytes((before + rows + 7) >> 3);
      this.#bits.extend((before + 7) >> 3);
      this.#bits.bytes.fill(0xff, 0, before >> 3);
      if (before & 7) this.#bits.bytes[before >> 3] = (1 << (before & 7)) - 1;
    }
    this.#bits.extend((before + rows + 7) >> 3);
    const bits = this.#bits.bytes;
    for (let i = 0, at = before; i < rows; i++, at++) if (isValid(validity, i)) bits[at >> 3] |= 1 << (at & 7);
  }

  view(rows: number): Validity {
    return this.#bits === undefined ? null : this.#bits.bytes.subarray(0, (rows + 7) >> 3);
  }
}

class FixedBuilder implements ColumnBuilder {
  rows = 0;
  readonly #type: DataType;
  readonly #data: GrowingBytes;
  readonly #validity = new GrowingValidity();

  constructor(type: DataType, rows: number) {
    this.#type = type;
    this.#data = new GrowingBytes(rows * fixedArray(type).BYTES_PER_ELEMENT);
  }

  get bytes(): number {
    return this.#data.length;
  }

  append(column: Column): void {
    assert(column.kind === 'fixed' && column.type === this.#type, `a column of type ${column.type} appended to one of type ${this.#type}`);
    this.#data.append(bytesOf(column.values));
    this.#validity.append(column.validity, this.rows, column.length);
    this.rows += column.length;
  }

  view(rows: number): FixedColumn {
    const values = new (fixedArray(this.#type))(this.#data.bytes.buffer, 0, rows);
    return { kind: 'fixed', type: this.#type, length: rows, values, validity: this.#validity.view(rows) };
  }
}

/** Offsets of bytes and list columns. */
class GrowingOffsets {
  readonly #data: GrowingBytes;

  constructor(rows: number) {
    this.#data = new GrowingBytes((rows + 1) * 4);
    this.#data.extend(4);
  }

  get bytes(): number {
    return this.#data.length;
  }

  append(offsets: Int32Array, rows: number): void {
    const before = this.#data.length >> 2;
    this.#data.extend((before + rows) * 4);
    const all = new Int32Array(this.#data.bytes.buffer, 0, before + rows);
    const base = all[before - 1];
    for (let i = 0; i < rows; i++) all[before + i] = base + offsets[i + 1];
  }

  view(rows: number): Int32Array {
    return new Int32Array(this.#data.bytes.buffer, 0, rows + 1);
  }
}

class BytesBuilder implements ColumnBuilder {
  rows = 0;
  readonly #type: DataType;
  readonly #offsets: GrowingOffsets;
  readonly #data: GrowingBytes;
  readonly #validity = new GrowingValidity();

  constructor(type: DataType, rows: number) {
    this.#type = type;
    this.#offsets = new GrowingOffsets(rows);
    this.#data = new GrowingBytes(rows * 16);
  }

  get bytes(): number {
    return this.#offsets.bytes + this.#data.length;
  }

  append(column: Column): void {
    assert(column.kind === 'bytes' && column.type === this.#type, `a column of type ${column.type} appended to one of type ${this.#type}`);
    this.#data.append(column.data);
    this.#offsets.append(column.offsets, column.length);
    this.#validity.append(column.validity, this.rows, column.length);
    this.rows += column.length;
  }

  view(rows: number): BytesColumn {
    const offsets = this.#offsets.view(rows);
    const data = this.#data.bytes.subarray(0, offsets[rows]);
    return { kind: 'bytes', type: this.#type, length: rows, offsets, data, validity: this.#validity.view(rows) };
  }
}

class VectorBuilder implements ColumnBuilder {
  rows = 0;
  readonly #type: DataType;
  readonly #dim: number;
  readonly #bytesPerRow: number;
  /** Shared: exact search of growing rows runs in workers. */
  readonly #data: GrowingBytes;
  readonly #validity = new GrowingValidity();

  constructor(type: DataType, dim: number, rows: number) {
    this.#type = type;
    this.#dim = dim;
    this.#bytesPerRow = vectorBytes(type, dim);
    this.#data = new GrowingBytes(rows * this.#bytesPerRow, true);
  }

  get bytes(): number {
    return this.#data.length;
  }

  append(column: Column): void {
    assert(
      column.kind === 'vector' && column.type === this.#type && column.dim === this.#dim,
      `vectors appended to ones of ${this.#dim} dimensions`,
    );
    this.#data.append(column.data);
    this.#validity.append(column.validity, this.rows, column.length);
    this.rows += column.length;
  }

  view(rows: number): VectorColumn {
    const data = this.#data.bytes.subarray(0, rows * this.#bytesPerRow);
    return {
      kind: 'vector',
      type: this.#type,
      length: rows,
      dim: this.#dim,
      bytesPerRow: this.#bytesPerRow,
      data,
      validity: this.#validity.view(rows),
    };
  }
}

class ListBuilder implements ColumnBuilder {
  rows = 0;
  readonly #type: DataType;
  readonly #offsets: GrowingOffsets;
  readonly #child: ColumnBuilder;
  readonly #validity = new GrowingValidity();

  constructor(field: Field, rows: number) {
    this.#type = field.type;
    this.#offsets = new GrowingOffsets(rows);
    this.#child = columnBuilder(elementField(field), rows);
  }

  get bytes(): number {
    return this.#offsets.bytes + this.#child.bytes;
  }

  append(column: Column): void {
    assert(column.kind === 'list' && column.type === this.#type, `a column of type ${column.type} appended to one of type ${this.#type}`);
    this.#child.append(column.child);
    this.#offsets.append(column.offsets, column.length);
    this.#validity.append(column.validity, this.rows, column.length);
    this.rows += column.length;
  }

  view(rows: number): ListColumn {
    const offsets = this.#offsets.view(rows);
    return {
      kind: 'list',
      type: this.#type,
      length: rows,
      offsets,
      child: this.#child.view(offsets[rows]),
      validity: this.#validity.view(rows),
    };
  }
}

/** Builder for a field's columns. `rows`: what room is made for at first. */
export function columnBuilder(field: Field, rows = FIRST_ROWS): ColumnBuilder {
  switch (typeInfo(field.type).family) {
    case 'fixed':
      return new FixedBuilder(field.type, rows);
    case 'bytes':
      return new BytesBuilder(field.type, rows);
    case 'vector':
      return new VectorBuilder(field.type, field.dim, rows);
    case 'list':
      return new ListBuilder(field, rows);
  }
}

/** Builder of a field that was added when there were `rows` rows already: they have the default. */
export function lateBuilder(field: Field, rows: number): ColumnBuilder {
  const builder = columnBuilder(field, Math.max(FIRST_ROWS, rows * 2));
  if (rows > 0) builder.append(defaultColumn(field, rows));
  return builder;
}
