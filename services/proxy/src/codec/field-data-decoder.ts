import { CairnError } from '@cairn/base';
import { DataType, type RawFieldData, type RawPayload, type RawScalars } from '@cairn/schema';
import { ValueRun } from './value-run.ts';
import { WIRE_BYTES, WIRE_VARINT, type WireReader } from './wire-reader.ts';

/** Field numbers of the oneof in ScalarField. */
const SCALAR_KINDS: Readonly<Record<number, RawScalars['kind'] | undefined>> = {
  1: 'bool',
  2: 'int',
  3: 'long',
  4: 'float',
  5: 'double',
  6: 'text',
  7: 'bytes',
  9: 'json',
  10: 'wkb',
  11: 'timestamptz',
  12: 'wkt',
};
const ARRAY_DATA = 8;
const UNSUPPORTED_SCALARS: Readonly<Record<number, string>> = { 13: 'Mol', 14: 'Mol', 15: 'Date', 16: 'Time' };

/** Field numbers of the oneof in VectorField. */
const FLOAT_VECTOR = 2;
const SPARSE_VECTOR = 6;
const VECTOR_ARRAY = 8;
const BYTE_VECTORS: Readonly<Record<number, 'binaryVector' | 'float16Vector' | 'bfloat16Vector' | 'int8Vector' | undefined>> = {
  3: 'binaryVector',
  4: 'float16Vector',
  5: 'bfloat16Vector',
  7: 'int8Vector',
};

/** Reads one FieldData into columns. The reader stands at the field's length. */
export function decodeFieldData(reader: WireReader, wireType: number): RawFieldData {
  let name = '';
  let type: number = DataType.None;
  let isDynamic = false;
  const valid = new ValueRun();
  const scalars = new ScalarReader(false);
  const vectors = new VectorReader();
  const members: RawFieldData[] = [];
  let payload: (() => RawPayload) | undefined;
  reader.message(wireType, (field, wire) => {
    if (field === 1) type = reader.number(wire);
    else if (field === 2) name = reader.string(wire);
    else if (field === 3) {
      scalars.read(reader, wire, valid);
      payload = () => scalars.finish(reader.bytes);
    } else if (field === 4) {
      vectors.read(reader, wire, valid);
      payload = () => vectors.finish(reader.bytes);
    } else if (field === 6) isDynamic = reader.number(wire) !== 0;
    else if (field === 7) valid.addVarints(reader, wire);
    else if (field === 8) {
      reader.message(wire, (inner, innerWire) => {
        if (inner === 1) members.push(decodeFieldData(reader, innerWire));
        else reader.skip(innerWire);
      });
      payload = () => ({ kind: 'struct', members });
    } else reader.skip(wire);
  });
  const validData = valid.count > 0 ? valid.bytes(reader.bytes) : undefined;
  return { name, type: type as DataType, isDynamic, validData, payload: payload?.() ?? { kind: 'none' } };
}

/** ScalarField, of a column or of one row of an array column. */
class ScalarReader {
  readonly #values = new ValueRun();
  /** Several messages go into one run (the rows of an array column), so they must agree on the kind. */
  readonly #shared: boolean;
  #case = 0;
  #array: ArrayReader | undefined;

  constructor(shared: boolean) {
    this.#shared = shared;
  }

  get count(): number {
    return this.#values.count;
  }

  read(reader: WireReader, wireType: number, valid?: ValueRun): void {
    reader.message(wireType, (field, wire) => {
      if (field === 17 && valid) valid.addVarints(reader, wire);
      else if (field === ARRAY_DATA) {
        this.#enter(reader, field);
        this.#array ??= new ArrayReader();
        this.#array.read(reader, wire);
      } else if (SCALAR_KINDS[field]) {
        this.#enter(reader, field);
        this.#readValues(reader, wire, SCALAR_KINDS[field]);
      } else {
        if (UNSUPPORTED_SCALARS[field]) this.#enter(reader, field);
        reader.skip(wire);
      }
    });
  }

  finish(source: Uint8Array): RawPayload {
    if (this.#case === ARRAY_DATA && this.#array) return this.#array.finish(source);
    if (UNSUPPORTED_SCALARS[this.#case]) return { kind: 'unsupported', what: `${UNSUPPORTED_SCALARS[this.#case]} values` };
    return this.scalars(source);
  }

  scalars(source: Uint8Array): RawScalars | { readonly kind: 'none' } {
    const values = this.#values;
    const kind = SCALAR_KINDS[this.#case];
    switch (kind) {
      case undefined:
        return { kind: 'none' };
      case 'bool':
        return { kind, values: values.bytes(source) };
      case 'int':
        return { kind, values: values.int32(source) };
      case 'long':
      case 'timestamptz':
        return { kind, values: values.int64(source) };
      case 'float':
        return { kind, values: floats(values, source) };
      case 'double': {
        const bytes = values.joined(source, 8);
        return { kind, values: new Float64Array(bytes.buffer, bytes.byteOffset, bytes.length / 8) };
      }
      default:
        return { kind, offsets: values.offsets(), data: values.joined(source, 1) };
    }
  }

  /** A oneof: the last case that was sent holds. */
  #enter(reader: WireReader, field: number): void {
    if (this.#case !== field) {
      if (this.#shared && this.count > 0) throw reader.malformed('rows of an array hold values of different kinds');
      this.#values.clear();
    }
    this.#case = field;
  }

  #readValues(reader: WireReader, wireType: number, kind: RawScalars['kind']): void {
    reader.message(wireType, (field, wire) => {
      if (field !== 1) reader.skip(wire);
      else if (kind === 'float') this.#values.addFixed(reader, wire, 4);
      else if (kind === 'double') this.#values.addFixed(reader, wire, 8);
      else if (kind === 'bool' || kind === 'int' || kind === 'long' || kind === 'timestamptz') this.#values.addVarints(reader, wire);
      else this.#values.addBytes(reader, wire);
    });
  }
}

/** ArrayArray: a ScalarField for each row, all read into one run of elements. */
class ArrayReader {
  readonly #elements = new ScalarReader(true);
  readonly #ends: number[] = [0];
  #elementType: number = DataType.None;

  read(reader: WireReader, wireType: number): void {
    reader.message(wireType, (field, wire) => {
      if (field === 1) {
        this.#elements.read(reader, wire);
        this.#ends.push(this.#elements.count);
      } else if (field === 2) this.#elementType = reader.number(wire);
      else reader.skip(wire);
    });
  }

  finish(source: Uint8Array): RawPayload {
    const elements = this.#elements.count > 0 ? this.#elements.scalars(source) : ({ kind: 'none' } as const);
    return { kind: 'array', elementType: this.#elementType as DataType, offsets: Int32Array.from(this.#ends), elements };
  }
}

class VectorReader {
  readonly #values = new ValueRun();
  #dim = 0;
  #sparseDim = 0;
  #case = 0;
  #array: VectorArrayReader | undefined;

  read(reader: WireReader, wireType: number, valid: ValueRun): void {
    reader.message(wireType, (field, wire) => {
      if (field === 1) this.#dim = reader.number(wire);
      else if (field === 9) valid.addVarints(reader, wire);
      else if (field === FLOAT_VECTOR) {
        this.#enter(field, false);
        reader.message(wire, (inner, innerWire) => (inner === 1 ? this.#values.addFixed(reader, innerWire, 4) : reader.skip(innerWire)));
      } else if (field === SPARSE_VECTOR) {
        this.#enter(field, false);
        this.#readSparse(reader, wire);
      } else if (BYTE_VECTORS[field]) {
        this.#enter(field, true);
        this.#values.addBytes(reader, wire);
      } else {
        if (field !== VECTOR_ARRAY) return reader.skip(wire);
        this.#enter(field, false);
        this.#array ??= new VectorArrayReader();
        this.#array.read(reader, wire);
      }
    });
  }

  finish(source: Uint8Array): RawPayload {
    const byteKind = BYTE_VECTORS[this.#case];
    if (byteKind) return { kind: byteKind, dim: this.#dim, data: this.#values.joined(source, 1) };
    if (this.#case === FLOAT_VECTOR) return { kind: 'floatVector', dim: this.#dim, values: floats(this.#values, source) };
    if (this.#case === SPARSE_VECTOR) {
      return { kind: 'sparseVector', dim: this.#sparseDim, offsets: this.#values.offsets(), data: this.#values.joined(source, 4) };
    }
    return this.#case === VECTOR_ARRAY && this.#array ? this.#array.finish(source) : { kind: 'none' };
  }

  #readSparse(reader: WireReader, wireType: number): void {
    reader.message(wireType, (field, wire) => {
      if (field === 1 && wire === WIRE_BYTES) this.#values.addBytes(reader, wire);
      else if (field === 2 && wire === WIRE_VARINT) this.#sparseDim = reader.varint();
      else reader.skip(wire);
    });
  }

  /** A oneof: the last case holds; a plain bytes field that comes twice replaces itself, a message goes on. */
  #enter(field: number, replaces: boolean): void {
    if (replaces || this.#case !== field) this.#values.clear();
    this.#case = field;
  }
}

/** VectorArray: a VectorField for each row, all read into one run of vectors. */
class VectorArrayReader {
  readonly #values = new ValueRun();
  /** Bytes of the vectors up to the end of each row. */
  readonly #ends: number[] = [0];
  #dim = 0;
  #elementType: number = DataType.None;
  #case = 0;

  read(reader: WireReader, wireType: number): void {
    reader.message(wireType, (field, wire) => {
      if (field === 1) this.#dim = reader.number(wire);
      else if (field === 2) this.#readRow(reader, wire);
      else if (field === 3) this.#elementType = reader.number(wire);
      else reader.skip(wire);
    });
  }

  #readRow(reader: WireReader, wireType: number): void {
    reader.message(wireType, (field, wire) => {
      if (field === 1) {
        const dim = reader.number(wire);
        if (this.#dim !== 0 && dim !== this.#dim) throw reader.malformed(`an array holds vectors of dim ${this.#dim} and ${dim}`);
        this.#dim = dim;
      } else if (field === FLOAT_VECTOR) {
        this.#enter(reader, field);
        reader.message(wire, (inner, innerWire) => (inner === 1 ? this.#values.addFixed(reader, innerWire, 4) : reader.skip(innerWire)));
      } else if (BYTE_VECTORS[field]) {
        this.#enter(reader, field);
        this.#values.addBytes(reader, wire);
      } else reader.skip(wire);
    });
    this.#ends.push(this.#values.size);
  }

  finish(source: Uint8Array): RawPayload {
    const byteKind = BYTE_VECTORS[this.#case];
    const dim = this.#dim;
    const elementType = this.#elementType as DataType;
    const none = { kind: 'none' } as const;
    const bytes = this.#case === FLOAT_VECTOR ? dim * 4 : byteKind ? dim * BYTES_OF_COMPONENT[byteKind] : 0;
    const offsets = Int32Array.from(this.#ends, (end) => (bytes > 0 ? Math.floor(end / bytes) : 0));
    if (this.#values.size === 0 || bytes === 0) return { kind: 'vectorArray', dim, elementType, offsets, elements: none };
    if (this.#ends.some((end) => end % bytes !== 0))
      throw new CairnError('InvalidParameter', `malformed request: an array of vectors of dim ${dim} has rows that are no whole vectors`);
    const elements = byteKind
      ? { kind: byteKind, dim, data: this.#values.joined(source, 1) }
      : ({ kind: 'floatVector', dim, values: floats(this.#values, source) } as const);
    return { kind: 'vectorArray', dim, elementType, offsets, elements };
  }

  #enter(reader: WireReader, field: number): void {
    if (this.#case !== 0 && this.#case !== field) throw reader.malformed('rows of an array hold vectors of different kinds');
    this.#case = field;
  }
}

const BYTES_OF_COMPONENT = { binaryVector: 1 / 8, float16Vector: 2, bfloat16Vector: 2, int8Vector: 1 } as const;

function floats(values: ValueRun, source: Uint8Array): Float32Array {
  const bytes = values.joined(source, 4);
  return new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
}
